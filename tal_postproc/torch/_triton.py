"""Triton kernels for what is sequential within a group: soft-NMS and greedy picks, one group per program.

A program holds the rows of its group in registers, so groups are limited to the largest of `BLOCKS`.  Picks in larger
ones are found by `_batched`.  Soft-NMS of larger ones is left to the NumPy core, all of them in one trip: its cost
follows the overlaps, while `_batched` starts several kernels for every pick.  Everything is float64 and compared with
the arithmetic of the core; nothing is added up, so no result depends on the size of a block.  Only `exp` may differ
from the core's, by an ulp.

On the CPU the kernels run in Triton's interpreter, for tests: set TRITON_INTERPRET=1 before the import.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._kernels import windows as _windows
from . import _batched, _ragged

# Rows of a block: few sizes, because each is compiled for its own, once per machine.
BLOCKS = (32, 128, 512, 2048)
_ROWS_PER_WARP = 256

LINEAR = tl.constexpr(0)  # methods of soft-NMS as in the core; GATED is the one without a name here
GAUSSIAN = tl.constexpr(1)
IMPROVED = tl.constexpr(3)
NO_ROW = tl.constexpr(2**62)


def nms_groups(segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    """As `_batched.nms_groups`."""
    heads, _ = _heads(segments, scores, order, offsets, how)
    return order[heads], torch.searchsorted(heads, offsets)


def cluster_groups(
    segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, *how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_batched.cluster_groups`."""
    heads, owner = _heads(segments, scores, order, offsets, how)
    rising, members = torch.sort(owner, stable=True)
    bounds = torch.cat((torch.searchsorted(rising, heads), heads.new_full((1,), len(order))))
    return order[members], bounds, torch.searchsorted(heads, offsets)


def soft_nms_groups(
    segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, method: int, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_batched.soft_nms_groups`."""
    keep, new_scores = torch.zeros_like(order), torch.zeros_like(scores)
    counts = torch.zeros_like(offsets[1:])
    constants = _constants(segments, options)
    for block, groups in _blocks(offsets):
        if block:
            arrays = segments, scores, order, offsets, groups, constants, keep, new_scores, counts
            with _device_of(segments):
                _soft_nms[(len(groups),)](*arrays, METHOD=method, BLOCK=block, **_launch(block))
            continue
        places, some = _ranges(offsets[groups], offsets[groups + 1])
        given = (tensor.cpu().numpy() for tensor in (segments, scores, order[places], some))
        found = _windows.soft_nms_groups(*given, method, *options)
        rows, decayed, bounds = (torch.from_numpy(array).to(order.device) for array in found)
        counts[groups] = bounds.diff()
        places, _ = _ranges(offsets[groups], offsets[groups] + counts[groups])
        keep[places], new_scores[places] = rows, decayed
    places, kept_offsets = _ranges(offsets[:-1], offsets[:-1] + counts)
    return keep[places], new_scores[places], kept_offsets


def _heads(
    segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, how: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    """Positions in `order` that open a cluster, rising; and for every position the one that opened its cluster."""
    in_order, owner = segments[order], torch.empty_like(order)
    constants = _constants(segments, how)
    for block, groups in _blocks(offsets):
        if block:
            with _device_of(segments):
                _pick[(len(groups),)](in_order, offsets, groups, constants, owner, BLOCK=block, **_launch(block))
            continue
        places, some = _ranges(offsets[groups], offsets[groups + 1])
        members, bounds, _ = _batched.cluster_groups(in_order, scores[order], places, some, *how)
        owner[members] = torch.repeat_interleave(members[bounds[:-1]], bounds.diff(), output_size=len(members))
    return torch.nonzero(owner == torch.arange(len(order), device=order.device)).flatten(), owner


def _blocks(offsets: Tensor) -> list[tuple[int, Tensor]]:
    """Groups with rows, those of a block together; 0 stands for more rows than a block has."""
    if not offsets.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"Triton kernels need CUDA tensors, got tensors on {offsets.device}")
    found = _ragged.buckets(offsets[1:] - offsets[:-1], (*BLOCKS, 2**62))
    # cloned: a part of a tensor may not be aligned, and a kernel would be compiled once more for that
    return [(next((block for block in BLOCKS if block >= largest), 0), groups.clone()) for largest, groups in found]


def _launch(block: int) -> dict[str, Any]:
    """How to start a kernel: without fused multiply-adds, which would round other than the core does."""
    return {"num_warps": max(1, block // _ROWS_PER_WARP), "enable_fp_fusion": False}


def _constants(like: Tensor, values: tuple[Any, ...]) -> Tensor:
    """Numbers for a kernel, as float64: plain arguments would arrive as float32."""
    return torch.tensor(values, dtype=torch.float64).to(like.device, non_blocking=True)


def _device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _ranges(first: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """All positions of the ranges first .. stop, one after the other, and the offsets of the ranges among them."""
    bounds = _ragged.offsets_of(stop - first)
    total = int(bounds[-1])
    shift = torch.repeat_interleave(first - bounds[:-1], stop - first, output_size=total)
    return shift + torch.arange(total, device=first.device), bounds


@triton.jit
def _overlap(start, end, other_start, other_end, candidate, length_offset, area_eps):
    """Overlap of a segment with others, which are the candidates; `segments._overlap` of the core."""
    shared = tl.minimum(end, other_end) - tl.maximum(start, other_start) + length_offset
    whole = other_end - other_start + length_offset + area_eps
    whole = tl.where(candidate > 0.0, whole, whole + (end - start + length_offset + area_eps) - shared)
    some = (shared > 0.0) & (whole > 0.0)
    return tl.where(some, shared / tl.where(some, whole, 1.0), 0.0)


@triton.jit
def _soft_nms(
    segments,
    scores,
    order,
    offsets,
    groups,
    constants,
    keep,
    new_scores,
    counts,
    METHOD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sigma, threshold, slope = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    min_score, keep_first, decay_negative = tl.load(constants + 3), tl.load(constants + 4), tl.load(constants + 5)
    limit, candidate = tl.load(constants + 6), tl.load(constants + 7)
    length_offset, area_eps = tl.load(constants + 8), tl.load(constants + 9)
    floor = tl.where(decay_negative > 0.0, float("-inf"), 0.0)  # a decay raises a negative score
    group = tl.load(groups + tl.program_id(0))
    first = tl.load(offsets + group)
    size = tl.load(offsets + group + 1) - first
    place = tl.arange(0, BLOCK)
    left = place < size
    row = tl.load(order + first + place, mask=left, other=0)
    start = tl.load(segments + 2 * row, mask=left, other=0.0)
    end = tl.load(segments + 2 * row + 1, mask=left, other=0.0)
    score = tl.load(scores + row, mask=left, other=0.0)
    best = tl.max(tl.where(left, score, float("-inf")), axis=0)
    taken = size - size
    while (taken < size) & (taken < limit) & ((best >= min_score) | ((keep_first > 0.0) & (taken == 0))):
        pick = tl.min(tl.where(left & (score == best), row, NO_ROW), axis=0)  # the earlier of equal rows
        tl.store(keep + first + taken, pick)
        tl.store(new_scores + first + taken, best)
        taken += 1
        left = left & (row != pick)
        pick_start, pick_end = tl.load(segments + 2 * pick), tl.load(segments + 2 * pick + 1)
        overlap = _overlap(pick_start, pick_end, start, end, candidate, length_offset, area_eps)
        if METHOD == LINEAR:
            decays = overlap >= threshold
            factor = 1.0 - overlap
        else:
            gate = threshold + slope * (pick_end - pick_start + length_offset + area_eps)
            decays = overlap > 0.0
            if METHOD != GAUSSIAN:
                decays = decays & (overlap > gate if METHOD != IMPROVED else overlap >= gate)
            factor = tl.exp(-overlap * overlap / sigma)
        decays = decays & (score > floor)
        score = tl.where(decays, score * factor, score)
        best = tl.max(tl.where(left, score, float("-inf")), axis=0)
    tl.store(counts + group, taken)


@triton.jit
def _pick(segments, offsets, groups, constants, heads, BLOCK: tl.constexpr):
    """Heads of the groups' rows, whose `segments` lie in order."""
    threshold, inclusive, candidate = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    length_offset, area_eps = tl.load(constants + 3), tl.load(constants + 4)
    group = tl.load(groups + tl.program_id(0))
    first = tl.load(offsets + group)
    size = tl.load(offsets + group + 1) - first
    place = tl.arange(0, BLOCK)
    left = place < size
    start = tl.load(segments + 2 * (first + place), mask=left, other=0.0)
    end = tl.load(segments + 2 * (first + place) + 1, mask=left, other=0.0)
    head = place
    best = tl.min(place, axis=0)
    while best < size:
        at = segments + 2 * (first + best)
        overlap = _overlap(tl.load(at), tl.load(at + 1), start, end, candidate, length_offset, area_eps)
        joins = tl.where(inclusive > 0.0, overlap >= threshold, overlap > threshold)
        joins = left & (joins | (place == best))
        head = tl.where(joins, best, head)
        left = left & (joins == 0)
        best = tl.min(tl.where(left, place, BLOCK), axis=0)
    tl.store(heads + first + place, first + head, mask=place < size)
