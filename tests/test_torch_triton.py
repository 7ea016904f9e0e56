"""Triton kernels against the NumPy core: in Triton's interpreter on the CPU, and on a GPU where there is one.

The interpreter needs a process of its own: ``TRITON_INTERPRET=1 python -m pytest tests/test_torch_triton.py``.
Without it and without a GPU the kernels are only compiled.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc._kernels import nms as core_nms
from tal_postproc._kernels import segments as core_segments
from tal_postproc._kernels import windows as core

from .strategies import segment_sets, tiou_thresholds

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
from tal_postproc.torch import _batched, _triton  # noqa: E402

RUNS = INTERPRETED or torch.cuda.is_available()
on_device = pytest.mark.skipif(not RUNS, reason="needs a CUDA device, or TRITON_INTERPRET=1 in a process of its own")
DEVICE = "cpu" if INTERPRETED else "cuda"
EXAMPLES = settings(max_examples=40 if INTERPRETED else 300)
MEASURES = st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5]))
SOFT_SCORES = st.integers(-2, 8).map(lambda k: k / 8)


def both(segments, scores, idxs):
    """Canonical arrays for the core, and the same as tensors."""
    order, offsets = core_segments.score_order(scores, idxs)
    arrays = segments, scores, order, offsets
    return arrays, [torch.tensor(array, device=DEVICE) for array in arrays]


def groups_of(rng, sizes, density=4.0, device=DEVICE):
    """Many segments of a few lengths, with ties; groups of the given sizes, empty ones too."""
    n = sum(sizes)
    start = rng.integers(0, max(1, int(n / density)), n) / 2
    segments = np.column_stack((start, start + rng.integers(0, 9, n) / 2)) - 3.0
    order, stop = np.arange(n), np.cumsum([0, *sizes])
    scores = rng.integers(0, 50, n) / 8 + np.exp2(-20) * rng.integers(0, 2, n)
    for a, b in pairwise(stop):
        order[a:b] = a + np.argsort(-scores[a:b], kind="stable")
    arrays = segments, scores, order, stop
    return arrays, [torch.tensor(array, device=device) for array in arrays]


def assert_same(found, expected):
    for mine, theirs in zip(found, expected):
        assert_array_equal(mine.cpu().numpy(), theirs)


@on_device
@EXAMPLES
@given(segment_sets(groups=3), tiou_thresholds, st.booleans(), MEASURES)
def test_greedy_picks_are_those_of_the_core(rows, threshold, inclusive, measure):
    arrays, tensors = both(*rows)
    how = threshold, inclusive and threshold > 0, *measure
    assert_same(_triton.nms_groups(*tensors, *how), core_nms.nms_groups(*arrays, *how, small=0))
    assert_same(_triton.cluster_groups(*tensors, *how), core.cluster_groups(*arrays, *how, small=0))


def check_soft(found, expected):
    keep, new_scores, offsets = (tensor.cpu().numpy() for tensor in found)
    assert_array_equal(offsets, expected[2])
    assert_allclose(new_scores, expected[1], rtol=1e-13, atol=0)
    near = np.isclose(np.diff(expected[1]), 0, atol=1e-12)  # exp may differ by an ulp where scores tie
    if not near.any():
        assert_array_equal(keep, expected[0])


@on_device
@pytest.mark.parametrize("method", [core.LINEAR, core.GAUSSIAN, core.GATED, core.IMPROVED])
@EXAMPLES
@given(
    segment_sets(groups=2, scores=SOFT_SCORES),
    st.sampled_from([0.3, 0.5]),
    st.sampled_from([0.0, 0.25, 1 / 3, 0.5]),
    st.sampled_from([0.0, 0.125]),
    st.sampled_from([-np.inf, 0.0, 0.25, -0.125]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 1, 4, 1000]),
    MEASURES,
)
def test_soft_nms_is_that_of_the_core(method, rows, sigma, threshold, slope, floor, first, raises, limit, measure):
    threshold = threshold or 0.75 if method == core.LINEAR else threshold
    arrays, tensors = both(*rows)
    options = method, sigma, threshold, slope, floor, first, raises, limit, *measure
    check_soft(_triton.soft_nms_groups(*tensors, *options), core.soft_nms_groups(*arrays, *options))


SIZES = [3, 0, 1, 40, 33, 0, 150] if INTERPRETED else [3, 0, 1, 40, 700, 33, 2048, 0, 5000, 150, 2049] * 20
SOFT = core.GAUSSIAN, 0.5, 0.0, 0.0, 0.05, False, False, 20 if INTERPRETED else 10**9, False, 0.0, 0.0


@on_device
@pytest.mark.parametrize("largest", [None, 32])
def test_groups_of_all_sizes(rng, monkeypatch, largest):
    """Empty ones, several blocks, and those that are too large for any block."""
    if largest:
        monkeypatch.setattr(_triton, "BLOCKS", (largest,))
    arrays, tensors = groups_of(rng, SIZES)
    how = 0.3, False, False, 0.0, 0.0
    before = [tensor.clone() for tensor in tensors]
    assert_same(_triton.nms_groups(*tensors, *how), core_nms.nms_groups(*arrays, *how, small=0))
    assert_same(_triton.cluster_groups(*tensors, *how), core.cluster_groups(*arrays, *how, small=0))
    found = _triton.soft_nms_groups(*tensors, *SOFT)
    check_soft(found, core.soft_nms_groups(*arrays, *SOFT))
    assert all(map(torch.equal, tensors, before))
    assert all(map(torch.equal, found, _triton.soft_nms_groups(*tensors, *SOFT)))


@on_device
def test_nothing():
    arrays, tensors = groups_of(np.random.default_rng(0), [0, 0])
    how = 0.5, False, False, 0.0, 0.0
    assert_same(_triton.nms_groups(*tensors, *how), core_nms.nms_groups(*arrays, *how, small=0))
    assert_same(_triton.cluster_groups(*tensors, *how), core.cluster_groups(*arrays, *how, small=0))
    check_soft(_triton.soft_nms_groups(*tensors, *SOFT), core.soft_nms_groups(*arrays, *SOFT))


@on_device
def test_constants_keep_all_their_digits():
    """1/3 as float32 is larger than 1/3."""
    segments, scores = np.array([[0.0, 3.0], [0.0, 1.0]]), np.array([0.9, 0.8])
    for threshold, kept in ((1 / 3, 2), (np.nextafter(1 / 3, 0), 1)):
        keep, _ = _triton.nms_groups(*both(segments, scores, None)[1], threshold, False, False, 0.0, 0.0)
        assert len(keep) == kept


@on_device
def test_the_earlier_row_wins_a_tie_also_after_a_decay():
    segments, scores = np.array([[0.0, 10.0], [20.0, 30.0], [0.0, 10.0]]), np.array([0.25, 0.125, 0.25])
    options = core.LINEAR, 0.5, 0.5, 0.0, -np.inf, False, False, 9, False, 0.0, 0.0
    keep, new_scores, _ = _triton.soft_nms_groups(*both(segments, scores, None)[1], *options)
    assert keep.tolist() == [0, 1, 2]
    assert new_scores.tolist() == [0.25, 0.125, 0.0]
    segments[2, 1] = 5.0  # its score is halved, to that of row 1
    keep, new_scores, _ = _triton.soft_nms_groups(*both(segments, scores, None)[1], *options)
    assert (keep.tolist(), new_scores.tolist()) == ([0, 1, 2], [0.25, 0.125, 0.125])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a CUDA device, and no interpreter")
def test_two_million_groups_and_the_same_bits_as_batched(rng):
    sizes = rng.integers(0, 4, 2_000_000).tolist()
    sizes[1000] = 3000
    _, tensors = groups_of(rng, sizes, density=1e5)
    how = 0.3, False, False, 0.0, 0.0
    for mine, theirs in (
        (_triton.nms_groups(*tensors, *how), _batched.nms_groups(*tensors, *how)),
        (_triton.cluster_groups(*tensors, *how), _batched.cluster_groups(*tensors, *how)),
    ):
        assert all(map(torch.equal, mine, theirs))


# ------------------------------------------------------------------ without a GPU


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_and_round_as_the_core_does(monkeypatch, tmp_path, capability):
    """Division is IEEE's, and the only fused multiply-adds are those of `exp`."""
    pytest.importorskip("triton", minversion="3.4", reason="the compiler had another interface")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    block = _triton.BLOCKS[-1]

    def machine_code(kernel, **constants):
        kinds = dict.fromkeys(kernel.arg_names, "*i64")
        kinds |= dict.fromkeys({"segments", "scores", "constants", "new_scores"} & kinds.keys(), "*fp64")
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=_triton._launch(block))
        assert set(re.findall(r"\bdiv\.\S+", compiled.asm["ptx"])) == {"div.rn.f64"}
        return compiled.asm["ptx"].count("fma.")

    assert machine_code(_triton._pick, BLOCK=block) == 0
    linear, gaussian, gated, improved = (machine_code(_triton._soft_nms, METHOD=m, BLOCK=block) for m in range(4))
    assert linear == 0
    assert 0 < gaussian == gated == improved


@pytest.mark.skipif(INTERPRETED, reason="the interpreter works on the CPU")
def test_tensors_of_the_cpu_are_refused():
    _, tensors = groups_of(np.random.default_rng(0), [2], device="cpu")
    with pytest.raises(ValueError, match="Triton kernels need CUDA tensors, got tensors on cpu"):
        _triton.nms_groups(*tensors, 0.5, False, False, 0.0, 0.0)
