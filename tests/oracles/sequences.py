"""Proposals and their scores, one snippet at a time, as the papers and the published codes say it."""

from __future__ import annotations

import math

import numpy as np


def runs(passing: list[bool]) -> list[tuple[int, int]]:
    """Half-open runs of True."""
    found, start = [], None
    for t, yes in enumerate([*passing, False]):
        if yes and start is None:
            start = t
        if not yes and start is not None:
            found.append((start, t))
            start = None
    return found


def proposals(
    x, thresholds, *, relative="absolute", inclusive=False, positive=False, min_length=1, lone_first=True, dilate=0
):
    """(threshold value, start, stop) of one column, in the order of the thresholds."""
    x = [float(v) for v in x]
    out = []
    for k in thresholds:
        theta = float(k)
        if x and relative == "times_mean":
            theta = float(np.mean(x)) * k
        if x and relative == "below_max":
            theta = max(x) - (max(x) - min(x)) * k
        passing = [(v >= theta if inclusive else v > theta) and (v > 0 or not positive) for v in x]
        if not lone_first and passing[:1] == [True] and not any(passing[1:]):
            continue
        if dilate:  # an even number reaches one step farther to the left
            reach = range(-(dilate // 2), (dilate - 1) // 2 + 1)
            near = {t + step for t, yes in enumerate(passing) if yes for step in reach}
            passing = [t in near for t in range(len(passing))]
        out += [(theta, s, e) for s, e in runs(passing) if e - s >= min_length]
    return out


def normalize(x, kind, clip):
    x = [float(v) for v in x]
    if x and kind != "none":
        low, high = min(x), max(x)
        if kind == "minmax_relu":
            low, high = max(low, 0.0), max(high, 0.0)
        span = high - low if high - low > 0 else 1.0
        x = [(v - low) / span for v in x]
    return [min(max(v, 0.0), 1.0) for v in x] if clip else x


def upsample(x, factor, extrapolate=True):
    """Value at i * (1 / factor) on the line through the snippets before and at (or after) it; the last line goes on.

    Same operations as SciPy's interp1d(kind="linear", fill_value="extrapolate") on arange(0, T, 1 / factor), or up to
    the last snippet.
    """
    x = [float(v) for v in x]
    out = []
    for i in range(len(x) * factor):
        at = i * (1 / factor)
        if not extrapolate and i > (len(x) - 1) * factor:
            break
        low = min(max(math.ceil(at), 1), len(x) - 1) - 1
        out.append(x[0] if len(x) == 1 else (x[low + 1] - x[low]) * (at - low) + x[low])
    return out


def _step_integral(x, a, b):
    """Integral of the step function x[t] on [t, t + 1), 0 outside the video."""
    total = 0.0
    for t, value in enumerate(x):
        total += value * max(0.0, min(b, t + 1) - max(a, t))
    return total


def oic(
    x, start, stop, *, layout, scale, power=1.0, denominator="pooled", outer_weight=1.0, inner="mean", outer_map=None
):
    """Outer-inner contrast of the run [start, stop) of one column; `outer_map` where the outside has another map."""
    x = [float(v) for v in x]
    out = x if outer_map is None else [float(v) for v in outer_map]
    size, n = len(x), stop - start
    margin = scale * n**power
    if layout == "symmetric":
        inside = _step_integral(x, start, stop) / n if n > 0 else 0.0
        if inner == "max":
            inside = max(x[int(start) : math.ceil(stop)], default=0.0)
        left, right = max(0.0, start - margin), min(float(size), stop + margin)
        total = _step_integral(out, left, start) + _step_integral(out, stop, right)
        length = 2 * margin if denominator == "fixed" else (start - left) + (right - stop)
        outside = total / length if length > 0 else 0.0
    else:
        s, e = int(start), int(stop)
        covered = x[s : e + 1] if layout == "oic_b" else x[s:e]
        inside = (max(covered) if inner == "max" else sum(covered) / len(covered)) if covered else 0.0
        before = list(range(max(0, int(start - margin)), s))
        if layout == "cmcs":  # slices: a start below 0 counts from the end, where nothing is left before s
            steps = list(range(size))
            before = steps[min(int(start - margin), s - 1) : s]
            after = steps[e : max(int(stop + margin), e + 1)]
        elif layout == "oic_a":
            after = list(range(e, min(size - 1, int(stop - 1 + margin)) + 1))
        else:
            after = list(range(e + 1, min(size - 1, int(stop + margin + 1))))
        values = [out[t] for t in before + after]
        length = 2 * margin if denominator == "fixed" else len(values)
        outside = sum(values) / length if length > 0 else 0.0
    if inner == "none":
        inside = 0.0
    return inside - outer_weight * outside
