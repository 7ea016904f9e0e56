"""Kernels on TCAM columns: upsampling, threshold runs, scores of runs.

A buffer of columns is (C, T), C-contiguous float64: one row per class, time along the row.
"""

import numpy as np
from numba import njit

SYMMETRIC, OIC_A, OIC_B = 0, 1, 2  # layouts of the outer margin
MEAN, MAX, NONE = 0, 1, 2  # inner scores


@njit(cache=True, nogil=True)
def upsample(columns, factor):
    """Linear interpolation at i / factor for i < factor * T; the last steps go on along the last slope.

    A point on a snippet is computed from the left, as interp1d does: exact only up to rounding, but the same rounding.
    """
    rows, length = columns.shape
    step = 1.0 / factor
    out = np.empty((rows, length * factor))
    for c in range(rows):
        for i in range(length * factor):
            low = max(0, min(int(np.ceil(i * step)), length - 1) - 1)
            high = min(low + 1, length - 1)
            out[c, i] = (columns[c, high] - columns[c, low]) * (i * step - low) + columns[c, low]
    return out


@njit(cache=True, nogil=True)
def find_runs(columns, thresholds, slots, inclusive, positive, min_length, skip_lone_first):
    """Runs above every threshold in one sweep per row: O(T log M + runs).

    `thresholds` (C, M) rises along each row; `slots` (C, M) says where each stood before sorting.  Returns row, slot,
    start, stop of every run: by row, then in the slots' order, then by time.
    """
    rows, length = columns.shape
    num = thresholds.shape[1]
    level = np.empty((rows, length), np.int32)  # how many thresholds a value passes
    count = np.zeros((rows, num), np.int64)
    opened = np.empty(num, np.int64)
    for c in range(rows):
        before = 0
        for t in range(length + 1):
            now = 0
            if t < length:
                value = columns[c, t]
                if value > 0.0 or not positive:
                    low, high = 0, num
                    while low < high:
                        middle = (low + high) // 2
                        if thresholds[c, middle] < value or (inclusive and thresholds[c, middle] == value):
                            low = middle + 1
                        else:
                            high = middle
                    now = low
                level[c, t] = now
            for m in range(before, now):
                opened[m] = t
            for m in range(now, before):
                if t - opened[m] >= min_length:
                    count[c, slots[c, m]] += 1
            before = now
        if skip_lone_first and length > 0:  # a threshold that only the first step passes
            highest = 0
            for t in range(1, length):
                highest = max(highest, level[c, t])
            for m in range(highest, level[c, 0]):
                count[c, slots[c, m]] = 0
            level[c, 0] = min(level[c, 0], highest)

    place = np.empty((rows, num), np.int64)
    total = 0
    for c in range(rows):
        for m in range(num):
            place[c, m] = total
            total += count[c, m]
    row = np.empty(total, np.int64)
    slot = np.empty(total, np.int64)
    start = np.empty(total, np.int64)
    stop = np.empty(total, np.int64)
    for c in range(rows):
        before = 0
        for t in range(length + 1):
            now = level[c, t] if t < length else 0
            for m in range(before, now):
                opened[m] = t
            for m in range(now, before):
                if t - opened[m] >= min_length:
                    s = slots[c, m]
                    at = place[c, s]
                    row[at] = c
                    slot[at] = s
                    start[at] = opened[m]
                    stop[at] = t
                    place[c, s] = at + 1
            before = now
    return row, slot, start, stop


@njit(cache=True, nogil=True)
def _prefix(columns):
    """(C, T+1) sums of the first t values."""
    rows, length = columns.shape
    out = np.zeros((rows, length + 1))
    for c in range(rows):
        total = 0.0
        for t in range(length):
            total += columns[c, t]
            out[c, t + 1] = total
    return out


@njit(cache=True, nogil=True)
def _area(prefix, columns, c, x):
    """Integral from 0 to the real number x of the step function whose value on [t, t+1) is columns[c, t]."""
    whole = int(x)
    area = prefix[c, whole]
    if x > whole:
        area += (x - whole) * columns[c, whole]
    return area


@njit(cache=True, nogil=True)
def _passing(own, c, start, stop, threshold, inclusive):
    """Integral over [start, stop) of the values that pass the threshold."""
    total = 0.0
    for t in range(int(start), int(np.ceil(stop))):
        if own[c, t] > threshold or (inclusive and own[c, t] == threshold):
            total += own[c, t] * (min(t + 1.0, stop) - max(float(t), start))
    return total


@njit(cache=True, nogil=True)
def score_runs(
    full,
    rest,
    own,
    own_weight,
    row,
    own_row,
    start,
    stop,
    threshold,
    inclusive,
    inner_kind,
    layout,
    scale,
    power,
    fixed,
    outer_weight,
):
    """Inner and outer-inner-contrast scores of runs [start, stop), real numbers of steps.

    Inside, the map is `full`.  Outside it is `rest`, plus `own_weight` times the values of `own` that pass the run's
    threshold (for maps that are zeroed below it; 0 otherwise).  A negative `scale` means: no outer margin.
    Returns (inner, inner - outer_weight * outer).
    """
    length = full.shape[1]
    inside = _prefix(full)
    outside = _prefix(rest)
    count = len(row)
    inner = np.zeros(count)
    score = np.zeros(count)
    for i in range(count):
        c = row[i]
        s, e = start[i], stop[i]
        last = e  # end of the range that the inner mean covers
        if layout != SYMMETRIC:
            s, e = float(int(s)), float(int(e))
            last = min(e + 1.0, float(length)) if layout == OIC_B else e
        if inner_kind == MEAN:
            if last > s:
                inner[i] = (_area(inside, full, c, last) - _area(inside, full, c, s)) / (last - s)
        elif inner_kind == MAX and last > s:
            best = full[c, int(s)]
            for t in range(int(s) + 1, int(np.ceil(last))):
                best = max(best, full[c, t])
            inner[i] = best
        score[i] = inner[i]
        if scale < 0.0:
            continue
        margin = scale * (stop[i] - start[i]) ** power
        if layout == SYMMETRIC:
            left, right = max(0.0, s - margin), min(float(length), e + margin)
            begin = e
        else:  # int() cuts towards zero, so the left margin is rounded up and the right one down
            left = max(0.0, float(int(start[i] - margin)))
            if layout == OIC_A:
                begin = e
                right = min(length - 1.0, float(int(stop[i] - 1.0 + margin))) + 1.0
            else:
                begin = e + 1.0
                right = min(length - 1.0, float(int(stop[i] + margin + 1.0)))
            right = max(begin, right)
        size = 2.0 * margin if fixed else (s - left) + (right - begin)
        if size > 0.0:
            begin, right = min(begin, float(length)), min(right, float(length))
            total = _area(outside, rest, c, s) - _area(outside, rest, c, left)
            total += _area(outside, rest, c, right) - _area(outside, rest, c, begin)
            if own_weight != 0.0:
                o = own_row[i]
                total += own_weight * _passing(own, o, left, s, threshold[i], inclusive)
                total += own_weight * _passing(own, o, begin, right, threshold[i], inclusive)
            score[i] -= outer_weight * (total / size)
    return inner, score
