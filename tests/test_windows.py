"""Leaves and hulls change what is looked at, never what is found: the oracles, and bit for bit one leaf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import fuse_segments, nms, segment_voting, soft_nms, weighted_segment_fusion
from tal_postproc._kernels import windows
from tal_postproc._kernels.nms import nms_groups
from tal_postproc._kernels.segments import overlap_matrix, score_order

from .oracles import segments as oracle
from .strategies import segment_sets, tiou_thresholds

FUNCTIONS = (windows.soft_nms_groups, windows.vote_groups, windows.cluster_groups, windows.running_clusters)
HOW = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["iou", "candidate"]),
        "length_offset": st.sampled_from([0.0, 1.0]),
        "area_eps": st.sampled_from([0.0, 0.5]),
    }
)
MEASURES = [(False, 0.0, 0.0), (False, 1.0, 0.0), (True, 0.0, 0.0), (True, 1.0, 1e-6), (False, 0.0, 0.5)]
KINDS = {
    "any": lambda rng, n: (rng.uniform(-n, n, n), rng.exponential(3.0, n)),
    "all touch": lambda rng, n: (rng.uniform(0, 1, n), rng.uniform(1, 2, n)),
    "nothing touches": lambda rng, n: (2.0 * rng.permutation(n), np.ones(n)),
    "grid": lambda rng, n: (rng.integers(0, n // 4, n) / 2, rng.integers(0, 20, n) / 2),
    "all lengths": lambda rng, n: (rng.uniform(0, n, n), 10.0 ** rng.uniform(-6, 3, n)),
    "far away": lambda rng, n: (1e9 + rng.integers(0, n, n) / 3, rng.integers(0, 9, n) / 3),
    "equal": lambda rng, n: (np.zeros(n), np.full(n, 4.0)),
}


@contextmanager
def rows_per_leaf(leaf: int) -> Iterator[None]:
    before = [function.__kwdefaults__["leaf"] for function in FUNCTIONS]
    try:
        for function in FUNCTIONS:
            function.__kwdefaults__["leaf"] = leaf
        yield
    finally:
        for function, value in zip(FUNCTIONS, before):
            function.__kwdefaults__["leaf"] = value


def literal(how):
    return {"kind": how["overlap"], "length_offset": how["length_offset"], "area_eps": how["area_eps"]}


# --------------------------------------------------------------------------------------------------------- the oracles


@pytest.mark.parametrize("leaf", [1, 2])
@given(
    segment_sets(groups=2, scores=st.integers(-2, 8).map(lambda k: k / 8)),
    st.sampled_from(["linear", "gaussian", "gated", "improved"]),
    HOW,
    st.sampled_from([None, 0.25, -0.125]),
    st.booleans(),
    st.booleans(),
)
def test_soft_nms_equals_the_oracle(leaf, rows, method, how, min_score, keep_first, decay_negative):
    segments, scores, idxs = rows
    own = {"gate": (0.25, 0.125)} if method in ("gated", "improved") else {}
    own |= {"min_score": min_score, "keep_first": keep_first, "decay_negative": decay_negative, "idxs": idxs}
    threshold = 0.25 if method == "linear" else None
    expected, expected_scores = oracle.soft_nms(segments, scores, method, threshold=threshold, **own, **literal(how))
    with rows_per_leaf(leaf):
        keep, new_scores = soft_nms(segments, scores, method=method, tiou_threshold=threshold, **own, **how)
    assert_allclose(new_scores, expected_scores, rtol=1e-13, atol=0)
    if not np.isclose(np.diff(expected_scores), 0, atol=1e-12).any():  # exp may differ by an ulp where scores tie
        assert_array_equal(keep, expected, strict=True)


@pytest.mark.parametrize("leaf", [1, 2])
@given(segment_sets(groups=2), tiou_thresholds, st.booleans(), HOW)
def test_clusters_equal_the_oracle(leaf, rows, threshold, inclusive, how):
    segments, scores, idxs = rows
    inclusive = inclusive and threshold > 0
    order, offsets = score_order(scores, idxs)
    measure = how["overlap"] == "candidate", how["length_offset"], how["area_eps"]
    members, bounds, group_bounds = windows.cluster_groups(
        segments, scores, order, offsets, threshold, inclusive, *measure, leaf=leaf, small=0
    )
    found = [members[start:stop].tolist() for start, stop in pairwise(bounds)]
    expected = oracle.clusters(segments, scores, threshold, idxs, inclusive, **literal(how))
    assert sorted(found) == sorted(expected)
    for start, stop in pairwise(group_bounds):  # a group's clusters come by the rank of their heads
        heads = members[bounds[start:stop]]
        assert len(set(idxs[heads].tolist())) <= 1
        assert_array_equal(heads, heads[np.lexsort((heads, -scores[heads]))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last_first", [False, True])
def test_small_groups_need_no_order(kind, last_first, rng):
    """Rows of a small group in their own order, or by score: the same picks and members, ties and all."""
    n = 400
    for trial, measure in enumerate(MEASURES):
        start, length = KINDS[kind](rng, n)
        segments = np.column_stack((start, start + length))
        scores = rng.uniform(-0.1, 1, n).round(1 if trial % 2 else 16)
        idxs = rng.choice(4, n, p=[0.0, 0.05, 0.15, 0.8])
        for threshold, inclusive in ((0.0, False), (0.5, True), (0.5, False), (1.0, False)):
            how = threshold, inclusive, *measure
            sorted_order, offsets = score_order(scores, idxs, last_first)
            for function in (windows.cluster_groups, nms_groups):
                expected = function(segments, scores, sorted_order, offsets, *how, small=0)
                for small in (100, n):
                    order, _ = score_order(scores, idxs, last_first, small)
                    found = function(segments, scores, order, offsets, *how, small=small)
                    for one, other in zip(found, expected):
                        assert_array_equal(one, other, err_msg=f"{function}, small={small}, {how}")


@pytest.mark.parametrize("leaf", [1, 2])
@given(segment_sets(groups=3), segment_sets(groups=3), st.sampled_from([0.25, 0.5]), st.booleans(), HOW)
def test_voting_equals_the_oracle(leaf, rows, kept, threshold, times_iou, how):
    segments, scores, idxs = rows
    groups = {"kept_idxs": kept[2], "idxs": idxs}
    expected = oracle.vote(kept[0], segments, scores, threshold, times_iou=times_iou, **groups, **literal(how))
    with rows_per_leaf(leaf):
        found = segment_voting(
            kept[0], segments, scores, tiou_threshold=threshold, times_iou=times_iou, **groups, **how
        )
    assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", [1, 2])
@given(segment_sets(groups=2), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_weighted_fusion_equals_the_oracle(leaf, rows, threshold):
    lists = [[column] for column in rows]
    expected = np.array(oracle.weighted_segment_fusion(*lists, [1.0], threshold, 0.0, "max")).reshape(-1, 4)
    with rows_per_leaf(leaf):
        found = weighted_segment_fusion(*lists, tiou_threshold=threshold, conf_type="max")
    table = np.column_stack((found.labels, found.scores, found.segments))
    pair = np.round(expected, 9), np.round(table, 9)
    assert_allclose(*(one[np.lexsort(one.T[::-1])] for one in pair), rtol=0, atol=1e-8)


# ------------------------------------------------------------------------------------- bit for bit what one leaf gives


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_change_no_bit(kind, rng):
    n = 500
    for trial, measure in enumerate(MEASURES):
        start, length = KINDS[kind](rng, n)
        segments = np.column_stack((start, start + length))
        scores = rng.uniform(-0.1, 1, n).round(2 if trial % 2 else 16)
        idxs = np.sort(rng.choice(3, n, p=[0.05, 0.15, 0.8]))
        order, offsets = score_order(scores, idxs)
        kept = segments[nms(segments, scores, tiou_threshold=0.4)]
        kept_order, kept_offsets = np.arange(len(kept)), np.array([0, 1, 1, len(kept)])
        flags = trial % 2 == 1, trial == 3  # keep_first, decay_negative
        jobs = [
            (
                windows.soft_nms_groups,
                (segments, scores, order, offsets, method, 0.4, 0.3, slope, floor, *flags, limit, *measure),
            )
            for method, slope in enumerate((0.0, 0.0, 0.01, 0.01))
            for floor, limit in ((-np.inf, n), (0.2, n), (-np.inf, 40))
        ]
        jobs += [
            (
                partial(windows.cluster_groups, small=0),
                (segments, scores, order, offsets, threshold, inclusive, *measure),
            )
            for threshold, inclusive in ((0.0, False), (0.5, True), (0.5, False), (1.0, False))
        ]
        jobs += [
            (windows.vote_groups, (kept, kept_order, kept_offsets, segments, scores, order, offsets, t, by, *measure))
            for t, by in ((0.1, True), (0.5, False))
        ]
        jobs += [(windows.running_clusters, (segments, np.abs(scores), order, offsets, t)) for t in (0.0, 0.4)]
        for function, arguments in jobs:
            expected = function(*arguments, leaf=n)
            for leaf in (1, 3, windows.LEAF):
                found = function(*arguments, leaf=leaf)
                for one, other in _pairs(found, expected):
                    assert_array_equal(one, other, err_msg=f"{function}, leaf={leaf}, {arguments[4:]}")


def _pairs(found, expected):
    """Results side by side, whether there is one array or several."""
    return zip(found, expected) if isinstance(found, tuple) else [(found, expected)]


def test_fused_segments_do_not_depend_on_leaves(rng):
    segments = np.sort(rng.uniform(0, 300, (600, 2)), axis=1)
    options = {"tiou_threshold": 0.5, "temperature": 0.1, "idxs": rng.integers(0, 2, 600)}
    expected = fuse_segments(segments, np.arange(600) / 600, **options)
    with rows_per_leaf(2):
        found = fuse_segments(segments, np.arange(600) / 600, **options)
    assert_array_equal(found.assignment, expected.assignment)
    assert_array_equal(found.segments, expected.segments)


def test_a_segment_visits_only_leaves_near_it():
    n, leaf = 4096, 32
    start = np.arange(n, dtype=np.float64)
    end = start + 3.0
    end[0] = n  # a long row keeps its own leaf in every window, and no other
    leaves, width = windows._leaves(n, leaf)
    hulls = np.empty((2 * leaves, 2))
    windows._plant(hulls, leaves, width, start, end, 0, n)
    for row in (1, 1000, 2047, 2048, 4095):
        visited, node = [], 0
        while node := windows._next_leaf(hulls, leaves, node, start[row], end[row], 0.0):
            visited.append(node - leaves)
        first, last = max(row - 2, 0) // leaf, min(row + 2, n - 1) // leaf
        assert visited == sorted({0, *range(first, last + 1)})


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_are_met_to_the_last_bit(kind, rng):
    """Thresholds that are overlaps of the rows: who joins is exactly who is above, or at, them in `overlap_matrix`."""
    for candidate, length_offset, area_eps in MEASURES:
        start, length = KINDS[kind](rng, 80)
        segments = np.column_stack((start, start + length))
        overlaps = overlap_matrix(segments, segments, candidate, length_offset, area_eps)
        order, offsets, falling = np.arange(80), np.array([0, 80]), -np.arange(80.0)
        for threshold in rng.choice(overlaps[overlaps > 0], 5) if (overlaps > 0).any() else ():
            for inclusive in (False, True):
                joins = overlaps >= threshold if inclusive else overlaps > threshold
                left, expected = list(range(80)), []
                while left:
                    head = left[0]
                    expected += [head, *(i for i in left[1:] if joins[head, i])]
                    left = [i for i in left[1:] if not joins[head, i]]
                how = threshold, inclusive, candidate, length_offset, area_eps
                for leaf, small in ((2, 0), (80, 0), (80, 80)):
                    members, _, _ = windows.cluster_groups(
                        segments, falling, order, offsets, *how, leaf=leaf, small=small
                    )
                    assert_array_equal(members, expected)
