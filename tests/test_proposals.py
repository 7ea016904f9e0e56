"""Thresholds to runs, outer-inner contrast, upsampling, seconds: against the literal oracle and published outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import interp1d

from tal_postproc import Segments, UnitError
from tal_postproc.proposals import extract_proposals, oic_scores, segments_to_seconds, upsample_tcam

from .oracles import sequences as oracle
from .strategies import tcams

eighths = st.integers(-1, 8).map(lambda k: k / 8)
threshold_lists = st.lists(eighths, min_size=0, max_size=6)


def rows_of(found: Segments) -> np.ndarray:
    return np.column_stack([found.labels, found.columns["threshold"], found.segments])


@given(
    tcams(),
    threshold_lists,
    st.sampled_from(["absolute", "times_mean", "below_max"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([-1, 0, 1]),
    st.integers(0, 4),
)
def test_proposals_equal_the_oracle(
    tcam, thresholds, relative, inclusive, positive, min_length, lone_first, extend, dilate
):
    found = extract_proposals(
        tcam,
        thresholds,
        relative=relative,
        inclusive=inclusive,
        positive=positive,
        min_length=min_length,
        skip_lone_first=not lone_first,
        extend_end=extend,
        dilate=dilate,
    )
    expected = [
        (c, theta, s, e + extend)
        for c in range(tcam.shape[1])
        for theta, s, e in oracle.proposals(
            tcam[:, c],
            thresholds,
            relative=relative,
            inclusive=inclusive,
            positive=positive,
            min_length=min_length,
            lone_first=lone_first,
            dilate=dilate,
        )
    ]
    assert_array_equal(rows_of(found), np.array(expected, dtype=np.float64).reshape(-1, 4), strict=True)
    means = [np.mean(tcam[int(s) : int(e) - extend, int(c)]) for c, _, s, e in expected]
    assert_allclose(found.scores, np.array(means), rtol=0, atol=1e-14)
    assert_array_equal(found.scores, found.columns["inner"])


@given(
    tcams(),
    st.sampled_from(["none", "minmax", "minmax_relu"]),
    st.booleans(),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
def test_normalised_and_upsampled_proposals_equal_the_oracle(tcam, kind, clip, factor, goes_on):
    thresholds = [0.0, 0.25, 0.5, 1.0]
    options = {"normalize": kind, "clip": clip, "upsample": factor, "extrapolate": goes_on}
    found = extract_proposals(tcam, thresholds, inclusive=True, **options)
    expected = []
    for c in range(tcam.shape[1]):
        fine = oracle.normalize(tcam[:, c], kind, clip)
        fine = oracle.upsample(fine, factor, goes_on) if factor > 1 else fine
        assert_array_equal(upsample_tcam(oracle.normalize(tcam[:, c], kind, clip), factor, extrapolate=goes_on), fine)
        expected += [(c, k, s / factor, e / factor) for k, s, e in oracle.proposals(fine, thresholds, inclusive=True)]
    assert_array_equal(rows_of(found), np.array(expected, dtype=np.float64).reshape(-1, 4), strict=True)


@given(
    tcams(max_snippets=40),
    st.sampled_from(["symmetric", "oic_a", "oic_b", "cmcs"]),
    st.sampled_from([(0.25, 1.0), (0.2, 1.0), (0.0785, 0.9), (1.0, 1.0), (0.0, 1.0)]),
    st.sampled_from(["pooled", "fixed"]),
    st.sampled_from([1.0, 0.6]),
    st.sampled_from(["mean", "max", "none"]),
    st.booleans(),
)
def test_oic_scores_equal_the_oracle(tcam, layout, margin, denominator, outer_weight, inner, zero):
    found = extract_proposals(tcam, [0.0, 0.25, 0.5])
    thresholds = found.columns["threshold"]
    scores = oic_scores(
        tcam,
        found,
        layout=layout,
        margin_scale=margin[0],
        margin_power=margin[1],
        denominator=denominator,
        outer_weight=outer_weight,
        inner=inner,
        zero_below=thresholds if zero else None,
    )
    expected = []
    for (s, e), c, theta in zip(found.segments, found.labels, thresholds):
        x = tcam[:, c]
        expected.append(
            oracle.oic(
                x,
                int(s),
                int(e),
                layout=layout,
                scale=margin[0],
                power=margin[1],
                denominator=denominator,
                outer_weight=outer_weight,
                inner=inner,
                outer_map=np.where(x > theta, x, 0.0) if zero else None,
            )
        )
    assert_allclose(scores, np.array(expected), rtol=0, atol=1e-13)


@given(tcams(max_snippets=20, max_classes=1), st.data())
def test_symmetric_contrast_takes_real_boundaries(tcam, data):
    t = len(tcam)
    start = data.draw(st.integers(0, 2 * t)) / 2
    stop = data.draw(st.integers(int(2 * start), 2 * t)) / 2
    expected = oracle.oic(tcam[:, 0], start, stop, layout="symmetric", scale=0.3)
    assert_allclose(oic_scores(tcam, [[start, stop]], margin_scale=0.3), [expected], rtol=0, atol=1e-13)
    zeroed = np.where(tcam[:, 0] >= 0.25, tcam[:, 0], 0.0)
    expected = oracle.oic(tcam[:, 0], start, stop, layout="symmetric", scale=0.3, outer_map=zeroed)
    found = oic_scores(tcam, [[start, stop]], margin_scale=0.3, zero_below=[0.25], inclusive=True)
    assert_allclose(found, [expected], rtol=0, atol=1e-13)


def test_margins_of_the_published_layouts():
    """Frames on each side for lambda = 0.25, as measured on the published code: ceil left, floor right."""
    ones = np.zeros(100)
    for n, (left, right) in {2: (1, 0), 3: (1, 0), 4: (1, 1), 5: (2, 1), 10: (3, 2), 20: (5, 5)}.items():
        for side, size in (("left", left), ("right", right)):
            for layout, gap in (("oic_a", 0), ("oic_b", 1)):
                tcam = ones.copy()
                edge = 40 - size if side == "left" else 40 + n + gap + size - 1
                if size:
                    tcam[edge] = 1.0
                    assert oic_scores(tcam, [[40, 40 + n]], layout=layout)[0] == -1.0 / (left + right)
                tcam[:] = 0.0
                tcam[40 - size - 1 if side == "left" else 40 + n + gap + size] = 1.0
                assert oic_scores(tcam, [[40, 40 + n]], layout=layout)[0] == 0.0


def test_video_scores_enter_with_their_weight():
    tcam = np.array([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5]])
    found = extract_proposals(tcam, [0.25])
    plain = oic_scores(tcam, found)
    weighted = oic_scores(tcam, found, video_scores=[0.3, 0.7], video_weight=0.2)
    assert_allclose(weighted - plain, 0.2 * np.array([0.3, 0.7])[found.labels], atol=1e-15)
    with pytest.raises(ValueError, match=r"`video_scores` is needed with video_weight=0.2"):
        oic_scores(tcam, found, video_weight=0.2)


def test_upsampling_equals_the_oracle(rng):
    for t in (0, 1, 2, 7):
        x = rng.random((t, 2))
        fine = upsample_tcam(x, 24)
        assert fine.shape == (24 * t, 2)
        for c in range(2):
            assert_array_equal(fine[:, c], np.array(oracle.upsample(x[:, c], 24)), strict=True)
            if t > 1:
                line = interp1d(np.arange(t), x[:, c], fill_value="extrapolate")
                # to the bit with SciPy up to 1.17, to the last bit since
                assert_allclose(fine[:, c], line(np.arange(0, t, 1 / 24)), rtol=0, atol=1e-15)
    assert_array_equal(upsample_tcam([1.0, 2.0], 1), [1.0, 2.0])
    for nothing in (np.empty(0), np.empty((0, 3)), np.empty((6, 0))):
        assert upsample_tcam(nothing, 2).shape == (2 * len(nothing), *nothing.shape[1:])


@pytest.mark.parametrize("x", [np.ones(3), np.ones((3, 1)), np.ones((1, 3))])
def test_the_upsampled_map_is_memory_of_its_own(x):
    assert not np.shares_memory(upsample_tcam(x, 1), x)


def test_published_proposals_and_scores_of_gaufuse(golden):
    maps, published = golden("tcams"), golden("gaufuse")
    for p, (v, c) in enumerate(zip(published["pair_video"], published["pair_class"])):
        tcam = maps["tcam"][maps["offsets"][v] : maps["offsets"][v + 1]]
        found = extract_proposals(tcam, published["thresholds"], min_length=2, extend_end=1, classes=[c])
        rows = slice(*published["raw_offsets"][p : p + 2])
        assert_array_equal(found.segments, published["raw_segments"][rows])
        scores = oic_scores(tcam, found, layout="oic_b", margin_scale=0.0785, margin_power=0.9, extend_end=1)
        assert_allclose(scores, published["raw_score"][rows], rtol=0, atol=1e-12)


def test_classes_choose_columns_and_their_order():
    tcam = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    found = extract_proposals(tcam, [0.5], classes=[2, 0])
    assert found.labels.tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"`classes` must lie in \[0, 3\); row 1 is 3 \(1 of 2 rows\)"):
        extract_proposals(tcam, [0.5], classes=[0, 3])


@pytest.mark.parametrize("t", [0, 1, 2])
def test_tiny_videos(t):
    found = extract_proposals(np.ones((t, 2)), [0.5, 0.1])
    assert found.segments.tolist() == [[0.0, float(t)]] * (4 if t else 0)
    assert oic_scores(np.ones((t, 2)), found).tolist() == [1.0] * len(found)
    assert oic_scores(np.ones((t, 2)), [[0, 0], [t, t]], [1, 0]).tolist() == [0.0, 0.0]
    for relative in ("times_mean", "below_max"):
        assert len(extract_proposals(np.ones((t, 2)), [0.5], relative=relative, normalize="minmax")) == 0
    assert found.unit == "snippet"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", ">f4", np.int32, np.uint8, bool])
def test_any_real_dtype_and_layout_gives_the_same(dtype):
    base = np.array([[0, 1], [1, 1], [1, 0], [0, 1]])
    wanted = extract_proposals(base.astype(float), [0.5])
    for array in (
        base.astype(dtype),
        np.asfortranarray(base.astype(dtype)),
        np.repeat(base.astype(dtype), 2, axis=0)[::2],
    ):
        array.setflags(write=False)
        kept = array.copy()
        found = extract_proposals(array, [0.5])
        assert_array_equal(found.segments, wanted.segments)
        assert_array_equal(oic_scores(array, found), oic_scores(base.astype(float), wanted))
        assert_array_equal(array, kept)


def test_bad_input_is_named():
    tcam = np.zeros((5, 2))
    broken = tcam.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"`tcam` must be finite; snippet 3 is \[0.0, nan\] \(1 of 5 snippets\)"):
        extract_proposals(broken, [0.5])
    with pytest.raises(ValueError, match=r"`thresholds` must be finite; row 1 is inf \(1 of 2 rows\)"):
        extract_proposals(tcam, [0.5, np.inf])
    with pytest.raises(ValueError, match=r"`tcam` must have shape \(T,\) or \(T, K\), got shape \(2, 2, 2\)"):
        extract_proposals(np.zeros((2, 2, 2)), [0.5])
    with pytest.raises(TypeError, match=r"`tcam` must hold real numbers, got dtype complex128"):
        extract_proposals(tcam + 1j, [0.5])
    with pytest.raises(ValueError, match=r"`relative` must be one of 'absolute', 'times_mean', 'below_max', got 'max'"):
        extract_proposals(tcam, [0.5], relative="max")
    with pytest.raises(ValueError, match=r"`normalize` must be one of"):
        extract_proposals(tcam, [0.5], normalize="z")
    with pytest.raises(ValueError, match=r"`min_length` must be at least 1, got 0"):
        extract_proposals(tcam, [0.5], min_length=0)
    with pytest.raises(ValueError, match=r"`extend_end` must be -1, 0 or 1, got 2"):
        extract_proposals(tcam, [0.5], extend_end=2)
    with pytest.raises(
        ValueError, match=r"`segments` must lie in \[0, 5\] snippets .* row 1 is \[4.0, 6.0\] \(1 of 2 rows\)"
    ):
        oic_scores(tcam, [[0, 1], [4, 6]], [0, 1])
    with pytest.raises(ValueError, match=r"`labels` is needed to choose among the 2 columns"):
        oic_scores(tcam, [[0, 1]])
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 2\); row 0 is 2"):
        oic_scores(tcam, [[0, 1]], [2])
    with pytest.raises(UnitError, match=r"`segments` must be in snippets, got unit 'second'"):
        oic_scores(tcam, Segments([[0, 1]], unit="second"))
    for name in ("layout", "denominator", "inner"):
        with pytest.raises(ValueError, match=rf"`{name}` must be one of"):
            oic_scores(tcam, [[0, 1]], [0], **{name: "other"})


def test_seconds_through_warp_and_limit():
    assert segments_to_seconds([[2, 5]], 0.5).tolist() == [[1.0, 2.5]]
    assert segments_to_seconds([[2, 5]], 0.5, warp=([0, 2, 4], [0, 1, 4])).tolist() == [[0.5, 1.75]]
    assert segments_to_seconds([[-2, 50]], 0.5, duration=3.0).tolist() == [[0.0, 3.0]]
    with pytest.raises(ValueError, match=r"`seconds_per_snippet` must be above 0, got 0"):
        segments_to_seconds([[2, 5]], 0.0)
