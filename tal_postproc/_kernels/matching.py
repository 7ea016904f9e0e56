"""Detections against ground truth: matching, nearest instances, first hits, average precision, near-duplicates.

Ground truth lies in groups (one class of one video), sorted by start within each; `offsets` bounds the groups.
"""

from __future__ import annotations

import numpy as np

from . import kernel

# How the overlap is rounded; codes of the option `tiou_precision`.
DOUBLE, STORED_SINGLE, SINGLE = 0, 1, 2


@kernel
def _tiou(start, end, other_start, other_end, precision, union_floor):
    """Temporal IoU, 0 where both are empty; the sums are in the order of the published evaluators."""
    inter = max(0.0, min(end, other_end) - max(start, other_start))
    if precision == SINGLE:
        length = np.float32(end - start)
        other_length = np.float32(other_end - other_start)
        inter = np.float64(np.float32(inter))
        union = np.float64(np.float32(np.float64(np.float32(length + other_length)) - inter))
    else:
        union = (other_end - other_start) + (end - start) - inter
    union = max(union, union_floor)
    overlap = inter / union if union > 0.0 else 0.0
    return overlap if precision == DOUBLE else np.float64(np.float32(overlap))


@kernel
def _reach(truth, offsets):
    """The latest end so far within each group: rows before the first reach above a start cannot touch it."""
    reach = truth[:, 1].copy()
    for p in range(len(offsets) - 1):
        for g in range(offsets[p] + 1, offsets[p + 1]):
            reach[g] = max(reach[g], reach[g - 1])
    return reach


@kernel
def _first_above(values, low, high, bound):
    """The first row of values[low:high], which never falls, that is above the bound."""
    while low < high:
        middle = (low + high) // 2
        if values[middle] > bound:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def match(segments, groups, rows, num_rows, truth, truth_rows, offsets, thresholds, first, precision, union_floor):
    """(num_rows, I) row of the ground truth that every detection takes at every threshold, or -1; -2 where not listed.

    The detections that are listed, `rows`, come best first.  Each takes, among the free instances of its group that
    overlap enough, the one with the largest overlap (`first`: the one with the lowest row); equal overlaps go to the
    lower row.
    """
    num_thresholds = len(thresholds)
    matches = np.empty((num_rows, num_thresholds), np.int64)
    matches[:] = -2
    taken = np.zeros((len(truth), num_thresholds), np.bool_)
    reach = _reach(truth, offsets)
    lowest = np.inf
    for t in range(num_thresholds):
        lowest = min(lowest, thresholds[t])
    chosen = np.empty(num_thresholds, np.int64)
    best = np.empty(num_thresholds)
    for i in range(len(segments)):
        matches[rows[i]] = -1
        if groups[i] < 0:
            continue
        start, end = segments[i, 0], segments[i, 1]
        chosen[:] = -1
        stop = offsets[groups[i] + 1]
        g = _first_above(reach, offsets[groups[i]], stop, start)
        while g < stop and truth[g, 0] < end:
            overlap = _tiou(start, end, truth[g, 0], truth[g, 1], precision, union_floor)
            if overlap >= lowest:
                for t in range(num_thresholds):
                    if overlap < thresholds[t] or taken[g, t]:
                        continue
                    better = chosen[t] < 0 or (not first and overlap > best[t])
                    if not better and (first or overlap == best[t]):
                        better = truth_rows[g] < truth_rows[chosen[t]]
                    if better:
                        chosen[t] = g
                        best[t] = overlap
            g += 1
        for t in range(num_thresholds):
            if chosen[t] >= 0:
                taken[chosen[t], t] = True
                matches[rows[i], t] = truth_rows[chosen[t]]
    return matches


@kernel
def nearest(segments, groups, labels, truth, truth_labels, offsets, precision, union_floor):
    """The instance of its group that every detection overlaps most, -1 for none, and that overlap.

    Ground truth lies in groups, sorted by start; of equal overlaps the own label comes first, then the upper row.
    """
    overlaps = np.zeros(len(segments))
    rows = np.full(len(segments), -1)
    reach = _reach(truth, offsets)
    for i in range(len(segments)):
        if groups[i] < 0:
            continue
        stop = offsets[groups[i] + 1]
        g = _first_above(reach, offsets[groups[i]], stop, segments[i, 0])
        while g < stop and truth[g, 0] < segments[i, 1]:
            overlap = _tiou(segments[i, 0], segments[i, 1], truth[g, 0], truth[g, 1], precision, union_floor)
            better = overlap > overlaps[i]
            if overlap == overlaps[i] and rows[i] >= 0:
                better = labels[i] == truth_labels[g] and labels[i] != truth_labels[rows[i]]
            if better:
                overlaps[i] = overlap
                rows[i] = g
            g += 1
    return rows, overlaps


@kernel
def first_hits(segments, segment_offsets, truth, offsets, thresholds, precision, union_floor):
    """(G, I) rank, within its group, of the first detection that overlaps an instance enough; a huge number for none.

    Detections lie in the same groups as the ground truth, best first.
    """
    num_thresholds = len(thresholds)
    hits = np.empty((len(truth), num_thresholds), np.int64)
    hits[:] = np.iinfo(np.int64).max
    reach = _reach(truth, offsets)
    for p in range(len(offsets) - 1):
        for i in range(segment_offsets[p], segment_offsets[p + 1]):
            start, end = segments[i, 0], segments[i, 1]
            g = _first_above(reach, offsets[p], offsets[p + 1], start)
            while g < offsets[p + 1] and truth[g, 0] < end:
                overlap = _tiou(start, end, truth[g, 0], truth[g, 1], precision, union_floor)
                for t in range(num_thresholds):
                    if overlap >= thresholds[t]:
                        hits[g, t] = min(hits[g, t], i - segment_offsets[p])
                g += 1
    return hits


@kernel
def average_precision(hits, offsets, positives, interpolate):
    """(I, K) average precision of hits (N, I), best first within each class; classes are bounded by `offsets`.

    From the last detection to the first: recall rises by 1 / positives at every hit, and the precision there is its own
    or, interpolated, the largest from there on.
    """
    num_thresholds = hits.shape[1]
    result = np.zeros((num_thresholds, len(positives)))
    left = np.empty(num_thresholds, np.int64)
    best = np.empty(num_thresholds)
    for k in range(len(positives)):
        first, stop = offsets[k], offsets[k + 1]
        left[:] = 0
        best[:] = 0.0
        for i in range(first, stop):
            for t in range(num_thresholds):
                left[t] += hits[i, t]
        for i in range(stop - 1, first - 1, -1):
            for t in range(num_thresholds):
                if hits[i, t]:
                    precision = left[t] / (i - first + 1)
                    best[t] = max(best[t], precision) if interpolate else precision
                    result[t, k] += best[t]
                    left[t] -= 1
        for t in range(num_thresholds):
            if positives[k] > 0:
                result[t, k] /= positives[k]
    return result


@kernel
def weighted_average_precision(weights, home, hits, hit_offsets, offsets, positives, interpolate, result):
    """Fill result (B, I, K): average precision when every detection stands there `weights[b, home]` times in a row.

    Detections come best first within each class, bounded by `offsets`; the rows of those that hit at threshold t in
    class k are hits[hit_offsets[t * K + k] : hit_offsets[t * K + k + 1]], rising.  NaN without positives (B, K).
    """
    num_detections = len(home)
    num_thresholds, num_classes = result.shape[1:]
    before = np.zeros(num_detections + 1, np.int64)  # detections before each row, with their repetitions
    for b in range(len(weights)):
        for i in range(num_detections):
            before[i + 1] = before[i] + weights[b, home[i]]
        for t in range(num_thresholds):
            for k in range(num_classes):
                if positives[b, k] <= 0:
                    result[b, t, k] = np.nan
                    continue
                first, stop = hit_offsets[t * num_classes + k], hit_offsets[t * num_classes + k + 1]
                left = 0
                for h in range(first, stop):
                    left += weights[b, home[hits[h]]]
                best = 0.0
                total = 0.0
                for h in range(stop - 1, first - 1, -1):
                    copies = weights[b, home[hits[h]]]
                    rank = before[hits[h] + 1] - before[offsets[k]]  # of the last copy; precision rises over copies
                    if interpolate and copies > 0:
                        best = max(best, left / rank)
                        total += copies * best
                    elif not interpolate:
                        for c in range(copies):
                            total += (left - c) / (rank - c)
                    left -= copies
                result[b, t, k] = total / positives[b, k]


@kernel
def distinct(segments, offsets, tolerance, min_length):
    """(N,) bool: long enough, and not within the tolerance (both ends) of an earlier kept row of the same group."""
    keep = np.zeros(len(segments), np.bool_)
    for p in range(len(offsets) - 1):
        for i in range(offsets[p], offsets[p + 1]):
            start, end = segments[i, 0], segments[i, 1]
            if end - start < min_length:
                continue
            keep[i] = True
            for j in range(offsets[p], i):
                if keep[j] and abs(start - segments[j, 0]) <= tolerance and abs(end - segments[j, 1]) <= tolerance:
                    keep[i] = False
                    break
    return keep
