"""fuse_segments and weighted_segment_fusion: the oracle, every option, published results, awkward and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from tal_postproc.fusion import fuse_groups, fuse_segments, non_maximum_weighted, weighted_segment_fusion
from tal_postproc.suppression import nms

from .oracles import refinement
from .oracles import segments as oracle
from .strategies import segment_sets, tiou_thresholds

HOW = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["iou", "candidate"]),
        "length_offset": st.sampled_from([0.0, 1.0]),
        "area_eps": st.sampled_from([0.0, 0.5]),
    }
)
DISTRIBUTIONS = ("gaussian", "exponential", "student_t", "uniform")
ROWS = [[0, 10], [2, 10], [1, 11], [20, 30]]
SCORES = [0.5, 0.3, 0.2, 0.4]


def literal(how):
    return {"kind": how["overlap"], "length_offset": how["length_offset"], "area_eps": how["area_eps"]}


@pytest.mark.parametrize("distribution", ["gaussian", "exponential", "uniform"])
@given(segment_sets(groups=3), tiou_thresholds, st.sampled_from([0.0016, 0.1, 1.0]), st.booleans(), HOW, st.booleans())
def test_fusion_equals_oracle(distribution, rows, threshold, temperature, inclusive, how, reverse_weights):
    segments, scores, idxs = rows
    options = {
        "distribution": distribution,
        "inclusive": inclusive and threshold > 0,
        "weights": scores[::-1] if reverse_weights else None,
    }
    for groups in (None, idxs):
        expected = oracle.fuse(segments, scores, threshold, temperature, idxs=groups, **options, **literal(how))
        found = fuse_segments(
            segments, scores, tiou_threshold=threshold, temperature=temperature, idxs=groups, **options, **how
        )
        assert len(found) == len(expected)
        for c, cluster in enumerate(expected):
            assert found.picks[c] == cluster["members"][0]
            assert_array_equal(np.flatnonzero(found.assignment == c), sorted(cluster["members"]))
            assert found.sizes[c] == len(cluster["members"])
            assert_allclose(found.segments[c], cluster["segment"], rtol=0, atol=1e-12)
            assert_allclose(found.scores[c], cluster["score"], rtol=0, atol=1e-12)
            assert_allclose(found.effective_size[c], cluster["effective_size"], rtol=1e-12)
            assert_allclose(
                [found.start_std[c], found.end_std[c]], [cluster["start_std"], cluster["end_std"]], atol=1e-7
            )
        assert not found.degenerate.any()


@given(segment_sets(groups=3), tiou_thresholds, st.booleans(), HOW)
def test_picks_are_what_nms_keeps(rows, threshold, inclusive, how):
    segments, scores, idxs = rows
    options = {"tiou_threshold": threshold, "inclusive": inclusive and threshold > 0, "idxs": idxs, **how}
    found = fuse_segments(segments, scores, temperature=0.1, **options)
    assert_array_equal(found.picks, nms(segments, scores, **options), strict=True)
    assert_array_equal(found.sizes, np.bincount(found.assignment, minlength=len(found)))
    assert (found.segments[:, 0] <= found.segments[:, 1]).all()


@settings(max_examples=60)
@given(segment_sets(max_size=9, groups=2), st.sampled_from([0.05, 0.3, 2.0]), st.sampled_from([0.1, 1.0, 4.0, 50.0]))
def test_student_t_is_the_global_minimum(rows, temperature, dof):
    segments, scores, idxs = rows
    options = {"tiou_threshold": 0.25, "temperature": temperature, "idxs": idxs}
    found = fuse_segments(segments, scores, distribution="student_t", dof=dof, **options)
    gaussian = fuse_segments(segments, scores, **options)
    for c in range(len(found)):
        members = np.flatnonzero(found.assignment == c)
        shares = np.array(oracle.softmax(scores[members], temperature))
        for values, location in ((segments[members, 0], found.segments[c, 0]), (scores[members], found.scores[c])):
            scale = np.sqrt(shares @ (values - shares @ values) ** 2)
            if not scale > 1e-9:
                assert_allclose(location, shares @ values, rtol=0, atol=1e-9)
                continue
            best = oracle.student_location(values, shares, scale, dof)
            mine, theirs = oracle.student_entropy(np.array([location, best]), values, shares, scale, dof)
            assert mine <= theirs + 1e-9 * (1 + dof)
            others = oracle.student_entropy(values, values, shares, scale, dof)
            assert (mine <= others + 1e-9 * (1 + dof)).all()
    assert_array_equal(found.assignment, gaussian.assignment)
    assert_array_equal(found.start_std, gaussian.start_std)


def test_student_t_location_is_exact_where_it_is_known(rng):
    """One smooth minimum: agrees with SciPy; many degrees of freedom: agrees with the mean."""
    segments = np.stack((rng.normal(0, 1, 40), rng.normal(60, 1, 40)), axis=1)
    scores = rng.uniform(0, 1, 40)
    options = {"tiou_threshold": 0.5, "temperature": 0.5}
    found = fuse_segments(segments, scores, distribution="student_t", dof=3.0, **options)
    shares = np.array(oracle.softmax(scores, 0.5))
    for values, location in zip((*segments.T, scores), (*found.segments[0], found.scores[0])):
        scale = np.sqrt(shares @ (values - shares @ values) ** 2)
        start = values.mean()
        theirs = minimize(
            lambda m, v=values, s=scale: oracle.student_entropy(m[0], v, shares, s, 3.0),
            [start],
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-15},
        ).x[0]
        assert_allclose(location, theirs, rtol=0, atol=1e-6)
    far = fuse_segments(segments, scores, distribution="student_t", dof=1e9, **options)
    assert_allclose(far.segments, fuse_segments(segments, scores, **options).segments, rtol=0, atol=1e-6)


def test_student_t_takes_the_leftmost_of_equal_minima():
    """Two equal heaps and few degrees of freedom: the entropy has two equally deep wells."""
    rows = [[0, 20]] * 2 + [[4, 20]] * 2
    found = fuse_segments(rows, [0.5] * 4, tiou_threshold=0.1, temperature=1.0, distribution="student_t", dof=0.1)
    values, shares = np.array([0.0, 0.0, 4.0, 4.0]), np.full(4, 0.25)
    grid = np.linspace(0, 2, 200001)
    best = grid[np.argmin(oracle.student_entropy(grid, values, shares, 2.0, 0.1))]
    assert_allclose(found.segments[0], [best, 20], rtol=0, atol=2e-5)
    assert found.segments[0, 0] < 1


def test_student_t_ignores_an_outlier_that_moves_the_mean():
    rows = [[0, 10], [0.2, 10], [0.1, 10], [0.15, 10], [6, 10]]
    scores = [0.5, 0.5, 0.5, 0.5, 0.5]
    options = {"tiou_threshold": 0.0, "temperature": 1.0}
    mean = fuse_segments(rows, scores, **options).segments[0, 0]
    robust = fuse_segments(rows, scores, distribution="student_t", dof=1.0, **options).segments[0, 0]
    assert mean == pytest.approx(1.29)
    assert robust < 0.5


def test_fitted_scale(rng):
    """Location and scale together agree with SciPy's minimum of the same cross-entropy."""
    segments = np.stack((rng.standard_t(3, 60), 100 + rng.standard_t(3, 60)), axis=1)
    scores = rng.uniform(0, 1, 60)
    options = {"tiou_threshold": 0.1, "temperature": 0.5, "distribution": "student_t", "dof": 3.0}
    found = fuse_segments(segments, scores, scale="fit", **options)
    shares = np.array(oracle.softmax(scores, 0.5))
    assert len(found) == 1
    assert not found.degenerate[0]
    for values, location in zip((*segments.T, scores), (*found.segments[0], found.scores[0])):
        theirs = minimize(
            lambda m, v=values: oracle.student_entropy(m[0], v, shares, np.exp(m[1]), 3.0),
            [values.mean(), np.log(values.std())],
            method="Nelder-Mead",
            options={"xatol": 1e-11, "fatol": 1e-15, "maxiter": 5000},
        ).x[0]
        assert_allclose(location, theirs, rtol=0, atol=1e-6)
    assert abs(found.segments - fuse_segments(segments, scores, **options).segments).max() > 1e-4


def test_fitted_scale_collapses_on_ties():
    rows = [[0, 10], [0, 10], [0, 10], [3, 11]]
    options = {"tiou_threshold": 0.1, "temperature": 1.0, "distribution": "student_t", "scale": "fit"}
    found = fuse_segments(rows, [0.5] * 4, dof=2.0, **options)  # weight 3/4 on one value, dof / (dof + 1) = 2/3
    assert found.degenerate[0]
    assert_array_equal(found.segments, [[0, 10]])
    spread = [[0, 10], [1, 10.5], [2, 12], [3, 11]]
    assert not fuse_segments(spread, [0.5, 0.45, 0.4, 0.35], dof=2.0, **options).degenerate[0]
    assert not fuse_segments(rows, [0.5] * 4, dof=2.0, **{**options, "scale": "std"}).degenerate[0]


@pytest.mark.parametrize(
    ("options", "clusters", "first"),
    [
        ({}, 2, None),
        ({"tiou_threshold": 0.8}, 3, None),  # iou of rows 0 and 1 is 0.8
        ({"tiou_threshold": 0.8, "inclusive": True}, 2, None),
        ({"tiou_threshold": 0.95, "overlap": "candidate"}, 3, None),  # row 1 lies in row 0
        ({"tiou_threshold": 0.805, "length_offset": 1.0}, 2, None),
        ({"tiou_threshold": 0.75, "area_eps": 2.0}, 4, None),
        ({"idxs": [0, 0, 1, 0]}, 3, None),
        ({"weights": [0, 0, 1000, 0]}, 2, [1, 11]),
        ({"temperature": 1e-4}, 2, [0, 10]),
        ({"temperature": 1e9}, 2, [1, 31 / 3]),
        ({"distribution": "uniform"}, 2, [1, 10.5]),
        ({"distribution": "exponential", "temperature": 1e9}, 2, [1, 10]),
        ({"distribution": "exponential", "temperature": 1e-4}, 2, [0, 10]),
    ],
)
def test_every_option_counts(options, clusters, first):
    settings = {"tiou_threshold": 0.5, "temperature": 0.1, **options}
    found = fuse_segments(ROWS, SCORES, **settings)
    assert len(found) == clusters
    if first is not None:
        assert_allclose(found.segments[0], first, rtol=0, atol=1e-6)
    literal_options = {
        "kind": settings.pop("overlap", "iou"),
        "threshold": settings.pop("tiou_threshold"),
        **settings,
    }
    expected = oracle.fuse(ROWS, SCORES, **literal_options)
    assert_allclose(found.segments, [cluster["segment"] for cluster in expected], rtol=0, atol=1e-12)
    assert_array_equal(found.picks, [cluster["members"][0] for cluster in expected])


def test_dof_counts():
    options = {"tiou_threshold": 0.5, "temperature": 0.1, "distribution": "student_t"}
    low, default, high = (fuse_segments(ROWS, SCORES, dof=dof, **options).segments[0, 0] for dof in (1.0, 4.0, 30.0))
    assert low < default < high
    assert fuse_segments(ROWS, SCORES, **options).segments[0, 0] == default


def test_membership_is_by_the_picks_own_boundaries():
    """A chain: the second overlaps the first, the third only the second."""
    rows = [[0, 10], [5, 15], [10, 20]]
    found = fuse_segments(rows, [0.9, 0.8, 0.7], tiou_threshold=0.3, temperature=0.1)
    assert_array_equal(found.assignment, [0, 0, 1])


def test_effective_size_and_spread():
    found = fuse_segments([[0, 10], [2, 14]], [0.5, 0.5], tiou_threshold=0.1, temperature=0.1)
    assert_allclose(found.effective_size, [2.0])
    assert_allclose([found.start_std[0], found.end_std[0]], [1.0, 2.0])
    sharp = fuse_segments([[0, 10], [2, 14]], [0.5, 0.4], tiou_threshold=0.1, temperature=1e-4)
    assert_allclose(sharp.effective_size, [1.0])
    assert_allclose([sharp.start_std[0], sharp.end_std[0]], [0.0, 0.0])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_duplicates_are_fused_to_themselves_exactly(distribution):
    rows = [[0.1, 0.7]] * 7
    scores = [0.3, 0.1, 0.9, 0.7, 0.2, 0.11, 0.13]
    found = fuse_segments(rows, scores, tiou_threshold=0.5, temperature=0.07, distribution=distribution)
    assert_array_equal(found.segments, [[0.1, 0.7]])
    assert_array_equal([found.start_std[0], found.end_std[0]], [0, 0])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@given(rows=segment_sets(groups=2))
def test_shift_and_order_of_rows(distribution, rows):
    """Moving the clock moves the result; sorting the input by score changes nothing but the row numbers."""
    segments, scores, idxs = rows
    scores = scores + np.arange(len(scores)) / 1024  # no ties, whose order is that of the rows
    options = {"tiou_threshold": 0.25, "temperature": 0.2, "distribution": distribution}
    here = fuse_segments(segments, scores, idxs=idxs, **options)
    there = fuse_segments(segments - 64.0, scores, idxs=idxs, **options)
    assert_array_equal(there.assignment, here.assignment)
    assert_allclose(there.segments + 64.0, here.segments, rtol=0, atol=1e-7)
    assert (here.segments[:, 0] <= here.segments[:, 1]).all()
    order = np.argsort(-scores)
    again = fuse_segments(segments[order], scores[order], idxs=idxs[order], **options)
    assert_array_equal(again.assignment, here.assignment[order])
    assert_allclose(again.segments, here.segments, rtol=0, atol=1e-7)


def test_groups_come_group_after_group_from_the_inner_function():
    segments, scores = np.array(ROWS, float), np.array(SCORES)
    order, offsets = np.array([3, 0, 1, 2]), np.array([0, 1, 1, 4])
    overlap = (0.5, False, False, 0.0, 0.0)
    fused, bounds = fuse_groups(segments, scores, scores, order, offsets, overlap=overlap, temperature=0.1)
    assert_array_equal(bounds, [0, 1, 1, 2])
    assert_array_equal(fused.picks, [3, 0])
    outer = fuse_segments(ROWS, SCORES, tiou_threshold=0.5, temperature=0.1, idxs=[2, 2, 2, 0])
    assert_array_equal(outer.picks, [0, 3])
    assert_array_equal(outer.assignment, [0, 0, 0, 1])
    assert_array_equal(outer.segments, fused.segments[::-1])


# ------------------------------------------------------------------------------------------------- signed denominator


def test_whole_boundaries_stay_whole(rng):
    """Members that agree on a boundary give it to the last bit: int() of it is no matter of luck."""
    for _ in range(50):
        n = int(rng.integers(2, 40))
        ends = np.sort(rng.integers(10, 14, n)).astype(float)
        segments = np.column_stack((np.full(n, 3.0), ends))
        options = {"tiou_threshold": 0.1, "temperature": 0.1, "signed_denominator": True}
        fused = fuse_segments(segments, rng.uniform(0.1, 1, n), **options)
        assert_array_equal(fused.segments[:, 0], [3.0])


def test_signed_denominator():
    options = {"tiou_threshold": 0.5, "temperature": 0.1, "weights": [0.3, -0.1, 0.2, 0.1]}
    plain = fuse_segments(ROWS, SCORES, **options)
    signed = fuse_segments(ROWS, SCORES, signed_denominator=True, **options)
    g = np.array(oracle.softmax([0.3, -0.1, 0.2], 0.1))
    ratio = g @ [1, -1, 1]
    assert_allclose(signed.segments[0], plain.segments[0] / ratio, rtol=1e-14)
    assert_allclose(signed.scores[0], plain.scores[0] / ratio, rtol=1e-14)
    assert_allclose(signed.segments[1], plain.segments[1], rtol=1e-14)
    expected = oracle.fuse(ROWS, SCORES, 0.5, 0.1, weights=options["weights"], signed_denominator=True)
    assert_allclose(signed.segments, [cluster["segment"] for cluster in expected], rtol=1e-13)
    assert not signed.degenerate.any()


@pytest.mark.parametrize("weights", [[0, 0, 0, 0], [-1, -1, -1, 1], [1, -1, 0, 1]])
def test_signed_denominator_that_is_not_positive_falls_back_to_the_plain_one(weights):
    options = {"tiou_threshold": 0.5, "temperature": 1e6, "weights": weights}
    plain = fuse_segments(ROWS, SCORES, **options)
    signed = fuse_segments(ROWS, SCORES, signed_denominator=True, **options)
    if weights[0] < 1:
        assert signed.degenerate[0]
        assert_array_equal(signed.segments[0], plain.segments[0])
    assert np.isfinite(signed.segments).all()


@pytest.mark.parametrize(
    ("distribution", "signed"), [("gaussian", True), *((distribution, False) for distribution in DISTRIBUTIONS)]
)
def test_no_overflow_at_the_smallest_temperature(distribution, signed):
    found = fuse_segments(
        ROWS,
        SCORES,
        tiou_threshold=0.5,
        temperature=0.0016,
        weights=[1000.0, -1000.0, 999.0, 1.0],
        distribution=distribution,
        signed_denominator=signed,
    )
    assert np.isfinite(found.segments).all()
    assert np.isfinite(found.effective_size).all()
    assert_allclose(found.segments[0], [1, 10.5] if distribution == "uniform" else [0, 10], atol=1e-6)


# ------------------------------------------------------------------------------------------------- awkward, bad input


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_empty(distribution):
    for idxs in (None, []):
        found = fuse_segments([], [], tiou_threshold=0.5, temperature=0.1, distribution=distribution, idxs=idxs)
        assert found.segments.shape == (0, 2)
        assert found.assignment.dtype == np.int64
        assert {array.shape for array in (found.scores, found.assignment, found.picks, found.sizes)} == {(0,)}
        assert {array.shape for array in (found.effective_size, found.start_std, found.degenerate)} == {(0,)}
    signed = fuse_segments([], [], tiou_threshold=0.5, temperature=0.1, signed_denominator=True)
    assert signed.segments.shape == (0, 2)


def test_layouts_dtypes_and_no_mutation():
    segments, scores = np.array(ROWS, np.float64), np.array(SCORES, np.float16).astype(np.float64)
    expected = fuse_segments(segments, scores, tiou_threshold=0.5, temperature=0.1).segments
    frozen = segments.copy(), scores.copy()
    for array in frozen:
        array.setflags(write=False)
    for some, values in (
        frozen,
        (np.asfortranarray(segments), np.repeat(scores, 2)[::2]),
        (segments.astype(">f4"), scores.astype(">f8")),
        (segments.astype(np.float16), scores.astype(np.float16)),
        (segments.astype(int), scores.tolist()),
    ):
        found = fuse_segments(some, values, tiou_threshold=0.5, temperature=0.1, weights=values)
        assert_array_equal(found.segments, expected, strict=True)
    assert_array_equal(segments, ROWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": [[0, 1], [3, 2]]}, r"`segments` needs start <= end; row 1"),
        ({"scores": [np.inf, 1.0]}, r"`scores` must be finite; row 0 is inf \(1 of 2 rows\)"),
        ({"weights": [1.0]}, r"`weights` must have shape \(2,\), one per segment, got shape \(1,\)"),
        ({"weights": [1.0, np.nan]}, r"`weights` must be finite; row 1"),
        ({"temperature": 0}, "`temperature` must be above 0, got 0"),
        ({"tiou_threshold": 1.5}, "`tiou_threshold` must be at most 1, got 1.5"),
        ({"tiou_threshold": 0, "inclusive": True}, "`tiou_threshold` must be above 0"),
        ({"distribution": "normal"}, "`distribution` must be one of 'gaussian', .* got 'normal'"),
        ({"dof": 0}, "`dof` must be above 0, got 0"),
        ({"scale": "mad"}, "`scale` must be one of 'std', 'fit', got 'mad'"),
        ({"scale": "fit"}, "`scale` 'fit' is for distribution 'student_t' only, got distribution 'gaussian'"),
        (
            {"scale": "fit", "distribution": "student_t", "dof": 0.5},
            "`dof` must be at least 1 for scale 'fit', got 0.5",
        ),
        (
            {"signed_denominator": True, "distribution": "uniform"},
            "`signed_denominator` is for distribution 'gaussian' only, got distribution 'uniform'",
        ),
    ],
)
def test_fusion_refuses(change, message):
    options = {
        "segments": [[0, 1], [2, 3]],
        "scores": [1.0, 0.5],
        "tiou_threshold": 0.5,
        "temperature": 0.1,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        fuse_segments(options.pop("segments"), options.pop("scores"), **options)


# -------------------------------------------------------------------------------------------- weighted segment fusion

CONFIDENCES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


@pytest.mark.parametrize("conf_type", CONFIDENCES)
@given(
    st.lists(segment_sets(max_size=6, groups=2), min_size=1, max_size=3),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=3, max_size=3),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.sampled_from([0.0, 0.25]),
    st.booleans(),
)
def test_weighted_fusion_equals_oracle(conf_type, models, weights, threshold, min_score, overflow):
    lists = [[model[column] for model in models] for column in range(3)]
    weights, overflow = weights[: len(models)], overflow and conf_type == "avg"
    expected = oracle.weighted_segment_fusion(*lists, weights, threshold, min_score, conf_type, overflow)
    found = weighted_segment_fusion(
        *lists,
        model_weights=weights,
        tiou_threshold=threshold,
        min_score=min_score,
        conf_type=conf_type,
        allows_overflow=overflow,
    )
    rows = np.column_stack((found.labels, found.scores, found.segments))
    theirs = np.array(expected, dtype=float).reshape(-1, 4)
    assert_allclose(found.scores, theirs[:, 1], rtol=1e-12, atol=1e-15)
    key = np.round(theirs, 9), np.round(rows, 9)
    assert_allclose(*(table[np.lexsort(table.T[::-1])] for table in key), rtol=0, atol=1e-8)
    scores = np.concatenate(lists[1])
    assert_array_equal(found.assignment >= 0, scores >= min_score)
    assert_array_equal(found.sizes, np.bincount(found.assignment[found.assignment >= 0], minlength=len(found)))
    labels = np.concatenate(lists[2])
    assert_array_equal(labels[found.assignment >= 0], found.labels[found.assignment[found.assignment >= 0]])


TWO = ([[[0, 10]], [[2, 10], [1, 10]]], [[0.6], [0.6, 0.3]], [[0], [0, 0]])


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, [0.5 * 2 / 2]),
        ({"allows_overflow": True}, [0.5 * 3 / 2]),
        ({"conf_type": "max"}, [0.6]),
        ({"conf_type": "box_and_model_avg"}, [1.5 / 3]),
        ({"conf_type": "absent_model_aware_avg"}, [1.5 / 3]),
        ({"model_weights": [1, 3]}, [(0.6 + 1.8 + 0.9) / 3 * 2 / 4]),
        ({"model_weights": [1, 3], "conf_type": "max"}, [0.6]),
        ({"model_weights": [1, 3], "conf_type": "absent_model_aware_avg"}, [3.3 / 7]),
        ({"min_score": 0.5}, [0.6]),
        ({"tiou_threshold": 0.85}, [0.9 / 2 * 2 / 2, 0.6 / 2]),
    ],
)
def test_every_option_of_weighted_fusion_counts(options, scores):
    found = weighted_segment_fusion(*TWO, **options)
    assert_allclose(sorted(found.scores), sorted(scores), rtol=1e-14)


def test_absent_models_lower_the_score():
    one = ([[[0, 10]], []], [[0.6], []], [[3], []])
    for conf_type in CONFIDENCES:
        found = weighted_segment_fusion(*one, model_weights=[1, 3], conf_type=conf_type)
        assert_allclose(found.scores, [0.6 / 3 if conf_type == "max" else 0.6 / 4])
        assert_array_equal(found.labels, [3])


def test_weighted_fusion_neither_clips_nor_drops():
    found = weighted_segment_fusion([[[-5, 700], [3, 3]]], [[0.5, 0.4]], [[0, 0]])
    assert_array_equal(found.segments, [[-5, 700], [3, 3]])


def test_weighted_fusion_of_zero_scores_and_of_nothing():
    found = weighted_segment_fusion([[[0, 4], [0, 5]]], [[0, 0]], [[0, 0]])
    assert_array_equal(found.segments, [[0, 4]])
    assert_array_equal(found.scores, [0])
    for lists in (([], [], []), ([[]], [[]], [[]])):
        for conf_type in CONFIDENCES:
            nothing = weighted_segment_fusion(*lists, conf_type=conf_type)
            assert nothing.segments.shape == (0, 2)
            assert nothing.labels.dtype == np.int64
            assert len(nothing) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores_list": [[0.5]]}, "must have one entry per model, got 2, 1 and 2"),
        ({"scores_list": [[0.5], [-0.5]]}, r"`scores_list\[1\]` must be >= 0; row 0 is -0.5 \(1 of 1 rows\)"),
        ({"segments_list": [[[0, 1]], [[1, 0]]]}, r"`segments_list\[1\]` needs start <= end; row 0 is \[1.0, 0.0\]"),
        ({"labels_list": [[0], [-1]]}, r"`labels_list\[1\]` must be >= 0; row 0 is -1"),
        ({"model_weights": [1, 0]}, r"`model_weights` must be above 0, got \[1.0, 0.0\]"),
        ({"model_weights": [1]}, r"`model_weights` must have shape \(2,\), one per model"),
        ({"conf_type": "mean"}, "`conf_type` must be one of 'avg', .* got 'mean'"),
        ({"conf_type": "max", "allows_overflow": True}, "`allows_overflow` is for conf_type 'avg' only"),
        ({"tiou_threshold": 55}, "`tiou_threshold` must be at most 1, got 55"),
    ],
)
def test_weighted_fusion_refuses(change, message):
    options = {
        "segments_list": [[[0, 1]], [[0, 1]]],
        "scores_list": [[0.5], [0.5]],
        "labels_list": [[0], [0]],
        **change,
    }
    with pytest.raises(ValueError, match=message):
        weighted_segment_fusion(**options)


# -------------------------------------------------------------------------------------------- outputs of published code


@pytest.mark.parametrize(("column", "temperature"), [("fused_T01", 0.1), ("fused_T02", 0.2)])
def test_published_gaussian_fusion(golden, column, temperature):
    arrays = golden("gaufuse")
    where, out = arrays["raw_offsets"], arrays["fused_offsets"]
    for p in np.flatnonzero(~arrays["fragile"]):
        own = slice(where[p], where[p + 1])
        found = fuse_segments(
            arrays["raw_segments"][own],
            arrays["raw_score"][own],
            tiou_threshold=0.25,
            temperature=temperature,
            weights=arrays["raw_inner"][own],
            overlap="candidate",
            length_offset=1,
            signed_denominator=True,
        )
        theirs = arrays[column][out[p] : out[p + 1]]
        assert_allclose(np.column_stack((found.segments, found.scores)), theirs, rtol=0, atol=1e-9)
        assert not found.degenerate.any()


@pytest.mark.parametrize(
    ("conf_type", "weighted"),
    [("avg_overflow", False), *((c, weighted) for c in CONFIDENCES for weighted in (False, True))],
)
def test_published_weighted_boxes_fusion(golden, conf_type, weighted):
    """The package rounds fused boundaries and scores to float32: 6e-8 in [0, 1]."""
    arrays = golden("nms")
    key = f"wbf_{conf_type}" + ("_w2_1_.5_t0.4_skip0.1" if weighted else "")
    options = {
        "conf_type": conf_type.removesuffix("_overflow"),
        "allows_overflow": conf_type == "avg_overflow",
        **({"model_weights": [2, 1, 0.5], "tiou_threshold": 0.4, "min_score": 0.1} if weighted else {}),
    }
    where, out = arrays["set_offsets"], arrays[f"{key}__offsets"]
    chosen = np.flatnonzero(arrays[f"{key}__used"] & arrays[f"{key}__stable"])
    assert len(chosen)
    for i in chosen:
        own, rows = slice(where[i], where[i + 1]), slice(out[i], out[i + 1])
        model = np.arange(where[i + 1] - where[i]) % 3
        lists = [[arrays[name][own][model == m] for m in range(3)] for name in ("segments", "scores", "labels")]
        found = weighted_segment_fusion(*lists, **options)
        assert_array_equal(found.labels, arrays[f"{key}__label"][rows])
        assert_allclose(found.scores, arrays[f"{key}__score"][rows], rtol=0, atol=1e-6)
        boundaries = np.column_stack((arrays[f"{key}__start"][rows], arrays[f"{key}__end"][rows]))
        assert_allclose(found.segments, boundaries, rtol=0, atol=1e-6)


@given(segment_sets(groups=3), tiou_thresholds)
def test_non_maximum_weighted_equals_oracle(rows, threshold):
    segments, scores, idxs = rows
    for groups in (None, idxs):
        expected = refinement.non_maximum_weighted(segments, scores, threshold, groups)
        found = non_maximum_weighted(segments, scores, tiou_threshold=threshold, idxs=groups)
        assert len(found) == len(expected)
        for c, (members, segment, score, size) in enumerate(expected):
            assert found.picks[c] == members[0]
            assert_array_equal(np.flatnonzero(found.assignment == c), sorted(members))
            assert found.sizes[c] == len(members)
            assert_allclose(found.segments[c], segment, rtol=0, atol=1e-12)
            assert found.scores[c] == score
            assert found.degenerate[c] == (score == 0)
            assert_allclose(found.effective_size[c], size, rtol=1e-12)
        same = fuse_segments(segments, scores, tiou_threshold=threshold, temperature=1.0, idxs=groups)
        assert_array_equal(found.picks, same.picks)


def test_non_maximum_weighted_spread_and_refusals():
    found = non_maximum_weighted([[0, 10], [0, 5]], [1.0, 0.4], tiou_threshold=0.2)  # shares 5/6 and 1/6
    assert_allclose(found.segments, [[0, 55 / 6]])
    assert_allclose([found.start_std[0], found.end_std[0]], [0, 5 * np.sqrt(5) / 6])
    assert len(non_maximum_weighted([], [], tiou_threshold=0.5)) == 0
    with pytest.raises(ValueError, match=r"`scores` must be >= 0; row 1 is -0.5 \(1 of 2 rows\)"):
        non_maximum_weighted([[0, 1], [0, 2]], [0.5, -0.5], tiou_threshold=0.5)
    with pytest.raises(ValueError, match="tiou_threshold"):
        non_maximum_weighted([[0, 1]], [0.5], tiou_threshold=1.1)
