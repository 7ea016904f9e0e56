"""Slow literal answers for the bank of label maps and its schedules; imports nothing from the package.

Dense lists and loops, snippet by snippet, written before the fast code.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def tiou(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    return inter / union if union > 0 else 0.0


def covers(segment, num_snippets):
    """The snippets whose middle lies in [start, end); if there is none, the one that holds the segment's middle."""
    inside = {t for t in range(num_snippets) if segment[0] <= t + 0.5 < segment[1]}
    if inside or not num_snippets:
        return inside
    middle = int(np.floor((segment[0] + segment[1]) / 2))
    return {min(max(middle, 0), num_snippets - 1)}


def match(old, new, threshold):
    """One to one: again and again the pair of largest tIoU, the earliest old row, then the earliest new row first.

    `old` and `new` are lists of (label, start, end); only rows of one label are paired.
    """
    pairs = []
    while True:
        best = None
        for i, a in enumerate(old):
            for j, b in enumerate(new):
                if a[0] != b[0] or any(i == p[0] or j == p[1] for p in pairs):
                    continue
                overlap = tiou(a[1:], b[1:])
                if overlap >= threshold and (best is None or overlap > best[0]):
                    best = overlap, i, j
        if best is None:
            return pairs
        pairs.append(best[1:])


def causes(old_map, new_map, old, new, threshold):
    """Where the change of one video lies, and how many instances were matched, appeared and vanished."""
    num_snippets, num_classes = old_map.shape
    pairs = match(old, new, threshold)
    matched_old, matched_new = {i for i, _ in pairs}, {j for _, j in pairs}
    parts = dict.fromkeys(("scores", "boundaries", "appeared", "vanished", "elsewhere"), 0.0)
    for c in range(num_classes):
        for t in range(num_snippets):
            over_old = {i for i, row in enumerate(old) if row[0] == c and t in covers(row[1:], num_snippets)}
            over_new = {j for j, row in enumerate(new) if row[0] == c and t in covers(row[1:], num_snippets)}
            if any(i in over_old and j in over_new for i, j in pairs):
                cause = "scores"
            elif over_old & matched_old or over_new & matched_new:
                cause = "boundaries"
            elif over_new:
                cause = "appeared"
            elif over_old:
                cause = "vanished"
            else:
                cause = "elsewhere"
            parts[cause] += abs(new_map[t, c] - old_map[t, c])
    return parts, (len(pairs), len(new) - len(pairs), len(old) - len(pairs))


def churn(before, after, threshold):
    """The whole report; `before` and `after` are {video: (map, rows or None)}, `after` the videos of this refresh."""
    both = [video for video in after if video in before]
    out = {
        "num_videos": len(after),
        "num_compared": len(both),
        "mass_before": sum(abs(before[v][0]).sum() for v in both),
        "mass": sum(abs(after[v][0]).sum() for v in both),
        "change": sum(abs(after[v][0] - before[v][0]).sum() for v in both),
    }
    masses = out["mass_before"] + out["mass"]
    out["relative_change"] = out["change"] / masses if masses else 0.0
    labelled = [column for label_map, _ in after.values() for column in label_map.T if column.any()]
    room = sum(len(column) for column in labelled)
    out["nonzero_share"] = sum((column != 0).sum() for column in labelled) / room if room else 0.0
    out["num_empty"] = sum(not label_map.any() for label_map, _ in after.values())
    known = all(rows is not None for _, rows in after.values()) and all(before[v][1] is not None for v in both)
    names = ("scores", "boundaries", "appeared", "vanished", "elsewhere")
    counts = ("num_matched", "num_appeared", "num_vanished")
    if not known:
        return out | dict.fromkeys((*names, *counts))
    out |= dict.fromkeys(names, 0.0) | dict.fromkeys(counts, 0)
    for v in both:
        parts, numbers = causes(before[v][0], after[v][0], before[v][1], after[v][1], threshold)
        for name in names:
            out[name] += parts[name]
        for name, number in zip(counts, numbers):
            out[name] += number
    return out


def epochs(fractions, total):
    """round(fraction x total) of decimal fractions, halves up; doubles merge; too few get neighbours."""
    found = set()
    for fraction in fractions:
        exact = Fraction(repr(fraction)) * total + Fraction(1, 2)
        found.add(min(exact.numerator // exact.denominator, total - 1))
    first = min(found)
    candidates = [e for e in range(first, total) if e not in found] + list(range(first - 1, 0, -1))
    while len(found) < min(3, len(fractions)):
        if not candidates:
            return None
        found.add(candidates.pop(0))
    return tuple(sorted(found))
