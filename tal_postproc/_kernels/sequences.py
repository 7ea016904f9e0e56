"""Kernels on TCAM columns: upsampling, threshold runs, scores of runs.

Columns are rows of snippets of any lengths, one after the other: row r is ``values[offsets[r]:offsets[r + 1]]``.
"""

import numpy as np

from . import kernel

SYMMETRIC, OIC_A, OIC_B = 0, 1, 2  # layouts of the outer margin
MEAN, MAX, NONE = 0, 1, 2  # inner scores

_KNOWN = 512  # powers of shorter lengths are computed once per call


@kernel
def upsample(values, offsets, factor):
    """Linear interpolation at i / factor for i < factor * T; the last steps go on along the last slope.

    A point on a snippet is computed from the left, as interp1d does: exact only up to rounding, but the same rounding.
    """
    step = 1.0 / factor
    out = np.empty(len(values) * factor)
    for r in range(len(offsets) - 1):
        first, length = offsets[r], offsets[r + 1] - offsets[r]
        for i in range(length * factor):
            low = max(0, min(int(np.ceil(i * step)), length - 1) - 1)
            left, right = values[first + low], values[first + min(low + 1, length - 1)]
            out[first * factor + i] = (right - left) * (i * step - low) + left
    return out


@kernel
def _passed(value, thresholds, inclusive):
    """How many of the rising thresholds a value passes."""
    num = len(thresholds)
    if num == 0 or value < thresholds[0]:
        return 0
    if value > thresholds[num - 1]:
        return num
    low, high = 0, num
    while low < high:
        middle = (low + high) // 2
        if thresholds[middle] < value or (inclusive and thresholds[middle] == value):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def find_runs(values, offsets, thresholds, slots, inclusive, positive, min_length, skip_lone_first):
    """Runs above every threshold in one sweep per row: O(T log M + runs).

    `thresholds` (R, M) rises along each row, or is one row (1, M) for all; `slots`, of the same shape, says where each
    stood before sorting.  Returns row, slot, start, stop of every run: by row, then in the slots' order, then by time.
    """
    rows = len(offsets) - 1
    num = thresholds.shape[1]
    shared = len(thresholds) == 1
    level = np.empty(len(values), np.int32)  # how many thresholds a value passes
    place = np.zeros(rows * num + 1, np.int64)  # where the runs of a row and slot begin
    opened = np.empty(num, np.int64)
    for r in range(rows):
        first, length = offsets[r], offsets[r + 1] - offsets[r]
        own = 0 if shared else r
        before = 0
        for t in range(length + 1):
            now = 0
            if t < length:
                value = values[first + t]
                if value > 0.0 or not positive:
                    now = _passed(value, thresholds[own], inclusive)
                level[first + t] = now
            for m in range(before, now):
                opened[m] = t
            for m in range(now, before):
                if t - opened[m] >= min_length:
                    place[r * num + slots[own, m] + 1] += 1
            before = now
        if skip_lone_first and length > 0:  # a threshold that only the first step passes
            highest = 0
            for t in range(1, length):
                highest = max(highest, level[first + t])
            for m in range(highest, level[first]):
                place[r * num + slots[own, m] + 1] = 0
            level[first] = min(level[first], highest)
    for i in range(rows * num):
        place[i + 1] += place[i]
    total = place[rows * num]

    row, slot = np.empty(total, np.int64), np.empty(total, np.int64)
    start, stop = np.empty(total), np.empty(total)
    for r in range(rows):
        first, length = offsets[r], offsets[r + 1] - offsets[r]
        own = 0 if shared else r
        before = 0
        for t in range(length + 1):
            now = level[first + t] if t < length else 0
            for m in range(before, now):
                opened[m] = t
            for m in range(now, before):
                if t - opened[m] >= min_length:
                    s = slots[own, m]
                    at = place[r * num + s]
                    row[at], slot[at], start[at], stop[at] = r, s, opened[m], t
                    place[r * num + s] = at + 1
            before = now
    return row, slot, start, stop


@kernel
def _prefix(values, offsets):
    """Sums of the first t values of every row, t = 0 ... T; row r starts at ``offsets[r] + r``."""
    rows = len(offsets) - 1
    out = np.empty(len(values) + rows)
    for r in range(rows):
        total = 0.0
        out[offsets[r] + r] = 0.0
        for t in range(offsets[r], offsets[r + 1]):
            total += values[t]
            out[t + r + 1] = total
    return out


@kernel
def _area(prefix, values, first, r, x):
    """Integral from 0 to the real number x of the step function whose value on [t, t+1) is the t-th of row r."""
    whole = int(x)
    area = prefix[first + r + whole]
    if x > whole:
        area += (x - whole) * values[first + whole]
    return area


@kernel
def _passing(values, first, start, stop, threshold, inclusive):
    """Integral over [start, stop) of the values, from position `first` on, that pass the threshold."""
    total = 0.0
    for t in range(int(start), int(np.ceil(stop))):
        value = values[first + t]
        if value > threshold or (inclusive and value == threshold):
            total += value * (min(t + 1.0, stop) - max(float(t), start))
    return total


@kernel
def score_runs(
    full,
    rest,
    offsets,
    own,
    own_offsets,
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
    inside = _prefix(full, offsets)
    outside = _prefix(rest, offsets) if own_weight != 0.0 else inside
    count = len(row)
    inner = np.zeros(count)
    score = np.zeros(count)
    known = np.empty(_KNOWN if power != 1.0 else 0)
    known[:] = -1.0  # whole n to the power, as far as met: a power takes 20 ns
    for i in range(count):
        r = row[i]
        first = offsets[r]
        length = offsets[r + 1] - first
        margin = 0.0
        if scale > 0.0:
            margin = stop[i] - start[i]
            if power != 1.0:
                n = int(margin)
                if n == margin and n < _KNOWN:
                    if known[n] < 0.0:
                        known[n] = margin**power
                    margin = known[n]
                else:
                    margin = margin**power
            margin *= scale
        if layout == SYMMETRIC:
            s, e = start[i], stop[i]
            last, begin = e, e
            left, right = max(0.0, s - margin), min(float(length), e + margin)
            within = _area(inside, full, first, r, e) - _area(inside, full, first, r, s)
            around = _area(outside, rest, first, r, s) - _area(outside, rest, first, r, left)
            around += _area(outside, rest, first, r, right) - _area(outside, rest, first, r, e)
        else:  # int() cuts towards zero, so the left margin is rounded up and the right one down
            whole_s, whole_e = int(start[i]), int(stop[i])
            reach = min(margin, length + 1.0)  # no farther than the row, so that int() cannot overflow
            whole_left = max(0, int(start[i] - reach))
            if layout == OIC_A:
                whole_last = whole_begin = whole_e
                whole_right = min(length - 1, int(stop[i] - 1.0 + reach)) + 1
            else:
                whole_last, whole_begin = min(whole_e + 1, length), min(whole_e + 1, length)
                whole_right = min(length - 1, int(stop[i] + reach + 1.0))
            whole_right = max(whole_begin, whole_right)
            zero = first + r
            within = inside[zero + whole_last] - inside[zero + whole_s]
            around = outside[zero + whole_s] - outside[zero + whole_left]
            around += outside[zero + whole_right] - outside[zero + whole_begin]
            s, last, left = float(whole_s), float(whole_last), float(whole_left)
            begin, right = float(whole_begin), float(whole_right)

        if inner_kind == MEAN:
            if last > s:
                inner[i] = within / (last - s)
        elif inner_kind == MAX and last > s:
            inner[i] = full[first + int(s)]
            for t in range(int(s) + 1, int(np.ceil(last))):
                inner[i] = max(inner[i], full[first + t])
        score[i] = inner[i]
        size = 2.0 * margin if fixed else (s - left) + (right - begin)
        if scale >= 0.0 and size > 0.0:
            if own_weight != 0.0:
                own_first = own_offsets[own_row[i]]
                around += own_weight * _passing(own, own_first, left, s, threshold[i], inclusive)
                around += own_weight * _passing(own, own_first, begin, right, threshold[i], inclusive)
            score[i] -= outer_weight * (around / size)
    return inner, score
