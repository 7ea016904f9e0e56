"""Soft-NMS, voting and clusters whose cost follows the overlaps that exist.

The rows of a large group lie in leaves of neighbouring starts.  A binary tree above the leaves holds the hull of what
is below each node, its smallest start and largest end; the children of node i are 2 i and 2 i + 1, the root is 1.  Rows
that overlap a segment are in leaves whose hulls do, and every row of such a leaf is looked at with the arithmetic of a
plain loop, so no result depends on the leaves.  A small group is one leaf, and that is the plain loop.

Groups are CSR ranges as in `segments`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernel
from .segments import _NEARLY, SMALL, _overlap, _pick_greedily, _sorted_rows

LINEAR, GAUSSIAN, GATED, IMPROVED = range(4)

_NONE: Any = np.int64(0)  # no leaf; a literal 0 would compile once more
LEAF = 32  # rows in a leaf; a group of up to twice as many is one leaf


def soft_nms_groups(segments: Any, scores: Any, order: Any, offsets: Any, *options: Any, leaf: int = LEAF) -> Any:
    """Rows in the order of picking, their decayed scores, and the offsets of the groups among them.

    `options` are method, sigma, threshold, slope, min_score, keep_first, decay_negative, limit, candidate,
    length_offset, area_eps.  `threshold` is where LINEAR starts to decay; GATED and IMPROVED start at
    ``threshold + slope * length`` of the pick.
    """
    layout = _lay_out(segments, order, offsets, leaf)
    return _soft_nms(segments, scores, order, *layout, offsets, *options, leaf)


def vote_groups(
    kept: Any,
    kept_order: Any,
    kept_offsets: Any,
    segments: Any,
    scores: Any,
    order: Any,
    offsets: Any,
    *options: Any,
    leaf: int = LEAF,
) -> Any:
    """Score-weighted mean of the rows of its group that overlap each kept segment; what is in no group stays.

    `kept_order` and `kept_offsets` cut the kept segments into the groups of `offsets`.  `options` are threshold,
    times_overlap, candidate, length_offset, area_eps.
    """
    layout = _lay_out(kept, kept_order, kept_offsets, leaf)
    return _vote(kept, kept_order, *layout, kept_offsets, segments, scores, order, offsets, *options, leaf)


def cluster_groups(
    segments: Any, scores: Any, order: Any, offsets: Any, *options: Any, leaf: int = LEAF, small: int = SMALL
) -> Any:
    """Greedy clusters around the best row left: members cluster by cluster, best first; both kinds of offsets.

    `options` are threshold, inclusive, candidate, length_offset, area_eps.  `order` is that of `score_order`, with the
    same `small` or none.
    """
    layout = _lay_out(segments, order, offsets, leaf, small)
    return _clusters(segments, scores, order, *layout, offsets, *options, leaf, small)


def running_clusters(
    segments: Any, scores: Any, order: Any, offsets: Any, threshold: float, *, leaf: int = LEAF
) -> Any:
    """Weighted boxes fusion in one dimension: every row joins the running mean that it overlaps most, or starts one.

    Returns the cluster of every row of `order`, in that order, and the running means.
    """
    return _running(segments, scores, order, *_lay_out(segments, order, offsets, leaf), offsets, threshold, leaf)


def _lay_out(segments: Any, order: Any, offsets: Any, leaf: int, small: int = 0) -> Any:
    """Positions in `order`, by start within every group if one has several leaves, and room for its hulls.

    Groups of up to `small` rows need neither.
    """
    largest = len(order) if len(order) <= 2 * leaf else (offsets[1:] - offsets[:-1]).max()
    leaves, _ = _leaves(0 if largest <= small else largest, leaf)
    if leaves == 1:
        places = np.arange(len(order))
    elif len(offsets) == 2:  # equal starts in any order
        places = np.argsort(segments[order, 0])
    else:
        places = _sorted_rows(-segments[order, 0], np.arange(len(order)), offsets, False, small)
    return places, np.empty((2 * leaves, 2))


@kernel
def _leaves(size, leaf):
    """How many leaves a group has, a power of two, and how many rows each of them holds at most."""
    leaves = 1
    if size <= 2 * leaf:
        leaf = size + 1
    while leaves * leaf < size:
        leaves *= 2
    return leaves, leaf


@kernel
def _plant(hulls, leaves, width, start, end, first, stop):
    """Hulls of the rows first .. stop."""
    for node in range(2 * leaves):
        hulls[node, 0], hulls[node, 1] = np.inf, -np.inf
    for i in range(first, stop):
        node = leaves + (i - first) // width
        if start[i] < hulls[node, 0]:
            hulls[node, 0] = start[i]
        if end[i] > hulls[node, 1]:
            hulls[node, 1] = end[i]
    for node in range(leaves - 1, 0, -1):
        _join(hulls, node)


@kernel
def _join(hulls, node):
    """The hull of a node from those of its children."""
    left, right = 2 * node, 2 * node + 1
    hulls[node, 0] = hulls[left, 0] if hulls[left, 0] < hulls[right, 0] else hulls[right, 0]
    hulls[node, 1] = hulls[left, 1] if hulls[left, 1] > hulls[right, 1] else hulls[right, 1]


@kernel
def _next_leaf(hulls, leaves, node, start, end, length_offset):
    """The next leaf after `node` whose hull overlaps a segment, or 0; the first one for 0.

    Rounding keeps order: where `_overlap` finds something in common with a row, it is found in common with its hull.
    """
    enter = node == 0
    if enter:
        node = 1
    while True:
        if not enter:
            while node & 1:  # a right child: its parent is done, too
                node >>= 1
            if node == 0:
                return 0
            node += 1
        enter = False
        while end - hulls[node, 0] + length_offset > 0.0 and hulls[node, 1] - start + length_offset > 0.0:
            if node >= leaves:
                return node
            node *= 2


@kernel
def _better(score, row, i, j):
    """The one of two rows that is picked first: of higher score, then the earlier one; -1 is no row."""
    if i < 0 or (j >= 0 and (score[j] > score[i] or (score[j] == score[i] and row[j] < row[i]))):
        return j
    return i


@kernel
def _soft_nms(
    segments,
    scores,
    order,
    places,
    hulls,
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
    leaf,
):
    n = len(order)
    row = np.empty(n, np.int64)
    start, end, score = np.empty(n), np.empty(n), np.empty(n)
    for j in range(n):
        row[j] = order[places[j]]
        start[j], end[j], score[j] = segments[row[j], 0], segments[row[j], 1], scores[row[j]]
    top, stops = np.empty(len(hulls), np.int64), np.empty(len(hulls), np.int64)  # best row below; end of a leaf's rows
    keep, new_scores = np.empty(n, np.int64), np.empty(n)
    kept_offsets = np.zeros(len(offsets), np.int64)
    count = 0
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]
        leaves, width = _leaves(stop - first, leaf)
        for node in range(2 * leaves - 1, 0, -1):
            hulls[node, 0], hulls[node, 1] = -np.inf, np.inf  # until the first pick comes by
            if node < leaves:
                top[node] = _better(score, row, top[2 * node], top[2 * node + 1])
                continue
            begin = first + (node - leaves) * width
            top[node], stops[node] = -1, min(begin + width, stop)
            for j in range(begin, stops[node]):
                top[node] = _better(score, row, top[node], j)
        taken = 0
        while top[1] >= 0 and taken < limit:
            best = top[1]
            if score[best] < min_score and not (keep_first and taken == 0):
                break
            keep[count], new_scores[count] = row[best], score[best]
            count += 1
            taken += 1
            pick_start, pick_end = start[best], end[best]
            length = pick_end - pick_start + length_offset
            gate = threshold + slope * (length + area_eps)
            node = leaves + (best - first) // width
            stops[node] -= 1
            last = stops[node]
            row[best], start[best], end[best], score[best] = row[last], start[last], end[last], score[last]
            own, node = node, _NONE
            while True:  # the leaves that it overlaps, its own among them unless it has no length
                following = own
                if node > 0 or length > 0.0:
                    following = _next_leaf(hulls, leaves, node, pick_start, pick_end, length_offset)
                above, common = node >> 1, following >> 1
                while above > 0 and above != common:  # what is above the next leaf, too, is done after it
                    _join(hulls, above)
                    top[above] = _better(score, row, top[2 * above], top[2 * above + 1])
                    above, common = above >> 1, common >> 1
                node = following
                if node == 0:
                    break
                j, last = first + (node - leaves) * width, stops[node]  # j:last are still in the race
                best = -1
                low, high = np.inf, -np.inf
                while j < last:
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
                        last -= 1
                        row[j], start[j], end[j], score[j] = row[last], start[last], end[last], score[last]
                        continue
                    if best < 0 or score[j] > score[best] or (score[j] == score[best] and row[j] < row[best]):
                        best = j
                    low = start[j] if start[j] < low else low
                    high = end[j] if end[j] > high else high
                    j += 1
                stops[node], top[node] = last, best
                hulls[node, 0], hulls[node, 1] = low, high
        kept_offsets[group + 1] = count
    return keep[:count], new_scores[:count], kept_offsets


@kernel
def _vote(
    kept,
    kept_order,
    places,
    hulls,
    kept_offsets,
    segments,
    scores,
    order,
    offsets,
    threshold,
    times_overlap,
    candidate,
    length_offset,
    area_eps,
    leaf,
):
    n = len(kept_order)
    start, end = np.empty(n), np.empty(n)
    for k in range(n):
        start[k], end[k] = kept[kept_order[places[k]], 0], kept[kept_order[places[k]], 1]
    sums = np.zeros((n, 3))  # weight, shift of the start, shift of the end
    for group in range(len(offsets) - 1):
        first, stop = kept_offsets[group], kept_offsets[group + 1]
        leaves, width = _leaves(stop - first, leaf)
        _plant(hulls, leaves, width, start, end, first, stop)
        for position in range(offsets[group], offsets[group + 1]):  # every sum grows in the order of the rows
            row = order[position]
            node = _NONE
            while scores[row] > 0.0:
                node = _next_leaf(hulls, leaves, node, segments[row, 0], segments[row, 1], length_offset)
                if node == 0:
                    break
                begin = first + (node - leaves) * width
                for k in range(begin, min(begin + width, stop)):
                    overlap = _overlap(
                        start[k], end[k], segments[row, 0], segments[row, 1], candidate, length_offset, area_eps
                    )
                    if overlap >= threshold:
                        weight = scores[row] * overlap if times_overlap else scores[row]
                        sums[k, 0] += weight
                        sums[k, 1] += weight * (segments[row, 0] - start[k])
                        sums[k, 2] += weight * (segments[row, 1] - end[k])
    voted = kept.copy()
    for k in range(n):
        if sums[k, 0] > 0.0:
            row = kept_order[places[k]]
            voted[row, 0] = start[k] + sums[k, 1] / sums[k, 0]
            voted[row, 1] = max(end[k] + sums[k, 2] / sums[k, 0], voted[row, 0])
    return voted


@kernel
def _clusters(
    segments,
    scores,
    order,
    places,
    hulls,
    offsets,
    threshold,
    inclusive,
    candidate,
    length_offset,
    area_eps,
    leaf,
    small,
):
    n = len(order)
    how = threshold, inclusive, candidate, length_offset, area_eps
    heads = np.empty(n, np.int64)
    place, cluster = places.copy(), np.empty(n, np.int64)  # the cluster of every position in `order`
    start, end = np.empty(n), np.empty(n)
    for j in range(n):
        cluster[j] = -1
        start[j], end[j] = segments[order[place[j]], 0], segments[order[place[j]], 1]
    stops = np.empty(len(hulls), np.int64)  # end of a leaf's rows
    bounds = np.zeros(n + 1, np.int64)
    group_bounds = np.zeros(len(offsets), np.int64)
    more, clusters = length_offset + area_eps, np.int64(0)  # not a literal: what is called would be compiled for it
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]
        if stop - first <= small:
            clusters = _pick_greedily(segments, scores, order, first, stop, how, heads, cluster, clusters)
            group_bounds[group + 1] = clusters
            continue
        leaves, width = _leaves(stop - first, leaf)
        for node in range(2 * leaves):
            hulls[node, 0], hulls[node, 1] = -np.inf, np.inf  # until the first head comes by
            stops[node] = min(first + (node - leaves + 1) * width, stop)
        for head in range(first, stop):
            if cluster[head] >= 0:
                continue
            cluster[head] = clusters
            head_start, head_end = segments[order[head], 0], segments[order[head], 1]
            node = _NONE
            while True:
                following = _next_leaf(hulls, leaves, node, head_start, head_end, length_offset)
                above, common = node >> 1, following >> 1
                while above > 0 and above != common:
                    _join(hulls, above)
                    above, common = above >> 1, common >> 1
                node = following
                if node == 0:
                    break
                begin = left = first + (node - leaves) * width
                low, high = np.inf, -np.inf
                for j in range(begin, stops[node]):
                    if place[j] == head:  # one without length stays, and overlaps nobody
                        continue
                    shared = min(head_end, end[j]) - max(head_start, start[j]) + length_offset
                    whole = end[j] - start[j] + more
                    if not candidate:
                        whole += head_end - head_start + more - shared
                    if shared >= _NEARLY * threshold * whole:
                        overlap = _overlap(head_start, head_end, start[j], end[j], candidate, length_offset, area_eps)
                        if overlap > threshold or (inclusive and overlap == threshold):
                            cluster[place[j]] = clusters
                            continue
                    place[left], start[left], end[left] = place[j], start[j], end[j]
                    low = start[j] if start[j] < low else low
                    high = end[j] if end[j] > high else high
                    left += 1
                stops[node] = left
                hulls[node, 0], hulls[node, 1] = low, high
            clusters += 1
        group_bounds[group + 1] = clusters
    for position in range(n):
        bounds[cluster[position] + 1] += 1
    filled = np.empty(clusters, np.int64)
    for c in range(clusters):
        filled[c] = bounds[c]
        bounds[c + 1] += bounds[c]
    members = np.empty(n, np.int64)
    for position in range(n):  # best first within every cluster: sorted here where `order` is not
        row, c = order[position], cluster[position]
        at = filled[c]
        while at > bounds[c] and scores[members[at - 1]] < scores[row]:
            members[at] = members[at - 1]
            at -= 1
        members[at] = row
        filled[c] += 1
    return members, bounds[: clusters + 1], group_bounds


@kernel
def _running(segments, scores, order, places, hulls, offsets, threshold, leaf):
    n = len(order)
    slot = np.empty(n, np.int64)
    for i in range(n):
        slot[places[i]] = i
    stops = np.empty(len(hulls), np.int64)  # end of a leaf's clusters
    held, home = np.empty(n, np.int64), np.empty(n, np.int64)  # clusters by leaf, and the leaf of each: its first row's
    assignment = np.empty(n, np.int64)
    start, end, mass = np.empty(n), np.empty(n), np.empty(n)
    clusters = 0
    for group in range(len(offsets) - 1):
        first, stop = offsets[group], offsets[group + 1]
        leaves, width = _leaves(stop - first, leaf)
        for node in range(2 * leaves):
            hulls[node, 0], hulls[node, 1] = np.inf, -np.inf
            stops[node] = first + (node - leaves) * width
        for position in range(first, stop):
            row = order[position]
            row_start, row_end = segments[row, 0], segments[row, 1]
            row_length = row_end - row_start
            best, best_overlap = -1, threshold
            node = _NONE
            while True:
                node = _next_leaf(hulls, leaves, node, row_start, row_end, 0.0)
                if node == 0:
                    break
                for j in range(first + (node - leaves) * width, stops[node]):
                    c = held[j]
                    shared = min(end[c], row_end) - max(start[c], row_start)
                    if shared < _NEARLY * best_overlap * (end[c] - start[c] + row_length - shared):
                        continue
                    overlap = _overlap(start[c], end[c], row_start, row_end, False, 0.0, 0.0)
                    if overlap > best_overlap or (overlap == best_overlap and c < best):
                        best, best_overlap = c, overlap
            if best < 0:
                best = clusters
                clusters += 1
                start[best], end[best], mass[best] = row_start, row_end, 0.0
                node = leaves + (slot[position] - first) // width
                home[best] = node
                held[stops[node]] = best
                stops[node] += 1
            mass[best] += scores[row]
            if mass[best] > 0.0:
                share = scores[row] / mass[best]
                start[best] += share * (row_start - start[best])
                end[best] += share * (row_end - end[best])
                end[best] = max(start[best], end[best])
            node = home[best]
            while node > 0 and (start[best] < hulls[node, 0] or end[best] > hulls[node, 1]):  # it never shrinks
                hulls[node, 0] = min(hulls[node, 0], start[best])
                hulls[node, 1] = max(hulls[node, 1], end[best])
                node >>= 1
            assignment[position] = best
    centres = np.empty((clusters, 2))
    for c in range(clusters):
        centres[c, 0], centres[c, 1] = start[c], end[c]
    return assignment, centres
