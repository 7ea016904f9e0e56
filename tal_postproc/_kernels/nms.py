"""Greedy suppression in O(n log n): what one candidate is compared with does not grow with the number of rows.

A kept row can suppress a candidate only if their lengths are close (ratio at least the threshold; for the candidate's
own overlap: if it is not much shorter) and their positions are.  So kept rows are hashed by the octave of their length
and the cell of their start, and a candidate looks into the few cells that can matter.  At threshold 0 any touch
suppresses, and the largest end of the kept rows that start before the candidate's end decides.

Both give exactly what comparing with every kept row gives: they only leave out comparisons that cannot succeed.  The
rows of a small group are not even sorted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .segments import SMALL, _overlap, _pick_greedily, _sorted_rows

PLAIN = 256  # kept rows of a group up to which comparing with all of them costs little, and compiling nothing more
_LOWEST = -1100  # octaves of float64 lie above it
_OCTAVES = 2200
_RESOLVED = 2.0**40  # extent over length, up to which cells are told apart


def nms_groups(
    segments: NDArray[np.float64],
    scores: NDArray[np.float64],
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    *how: Any,
    plain: int = PLAIN,
    small: int = SMALL,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that survive, group after group and best first, and the offsets of the groups among them.

    `how` is (threshold, inclusive, candidate, length_offset, area_eps).  `order` is that of `score_order`, with the
    same `small` or none.  In a larger group a candidate is compared with all kept rows while these are at most `plain`;
    the kernels for more are not even compiled before a group has more.
    """
    keep, kept_offsets, done = _all_pairs(segments, scores, order, offsets, *how, plain, small)
    return (keep, kept_offsets) if done else _hashed(segments, scores, order, offsets, *how, plain, small)


@kernel
def _suppressed(kept, first, count, segment, how):
    """Whether one of the kept rows first .. count suppresses a segment."""
    threshold, inclusive, candidate, length_offset, area_eps = how
    for k in range(first, count):
        overlap = _overlap(kept[k, 0], kept[k, 1], segment[0], segment[1], candidate, length_offset, area_eps)
        if overlap > threshold or (inclusive and overlap == threshold):
            return True
    return False


@kernel
def _few(segments, scores, order, first, stop, how, keep, cluster, count):
    """The rows of a small group that survive, written from ``keep[count]`` on; where they end."""
    after = _pick_greedily(segments, scores, order, first, stop, how, keep, cluster, count)
    for k in range(count, after):
        keep[k] = order[keep[k]]
    return after


@kernel
def _all_pairs(
    segments, scores, order, offsets, threshold, inclusive, candidate, length_offset, area_eps, plain, small
):
    """What `nms_groups` returns, and True; or False as soon as a large group keeps more than `plain` rows."""
    how = threshold, inclusive, candidate, length_offset, area_eps
    keep, kept = np.empty(len(order), np.int64), np.empty((len(order), 2))
    cluster = np.empty(len(order), np.int64)
    kept_offsets = np.zeros(len(offsets), np.int64)
    count = np.int64(0)  # not a literal: what is called would be compiled for it, too
    for group in range(len(offsets) - 1):
        first, begin, stop = count, offsets[group], offsets[group + 1]
        if stop - begin <= small:
            count = _few(segments, scores, order, begin, stop, how, keep, cluster, count)
        else:
            for position in range(begin, stop):
                row = order[position]
                if not _suppressed(kept, first, count, segments[row], how):
                    keep[count], kept[count, 0], kept[count, 1] = row, segments[row, 0], segments[row, 1]
                    count += 1
                    if count - first > plain:
                        return keep[:0], kept_offsets, False
        kept_offsets[group + 1] = count
    return keep[:count], kept_offsets, True


@kernel
def _hashed(segments, scores, order, offsets, threshold, inclusive, candidate, length_offset, area_eps, plain, small):
    """What `nms_groups` returns, for groups of any size."""
    how = threshold, inclusive, candidate, length_offset, area_eps
    keep, kept = np.empty(len(order), np.int64), np.empty((len(order), 2))
    cluster = np.empty(len(order), np.int64)
    kept_offsets = np.zeros(len(offsets), np.int64)
    count = np.int64(0)
    for group in range(len(offsets) - 1):
        first, position, stop = count, offsets[group], offsets[group + 1]
        if stop - position <= small:
            count = _few(segments, scores, order, position, stop, how, keep, cluster, count)
            kept_offsets[group + 1] = count
            continue
        while position < stop and count - first < plain:
            row = order[position]
            if not _suppressed(kept, first, count, segments[row], how):
                keep[count], kept[count, 0], kept[count, 1] = row, segments[row, 0], segments[row, 1]
                count += 1
            position += 1
        rest = order[position:stop]
        if len(rest) and threshold > 0.0:
            count = _through_grid(
                segments, rest, threshold, inclusive, candidate, length_offset, area_eps, keep, kept, first, count
            )
        elif len(rest):
            count = _through_ends(segments, rest, candidate, length_offset, area_eps, keep, kept, first, count)
        kept_offsets[group + 1] = count
    return keep[:count], kept_offsets


@kernel
def _octave(length):
    """The power of two at or below a positive length, counted from the lowest there is."""
    return min(max(math.frexp(length)[1] - 1 - _LOWEST, 0), _OCTAVES - 1)


@kernel
def _bucket(octave, cell, mask):
    """Neighbouring cells lie side by side in memory; octaves are far apart."""
    return (np.int64(cell) + octave * np.int64(0x9E3779B97F4A7C1)) & mask


@kernel
def _through_grid(segments, rest, threshold, inclusive, candidate, length_offset, area_eps, keep, kept, first, count):
    """Go on with the rows `rest` of a group, of which first .. count are kept; how many are kept in the end."""
    origin, far = np.inf, -np.inf
    for k in range(first, count):
        origin, far = min(origin, kept[k, 0]), max(far, kept[k, 1])
    for row in rest:
        origin, far = min(origin, segments[row, 0]), max(far, segments[row, 1])
    smallest = (far - origin + length_offset) / _RESOLVED  # shorter rows are kept in one list of their own
    size = 64
    while size < count - first + len(rest):
        size *= 2
    mask = size - 1
    head = np.full(size, -1, np.int32)  # of the list of kept rows in every bucket, counted from `first`
    behind = np.empty(count - first + len(rest), np.int32)
    tiny = -1
    present, width = np.zeros(_OCTAVES, np.bool_), np.empty(_OCTAVES)
    lowest, highest = _OCTAVES, -1
    slack = 1.0 - 1e-9  # a little wider than needed, for rounding
    entered = first
    i = 0
    while True:
        while entered < count:  # hash what was kept
            length = kept[entered, 1] - kept[entered, 0] + length_offset
            if length > smallest:
                octave = _octave(length)
                if not present[octave]:
                    present[octave], width[octave] = True, 2.0 ** (octave + _LOWEST)
                    lowest, highest = min(lowest, octave), max(highest, octave)
                bucket = _bucket(octave, np.floor((kept[entered, 0] - origin) / width[octave]), mask)
                behind[entered - first], head[bucket] = head[bucket], entered - first
            elif length > 0.0:
                behind[entered - first], tiny = tiny, entered - first
            entered += 1
        if i == len(rest):
            return count
        row = rest[i]
        i += 1
        s, e = segments[row, 0], segments[row, 1]
        length = e - s + length_offset
        suppressed = False
        if length > 0.0:
            low, high = lowest, highest
            if length > smallest:
                low = max(low, _octave(length * threshold * slack))
                if not candidate:
                    high = min(high, _octave(length / (threshold * slack)))
            own = min(max(_octave(length), low), high)
            for turn in range(high - low + 1):  # its own octave first, then longer ones, then shorter ones
                octave = own + turn if own + turn <= high else high - turn
                if not present[octave]:
                    continue
                cell_width = width[octave]
                need = threshold * slack * (length if candidate else max(length, cell_width))
                cell = np.floor((s - origin - length_offset + need) / cell_width - 2.001)
                stop = np.floor((e - origin + length_offset - need) / cell_width + 0.001)
                cell = max(cell, 0.0)
                while cell <= stop and not suppressed:
                    k = head[_bucket(octave, cell, mask)]
                    while k >= 0:
                        start, end = kept[first + k, 0], kept[first + k, 1]
                        if min(end, e) - max(start, s) + length_offset >= need:
                            overlap = _overlap(start, end, s, e, candidate, length_offset, area_eps)
                            if overlap > threshold or (inclusive and overlap == threshold):
                                suppressed = True
                                break
                        k = behind[k]
                    cell += 1.0
                if suppressed:
                    break
            k = tiny
            while k >= 0 and not suppressed:
                start, end = kept[first + k, 0], kept[first + k, 1]
                overlap = _overlap(start, end, s, e, candidate, length_offset, area_eps)
                suppressed = overlap > threshold or (inclusive and overlap == threshold)
                k = behind[k]
        if not suppressed:
            keep[count], kept[count, 0], kept[count, 1] = row, s, e
            count += 1


@kernel
def _through_ends(segments, rest, candidate, length_offset, area_eps, keep, kept, first, count):
    """The same at threshold 0, where rows that share anything suppress: the kept row of the largest end decides.

    Fenwick's tree holds, over the rows in the order of their starts, the kept one with the largest end of every prefix.
    """
    n = count - first + len(rest)
    begins = np.empty(n)
    for k in range(first, count):
        begins[k - first] = kept[k, 0]
    for i in range(len(rest)):
        begins[count - first + i] = segments[rest[i], 0]
    whole = np.zeros(2, np.int64)
    whole[1] = n
    no, none = n < 0, np.int64(0)  # not literals: `_sorted_rows` would be compiled once more
    begins = begins[_sorted_rows(-begins, np.arange(n), whole, no, none)]
    tree = np.full(n + 1, -1)
    entered = first
    i = 0
    while True:
        while entered < count:
            if kept[entered, 1] - kept[entered, 0] + length_offset > 0.0:
                low, high = 0, n  # its place among the starts
                while low < high:
                    middle = (low + high) // 2
                    if begins[middle] < kept[entered, 0]:
                        low = middle + 1
                    else:
                        high = middle
                node = low + 1
                while node <= n:
                    if tree[node] < 0 or kept[tree[node], 1] < kept[entered, 1]:
                        tree[node] = entered
                    node += node & -node
            entered += 1
        if i == len(rest):
            return count
        row = rest[i]
        i += 1
        s, e = segments[row, 0], segments[row, 1]
        suppressed = False
        low, high = 0, n  # how many start before the candidate's end: exactly where the overlap's own expression says
        while low < high:
            middle = (low + high) // 2
            if e - begins[middle] + length_offset > 0.0:
                low = middle + 1
            else:
                high = middle
        node = low
        while node > 0 and not suppressed:
            k = tree[node]
            suppressed = k >= 0 and _overlap(kept[k, 0], kept[k, 1], s, e, candidate, length_offset, area_eps) > 0.0
            node -= node & -node
        if not suppressed:
            keep[count], kept[count, 0], kept[count, 1] = row, s, e
            count += 1
