"""What ILG's and PTLR's equations say, literally, number by number; rows of snippets, background last."""

from __future__ import annotations

import math


def rescaled(column, factor):
    """Linear resampling of one column to round(factor T) values at the middles of equal stretches."""
    size = max(1, round(factor * len(column)))
    found = []
    for t in range(size):
        place = min(max((t + 0.5) * len(column) / size - 0.5, 0.0), len(column) - 1.0)
        before = math.floor(place)
        after = min(before + 1, len(column) - 1)
        found.append(column[before] + (place - before) * (column[after] - column[before]))
    return found


def distance(one, other):
    """The L1 norm of Eq. 2 to 4, divided by the number of values."""
    terms = [abs(a - b) for row, second in zip(one, other) for a, b in zip(row, second)]
    return sum(terms) / len(terms)


def first_labels(cas, known, summed):
    """Sec. III-C: a class at 0.7, else background where the actions sum to less than 0.1, else nothing (None).

    They are those of the "video", or "all".
    """
    num_classes = len(known)
    found = []
    for row in cas:
        sure = [c for c in range(num_classes) if known[c] and row[c] >= 0.7]
        counted = [row[c] for c in range(num_classes) if summed == "all" or known[c]]
        idle = num_classes if sum(counted) < 0.1 else None
        found.append(sure[0] if sure else idle)
    return found


def refined_labels(cas, known, threshold):
    """Sec. III-D: a class, or background, whose own score reaches the threshold."""
    num_classes = len(known)
    found = []
    for row in cas:
        sure = [c for c in range(num_classes + 1) if row[c] >= threshold and (c == num_classes or known[c])]
        found.append(sure[0] if sure else None)
    return found


def branch_loss(cas, labels, step):
    """One branch of Eq. 7, with its minus sign: row t of the branch has the label of snippet t * step."""
    terms = [-math.log(row[labels[t * step]]) for t, row in enumerate(cas) if labels[t * step] is not None]
    return sum(terms) / len(terms) if terms else 0.0


def copied_up(cas, step, num_snippets):
    """Snippet t reads row floor(t / step)."""
    return [cas[t // step] for t in range(num_snippets)]
