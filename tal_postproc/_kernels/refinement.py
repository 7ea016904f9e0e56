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
def best_overlaps(segments, others, order, first, stop):
    """Largest overlap of every row i with the rows ``order[first[i]:stop[i]]`` of `others`; 0 without any."""
    best = np.zeros(len(segments))
    for i in range(len(segments)):
        for position in range(first[i], stop[i]):
            row = order[position]
            overlap = _overlap(others[row, 0], others[row, 1], segments[i, 0], segments[i, 1], False, 0.0, 0.0)
            if overlap > best[i]:
                best[i] = overlap
    return best
