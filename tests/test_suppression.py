"""nms, soft_nms, segment_voting: the oracle, every option, published results, awkward and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc._kernels.nms import nms_groups
from tal_postproc._kernels.segments import score_order
from tal_postproc.suppression import batched_nms, nms, segment_voting, soft_nms

from .oracles import segments as oracle
from .strategies import segment_sets, tiou_thresholds

HOW = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["iou", "candidate"]),
        "length_offset": st.sampled_from([0.0, 0.5, 1.0]),
        "area_eps": st.sampled_from([0.0, 0.5]),
    }
)
METHODS = ("linear", "gaussian", "gated", "improved")
ROWS = [[0, 10], [1, 10], [2, 10], [20, 30]]
SCORES = [0.7, 0.9, 0.8, 0.5]


def literal(how):
    return {"kind": how["overlap"], "length_offset": how["length_offset"], "area_eps": how["area_eps"]}


def awkward_copies(segments, scores):
    """The same numbers in layouts and dtypes that compiled code does not like."""
    segments, scores = np.asarray(segments, np.float64), np.asarray(scores, np.float64)
    frozen = segments.copy(), scores.copy()
    for array in frozen:
        array.setflags(write=False)
    yield "read-only", *frozen
    yield "strided", np.repeat(segments, 2, axis=0)[::2], np.repeat(scores, 3)[::3]
    yield "column-major", np.asfortranarray(segments), scores[::-1].copy()[::-1]
    yield "big-endian", segments.astype(">f8"), scores.astype(">f4")
    yield "float16", segments.astype(np.float16), scores.astype(np.float16)
    yield "integer", segments.astype(np.int32), scores.astype(np.float32)
    yield "list", segments.tolist(), scores.tolist()


# ---------------------------------------------------------------------------------------------------------------- nms


@given(segment_sets(groups=3), tiou_thresholds, st.booleans(), HOW, st.sampled_from([None, 0, 1, 3]))
def test_nms_equals_oracle(rows, threshold, inclusive, how, limit):
    segments, scores, idxs = rows
    inclusive = inclusive and threshold > 0
    for groups in (None, idxs):
        expected = oracle.nms(
            segments, scores, threshold, idxs=groups, inclusive=inclusive, max_detections=limit, **literal(how)
        )
        found = nms(
            segments,
            scores,
            tiou_threshold=threshold,
            idxs=groups,
            inclusive=inclusive,
            max_detections=limit,
            **how,
        )
        assert_array_equal(found, expected, strict=True)


SCALES = {
    "bounded density": lambda rng, n: (rng.uniform(0, n, n), rng.uniform(1, 20, n)),
    "all lengths": lambda rng, n: (rng.uniform(-n, n, n), 10.0 ** rng.uniform(-3, 3, n)),
    "beyond all cells": lambda rng, n: (rng.uniform(-1e6, 1e6, n), 10.0 ** rng.uniform(-15, 6, n)),
    "powers of two": lambda rng, n: (rng.integers(0, n, n) / 4, 2.0 ** rng.integers(-4, 6, n)),
    "one place": lambda rng, n: (rng.uniform(0, 1, n), rng.uniform(5, 6, n)),
    "half units": lambda rng, n: (rng.integers(0, 3 * n, n) / 2, rng.integers(0, 12, n) / 2),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_nms_is_the_same_however_it_looks_for_suppressors(rng, scale, threshold):
    """All kept rows, cells or largest ends: bit for bit the rows that comparing with everything keeps."""
    for overlap in ("iou", "candidate"):
        for length_offset, area_eps, inclusive in [(0.0, 0.0, False), (1.0, 0.0, threshold > 0), (0.5, 1e-6, False)]:
            start, length = SCALES[scale](rng, 300)
            segments = np.column_stack((start, start + length))
            scores = np.round(rng.uniform(0, 1, 300), 1)
            order, offsets = score_order(scores, np.sort(rng.integers(0, 2, 300)))
            how = threshold, inclusive, overlap == "candidate", length_offset, area_eps
            expected = nms_groups(segments, scores, order, offsets, *how, plain=300, small=0)
            for plain in (0, 1, 64):
                found = nms_groups(segments, scores, order, offsets, *how, plain=plain, small=0)
                assert_array_equal(found[0], expected[0], err_msg=f"plain={plain}, {how}")
                assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("last_first", [False, True])
def test_order_of_many_rows(ties, last_first, rng):
    scores = rng.normal(size=3000).round(2) if ties else rng.permutation(3000) - 1500.0
    rows = np.arange(3000)
    for idxs in (None, np.zeros(3000, np.int64), rng.integers(0, 2, 3000)):
        order, offsets = score_order(scores, idxs, last_first)
        groups = np.zeros(3000) if idxs is None else idxs
        assert_array_equal(order, np.lexsort((-rows if last_first else rows, -scores, groups)))
        assert_array_equal(offsets, [0, *np.cumsum(np.bincount(groups.astype(int)))])


@given(segment_sets(groups=3), tiou_thresholds, st.booleans(), HOW)
def test_cells_and_ends_equal_the_oracle(rows, threshold, inclusive, how):
    segments, scores, idxs = rows
    inclusive = inclusive and threshold > 0
    order, offsets = score_order(scores, idxs)
    measure = how.get("overlap", "iou") == "candidate", how.get("length_offset", 0.0), how.get("area_eps", 0.0)
    keep, _ = nms_groups(segments, scores, order, offsets, threshold, inclusive, *measure, plain=0, small=0)
    expected = oracle.nms(segments, scores, threshold, idxs=idxs, inclusive=inclusive, **literal(how))
    assert_array_equal(np.sort(keep), np.sort(expected))


@given(segment_sets(groups=3), tiou_thresholds)
def test_batched_nms_is_one_nms_per_group(rows, threshold):
    segments, scores, idxs = rows
    found = batched_nms(segments, scores, idxs, threshold)
    for group in range(3):
        own = np.flatnonzero(idxs == group)
        alone = own[nms(segments[own], scores[own], tiou_threshold=threshold)]
        assert_array_equal(found[idxs[found] == group], alone, strict=True)
    assert_array_equal(found, found[np.lexsort((found, -scores[found]))])


@given(segment_sets(), st.sampled_from([0.25, 0.5, 0.75]))
def test_nms_does_not_depend_on_where_the_clock_starts(rows, threshold):
    segments, scores, _ = rows
    here = nms(segments, scores, tiou_threshold=threshold)
    assert_array_equal(nms(segments - 1000.0, scores, tiou_threshold=threshold), here)
    assert_array_equal(nms(segments * 4.0, scores, tiou_threshold=threshold), here)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [1, 3]),
        ({"tiou_threshold": 0.89}, [1, 2, 3]),  # iou of rows 1 and 2 is 8/9, of 1 and 0 it is 0.9
        ({"tiou_threshold": 0.9}, [1, 2, 0, 3]),
        ({"tiou_threshold": 0.9, "inclusive": True}, [1, 2, 3]),
        ({"tiou_threshold": 0.95, "overlap": "candidate"}, [1, 0, 3]),
        ({"tiou_threshold": 0.9, "length_offset": 1.0}, [1, 2, 3]),  # 9 / 10 and 10 / 11
        ({"tiou_threshold": 0.8, "area_eps": 2.0}, [1, 2, 0, 3]),  # 8 / 13 and 9 / 14
        ({"idxs": [0, 1, 0, 1]}, [1, 2, 3]),
        ({"max_detections": 1}, [1]),
    ],
)
def test_every_option_of_nms_counts(how, expected):
    options = {"tiou_threshold": 0.5, **how}
    found = nms(ROWS, SCORES, **options)
    literal_options = {
        "kind": options.pop("overlap", "iou"),
        "threshold": options.pop("tiou_threshold"),
        **options,
    }
    assert_array_equal(found, oracle.nms(ROWS, SCORES, **literal_options))
    assert_array_equal(found, expected)


def test_earlier_row_wins_a_tie():
    same = [[0, 4]] * 3
    assert_array_equal(nms(same, [0.5, 0.5, 0.5], tiou_threshold=0.5), [0])
    assert_array_equal(nms([[8, 9], [0, 1], [4, 5]], [0.5, 0.7, 0.5], tiou_threshold=0.5), [1, 0, 2])
    assert_array_equal(nms([[8, 9], [0, 1]], [0.0, -0.0], tiou_threshold=0.5, idxs=[1, 0]), [0, 1])


def test_segments_without_length_all_stay():
    points = [[3, 3], [3, 3], [0, 6]]
    assert_array_equal(nms(points, [0.9, 0.8, 0.7], tiou_threshold=0.0), [0, 1, 2])
    assert_array_equal(nms(points, [0.9, 0.8, 0.7], tiou_threshold=0.5, length_offset=1.0), [0, 2])


def test_group_numbers_may_be_anything():
    far = [2**62, -5, 2**62, -5]
    assert_array_equal(
        nms(ROWS, SCORES, tiou_threshold=0.5, idxs=far), nms(ROWS, SCORES, tiou_threshold=0.5, idxs=[1, 0, 1, 0])
    )


# ----------------------------------------------------------------------------------------------------------- soft nms


def soft_options(method):
    return {
        "tiou_threshold": st.sampled_from([0.25, 1 / 3, 0.5]) if method == "linear" else st.none(),
        "gate": st.sampled_from([(0.0, 0.0), (0.5, 0.0), (0.25, 0.125)]) if method in METHODS[2:] else st.none(),
    }


@pytest.mark.parametrize("method", METHODS)
@given(
    st.data(),
    segment_sets(groups=2, scores=st.integers(-2, 8).map(lambda k: k / 8)),
    HOW,
    st.sampled_from([0.3, 0.5]),
    st.sampled_from([None, 0.0, 0.25, -0.125]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1, 4]),
)
def test_soft_nms_equals_oracle(method, data, rows, how, sigma, min_score, keep_first, decay_negative, limit):
    segments, scores, idxs = rows
    own = {name: data.draw(strategy) for name, strategy in soft_options(method).items()}
    for groups in (None, idxs):
        common = {
            "method": method,
            "sigma": sigma,
            "gate": own["gate"],
            "min_score": min_score,
            "keep_first": keep_first,
            "decay_negative": decay_negative,
            "max_detections": limit,
            "idxs": groups,
        }
        expected, expected_scores = oracle.soft_nms(
            segments, scores, threshold=own["tiou_threshold"], **common, **literal(how)
        )
        found, new_scores = soft_nms(segments, scores, tiou_threshold=own["tiou_threshold"], **common, **how)
        assert_allclose(new_scores, expected_scores, rtol=1e-13, atol=0)
        assert (found.dtype, new_scores.dtype) == (np.int64, np.float64)
        ties = np.isclose(np.diff(expected_scores), 0, atol=1e-12)  # exp may differ by an ulp where scores tie
        if not ties.any():
            assert_array_equal(found, expected, strict=True)
        assert decay_negative or (new_scores <= scores[found]).all()
        assert (np.diff(new_scores) <= 0).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, np.exp(-0.25 / 0.5)),
        ({"sigma": 0.25}, np.exp(-0.25 / 0.25)),
        ({"overlap": "candidate"}, np.exp(-1 / 0.5)),
        ({"length_offset": 1.0}, np.exp(-((6 / 11) ** 2) / 0.5)),
        ({"area_eps": 2.0}, np.exp(-((5 / 14) ** 2) / 0.5)),
        ({"idxs": [0, 1]}, 1.0),
        ({"method": "linear", "tiou_threshold": 0.5}, 0.5),
        ({"method": "linear", "tiou_threshold": 0.51}, 1.0),
        ({"method": "gated", "gate": (0.4, 0.0)}, np.exp(-0.25 / 0.5)),
        ({"method": "gated", "gate": (0.5, 0.0)}, 1.0),
        ({"method": "improved", "gate": (0.5, 0.0)}, np.exp(-0.25 / 0.5)),
        ({"method": "improved", "gate": (0.0, 0.05)}, np.exp(-0.25 / 0.5)),
        ({"method": "improved", "gate": (0.0, 0.06)}, 1.0),
    ],
)
def test_every_option_of_soft_nms_counts(options, expected):
    """Row 1, [0, 5], loses score to row 0, [0, 10]: iou 1/2, and all of the candidate."""
    keep, new_scores = soft_nms([[0, 10], [0, 5]], [0.9, 0.8], **options)
    assert_array_equal(keep, [0, 1])
    assert_allclose(new_scores, [0.9, 0.8 * expected], rtol=1e-15)


def test_soft_nms_leaves_out_what_falls_below_min_score():
    rows, scores = [[0, 10], [0, 10], [50, 60]], [0.9, 0.8, 0.2]
    assert_array_equal(soft_nms(rows, scores)[0], [0, 2, 1])
    assert_array_equal(soft_nms(rows, scores, min_score=0.2)[0], [0, 2])
    assert_array_equal(soft_nms(rows, scores, min_score=0.95)[0], [])
    assert_array_equal(soft_nms(rows, scores, min_score=0.95, keep_first=True)[0], [0])
    assert_array_equal(soft_nms(rows, scores, min_score=0.95, keep_first=True, idxs=[0, 0, 1])[0], [0, 2])
    assert_array_equal(soft_nms(rows, scores, max_detections=2)[0], [0, 2])


def test_negative_scores_are_never_raised():
    keep, new_scores = soft_nms([[0, 10], [0, 10], [0, 10]], [-0.5, 0.5, -0.25])
    assert_array_equal(keep, [1, 2, 0])
    assert_array_equal(new_scores, [0.5, -0.25, -0.5])


def test_negative_scores_are_raised_where_published_code_does_so():
    rows = [[0, 10], [0, 10], [40, 50]]
    keep, new_scores = soft_nms(rows, [-0.5, -0.25, -0.2], decay_negative=True)
    assert_array_equal(keep, [0, 2, 1])  # picked last, raised to first
    assert_allclose(new_scores, [-0.5 * np.exp(-2), -0.2, -0.25])


def test_earlier_row_first_among_equal_new_scores():
    rows = [[0, 2], [10, 12], [20, 22], [30, 32]]
    assert_array_equal(soft_nms(rows, [0.5, 0.7, 0.7, 0.5])[0], [1, 2, 0, 3])
    assert_array_equal(soft_nms(rows, [0.5, 0.7, 0.7, 0.5], idxs=[1, 1, 0, 0])[0], [1, 2, 0, 3])


# ------------------------------------------------------------------------------------------------------------- voting


@given(
    segment_sets(groups=3), segment_sets(max_size=5, groups=3), st.sampled_from([0.25, 0.5, 0.75]), st.booleans(), HOW
)
def test_voting_equals_oracle(rows, kept, threshold, times_iou, how):
    segments, scores, idxs = rows
    for groups in ({}, {"kept_idxs": kept[2], "idxs": idxs}):
        options = {"times_iou": times_iou, **groups}
        expected = oracle.vote(kept[0], segments, scores, threshold, **options, **literal(how))
        found = segment_voting(kept[0], segments, scores, tiou_threshold=threshold, **options, **how)
        assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.25, 10]),  # [1, 10] votes with 0.2 against 0.6
        ({"tiou_threshold": 0.95}, [0, 10]),
        ({"times_iou": True}, [0.18 / 0.78, 10]),
        ({"kept_idxs": [7], "idxs": [7, 8]}, [0, 10]),
        ({"kept_idxs": [9], "idxs": [7, 8]}, [0, 10]),
        ({"tiou_threshold": 0.95, "overlap": "candidate"}, [0.25, 10]),
        ({"tiou_threshold": 0.905, "length_offset": 1.0}, [0.25, 10]),
        ({"tiou_threshold": 0.74, "area_eps": 1.0}, [0.25, 10]),
        ({"tiou_threshold": 0.76, "area_eps": 1.0}, [0, 10]),
    ],
)
def test_every_option_of_voting_counts(options, expected):
    found = segment_voting([[0, 10]], [[0, 10], [1, 10]], [0.6, 0.2], **{"tiou_threshold": 0.7, **options})
    assert_allclose(found, [expected], rtol=1e-14)


def test_nobody_votes():
    kept = np.array([[0.0, 1.0], [5.0, 5.0]])
    assert_array_equal(segment_voting(kept, [], [], tiou_threshold=0.5), kept, strict=True)
    assert_array_equal(segment_voting(kept, [[0, 1], [0, 1.5]], [0, -1], tiou_threshold=0.5), kept, strict=True)
    assert segment_voting([], [[0, 1]], [1], tiou_threshold=0.5).shape == (0, 2)


def test_equal_voters_move_nothing():
    kept = np.array([[0.1, 0.7]])
    assert_array_equal(
        segment_voting(kept, np.repeat(kept, 7, axis=0), np.linspace(0.1, 0.9, 7), tiou_threshold=0.5), kept
    )


# ------------------------------------------------------------------------------------------------- awkward, bad input


@pytest.mark.parametrize(("name", "segments", "scores"), list(awkward_copies(ROWS, [0.75, 1.0, 0.875, 0.5])))
def test_layouts_and_dtypes(name, segments, scores):
    before = np.array(segments, copy=True), np.array(scores, copy=True)
    assert_array_equal(nms(segments, scores, tiou_threshold=0.5), [1, 3])
    keep, new_scores = soft_nms(segments, scores, tiou_threshold=0.5, method="linear")
    assert_array_equal(keep, [1, 3, 2, 0])
    assert new_scores.dtype == np.float64
    assert_allclose(segment_voting(segments, segments, scores, tiou_threshold=0.95), ROWS)
    assert_array_equal(segments, before[0])
    assert_array_equal(scores, before[1])


def test_empty():
    keep = nms([], [], tiou_threshold=0.5)
    assert keep.shape == (0,)
    assert keep.dtype == np.int64
    assert nms(np.empty((0, 2)), [], tiou_threshold=0.5, idxs=[]).shape == (0,)
    keep, new_scores = soft_nms([], [], idxs=[])
    assert (keep.dtype, keep.shape) == (np.int64, (0,))
    assert (new_scores.dtype, new_scores.shape) == (np.float64, (0,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": [[0, 1], [3, 2]]}, r"`segments` needs start <= end; row 1 is \[3.0, 2.0\] \(1 of 2 rows\)"),
        ({"segments": [[0, np.inf], [3, 4]]}, r"`segments` must be finite; row 0 is \[0.0, inf\]"),
        ({"scores": [1.0, np.nan]}, r"`scores` must be finite; row 1 is nan \(1 of 2 rows\)"),
        ({"scores": [1.0]}, r"`scores` must have shape \(2,\), one per segment, got shape \(1,\)"),
        ({"idxs": [0, 0.5]}, r"`idxs` must hold whole numbers; row 1 is 0.5"),
        ({"tiou_threshold": 50}, "`tiou_threshold` must be at most 1, got 50"),
        ({"tiou_threshold": -0.1}, "`tiou_threshold` must be at least 0, got -0.1"),
        ({"tiou_threshold": 0, "inclusive": True}, "`tiou_threshold` must be above 0 where reaching it is enough"),
        ({"max_detections": -1}, "`max_detections` must be at least 0, got -1"),
    ],
)
def test_nms_refuses(change, message):
    options = {"segments": [[0, 1], [2, 3]], "scores": [1.0, 0.5], "tiou_threshold": 0.5, **change}
    with pytest.raises(ValueError, match=message):
        nms(options.pop("segments"), options.pop("scores"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hard"}, "`method` must be one of 'linear', .* got 'hard'"),
        ({"sigma": 0}, "`sigma` must be above 0, got 0"),
        ({"tiou_threshold": 0.5}, "`tiou_threshold` is for method 'linear' only, got 0.5 with method 'gaussian'"),
        ({"method": "linear"}, "`tiou_threshold` must be given for method 'linear'"),
        ({"method": "linear", "tiou_threshold": 0.0}, "`tiou_threshold` must be above 0"),
        ({"gate": (0.5, 0.1)}, "`gate` is for methods 'gated' and 'improved' only"),
        ({"method": "gated"}, r"`gate` must be a pair \(t1, t2\) for method 'gated', got None"),
        ({"method": "improved", "gate": 0.5}, "`gate` must be a pair"),
        ({"method": "gated", "gate": (0.5, np.nan)}, r"`gate\[1\]` must be finite"),
        ({"min_score": np.nan}, "`min_score` must be finite"),
    ],
)
def test_soft_nms_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        soft_nms([[0, 1]], [1.0], **options)


def test_voting_refuses():
    with pytest.raises(ValueError, match="`kept_idxs` and `idxs` must be given together"):
        segment_voting([[0, 1]], [[0, 1]], [1], tiou_threshold=0.5, idxs=[0])
    with pytest.raises(ValueError, match="`tiou_threshold` must be above 0"):
        segment_voting([[0, 1]], [[0, 1]], [1], tiou_threshold=0)
    with pytest.raises(ValueError, match=r"`kept_segments` needs start <= end; row 0 is \[2.0, 1.0\]"):
        segment_voting([[2, 1]], [[0, 1]], [1], tiou_threshold=0.5)
    with pytest.raises(TypeError, match="`scores` must hold real numbers, got dtype complex128"):
        segment_voting([[0, 1]], [[0, 1]], [1j], tiou_threshold=0.5)


# -------------------------------------------------------------------------------------------- outputs of published code

# af_ and ot_ ran in float32: decayed scores and voted boundaries carry its rounding (6e-8 per operation, relative).
SCORE_TOLERANCE = 1e-6
ACTIONFORMER = {"area_eps": 1e-6}


def published(arrays, key):
    """``(name, segments, scores, labels, results, ordered)`` of every set on which the published result is stable."""
    where, rows = arrays["set_offsets"], arrays[f"{key}__offsets"]
    ordered = arrays[f"{key}__stable"]
    stable = arrays.get(f"{key}__stable_set", ordered)
    columns = [column for column in ("idx", "label", "score", "start", "end") if f"{key}__{column}" in arrays]
    for i in np.flatnonzero(arrays[f"{key}__used"] & (ordered | stable)):
        own, out = slice(where[i], where[i + 1]), slice(rows[i], rows[i + 1])
        results = {column: arrays[f"{key}__{column}"][out] for column in columns}
        given_set = arrays["segments"][own], arrays["scores"][own], arrays["labels"][own]
        yield arrays["set_names"][i], *given_set, results, bool(ordered[i])


def check_indices(keep, results, ordered, new_scores=None):
    mine, theirs = (slice(None),) * 2 if ordered else (np.argsort(keep), np.argsort(results["idx"]))
    assert_array_equal(keep[mine], results["idx"][theirs])
    if new_scores is not None:
        assert_allclose(new_scores[mine], results["score"][theirs], rtol=0, atol=SCORE_TOLERANCE)


HARD_KEYS = {
    **{f"af_nms_{t}": {"tiou_threshold": t, "inclusive": True, **ACTIONFORMER} for t in (0.3, 0.5, 0.7)},
    **{f"bas_nms_{t}": {"tiou_threshold": t, "inclusive": True, "length_offset": 1} for t in (0.45, 0.6, 0.7)},
    **{f"ioc_nms_{t}": {"tiou_threshold": t, "overlap": "candidate", "length_offset": 1} for t in (0.2, 0.25, 0.5)},
}


@pytest.mark.parametrize("key", HARD_KEYS)
def test_published_nms(golden, key):
    for _, segments, scores, _, results, ordered in published(golden("nms"), key):
        check_indices(nms(segments, scores, **HARD_KEYS[key]), results, ordered)


SOFT_KEYS = {
    **{
        f"af_soft_m2_t0.1_s{s}_min{m}": {"sigma": s, "min_score": m}
        for s in (0.3, 0.5, 0.75, 0.9)
        for m in (0.001, 0.01)
    },
    "af_soft_m1_t0.5_s0.5_min0.001": {"method": "linear", "tiou_threshold": 0.5, "min_score": 0.001},
    "af_soft_m1_t0.3_s0.5_min0.01": {"method": "linear", "tiou_threshold": 0.3, "min_score": 0.01},
}


@pytest.mark.parametrize("key", SOFT_KEYS)
def test_published_actionformer_soft_nms(golden, key):
    for _, segments, scores, _, results, ordered in published(golden("nms"), key):
        keep, new_scores = soft_nms(segments, scores, keep_first=True, **SOFT_KEYS[key], **ACTIONFORMER)
        check_indices(keep, results, ordered, new_scores)


def test_published_actionformer_hard_mode_of_soft_nms(golden):
    """Its method 0 sets the score of what it suppresses to 0, which is below min_score: plain NMS."""
    for _, segments, scores, _, results, ordered in published(golden("nms"), "af_soft_m0_t0.5_s0.5_min0.001"):
        keep = nms(segments, scores, tiou_threshold=0.5, inclusive=True, **ACTIONFORMER)
        keep = keep[(scores[keep] >= 0.001) | (np.arange(len(keep)) == 0)]
        check_indices(keep, results, ordered, scores[keep])


SOFT_BATCHED = {
    "multiclass_soft": ({"sigma": 0.5, "min_score": 0.001, "max_detections": 200}, None),
    "agnostic_soft_vote0.9": ({"sigma": 0.75, "min_score": 0.001, "max_detections": 100}, 0.9),
    "agnostic_soft_novote": ({"sigma": 0.9, "min_score": 0.01, "max_detections": 2000}, None),
    "agnostic_soft_vote0.95_bmn": ({"sigma": 0.5, "min_score": 0.01, "max_detections": 100}, 0.95),
    "agnostic_linear": (
        {"method": "linear", "tiou_threshold": 0.5, "min_score": 0.01, "max_detections": 100},
        None,
    ),
    "method3_t0.5_0.4": (
        {"method": "improved", "gate": (0.5, 0.4), "sigma": 0.5, "min_score": 0.001, "max_detections": 100},
        None,
    ),
}
HARD_BATCHED = {
    "multiclass_hard": ({"max_detections": 1000}, None),
    "agnostic_hard_vote0.7": ({"max_detections": 100}, 0.7),
}


@pytest.mark.parametrize(
    "key",
    [f"af_batched_{name}" for name in [*list(SOFT_BATCHED)[:3], *HARD_BATCHED]]
    + [f"ot_{name}" for name in [*SOFT_BATCHED, "agnostic_hard_vote0.7"] if name != "agnostic_soft_novote"],
)
def test_published_batched_nms(golden, key):
    """Suppression per class or over all, best first, at most so many, then voting by all that came in."""
    name = key.removeprefix("af_batched_").removeprefix("ot_")
    for _, segments, scores, labels, results, _ in published(golden("nms"), key):
        idxs = labels if "multiclass" in name else None
        if name in HARD_BATCHED:
            options, voting = HARD_BATCHED[name]
            able = np.flatnonzero(scores > np.float32(0.01))
            groups = None if idxs is None else idxs[able]
            options = {"tiou_threshold": 0.5, "inclusive": True, **options, **ACTIONFORMER}
            keep = able[nms(segments[able], scores[able], idxs=groups, **options)]
            new_scores = scores[keep]
        else:
            options, voting = SOFT_BATCHED[name]
            keep, new_scores = soft_nms(segments, scores, keep_first=True, idxs=idxs, **options, **ACTIONFORMER)
        found = segments[keep]
        if voting is not None:
            times_iou = key.startswith("af")
            found = segment_voting(found, segments, scores, tiou_threshold=voting, times_iou=times_iou)
        assert_array_equal(labels[keep], results["label"])
        assert_allclose(new_scores, results["score"], rtol=0, atol=SCORE_TOLERANCE)
        boundaries = np.stack((results["start"], results["end"]), axis=1)
        assert_allclose(found, boundaries, rtol=1e-6, atol=1e-6)  # relative, because float32 coordinates reach 200 s


@pytest.mark.parametrize(
    ("key", "sigma", "low", "high"),
    [
        ("mm_bmn_a0.4_l0.5_h0.9_k100", 0.4, 0.5, 0.9),
        ("mm_bsn_a0.75_l0.65_h0.9_k100", 0.75, 0.65, 0.9),
        ("mm_tcanet_a0.4_l0_h0_k100", 0.4, 0.0, 0.0),
    ],
)
def test_published_gated_soft_nms(golden, key, sigma, low, high):
    for _, segments, scores, _, results, _ in published(golden("nms"), key):
        gate = (low, high - low)
        keep, new_scores = soft_nms(segments, scores, method="gated", sigma=sigma, gate=gate, max_detections=100 + 1)
        assert_allclose(new_scores, results["score"], rtol=0, atol=1e-12)
        assert_array_equal(segments[keep].T, [results["start"], results["end"]])


def test_published_mmaction_post_processing(golden):
    frames, interval, seconds = 3011, 16, 120.7
    covered = frames // interval * interval / frames * seconds
    for _, segments, scores, _, results, _ in published(golden("nms"), "mm_post_bmn"):
        keep, new_scores = soft_nms(
            segments, scores, method="gated", sigma=0.4, gate=(0.5, 0.9 - 0.5), max_detections=100
        )
        assert_allclose(new_scores, results["score"], rtol=0, atol=1e-12)
        found = segments[keep].astype(float).clip(0, 1) * covered
        assert_allclose(found.T, [results["start"], results["end"]], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("co2_soft_gaussian_s0.3", {"sigma": 0.3}),
        ("co2_soft_linear_t0.7", {"method": "linear", "tiou_threshold": 0.7}),
    ],
)
def test_published_plus_one_soft_nms(golden, key, options):
    for _, segments, scores, _, results, _ in published(golden("nms"), key):
        keep, new_scores = soft_nms(segments, scores, length_offset=1, **options)
        assert_allclose(new_scores, results["score"], rtol=0, atol=1e-12)
        assert_array_equal(segments[keep].T, [results["start"], results["end"]])


def test_published_hard_mode_of_plus_one_soft_nms(golden):
    """It keeps what it suppresses, with score 0 and in no particular order."""
    for _, segments, scores, _, results, _ in published(golden("nms"), "co2_soft_hard_t0.5"):
        keep = nms(segments, scores, tiou_threshold=0.5, length_offset=1)
        found = np.stack((results["start"], results["end"]), axis=1)
        assert_array_equal(segments[keep], found[: len(keep)])
        assert_array_equal(scores[keep], results["score"][: len(keep)])
        rest = np.delete(segments, keep, axis=0)
        assert_array_equal(rest[np.lexsort(rest.T)], found[len(keep) :][np.lexsort(found[len(keep) :].T)])
        assert_array_equal(results["score"][len(keep) :], np.zeros(len(rest)))


@pytest.mark.parametrize(("name", "threshold"), [("rskp", 0.5), ("facnet", 0.2), ("gaufuse", 0.25)])
def test_published_picks_on_activation_maps(golden, name, threshold):
    arrays = golden(name)
    where = arrays["raw_offsets"]
    out = arrays.get("pick_offsets", arrays.get("fused_offsets"))
    checked = 0
    for p in np.flatnonzero(~arrays["fragile"]):
        segments = arrays["raw_segments"][where[p] : where[p + 1]]
        scores = arrays["raw_score"][where[p] : where[p + 1]]
        theirs = arrays["pick"][out[p] : out[p + 1]]
        keep = nms(segments, scores, tiou_threshold=threshold, overlap="candidate", length_offset=1)
        assert_array_equal(scores[keep], scores[theirs])
        sole = [len(np.unique(segments[scores == score], axis=0)) == 1 for score in scores[keep]]
        assert_array_equal(segments[keep][sole], segments[theirs][sole])  # else NumPy's unstable argsort has decided
        checked += 1
    assert checked > 30
