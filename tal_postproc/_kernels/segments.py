"""Order and overlap of segments.

Groups are CSR ranges: group g owns the rows ``order[offsets[g]:offsets[g + 1]]``, best first (`score_order`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel


def score_order(
    scores: NDArray[np.float64], idxs: NDArray[np.int64] | None = None, last_first: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by group (rising), best score first within each, and the groups' offsets.

    Among equal scores the earlier row comes first, or the later one with `last_first`.
    """
    rows, offsets = np.arange(len(scores)), np.array([0, len(scores)])
    if idxs is not None:
        if (idxs[1:] < idxs[:-1]).any():
            rows = np.argsort(idxs, kind="stable")
            idxs = idxs[rows]
        offsets = group_offsets(idxs)
    if len(offsets) == 2 and len(scores) > 1000:  # without ties any sort is right, and NumPy's fastest is not stable
        order = np.argsort(-scores)
        falling = scores[order]
        if (falling[1:] < falling[:-1]).all():
            return order, offsets
    return _sorted_rows(scores, rows, offsets, last_first), offsets


@kernel
def _sorted_rows(scores, rows, offsets, last_first):
    """The rows of every group, best score first: a stable merge sort."""
    order, spare = rows.copy(), np.empty(len(rows), np.int64)
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]
        if last_first:
            for i in range(first, stop):
                order[i] = rows[first + stop - 1 - i]
        width = 8
        for low in range(first, stop, width):  # insertion sort of short stretches
            for i in range(low + 1, min(low + width, stop)):
                row, score, j = order[i], scores[order[i]], i
                while j > low and scores[order[j - 1]] < score:
                    order[j] = order[j - 1]
                    j -= 1
                order[j] = row
        while width < stop - first:
            for low in range(first, stop, 2 * width):
                middle, high = min(low + width, stop), min(low + 2 * width, stop)
                i, j = low, middle
                for k in range(low, high):
                    if i < middle and (j >= high or scores[order[i]] >= scores[order[j]]):
                        spare[k] = order[i]
                        i += 1
                    else:
                        spare[k] = order[j]
                        j += 1
            for k in range(first, stop):  # a slice would compile for four more seconds
                order[k] = spare[k]
            width *= 2
    return order


def group_offsets(sorted_idxs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the runs of equal values start, and the end; two zeros for no rows, so that there is always a group."""
    return np.concatenate(([0], np.flatnonzero(np.diff(sorted_idxs)) + 1, [len(sorted_idxs)]))


@kernel
def _overlap(start, end, other_start, other_end, candidate, length_offset, area_eps):
    """Overlap of a segment with another one, which is the candidate."""
    shared = min(end, other_end) - max(start, other_start) + length_offset
    if shared <= 0.0:
        return 0.0
    whole = other_end - other_start + length_offset + area_eps
    if not candidate:
        whole = whole + (end - start + length_offset + area_eps) - shared
    return shared / whole if whole > 0.0 else 0.0


@kernel
def overlap_matrix(a, b, candidate, length_offset, area_eps):
    """Overlap of every row of `a` with every row of `b`; the rows of `b` are the candidates."""
    overlaps = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            overlaps[i, j] = _overlap(a[i, 0], a[i, 1], b[j, 0], b[j, 1], candidate, length_offset, area_eps)
    return overlaps
