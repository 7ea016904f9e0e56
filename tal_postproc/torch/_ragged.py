"""Groups of different sizes, worked on side by side: order, offsets, buckets, padding, and sums that never vary.

Groups are CSR ranges as in the NumPy core: group g owns the rows ``order[offsets[g]:offsets[g + 1]]``.  Groups of like
size share a bucket, a bucket is cut into chunks that fit in memory, and the rows of a chunk lie in a padded matrix.
Floats are added in an order that depends on a row's own values alone: not on the padding, the chunk or the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# Bytes of one padded matrix of a chunk; a few of them are alive at a time.  On a CPU they should stay in its cache.
CHUNK_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}

LINEAR = tuple(1 << k for k in range(48))  # widths of the buckets


def score_order(scores: Tensor, idxs: Tensor | None = None, last_first: bool = False) -> tuple[Tensor, Tensor]:
    """Rows by group (rising), best score first within each, and the groups' offsets.

    Among equal scores the earlier row comes first, or the later one with `last_first`.
    """
    rows = torch.arange(len(scores), device=scores.device)
    if last_first:
        rows = rows.flip(0)
    falling = torch.sort(scores[rows] + 0.0, stable=True, descending=True).indices  # + 0.0: -0.0 is no less than 0.0
    order = rows[falling]
    if idxs is None:
        return order, torch.tensor([0, len(scores)], device=scores.device)
    by_group = torch.sort(idxs[order], stable=True)
    return order[by_group.indices], group_offsets(by_group.values)


def group_offsets(sorted_idxs: Tensor) -> Tensor:
    """Where the runs of equal values start, and the end; two zeros for no rows, so that there is always a group."""
    first = sorted_idxs.new_zeros(1, dtype=torch.int64)
    changes = torch.nonzero(sorted_idxs[1:] != sorted_idxs[:-1]).flatten() + 1
    return torch.cat((first, changes, first + len(sorted_idxs)))


def offsets_of(sizes: Tensor) -> Tensor:
    """CSR offsets of ranges with these sizes."""
    return torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))  # sums of integers are exact in any order


def buckets(sizes: Tensor, widths: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Groups with rows, those of like size together: (largest size, the groups), smallest first; waits once."""
    if not len(sizes):
        return []
    rising, groups = torch.sort(sizes, stable=True)
    stops = torch.searchsorted(rising, torch.tensor((0, *widths), device=sizes.device), right=True)
    ends, largest = torch.stack((stops, rising[(stops - 1).clamp(min=0)])).tolist()
    return [(largest[k], groups[ends[k - 1] : ends[k]]) for k in range(1, len(ends)) if ends[k] > ends[k - 1]]


def chunks(groups: Tensor, per_group: int) -> Iterator[Tensor]:
    """The groups in parts whose matrices, of `per_group` float64 each, fit in a chunk; one group at least."""
    return iter(groups.split(max(1, room(groups) // max(1, per_group))))


def room(tensor: Tensor) -> int:
    """How many float64 a matrix of a chunk may hold on the device of a tensor."""
    return CHUNK_BYTES.get(tensor.device.type, CHUNK_BYTES["cuda"]) // 8


def padded(first: Tensor, stop: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Positions first .. stop of every group, (groups, width), and which are real; the others repeat the last one."""
    place = first[:, None] + torch.arange(width, device=first.device)
    return torch.minimum(place, stop[:, None] - 1), place < stop[:, None]


def for_groups(offsets: Tensor, matrices: int, work: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(…, groups): what `work` makes of the padded positions of some groups, none of them empty, and which are real.

    `work` holds about so many `matrices` of float64 at a time, and returns one column per group.  The positions lie in
    memory with those of different groups side by side, so that thousands of tiny groups cost no more than a large one.
    """
    columns, done = [], []
    sizes = offsets[1:] - offsets[:-1]
    for width, groups in buckets(sizes, LINEAR) or [(1, sizes)]:
        for part in chunks(groups, matrices * width):
            place, real = padded(offsets[part], offsets[part + 1], width)
            columns.append(work(place.T.contiguous().T, real.T.contiguous().T))
            done.append(part)
    where = torch.empty_like(sizes)
    where[torch.cat(done)] = torch.arange(len(where), device=where.device)
    return torch.cat(columns, -1)[..., where]


def tree_sum(x: Tensor) -> Tensor:
    """Sums over the last dimension, pairwise with fixed partners: zeros at the end change nothing."""
    while (width := x.shape[-1]) > 1:
        half = 1 << ((width - 1).bit_length() - 1)
        pairs = x[..., : width - half] + x[..., half:]
        x = torch.cat((pairs, x[..., width - half : half]), -1) if width < 2 * half else pairs
    return x.sum(-1)


def running_sum(x: Tensor) -> Tensor:
    """Sums of everything up to each entry of the last dimension, by doubling: no entry depends on a later one."""
    step = 1
    while step < x.shape[-1]:
        x = torch.cat((x[..., :step], x[..., step:] + x[..., :-step]), -1)
        step *= 2
    return x
