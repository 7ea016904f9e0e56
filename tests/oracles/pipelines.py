"""Whole chains, written down literally: what the published Python does for one video, snippet by snippet.

`rskp` and `gaufuse` follow evaluation/detectionMAP.py of the two codes in manner and cost (lists over snippets,
a NumPy mean per proposal, a greedy loop); benchmarks use them as the contender.  `two_stream` and `ptlr` follow the
equations of their papers, which come without code.
"""

from __future__ import annotations

import numpy as np


def _rskp_proposals(column, thresholds, min_length, ratio, power, outer_weight):
    """Rows [start, end, score, inner] of one class."""
    length = len(column)
    rows = []
    for threshold in thresholds:
        above = np.concatenate([np.zeros(1), (column > threshold).astype(np.float64), np.zeros(1)])
        steps = [above[t] - above[t - 1] for t in range(1, len(above))]
        starts = [t for t, step in enumerate(steps) if step == 1]
        stops = [t for t, step in enumerate(steps) if step == -1]
        for s, e in zip(starts, stops):
            n = e - s
            if n < min_length:
                continue
            margin = ratio * n**power
            inner = np.mean(column[s : e + 1])
            outer = list(range(max(0, int(s - margin)), s)) + list(range(e + 1, min(length - 1, int(e + margin + 1))))
            contrast = inner - outer_weight * (np.mean(column[outer]) if len(outer) else 0.0)
            rows.append([s, e + 1, contrast, inner])
    return np.array(rows).reshape(-1, 4)


def _over_candidate(pick, rows):
    inter = np.maximum(0.0, np.minimum(pick[1], rows[:, 1]) - np.maximum(pick[0], rows[:, 0]) + 1)
    return inter / (rows[:, 1] - rows[:, 0] + 1)


def _greedy(rows, threshold):
    """Clusters (pick, members) in the order of the picks: the last of an ascending sort first."""
    left = np.argsort(rows[:, 2], kind="stable")[::-1]
    while len(left):
        pick, others = left[0], left[1:]
        hit = _over_candidate(rows[pick], rows[others]) > threshold
        yield pick, np.concatenate([[pick], others[hit]])
        left = others[~hit]


def rskp(
    tcam,
    video_scores,
    *,
    thresholds,
    class_threshold=0.1,
    ratio=0.25,
    power=1.0,
    min_length=2,
    outer_weight=1.0,
    nms_threshold=0.5,
    temperature=None,
):
    """Rows [class, start, end, score] of one video; with a `temperature` the clusters are fused as GauFuse does."""
    found = []
    for c in range(tcam.shape[1]):
        if video_scores[c] < class_threshold:
            continue
        rows = _rskp_proposals(tcam[:, c], thresholds, min_length, ratio, power, outer_weight)
        kept = []
        for pick, members in _greedy(rows, nms_threshold):
            if temperature is None:
                kept.append([c, *rows[pick, :3]])
            else:
                weight = np.exp(rows[members, 3] / temperature)
                fused = (weight[:, None] * rows[members, :3]).sum(axis=0) / (np.sign(rows[members, 3]) * weight).sum()
                kept.append([c, *fused])
        found += sorted(kept, key=lambda row: -row[3])
    return np.array(found).reshape(-1, 4)


def _tiou(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    return inter / union if union > 0 else 0.0


def _nms(rows, threshold):
    """Rows [class, start, end, score] that survive; one class."""
    kept = []
    for row in sorted(rows, key=lambda row: -row[3]):
        if all(_tiou(row[1:3], other[1:3]) <= threshold for other in kept):
            kept.append(row)
    return kept


def _integral(column, a, b):
    """Integral over [a, b] of the step function with value column[t] on [t, t + 1), 0 outside."""
    return sum(float(v) * max(0.0, min(b, t + 1.0) - max(a, float(t))) for t, v in enumerate(column))


def two_stream(z, y, *, alpha=0.1, thresholds, beta=0.2, nms_threshold=0.5):
    """Section 3.7 and Eq. 9 of the two-stream paper: z (T, C) foreground activations, y (C,) video scores."""
    found = []
    for c in range(z.shape[1]):
        if y[c] < alpha:
            continue
        rows = []
        for eta in thresholds:
            start = None
            for t in range(len(z) + 1):
                inside = t < len(z) and z[t, c] > eta
                if inside and start is None:
                    start = t
                if not inside and start is not None:
                    t_v = (t - start) / 5
                    phi_in = _integral(z[:, c], start, t) / (t - start)
                    phi_out = (_integral(z[:, c], start - t_v, start) + _integral(z[:, c], t, t + t_v)) / (2 * t_v)
                    rows.append([c, start, t, phi_in - phi_out + beta * y[c]])
                    start = None
        found += _nms(rows, nms_threshold)
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def ptlr(ots, rts, *, thresholds, ratio=0.25, nms_threshold=0.7):
    """Section III-C and IV-A of ILG + PTLR: proposals of both networks, inner minus outer, NMS."""
    found = []
    for c in range(ots.shape[1]):
        rows = []
        for cas in (ots[:, c], rts[:, c]):
            for theta in thresholds:
                start = None
                for t in range(len(cas) + 1):
                    inside = t < len(cas) and cas[t] >= theta and cas[t] > 0
                    if inside and start is None:
                        start = t
                    if not inside and start is not None:
                        m = ratio * (t - start)
                        left, right = max(0.0, start - m), min(float(len(cas)), t + m)
                        length = (start - left) + (right - t)
                        outer = (_integral(cas, left, start) + _integral(cas, t, right)) / length if length else 0.0
                        rows.append([c, start, t, _integral(cas, start, t) / (t - start) - outer])
                        start = None
        found += _nms(rows, nms_threshold)
    return np.array(found, dtype=np.float64).reshape(-1, 4)
