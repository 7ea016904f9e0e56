"""Order and overlap of segments, and greedy picks among few of them.

Groups are CSR ranges: group g owns the rows ``order[offsets[g]:offsets[g + 1]]``, best first (`score_order`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel

SMALL = 512  # rows of a group that are better not sorted: comparing them with a pick finds the next one on the way
# Most rows are too far from a pick, which is told without a division; this leaves room for its rounding.
_NEARLY = 0.999999


def score_order(
    scores: NDArray[np.float64],
    idxs: NDArray[np.int64] | None = None,
    last_first: bool = False,
    small: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by group (rising), best score first within each, and the groups' offsets.

    Among equal scores the earlier row comes first, or the later one with `last_first`.  Groups of up to `small` rows
    are not sorted by score: their rows only rise, or fall with `last_first`.
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
    return _sorted_rows(scores, rows, offsets, last_first, small), offsets


@kernel
def _sorted_rows(scores, rows, offsets, last_first, small):
    """The rows of every group of more than `small`, best score first: a stable merge sort."""
    order, spare = rows.copy(), np.empty(len(rows), np.int64)
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]
        if last_first:
            for i in range(first, stop):
                order[i] = rows[first + stop - 1 - i]
        if stop - first <= small:
            continue
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
def _pick_greedily(segments, scores, order, first, stop, how, heads, cluster, count):
    """Greedy clusters around the best row left of one group, whose rows need no order; how many there are then.

    `how` is (threshold, inclusive, candidate, length_offset, area_eps).  Cluster c, from `count` on, has its head at
    position ``heads[c]`` of `order`; ``cluster`` is that of every position.  The first of equal scores is the best.
    """
    threshold, inclusive, candidate, length_offset, area_eps = how
    left = stop - first
    start, end, score = np.empty(left), np.empty(left), np.empty(left)
    place = np.empty(left, np.int64)
    more = length_offset + area_eps
    best, top = 0, -np.inf
    for j in range(left):
        row = order[first + j]
        start[j], end[j], score[j], place[j] = segments[row, 0], segments[row, 1], scores[row], first + j
        if score[j] > top:
            best, top = j, score[j]
    while left > 0:
        head_start, head_end = start[best], end[best]
        head_length = head_end - head_start + more
        heads[count], cluster[place[best]] = place[best], count
        left -= 1
        start[best], end[best], score[best], place[best] = start[left], end[left], score[left], place[left]
        best, top, j = 0, -np.inf, 0
        while j < left:
            shared = min(head_end, end[j]) - max(head_start, start[j]) + length_offset
            whole = end[j] - start[j] + more
            if not candidate:
                whole += head_length - shared
            if shared >= _NEARLY * threshold * whole:
                overlap = _overlap(head_start, head_end, start[j], end[j], candidate, length_offset, area_eps)
                if overlap > threshold or (inclusive and overlap == threshold):
                    cluster[place[j]] = count
                    left -= 1  # the last one takes its place
                    start[j], end[j], score[j], place[j] = start[left], end[left], score[left], place[left]
                    continue
            if score[j] > top or (score[j] == top and place[j] < place[best]):
                best, top = j, score[j]
            j += 1
        count += 1
    return count


@kernel
def overlap_matrix(a, b, candidate, length_offset, area_eps):
    """Overlap of every row of `a` with every row of `b`; the rows of `b` are the candidates."""
    overlaps = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            overlaps[i, j] = _overlap(a[i, 0], a[i, 1], b[j, 0], b[j, 1], candidate, length_offset, area_eps)
    return overlaps
