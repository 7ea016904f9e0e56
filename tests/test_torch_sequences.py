"""Runs and scores of columns in torch operations: to the last integer what the kernels of the core give."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from tal_postproc._kernels import sequences as core  # noqa: E402
from tal_postproc.proposals import Columns, normalized  # noqa: E402
from tal_postproc.torch import _ragged, _sequences  # noqa: E402


@pytest.fixture(autouse=True, params=["chunks", "one block", "as on a GPU"])
def chunk(request, monkeypatch):
    """Every test with chunks of a single row, too, and with the sums of another device."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(_sequences, "_on_cpu", lambda tensor: False)
    if request.param == "chunks":
        monkeypatch.setitem(_ragged.CHUNK_BYTES, "cpu", 8)


def columns(rng, grid=True, empty=False):
    """Rows of values, multiples of 1/8 or not."""
    lengths = rng.integers(0 if empty else 1, 40, rng.integers(0, 7))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = rng.uniform(-0.3, 1, offsets[-1])
    return np.round(values * 8) / 8 if grid else values, offsets


def thresholds(rng, rows):
    levels = np.round(rng.uniform(-0.3, 1, (rows, rng.integers(0, 6))) * 8) / 8
    slots = np.argsort(levels, axis=1, kind="stable")
    return levels, np.take_along_axis(levels, slots, axis=1), slots


def tensors(*arrays):
    return [torch.from_numpy(array) if isinstance(array, np.ndarray) else array for array in arrays]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("once", [0, 1, -1])
def test_runs_are_those_of_the_core(rng, once, shared):
    found = 0
    for trial in range(60):
        values, offsets = columns(rng, grid=trial % 3 > 0, empty=True)
        _, rising, slots = thresholds(rng, 1 if shared else len(offsets) - 1)
        inclusive, positive, lone = (bool(flag) for flag in rng.integers(0, 2, 3))
        options = inclusive, positive, int(rng.integers(1, 4)), lone, once
        expected = core.find_runs(values, offsets, rising, slots, *options)
        runs = _sequences.find_runs(*tensors(values, offsets, rising, slots), *options)
        for one, other in zip(runs, expected):
            assert_array_equal(one.numpy(), other, strict=True)
        found += len(expected[0])
    assert found > 500


@pytest.mark.parametrize("layout", [core.SYMMETRIC, core.OIC_A, core.OIC_B])
@pytest.mark.parametrize("inner", [core.MEAN, core.MAX, core.NONE])
def test_scores_are_those_of_the_core(rng, layout, inner):
    scored = 0
    for trial in range(40):
        values, offsets = columns(rng, grid=trial % 3 > 0)
        levels, rising, slots = thresholds(rng, 1)
        row, slot, start, stop, _ = core.find_runs(values, offsets, rising, slots, True, False, 1, False, 0)
        if layout == core.SYMMETRIC:
            start = start + rng.uniform(0, 0.4, len(row))
            stop = np.maximum(start, stop - rng.uniform(0, 0.4, len(row)))
        own_weight = float(trial % 2) * 0.7
        rest = values if own_weight == 0.0 else rng.normal(size=len(values)) * (trial % 4 == 1)
        scale, power = [(-1.0, 1.0), (0.0, 1.0), (0.25, 1.0), (0.6, 0.9)][trial // 2 % 4]
        arrays = values, rest, offsets, rng.permuted(values), offsets, own_weight, row, row, start, stop
        options = bool(trial % 3), inner, layout, scale, power, bool(trial % 5 == 0), 0.6
        expected = core.score_runs(*arrays, levels[0, slot], *options)
        given = tensors(*arrays, levels[0, slot])
        for none in (True, False):
            if none and (rest.any() or own_weight == 0.0):
                continue
            given[1] = None if none else given[1]
            for one, other in zip(_sequences.score_runs(*given, *options), expected):
                assert_allclose(one.numpy(), other, rtol=0, atol=1e-12)
            given[1] = torch.from_numpy(rest)
        scored += len(row)
    assert scored > 500


def test_columns_are_normalised_and_upsampled_as_in_the_core(rng):
    for trial in range(30):
        values, offsets = columns(rng, grid=trial % 2 > 0)
        if trial % 5 == 0:
            values[:] = 0.25
        for factor in (2, 3, 24):
            expected = core.upsample(values, offsets, factor)
            assert_array_equal(_sequences.upsample(*tensors(values, offsets), factor).numpy(), expected, strict=True)
        for kind in ("none", "minmax", "minmax_relu"):
            for clip in (True, False):
                expected = normalized(Columns(values, offsets), kind, clip).values
                found = _sequences.normalized(*tensors(values, offsets), kind, clip)
                assert_array_equal(found.numpy(), expected, strict=True)


def test_sums_do_not_depend_on_the_company(rng, request):
    values, offsets = columns(rng, grid=False)
    while len(offsets) < 4:
        values, offsets = columns(rng, grid=False)
    together = _sequences.prefix(*tensors(values, offsets)).numpy()
    for row, (start, stop) in enumerate(pairwise(offsets)):
        part = values[start:stop]
        alone = _sequences.prefix(*tensors(part, np.array([0, len(part)]))).numpy()
        assert_array_equal(together[start + row : stop + row + 1], alone)
        in_order = "GPU" not in request.node.name
        assert_allclose(alone[1:], np.cumsum(part), rtol=0, atol=0 if in_order else 1e-12)
        block = torch.from_numpy(part)[None].expand(3, -1)
        total = _sequences.row_sums(block)
        assert_allclose(total.numpy(), np.cumsum(part)[-1], rtol=0, atol=0 if in_order else 1e-12)
        assert total.unique().numel() == 1
