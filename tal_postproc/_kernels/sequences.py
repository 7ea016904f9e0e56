"""Kernels on TCAM columns: upsampling, threshold runs, scores of runs.

Columns are rows of snippets of any lengths, one after the other: row r is ``values[offsets[r]:offsets[r + 1]]``.
"""

import numpy as np

from . import kernel

SYMMETRIC, OIC_A, OIC_B, CMCS = 0, 1, 2, 3  # layouts of the outer margin
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
def _levels(values, offsets, thresholds, inclusive, positive, skip_lone_first):
    """How many of the rising thresholds every value passes, counted on from where evenly spaced ones would lie."""
    num = thresholds.shape[1]
    shared = len(thresholds) == 1
    level = np.empty(len(values), np.int32)
    for r in range(len(offsets) - 1):
        first, stop = offsets[r], offsets[r + 1]
        rising = thresholds[0 if shared else r]
        per = (num - 1) / (rising[num - 1] - rising[0]) if num > 0 else 0.0
        if not per < 1e300:  # no spacing
            per = 0.0
        for t in range(first, stop):
            value = values[t]
            now = int(min(max((value - rising[0]) * per + 1.0, 0.0), float(num))) if num > 0 else 0
            while now < num and (value > rising[now] or (inclusive and value == rising[now])):
                now += 1
            while now > 0 and not (value > rising[now - 1] or (inclusive and value == rising[now - 1])):
                now -= 1
            level[t] = now if value > 0.0 or not positive else 0
        if skip_lone_first and stop > first:  # a threshold that only the first step passes
            highest = 0
            for t in range(first + 1, stop):
                highest = max(highest, level[t])
            level[first] = min(level[first], highest)
    return level


@kernel
def _nested_runs(level, offsets, num, min_length):
    """The different runs of every row, in the order of their ends, with the first and last + 1 level that finds them.

    Runs above rising levels lie within each other, and every step opens at most one: a stack sees each once.
    """
    row, start, stop = np.empty(len(level), np.int64), np.empty(len(level), np.int64), np.empty(len(level), np.int64)
    low, high = np.empty(len(level), np.int32), np.empty(len(level), np.int32)
    opened, lowest = np.empty(num, np.int64), np.empty(num, np.int32)  # runs that are open, and their first level
    count = 0
    for r in range(len(offsets) - 1):
        first, length = offsets[r], offsets[r + 1] - offsets[r]
        depth = before = 0
        for t in range(length + 1):
            now = level[first + t] if t < length else 0
            if now > before:
                opened[depth], lowest[depth] = t, before
                depth += 1
            while now < before:
                left = max(now, lowest[depth - 1])
                if t - opened[depth - 1] >= min_length:
                    row[count], start[count], stop[count] = r, opened[depth - 1], t
                    low[count], high[count] = left, before
                    count += 1
                before = left
                if left == lowest[depth - 1]:
                    depth -= 1
            before = now
    return row[:count], start[:count], stop[:count], low[:count], high[:count]


@kernel
def _slots_of(run_row, low, high, slots, once):
    """Under which slots every run is listed: all that find it, or the first (`once` 1) or the last (-1) of them."""
    total = len(low)
    if once == 0:
        total = 0
        for i in range(len(low)):
            total += high[i] - low[i]
    run, slot = np.empty(total, np.int64), np.empty(total, np.int64)
    count = 0
    for i in range(len(low)):
        own = 0 if len(slots) == 1 else run_row[i]
        for m in range(low[i], high[i]):
            if once == 0 or m == low[i]:
                run[count], slot[count] = i, slots[own, m]
                count += 1
            elif (slots[own, m] - slot[count - 1]) * once < 0:
                slot[count - 1] = slots[own, m]
    return run, slot


@kernel
def find_runs(values, offsets, thresholds, slots, inclusive, positive, min_length, skip_lone_first, once):
    """Runs above every threshold: O(T + runs), a run that several thresholds find counted for each of them.
    Unevenly spaced thresholds may take up to O(T M + runs).

    `thresholds` (R, M) rises along each row, or is one row (1, M) for all; `slots`, of the same shape, says where each
    stood before sorting.  Returns row, slot, start, stop of every run, by row, then in the slots' order, then by time;
    and how many thresholds it stands for: 1, or, with `once`, all that find the same run.
    """
    num = thresholds.shape[1]
    level = _levels(values, offsets, thresholds, inclusive, positive, skip_lone_first)
    run_row, run_start, run_stop, low, high = _nested_runs(level, offsets, num, min_length)
    run, run_slot = _slots_of(run_row, low, high, slots, once)
    place = np.zeros((len(offsets) - 1) * num + 1, np.int64)  # where the runs of a row and slot begin
    for i in range(len(run)):
        place[run_row[run[i]] * num + run_slot[i] + 1] += 1
    for i in range(len(place) - 1):
        place[i + 1] += place[i]
    row, slot = np.empty(len(run), np.int64), np.empty(len(run), np.int64)
    start, stop, multiplicity = np.empty(len(run)), np.empty(len(run)), np.empty(len(run), np.int64)
    for i in range(len(run)):
        j = run[i]
        group = run_row[j] * num + run_slot[i]
        at = place[group]
        place[group] = at + 1
        row[at], slot[at], start[at], stop[at] = run_row[j], run_slot[i], run_start[j], run_stop[j]
        multiplicity[at] = 1 if once == 0 else high[j] - low[j]
    return row, slot, start, stop, multiplicity


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
            elif layout == CMCS:  # slices of at least one step; a start below 0 counts from the end: nothing
                whole_last = whole_begin = whole_e
                whole_left = min(int(start[i] - reach), whole_s - 1)
                if whole_left < 0:
                    whole_left = whole_s
                whole_right = min(length, max(int(stop[i] + reach), whole_e + 1))
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
