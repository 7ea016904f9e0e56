"""Kernels that compare segments: overlap, suppression, voting and clusters.

Groups are CSR ranges: group g owns the rows ``order[offsets[g]:offsets[g + 1]]``, best first (`score_order`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel

LINEAR, GAUSSIAN, GATED, IMPROVED = range(4)


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


@kernel
def soft_nms_groups(
    segments,
    scores,
    order,
    offsets,
    method,
    sigma,
    threshold,
    slope,
    min_score,
    keep_first,
    decay_negative,
    limit,
    candidate,
    length_offset,
    area_eps,
):
    """Rows in the order of picking, their decayed scores, and the offsets of the groups among them.

    `threshold` is where LINEAR starts to decay; GATED and IMPROVED start at ``threshold + slope * length`` of the pick.
    """
    n = len(order)
    row = order.copy()
    start, end, score = np.empty(n), np.empty(n), np.empty(n)
    for j in range(n):
        start[j], end[j], score[j] = segments[row[j], 0], segments[row[j], 1], scores[row[j]]
    keep, new_scores = np.empty(n, np.int64), np.empty(n)
    kept_offsets = np.zeros(len(offsets), np.int64)
    count = 0
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]  # first:stop are still in the race
        taken = 0
        best = first
        for j in range(first + 1, stop):
            if score[j] > score[best] or (score[j] == score[best] and row[j] < row[best]):
                best = j
        while stop > first and taken < limit:
            if score[best] < min_score and not (keep_first and taken == 0):
                break
            keep[count], new_scores[count] = row[best], score[best]
            count += 1
            taken += 1
            pick_start, pick_end = start[best], end[best]
            gate = threshold + slope * (pick_end - pick_start + length_offset + area_eps)
            stop -= 1
            row[best], start[best], end[best], score[best] = row[stop], start[stop], end[stop], score[stop]
            best = first
            j = first
            while j < stop:
                if score[j] > 0.0 or decay_negative:  # a decay raises a negative score
                    overlap = _overlap(pick_start, pick_end, start[j], end[j], candidate, length_offset, area_eps)
                    if method == LINEAR:
                        if overlap >= threshold:
                            score[j] *= 1.0 - overlap
                    elif overlap > 0.0 and (
                        method == GAUSSIAN or overlap > gate or (method == IMPROVED and overlap == gate)
                    ):
                        score[j] *= np.exp(-overlap * overlap / sigma)
                if score[j] < min_score and not decay_negative:  # it can only fall: the last one takes its place
                    stop -= 1
                    row[j], start[j], end[j], score[j] = row[stop], start[stop], end[stop], score[stop]
                    continue
                if score[j] > score[best] or (score[j] == score[best] and row[j] < row[best]):
                    best = j
                j += 1
        kept_offsets[group + 1] = count
    return keep[:count], new_scores[:count], kept_offsets


@kernel
def vote_groups(
    kept, kept_groups, segments, scores, order, offsets, threshold, times_overlap, candidate, length_offset, area_eps
):
    """Score-weighted mean of the rows of its group that overlap each kept segment; group -1 has no rows."""
    voted = kept.copy()
    for k in range(len(kept)):
        if kept_groups[k] < 0:
            continue
        start, end = kept[k, 0], kept[k, 1]
        total = start_shift = end_shift = 0.0
        for position in range(offsets[kept_groups[k]], offsets[kept_groups[k] + 1]):
            row = order[position]
            overlap = _overlap(start, end, segments[row, 0], segments[row, 1], candidate, length_offset, area_eps)
            if overlap >= threshold and scores[row] > 0.0:
                weight = scores[row] * overlap if times_overlap else scores[row]
                total += weight
                start_shift += weight * (segments[row, 0] - start)
                end_shift += weight * (segments[row, 1] - end)
        if total > 0.0:
            voted[k, 0] = start + start_shift / total
            voted[k, 1] = max(end + end_shift / total, voted[k, 0])
    return voted


@kernel
def cluster_groups(segments, order, offsets, threshold, inclusive, candidate, length_offset, area_eps):
    """Greedy clusters around the best row left: members cluster by cluster, head first; both kinds of offsets."""
    n = len(order)
    row, members = order.copy(), np.empty(n, np.int64)
    start, end = np.empty(n), np.empty(n)
    for j in range(n):
        start[j], end[j] = segments[row[j], 0], segments[row[j], 1]
    bounds = np.zeros(n + 1, np.int64)
    group_bounds = np.zeros(len(offsets), np.int64)
    count = clusters = 0
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]  # first:stop are left, best first
        while stop > first:
            members[count] = row[first]
            count += 1
            head_start, head_end = start[first], end[first]
            left = first
            for j in range(first + 1, stop):
                overlap = _overlap(head_start, head_end, start[j], end[j], candidate, length_offset, area_eps)
                if overlap > threshold or (inclusive and overlap == threshold):
                    members[count] = row[j]
                    count += 1
                else:
                    row[left], start[left], end[left] = row[j], start[j], end[j]
                    left += 1
            stop = left
            clusters += 1
            bounds[clusters] = count
        group_bounds[group + 1] = clusters
    return members, bounds[: clusters + 1], group_bounds


@kernel
def running_clusters(segments, scores, order, offsets, threshold):
    """Weighted boxes fusion in one dimension: every row joins the running mean that it overlaps most, or starts one.

    Returns the cluster of every row of `order`, in that order, and the running means.
    """
    n = len(order)
    assignment = np.empty(n, np.int64)
    centre, mass = np.empty((n, 2)), np.empty(n)
    clusters = 0
    for group in range(len(offsets) - 1):
        first = clusters
        for position in range(offsets[group], offsets[group + 1]):
            row = order[position]
            best, best_overlap = -1, threshold
            for c in range(first, clusters):
                overlap = _overlap(centre[c, 0], centre[c, 1], segments[row, 0], segments[row, 1], False, 0.0, 0.0)
                if overlap > best_overlap:
                    best, best_overlap = c, overlap
            if best < 0:
                best = clusters
                clusters += 1
                centre[best, 0], centre[best, 1], mass[best] = segments[row, 0], segments[row, 1], 0.0
            mass[best] += scores[row]
            if mass[best] > 0.0:
                share = scores[row] / mass[best]
                centre[best, 0] += share * (segments[row, 0] - centre[best, 0])
                centre[best, 1] += share * (segments[row, 1] - centre[best, 1])
                centre[best, 1] = max(centre[best, 0], centre[best, 1])
            assignment[position] = best
    return assignment, centre[:clusters]
