"""Sums of kernels on a timeline, and the best overlap of every row with rows of another set."""

from __future__ import annotations

import numpy as np

from . import kernel
from .segments import _overlap


@kernel
def add_bells(line, row, centre, half, scores, ricker, reach):
    """Add to ``line[row[i]]``, at t + 1/2, a bell of height ``scores[i]``; beyond `reach` half-lengths it is 0."""
    last = line.shape[1] - 1
    for i in range(len(row)):
        first = max(np.ceil(centre[i] - reach * half[i] - 0.5), 0.0)
        stop = min(np.floor(centre[i] + reach * half[i] - 0.5), float(last))
        for t in range(int(first), int(stop) + 1):
            x = (t + 0.5 - centre[i]) / half[i]
            value = np.exp(-0.5 * x * x)
            line[row[i], t] += scores[i] * (value * (1.0 - x * x) if ricker else value)


@kernel
def best_overlaps(segments, groups, others, other_groups):
    """Largest overlap of every segment with the others of its group, which come by group, then by start; 0 without any.

    Within a group, what overlaps a segment lies between the first row up to which some row ends after the segment's
    start and the first row that starts at its end or later.
    """
    latest = np.empty(len(others))  # end of a row or of one before it in the group
    for j in range(len(others)):
        latest[j] = others[j, 1]
        if j > 0 and other_groups[j] == other_groups[j - 1] and latest[j - 1] > latest[j]:
            latest[j] = latest[j - 1]
    best = np.zeros(len(segments))
    for i in range(len(segments)):
        start, end, group = segments[i, 0], segments[i, 1], groups[i]
        low, high = 0, len(others)
        while low < high:
            middle = (low + high) // 2
            if other_groups[middle] < group or (other_groups[middle] == group and latest[middle] <= start):
                low = middle + 1
            else:
                high = middle
        while low < len(others) and other_groups[low] == group and others[low, 0] < end:
            overlap = _overlap(others[low, 0], others[low, 1], start, end, False, 0.0, 0.0)
            if overlap > best[i]:
                best[i] = overlap
            low += 1
    return best
