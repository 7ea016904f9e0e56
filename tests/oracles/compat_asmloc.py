"""ASM-Loc, written down literally: its unused proposals, sampling weights, segments of a data set, painted labels."""

from __future__ import annotations

import numpy as np

from .compat_attention import groups_of


def piecewise(x, knots, values):
    """Linear between the knots; the outer pieces go on."""
    i = 0
    while i < len(knots) - 2 and x > knots[i + 1]:
        i += 1
    return values[i] + (values[i + 1] - values[i]) / (knots[i + 1] - knots[i]) * (x - knots[i])


def warp(sums, duration):
    knots = [s / sums[-1] for s in sums]
    values = [i / (len(sums) - 1) for i in range(len(sums))]
    return lambda t: piecewise(t / duration, knots, values) * duration


def temp_proposals(found, scores, c_pred, c_pred_scores, t_factor):
    lists = []
    for i, where in enumerate(found):
        rows, column = [], [float(row[i]) for row in scores]
        for group in groups_of(where[0]) if any(t != 0 for t in where[0]) else []:
            left = right = 0.0
            reach = len(group) // 4 + 1
            if group[0] > 0:
                left = np.mean([column[t] for t in range(max(0, group[0] - reach), group[0])])
            if group[-1] < len(column) - 1:
                right = np.mean([column[t] for t in range(group[-1], min(len(column), group[-1] + reach))])
            inside = np.mean([column[t] for t in group])
            score = inside - (left + right) / 2 + 0.3 * c_pred_scores[i]
            rows.append([c_pred[i], score, group[0] * t_factor, group[-1] * t_factor])
        lists.append(rows)
    return lists


def selected(rows, alpha):
    """The best rows [start, end, score] while the running sum is at most alpha of its largest value."""
    rows = sorted(rows, key=lambda row: -row[2])
    sums, total = [], 0.0
    for row in rows:
        total += row[2]
        sums.append(total)
    return rows[: sum(s <= max(sums) * alpha for s in sums)]


def weights(rows, length, delta, gamma):
    most = gamma * (2 * delta + 1)
    out = [1.0] * length
    for row in rows:
        middle, duration = (row[0] + row[1]) / 2, row[1] - row[0]
        first = max(round((middle - (delta + 0.5) * duration) * 25 / 16), 0)
        last = min(round((middle + (delta + 0.5) * duration) * 25 / 16), length - 1)
        if first < last and last - first + 1 <= most:
            for t in range(first, last + 1):
                out[t] = max(out[t], min(most / (last - first + 1), most))
    inside = [t for t in range(length) if out[t] > 1]
    for group in groups_of(inside) if any(inside) else []:
        total = sum(out[t] for t in group)
        for t in group:
            out[t] = round(total) * out[t] / total
    return out


def outermost(spans):
    """By start; one that ends no later than the one before it goes."""
    once = []
    for span in spans:
        if list(span[:2]) not in once:
            once.append(list(span[:2]))
    once = sorted(once, key=lambda span: span[0], reverse=True)
    kept = []
    while once:
        span = once.pop()
        if not kept or kept[-1][1] < span[1]:
            kept.append(span)
    return kept


def painted(rows, shown, output_len, vid_len, index, sums=None):
    rate = 25 / 16
    labels = [[0.0] * len(shown) + [1.0] for _ in range(output_len)]
    scale = rate * output_len / vid_len
    if sums is not None and len(sums) != vid_len + 1:
        sums = None
    if sums is not None:
        scale = rate * output_len / round(sums[-1])
    for start, end, _, label in rows:
        if not shown[index[label]]:
            continue
        if sums is not None:
            start, end = ((piecewise(t * rate + 1, range(vid_len + 1), sums) - 1) / rate for t in (start, end))
        for t in range(max(round(start * scale), 0), min(round(end * scale), output_len - 1) + 1):
            labels[t][index[label]], labels[t][-1] = 1.0, 0.0
    return [[x / sum(row) for x in row] for row in labels]
