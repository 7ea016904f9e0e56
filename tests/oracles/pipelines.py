"""Whole chains, written down literally: what the published Python does for one video, snippet by snippet.

`rskp` and `gaufuse` follow evaluation/detectionMAP.py of the two codes in manner and cost (lists over snippets,
a NumPy mean per proposal, a greedy loop); benchmarks use them as the contender.  `two_stream` and `ptlr` follow the
equations of their papers, which come without code.  `basnet`, `cola`, `asmloc`, `hamnet`, `co2net` and `delu` say what
the codes of those names do.
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


# ------------------------------------------------------------- the OIC-A family: BaS-Net, CoLA, ASM-Loc, and HAM-Net's


def _minmax_relu(column):
    """BaS-Net's normalisation over time; a range of 0 counts as 1."""
    low, high = max(min(column), 0.0), max(max(column), 0.0)
    return [(x - low) / (high - low if high - low > 0 else 1.0) for x in column]


def _clip(column):
    return [min(max(x, 0.0), 1.0) for x in column]


def _interpolated(column, factor):
    """Values at i * (1 / factor), i < factor * T, as interp1d has them: a point belongs to the piece on its left, and
    the pieces at both ends go on; one snippet is constant."""
    if len(column) < 2:
        return [column[0]] * (factor * len(column))
    fine, right = [], 1
    for i in range(factor * len(column)):
        at = i * (1.0 / factor)
        while right < len(column) - 1 and right < at:
            right += 1
        slope = (column[right] - column[right - 1]) / (right - (right - 1))
        fine.append(slope * (at - (right - 1)) + column[right - 1])
    return fine


def _zeroed(column, threshold):
    return [0.0 if x < threshold else x for x in column]


def _runs(passing, min_length=1):
    """[start, stop) of every stretch of True; nothing at all where the first step alone is True."""
    marked = [t for t, inside in enumerate(passing) if inside]
    if not any(marked):  # the published question is whether any *index* is true, and index 0 is not
        return []
    runs = []
    for t in marked:
        if runs and runs[-1][1] == t:
            runs[-1][1] = t + 1
        else:
            runs.append([t, t + 1])
    return [run for run in runs if run[1] - run[0] >= min_length]


def _oic_a(column, s, e, ratio):
    """Mean inside minus the pooled mean of both margins; the margins are cut by int()."""
    m = ratio * (e - s)
    outer = [*range(max(0, int(s - m)), s), *range(e, min(len(column) - 1, int(e - 1 + m)) + 1)]
    return sum(column[s:e]) / (e - s) - (sum(column[t] for t in outer) / len(outer) if outer else 0.0)


def _tiou_plus_one(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + 1)
    return inter / ((a[1] - a[0] + 1) + (b[1] - b[0] + 1) - inter)


def _nms_plus_one(rows, threshold):
    """Rows [class, start, end, score] of one class: the last of an ascending sort first, dropped at the threshold."""
    kept = []
    for row in sorted(rows, key=lambda row: row[3])[::-1]:
        if all(_tiou_plus_one(row[1:3], other[1:3]) < threshold for other in kept):
            kept.append(row)
    return kept


def _soft_nms_plus_one(rows, sigma):
    """Rows [class, start, end, score] in the order of the picks; every score is multiplied, a negative one too."""
    left, picked = [list(row) for row in rows], []
    while left:
        best = left.pop(max(range(len(left)), key=lambda i: left[i][3]))
        picked.append(best)
        for row in left:
            row[3] *= np.exp(-(_tiou_plus_one(best[1:3], row[1:3]) ** 2) / sigma)
    return picked


def _searched(scores, threshold, inclusive, fallback):
    found = [c for c, score in enumerate(scores) if score > threshold or (inclusive and score == threshold)]
    return found if found or not fallback else [int(np.argmax(scores))]


def _table(rows):
    """By class, best score first."""
    return np.array(sorted(rows, key=lambda row: (row[0], -row[3])), dtype=np.float64).reshape(-1, 4)


def basnet(cas, video_scores, seconds, *, thresholds):
    """Rows [class, start, end, score] in seconds.  Video scores have become 0 or 1 before 0.2 times them is added."""
    found = []
    for c in _searched(video_scores, 0.25, False, False) if len(cas) else []:
        column, rows = _interpolated(_minmax_relu(cas[:, c].tolist()), 24), []
        for threshold in thresholds:
            zeroed = _zeroed(column, threshold)
            for s, e in _runs([x > 0 for x in zeroed]):
                rows.append([c, s / 24 * seconds, e / 24 * seconds, _oic_a(zeroed, s, e, 0.25) + 0.2 * 1])
        found += _nms_plus_one(rows, 0.7)
    return _table(found)


def cola(cas, attention, video_scores, seconds, *, cas_thresholds, attention_thresholds, class_threshold=0.2):
    """Runs of both maps, all scored on the CAS: zeroed below the threshold for its own runs, raw for the others."""
    found = []
    for c in _searched(video_scores, class_threshold, True, True) if len(cas) else []:
        column = _interpolated(_clip(_minmax_relu(cas[:, c].tolist())), 24)
        actionness = _interpolated(_clip(_minmax_relu(attention.tolist())), 24)
        rows = []
        for own, thresholds in ((column, cas_thresholds), (actionness, attention_thresholds)):
            for threshold in thresholds:
                zeroed = _zeroed(own, threshold)
                for s, e in _runs([x > 0 for x in zeroed], min_length=2):
                    contrast = _oic_a(zeroed if own is column else column, s, e, 0.25)
                    rows.append([c, s / 24 * seconds, e / 24 * seconds, contrast + 0.2 * video_scores[c]])
        found += _nms_plus_one(rows, 0.6)
    return _table(found)


def asmloc(cas, attention, video_scores, seconds, *, cas_thresholds, attention_thresholds, warp=None):
    """As `cola` on maps as they are, narrower margins, no video score; `warp` moves seconds before suppression."""
    found = []
    for c in _searched(video_scores, 0.25, False, True) if len(cas) else []:
        column, foreground = (_interpolated(values.tolist(), 20) for values in (cas[:, c], attention))
        rows = []
        for own, thresholds in ((column, cas_thresholds), (foreground, attention_thresholds)):
            for threshold in thresholds:
                zeroed = _zeroed(own, threshold)
                for s, e in _runs([x > 0 for x in zeroed], min_length=2):
                    ends = [s / 20 * seconds, e / 20 * seconds]
                    ends = ends if warp is None else [float(np.interp(t, *warp)) for t in ends]
                    rows.append([c, *ends, _oic_a(zeroed if own is column else column, s, e, 0.2)])
        found += _nms_plus_one(rows, 0.45)
    return _table(found)


def _attention_chain(logits, attention, *, thresholds, ratio, fallback, seconds=1.0):
    """Thresholds on the attention; contrast and video scores of the weighted logits, background column last."""
    if not len(logits):
        return _table([])
    weighted = attention[:, None] * logits
    count = max(1, len(weighted) // ratio)
    means = [sum(sorted(column)[-count:]) / count for column in weighted.T.tolist()]
    total = sum(np.exp(mean) for mean in means)
    video_scores = [np.exp(mean) / total for mean in means][:-1]
    found = []
    for c in _searched(video_scores, 0.2, True, fallback):
        rows = []
        for threshold in thresholds:
            for s, e in _runs([a > threshold for a in attention]):
                contrast = _oic_a(weighted[:, c].tolist(), s, e, 0.25)
                rows.append([c, s * seconds, e * seconds, contrast + 0.2 * video_scores[c]])
        found += _soft_nms_plus_one(rows, 0.3)
    return _table(found)


def hamnet(logits, attention, seconds, *, thresholds, ratio=10):
    """In seconds; a video without a class above 0.2 has no detections."""
    return _attention_chain(logits, attention, thresholds=thresholds, ratio=ratio, fallback=False, seconds=seconds)


def co2net(logits, attention, *, thresholds, longer_than=None):
    """In snippets; DELU is the same with more thresholds, and its test drops what is not longer than a snippet."""
    rows = _attention_chain(logits, attention, thresholds=thresholds, ratio=10, fallback=True)
    return rows if longer_than is None else rows[rows[:, 2] - rows[:, 1] > longer_than]
