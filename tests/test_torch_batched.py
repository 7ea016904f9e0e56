"""Groups as tensors, all at once: the oracles, and to the integer what the kernels of the NumPy core give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import fusion
from tal_postproc._kernels import nms, windows
from tal_postproc._kernels import segments as kernels

from .oracles import segments as oracle
from .strategies import segment_sets, tiou_thresholds
from .test_windows import HOW, KINDS, MEASURES, literal

torch = pytest.importorskip("torch")

from tal_postproc.torch import _batched, _ragged  # noqa: E402

SOFT = ("linear", "gaussian", "gated", "improved")
SMALL = 1 << 9  # bytes of a chunk: one small group, or part of a larger one
FIELDS = (
    "segments",
    "scores",
    "assignment",
    "picks",
    "sizes",
    "effective_size",
    "start_std",
    "end_std",
    "degenerate",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def cut(chunk: int = SMALL, block: int = 8, tile: int = 8) -> Iterator[None]:
    """Small chunks, blocks and tiles, so that small inputs go through all of the code."""
    before = _ragged.CHUNK_BYTES["cpu"], _batched.BLOCK, _batched.TILE
    try:
        _ragged.CHUNK_BYTES["cpu"], _batched.BLOCK, _batched.TILE = chunk, block, tile
        yield
    finally:
        _ragged.CHUNK_BYTES["cpu"], _batched.BLOCK, _batched.TILE = before


def tensors(*arrays: Any) -> list[Any]:
    return [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]


def measure_of(how: dict[str, Any]) -> tuple[bool, float, float]:
    return how["overlap"] == "candidate", how["length_offset"], how["area_eps"]


def columns(found: Any) -> list[Any]:
    """The arrays of a result, tensors or not."""
    if isinstance(found, tuple):
        return [column for one in found for column in columns(one)]
    if hasattr(found, "picks"):
        return [column for name in FIELDS for column in columns(getattr(found, name))]
    return [found.numpy() if isinstance(found, torch.Tensor) else found]


def assert_same(found: Any, expected: Any, message: str, tolerance: float = 1e-12) -> None:
    """Integers and flags equal, floats as near as the tolerance says; bit for bit without one."""
    found, expected = columns(found), columns(expected)
    assert len(found) == len(expected) > 0, message
    for one, other in zip(found, expected):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), message
        if one.dtype.kind == "f" and tolerance:
            assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=message)
        else:
            assert_array_equal(one, other, err_msg=message)


def some_groups(rng: np.random.Generator, kind: str, n: int, coarse: bool) -> tuple[np.ndarray, ...]:
    """Rows of four groups, two of which hold nearly all, one of which may hold none."""
    start, length = KINDS[kind](rng, n)
    scores = rng.uniform(-0.1, 1, n).round(1 if coarse else 16)
    return np.column_stack((start, start + length)), scores, rng.choice(4, n, p=[0.01, 0.05, 0.24, 0.7])


# -------------------------------------------------------------------------------------------------------------- groups


@given(segment_sets(groups=3), st.booleans(), st.booleans())
def test_order_equals_the_core(rows, last_first, grouped):
    _, scores, idxs = rows
    scores = np.where(scores == 0.125, -0.0, scores)
    idxs = idxs if grouped else None
    expected = kernels.score_order(scores, idxs, last_first)
    assert_same(_ragged.score_order(*tensors(scores, idxs), last_first), expected, "order")


def test_buckets_hold_every_group_with_rows_once():
    sizes = torch.tensor([0, 5, 1, 8, 0, 3, 2, 1])
    found = _ragged.buckets(sizes, _ragged.LINEAR)
    assert [(width, groups.tolist()) for width, groups in found] == [(1, [2, 7]), (2, [6]), (3, [5]), (8, [1, 3])]
    assert _ragged.buckets(sizes[:0], _ragged.LINEAR) == _ragged.buckets(sizes[:1], _ragged.LINEAR) == []


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13])
def test_sums_do_not_depend_on_padding(width, rng):
    x = torch.from_numpy(rng.normal(size=(4, width)))
    longer = torch.cat((x, x.new_zeros(4, 9)), 1)
    assert_allclose(_ragged.tree_sum(x), x.numpy().sum(1), rtol=0, atol=1e-14)
    assert_array_equal(_ragged.tree_sum(x), _ragged.tree_sum(longer))
    assert_allclose(_ragged.running_sum(x), np.cumsum(x.numpy(), 1), rtol=0, atol=1e-14)
    assert_array_equal(_ragged.running_sum(x), _ragged.running_sum(longer)[:, :width])


# --------------------------------------------------------------------------------------------------------- the oracles


@given(segment_sets(groups=2), tiou_thresholds, st.booleans(), HOW)
def test_clusters_and_nms_equal_the_oracle(rows, threshold, inclusive, how):
    segments, scores, idxs = rows
    inclusive = inclusive and threshold > 0
    expected = oracle.clusters(segments, scores, threshold, idxs, inclusive, **literal(how))
    segments, scores, idxs = tensors(*rows)
    order, offsets = _ragged.score_order(scores, idxs)
    how = threshold, inclusive, *measure_of(how)
    with cut():
        members, bounds, group_bounds = _batched.cluster_groups(segments, scores, order, offsets, *how)
        keep, kept_offsets = _batched.nms_groups(segments, scores, order, offsets, *how)
    assert sorted(members[a:b].tolist() for a, b in pairwise(bounds.tolist())) == sorted(expected)
    assert keep.tolist() == members[bounds[:-1]].tolist()
    assert kept_offsets.tolist() == group_bounds.tolist()


@given(
    segment_sets(scores=st.integers(-2, 8).map(lambda k: k / 8)),
    st.sampled_from(SOFT),
    HOW,
    st.sampled_from([-np.inf, 0.25, -0.125]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([12, 3, 0]),
)
def test_soft_nms_equals_the_oracle(rows, method, how, min_score, keep_first, decay_negative, limit):
    segments, scores, _ = rows
    expected, expected_scores = oracle.soft_nms(
        segments, scores, method, threshold=0.25, gate=(0.25, 0.125), sigma=0.5, min_score=min_score,
        keep_first=keep_first, decay_negative=decay_negative, **literal(how),
    )  # fmt: skip
    own = SOFT.index(method), 0.5, 0.25, 0.125, min_score, keep_first, decay_negative, limit, *measure_of(how)
    order, offsets = np.arange(len(scores))[::-1].copy(), np.array([0, len(scores)])
    keep, new_scores, _ = columns(_batched.soft_nms_groups(*tensors(segments, scores, order, offsets), *own))
    if limit == 12:
        rank = np.lexsort((keep, -new_scores))
        assert_allclose(new_scores[rank], expected_scores, rtol=1e-13, atol=0)
        if not np.isclose(np.diff(expected_scores), 0, atol=1e-12).any():  # exp may differ by an ulp where scores tie
            assert_array_equal(keep[rank], expected, strict=True)
    else:
        assert len(keep) == min(limit, len(expected))


@given(segment_sets(groups=3), segment_sets(groups=3), st.sampled_from([0.25, 0.5]), st.booleans(), HOW)
def test_voting_equals_the_oracle(rows, kept, threshold, times_iou, how):
    segments, scores, idxs = rows
    expected = oracle.vote(kept[0], segments, scores, threshold, times_iou, kept[2], idxs, **literal(how))
    (order, offsets), (kept_order, kept_offsets) = (
        (np.argsort(own, kind="stable"), np.searchsorted(np.sort(own), np.arange(4))) for own in (idxs, kept[2])
    )
    arrays = tensors(kept[0], kept_order, kept_offsets, segments, scores, order, offsets)
    with cut():
        found = _batched.vote_groups(*arrays, threshold, times_iou, *measure_of(how))
    assert_allclose(found, expected, rtol=0, atol=1e-12)


@given(segment_sets(), tiou_thresholds, st.sampled_from([0.05, 1.0]), st.sampled_from(fusion.DISTRIBUTIONS))
@settings(max_examples=50)
def test_fusion_equals_the_oracle(rows, threshold, temperature, distribution):
    expected = oracle.fuse(rows[0], rows[1], threshold, temperature, distribution)
    segments, scores, _ = tensors(*rows)
    how = {"overlap": (threshold, False, False, 0.0, 0.0), "temperature": temperature, "distribution": distribution}
    with cut():
        fused, _ = _batched.fuse_groups(segments, scores, scores, *_ragged.score_order(scores), **how)
    assert fused.picks.tolist() == [one["members"][0] for one in expected]
    assert fused.sizes.tolist() == [len(one["members"]) for one in expected]
    for name, one in ("scores", "score"), ("effective_size", "effective_size"), ("start_std", "start_std"):
        tolerance = 2e-6 if distribution == "student_t" else 1e-9
        assert_allclose(getattr(fused, name), [cluster[one] for cluster in expected], rtol=0, atol=tolerance)


# ------------------------------------------------------------------------------- to the integer what the core's kernels


@pytest.mark.parametrize("kind", KINDS)
def test_picks_and_clusters_equal_the_core(kind, rng):
    for (trial, measure), n in product(enumerate(MEASURES), (5, 160)):
        arrays = some_groups(rng, kind, n, coarse=trial % 2 == 1)
        segments, scores, idxs = arrays
        order, offsets = kernels.score_order(scores, idxs, trial == 2)
        places = tensors(segments, scores, *_ragged.score_order(*tensors(scores, idxs), trial == 2))
        for threshold, inclusive in ((0.0, False), (0.5, True), (0.5, False), (1.0, False)):
            how = threshold, inclusive, *measure
            kept = nms.nms_groups(segments, scores, order, offsets, *how, small=0)
            clusters = windows.cluster_groups(segments, scores, order, offsets, *how, small=0)
            for sizes in ({}, {"chunk": SMALL, "block": 8}, {"block": 24}):
                with cut(**{"chunk": 1 << 21, **sizes}):
                    assert_same(_batched.nms_groups(*places, *how), kept, f"{sizes}, {how}")
                    assert_same(_batched.cluster_groups(*places, *how), clusters, f"{sizes}, {how}")


@pytest.mark.parametrize("kind", KINDS)
def test_soft_nms_voting_and_running_means_equal_the_core(kind, rng):
    for trial, measure in enumerate(MEASURES):
        arrays = some_groups(rng, kind, 120, coarse=trial % 2 == 1)
        segments, scores, idxs = arrays
        order, offsets = kernels.score_order(scores, idxs)
        places = tensors(segments, scores, order, offsets)
        flags = trial % 2 == 1, trial == 3  # keep_first, decay_negative
        for (method, slope), (floor, limit) in product(
            enumerate((0.0, 0.0, 0.01, 0.01)), ((-np.inf, 120), (0.2, 120), (-np.inf, 40))
        ):
            own = method, 0.4, 0.3, slope, floor, *flags, limit, *measure
            expected = windows.soft_nms_groups(segments, scores, order, offsets, *own)
            assert_same(_batched.soft_nms_groups(*places, *own), expected, f"{own}")
        kept = segments[: len(segments) // 3]
        cuts = np.linspace(0, len(kept), len(offsets)).astype(np.int64)
        picks = kept, np.arange(len(kept))[::-1].copy(), cuts
        for threshold, by_overlap in ((0.1, True), (0.5, False)):
            own = threshold, by_overlap, *measure
            expected = windows.vote_groups(*picks, segments, scores, order, offsets, *own)
            with cut(chunk=1 << 12, tile=32):
                assert_same(_batched.vote_groups(*tensors(*picks), *places, *own), expected, f"{own}")
        places[1] = places[1].abs() if trial else torch.zeros_like(places[1])
        for threshold in (0.0, 0.4):
            expected = windows.running_clusters(segments, places[1].numpy(), order, offsets, threshold)
            assert_same(_batched.running_clusters(*places, threshold), expected, f"{threshold}")


@pytest.mark.parametrize("kind", KINDS)
def test_fusion_equals_the_core(kind, rng):
    cases = [{"distribution": name} for name in fusion.DISTRIBUTIONS]
    cases += [{"signed_denominator": True}, {"distribution": "student_t", "fit": True, "dof": 2.0}]
    for (trial, measure), case in product(enumerate(MEASURES), cases):
        segments, scores, idxs = some_groups(rng, kind, 80, coarse=trial % 2 == 1)
        order, offsets = kernels.score_order(scores, idxs)
        times = rng.integers(1, 4, 80) if trial % 2 else None
        options = {"overlap": (0.4, False, *measure), "temperature": 0.05 if trial else 1e-3, **case}
        rows = segments, scores, scores - 0.4, order, offsets
        expected = fusion.fuse_groups(*rows, multiplicity=times, **options)
        (own_times,) = tensors(times)
        found = _batched.fuse_groups(*tensors(*rows), multiplicity=own_times, **options)
        assert_same(found, expected, f"{case}, {measure}", 1e-10 if "fit" in case or kind == "far away" else 1e-12)


def test_clusters_may_come_from_elsewhere():
    """Every row its own cluster, whatever overlaps."""
    segments, scores, order, offsets = tensors(np.array([[0.0, 4.0]] * 3), np.ones(3), np.arange(3), np.array([0, 3]))
    options = {"overlap": (0.5, False, False, 0.0, 0.0), "temperature": 0.1}

    def alone(segments: Any, scores: Any, order: Any, offsets: Any, *how: Any) -> Any:
        assert how == options["overlap"]
        return order, torch.arange(4), offsets

    fused, _ = _batched.fuse_groups(segments, scores, scores, order, offsets, **options, cluster_with=alone)
    assert fused.sizes.tolist() == [1, 1, 1]


def test_equal_members_are_exact(rng):
    """All members at one place: fused to it to the last bit, whatever their weights."""
    segments = np.repeat(rng.uniform(0, 1e6, (5, 1)) + np.array([0.1, 7.3]), 40, axis=0)
    scores = rng.uniform(size=200)
    rows = tensors(segments, scores, scores, *kernels.score_order(scores, np.repeat(np.arange(5), 40)))
    for distribution in fusion.DISTRIBUTIONS:
        options = {"overlap": (0.5, False, False, 0.0, 0.0), "temperature": 0.1, "distribution": distribution}
        fused, _ = _batched.fuse_groups(*rows, **options)
        assert_array_equal(fused.segments, segments[::40])
        assert_array_equal(fused.start_std, np.zeros(5))


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_are_met_to_the_last_bit(kind, rng):
    """Thresholds that are overlaps of the rows."""
    for measure in MEASURES:
        segments, scores, _ = some_groups(rng, kind, 60, coarse=False)
        overlaps = kernels.overlap_matrix(segments, segments, *measure)
        order, offsets = kernels.score_order(scores)
        for threshold in rng.choice(overlaps[overlaps > 0], 4) if (overlaps > 0).any() else ():
            for inclusive in (False, True):
                how = float(threshold), inclusive, *measure
                expected = windows.cluster_groups(segments, scores, order, offsets, *how, small=0)
                found = _batched.cluster_groups(*tensors(segments, scores, order, offsets), *how)
                assert_same(found, expected, f"{how}")


# --------------------------------------------------------------------------------------------- the same bits every time


def every_function(rng: np.random.Generator, n: int = 160) -> list[Any]:
    """What each function makes of the same rows, which stay as they are."""
    segments, scores, idxs = some_groups(rng, "any", n, coarse=False)
    places = tensors(segments, scores, *kernels.score_order(scores, idxs))
    given = [one.clone() for one in places]
    how = 0.3, False, False, 0.0, 0.0
    fuse = [
        _batched.fuse_groups(places[0], places[1], *places[1:], overlap=how, temperature=0.1, distribution=name)
        for name in fusion.DISTRIBUTIONS
    ]
    found = [
        _batched.cluster_groups(*places, *how),
        _batched.soft_nms_groups(*places, 1, 0.5, 0.3, 0.0, -np.inf, False, False, n, *how[2:]),
        _batched.vote_groups(places[0], *places[2:], *places, 0.3, True, *how[2:]),
        _batched.running_clusters(places[0], places[1].abs(), *places[2:], 0.3),
        *fuse,
    ]
    assert all(map(torch.equal, places, given)), "an input was changed"
    return found


@pytest.mark.parametrize(("chunk", "block"), [(1 << 21, 32), (1 << 10, 32), (1 << 14, 16)])
def test_chunks_threads_and_runs_change_no_bit(chunk, block):
    expected = every_function(np.random.default_rng(3))
    torch.set_num_threads(2)
    with cut(chunk, block, _batched.TILE):
        for found, one in zip(every_function(np.random.default_rng(3)), expected, strict=False):
            assert_same(found, one, "chunks", 0.0)


def test_a_group_does_not_depend_on_its_neighbours(rng):
    """Alone, or beside a larger and a smaller one: the same bits."""
    segments, scores, _ = some_groups(rng, "any", 90, coarse=False)
    options = {"overlap": (0.3, False, False, 0.0, 0.0), "temperature": 0.1}

    def fused(rows: np.ndarray, idxs: np.ndarray) -> Any:
        arrays = tensors(segments[rows], scores[rows], scores[rows], *kernels.score_order(scores[rows], idxs))
        return _batched.fuse_groups(*arrays, **options)

    together, bounds = fused(np.arange(90), np.repeat([0, 1, 2], [65, 20, 5]))
    alone, _ = fused(np.arange(65, 85), np.zeros(20, np.int64))
    part = slice(*bounds[1:3].tolist())
    assert_array_equal(alone.segments, together.segments[part])
    assert_array_equal(alone.effective_size, together.effective_size[part])


@pytest.mark.parametrize("keep_first", [False, True])
def test_the_first_pick_may_be_exempt_from_the_least_score(keep_first):
    rows = tensors(
        np.array([[0.0, 1.0], [2.0, 3.0], [5.0, 6.0]]), np.array([0.1, 0.2, 0.9]), np.arange(3), np.array([0, 2, 3])
    )
    keep, _, offsets = _batched.soft_nms_groups(*rows, 1, 0.5, 0.0, 0.0, 0.5, keep_first, False, 3, False, 0.0, 0.0)
    assert (keep.tolist(), offsets.tolist()) == (([1, 2], [0, 1, 2]) if keep_first else ([2], [0, 0, 1]))


def test_nothing_in_nothing_out():
    segments, scores, order, offsets = tensors(*(np.empty(s) for s in ((0, 2), 0)), np.empty(0, int), np.zeros(2, int))
    how = 0.5, False, False, 0.0, 0.0
    rows = segments, scores, order, offsets
    assert_same(_batched.nms_groups(*rows, *how), nms.nms_groups(*columns(rows), *how), "nms")
    assert_same(_batched.cluster_groups(*rows, *how), windows.cluster_groups(*columns(rows), *how), "clusters")
    soft = 1, 0.5, 0.0, 0.0, -np.inf, False, False, 0, *how[2:]
    assert_same(_batched.soft_nms_groups(*rows, *soft), windows.soft_nms_groups(*columns(rows), *soft), "soft")
    assert_same(_batched.running_clusters(*rows, 0.5), windows.running_clusters(*columns(rows), 0.5), "running")
    assert _batched.vote_groups(*rows[:1], *rows[2:], *rows, 0.5, False, *how[2:]).shape == (0, 2)
    for distribution in fusion.DISTRIBUTIONS:
        options = {"overlap": how, "temperature": 1.0, "distribution": distribution}
        expected = fusion.fuse_groups(*columns((segments, scores, *rows[1:])), **options)
        assert_same(_batched.fuse_groups(segments, scores, *rows[1:], **options), expected, distribution)


def test_centres_have_gradients(rng):
    segments, scores, idxs = tensors(*some_groups(rng, "any", 20, coarse=False))
    order, offsets = _ragged.score_order(scores, idxs)
    options = {"overlap": (0.3, False, False, 0.0, 0.0), "temperature": 0.5}
    rows = [x.clone().requires_grad_() for x in (segments, scores, scores)]

    def centres(*inputs: Any, **more: Any) -> Any:
        fused, _ = _batched.fuse_groups(*inputs, order, offsets, **options, **more)
        return fused.segments, fused.scores

    for name in ("gaussian", "uniform", "exponential"):
        assert torch.autograd.gradcheck(lambda *x, name=name: centres(*x, distribution=name), rows, atol=1e-6)


def test_deterministic_algorithms_are_all_there_is(rng):
    torch.use_deterministic_algorithms(True)
    try:
        assert len(every_function(rng)) == 8
    finally:
        torch.use_deterministic_algorithms(False)


# ------------------------------------------------------------------------------------------------------------ the sizes


def test_one_large_group_among_tiny_ones(rng):
    n = 3000
    segments, scores, _ = some_groups(rng, "any", n, coarse=False)
    idxs = np.concatenate((np.arange(500), np.full(n - 500, 7)))
    order, offsets = kernels.score_order(scores, idxs)
    places = tensors(segments, scores, order, offsets)
    how = 0.4, False, False, 0.0, 0.0
    with cut(1 << 18, 32):
        assert_same(
            _batched.cluster_groups(*places, *how), windows.cluster_groups(*columns(tuple(places)), *how), "large"
        )


@pytest.mark.slow
def test_two_million_tiny_groups(rng):
    sizes = rng.integers(1, 4, 2_000_000)
    idxs = np.repeat(np.arange(len(sizes)), sizes)
    start, scores = rng.integers(0, 40, len(idxs)) / 2, rng.integers(0, 9, len(idxs)) / 8
    segments = np.column_stack((start, start + rng.integers(0, 20, len(idxs)) / 2))
    order, offsets = kernels.score_order(scores, idxs)
    places = tensors(segments, scores, order, offsets)
    rows, how = (segments, scores, order, offsets), (0.5, False, False, 0.0, 0.0)
    assert_same(_ragged.score_order(places[1], torch.from_numpy(idxs)), (order, offsets), "order")
    assert_same(_batched.nms_groups(*places, *how), nms.nms_groups(*rows, *how), "NMS")
    soft = 0, 0.5, 0.3, 0.0, 0.1, False, False, 2, *how[2:]
    assert_same(_batched.soft_nms_groups(*places, *soft), windows.soft_nms_groups(*rows, *soft), "soft-NMS")
    assert_same(_batched.running_clusters(*places, 0.5), windows.running_clusters(*rows, 0.5), "running means")
    votes = (0.5, True, *how[2:])
    found = _batched.vote_groups(places[0], *places[2:], *places, *votes)
    assert_same(found, windows.vote_groups(segments, order, offsets, *rows, *votes), "voting")
    options = {"overlap": how, "temperature": 0.1}
    found = _batched.fuse_groups(places[0], places[1], *places[1:], **options)
    assert_same(found, fusion.fuse_groups(segments, scores, *rows[1:], **options), "fusion")


@pytest.mark.slow
def test_a_hundred_thousand_rows_beside_tiny_groups_in_little_memory():
    """The matrix of all pairs would take 80 GB."""
    script = """
import resource, numpy as np, torch
from tal_postproc._kernels import segments as kernels, windows
from tal_postproc.torch import _batched
torch.set_num_threads(1)
rng = np.random.default_rng(0)
n = 100_000
start = rng.uniform(0, n, n)
segments = np.column_stack((start, start + 10.0 * rng.lognormal(-0.5, 1.0, n)))
segments, scores = np.concatenate((segments, segments[:3000])), rng.uniform(size=n + 3000)
idxs = np.concatenate((np.full(n, 5), np.arange(3000)))
arrays = segments, scores, *kernels.score_order(scores, idxs)
how = 0.5, False, False, 0.0, 0.0
expected = windows.cluster_groups(*arrays, *how)
places = [torch.from_numpy(one) for one in arrays]
_batched.cluster_groups(places[0][:9], places[1][:9], torch.arange(9), torch.tensor([0, 9]), *how)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = _batched.cluster_groups(*places, *how)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, all(map(np.array_equal, found, expected)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kilobytes, equal = done.stdout.split()
    assert equal == "True"
    assert int(kilobytes) < 600_000
