"""Whole chains, written down literally: what the published Python does for one video, snippet by snippet.

`rskp` and `gaufuse` follow evaluation/detectionMAP.py of the two codes in manner and cost (lists over snippets,
a NumPy mean per proposal, a greedy loop); benchmarks use them as the contender.  `two_stream` and `ptlr` follow the
equations of their papers, which come without code.  All others say what the codes of those names do; `asmloc` holds for
ACM-Net, `actionformer` for OpenTAD.
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


def _stretches(passing):
    """[start, stop) of every stretch of True."""
    runs = []
    for t in [t for t, inside in enumerate(passing) if inside]:
        if runs and runs[-1][1] == t:
            runs[-1][1] = t + 1
        else:
            runs.append([t, t + 1])
    return runs


def _runs(passing, min_length=1):
    """Stretches of some length; nothing at all where the first step alone is True."""
    if not any(t for t, inside in enumerate(passing) if inside):  # any *index* that is true, and index 0 is not
        return []
    return [run for run in _stretches(passing) if run[1] - run[0] >= min_length]


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


def _rows(c, own, thresholds, scored, *, factor, seconds, ratio, min_length, add=0.0):
    """Proposals of one class at all thresholds on `own`; `scored` turns that map, zeroed below, into the one scored."""
    rows = []
    for threshold in thresholds:
        zeroed = _zeroed(own, threshold)
        for s, e in _runs([x > 0 for x in zeroed], min_length):
            contrast = _oic_a(scored(zeroed), s, e, ratio)
            rows.append([c, s / factor * seconds, e / factor * seconds, contrast + add])
    return rows


def _as_zeroed(zeroed):
    return zeroed


def basnet(cas, video_scores, seconds, *, thresholds):
    """Rows [class, start, end, score] in seconds.  Video scores have become 0 or 1 before 0.2 times them is added."""
    found = []
    for c in _searched(video_scores, 0.25, False, False) if len(cas) else []:
        column = _interpolated(_minmax_relu(cas[:, c].tolist()), 24)
        how = {"factor": 24, "seconds": seconds, "ratio": 0.25, "min_length": 1, "add": 0.2 * 1}
        found += _nms_plus_one(_rows(c, column, thresholds, _as_zeroed, **how), 0.7)
    return _table(found)


def _two_maps(column_of, other, video_scores, seconds, thresholds, other_thresholds, *, classes, nms, min_length):
    """Runs of both maps, all scored on the first: zeroed below the threshold for its own runs, raw for the others."""
    found = []
    for c in _searched(video_scores, classes, True, True) if len(other) else []:
        column, fine = _interpolated(column_of(c), 24), _interpolated(other, 24)
        how = {"factor": 24, "seconds": seconds, "ratio": 0.25, "min_length": min_length, "add": 0.2 * video_scores[c]}
        rows = _rows(c, column, thresholds, _as_zeroed, **how)
        rows += _rows(c, fine, other_thresholds, lambda _, raw=column: raw, **how)
        found += _nms_plus_one(rows, nms)
    return _table(found)


def cola(cas, attention, video_scores, seconds, *, cas_thresholds, attention_thresholds, class_threshold=0.2):
    """Both maps normalised and limited to [0, 1]."""
    return _two_maps(
        lambda c: _clip(_minmax_relu(cas[:, c].tolist())),
        _clip(_minmax_relu(attention.tolist())) if len(attention) else [],
        video_scores,
        seconds,
        cas_thresholds,
        attention_thresholds,
        classes=class_threshold,
        nms=0.6,
        min_length=2,
    )


def um(cas, magnitude, video_scores, seconds, *, thresholds, magnitude_thresholds):
    """The classes' softmax times the magnitude, normalised; the magnitude has been normalised before."""
    return _two_maps(
        lambda c: _clip(_minmax_relu([x * m for x, m in zip(cas[:, c].tolist(), magnitude.tolist())])),
        magnitude.tolist(),
        video_scores,
        seconds,
        thresholds,
        magnitude_thresholds,
        classes=0.2,
        nms=0.6,
        min_length=2,
    )


def lacp(cas, foreground, video_scores, seconds, *, thresholds, foreground_thresholds):
    """Both maps as they are."""
    return _two_maps(
        lambda c: cas[:, c].tolist(),
        foreground.tolist(),
        video_scores,
        seconds,
        thresholds,
        foreground_thresholds,
        classes=0.5,
        nms=0.7,
        min_length=1,
    )


def asl(cas, flow, rgb, video_scores, seconds, *, thresholds):
    """The mean of three maps, never zeroed where it is scored."""
    found = []
    for c in _searched(video_scores, 0.25, True, True) if len(cas) else []:
        column = _interpolated([sum(three) / 3 for three in zip(cas[:, c].tolist(), flow.tolist(), rgb.tolist())], 24)
        how = {"factor": 24, "seconds": seconds, "ratio": 0.25, "min_length": 1, "add": 0.2 * video_scores[c]}
        found += _nms_plus_one(_rows(c, column, thresholds, lambda _, raw=column: raw, **how), 0.4)
    return _table(found)


def _warped(rows, warp):
    if warp is None:
        return rows
    return [[c, float(np.interp(s, *warp)), float(np.interp(e, *warp)), score] for c, s, e, score in rows]


def asmloc(cas, attention, video_scores, seconds, *, cas_thresholds, attention_thresholds, nms=0.45, warp=None):
    """As `cola` on maps as they are, narrower margins, no video score; `warp` moves seconds before suppression."""
    found = []
    for c in _searched(video_scores, 0.25, False, True) if len(cas) else []:
        column, foreground = (_interpolated(values.tolist(), 20) for values in (cas[:, c], attention))
        how = {"factor": 20, "seconds": seconds, "ratio": 0.2, "min_length": 2}
        rows = _rows(c, column, cas_thresholds, _as_zeroed, **how)
        rows += _rows(c, foreground, attention_thresholds, lambda _, raw=column: raw, **how)
        found += _nms_plus_one(_warped(rows, warp), nms)
    return _table(found)


def asmloc_anet(cas, attention, video_scores, seconds, *, cas_thresholds, attention_thresholds, warp=None):
    """ActivityNet: scored on 0.7 cas + 0.3 attention, with the map that was thresholded zeroed in it."""
    found = []
    for c in _searched(video_scores, 0.1, False, True) if len(cas) else []:
        column, foreground = (_interpolated(values.tolist(), 20) for values in (cas[:, c], attention))
        how = {"factor": 20, "seconds": seconds, "ratio": 0.15, "min_length": 2}
        rows = _rows(c, column, cas_thresholds, lambda x, b=foreground: _blend(x, b), **how)
        how["add"] = 0.25 * video_scores[c]
        rows += _rows(c, foreground, attention_thresholds, lambda x, a=column: _blend(a, x), **how)
        found += _nms_plus_one(_warped(rows, warp), 0.9)
    return _table(found)


def _blend(cas, attention):
    return [0.7 * a + 0.3 * b for a, b in zip(cas, attention)]


def asmloc_selected(rows, *, alpha, delta, end):
    """Pseudo segments: the best of each class while their sum is at most alpha of all, longer by delta at both ends."""
    found = []
    for c in sorted({row[0] for row in rows.tolist()}):
        mine = sorted((row for row in rows.tolist() if row[0] == c), key=lambda row: -row[3])
        sums = np.cumsum([row[3] for row in mine])
        for _, s, e, score in mine[: int((sums <= alpha * sums.max()).sum())]:
            middle, half = (s + e) / 2, (delta + 0.5) * (e - s)
            found.append([c, max(0.0, middle - half), min(end, middle + half), score])
    return _table(found)


def wtalc(cas):
    """One threshold per class and video, halfway between its extremes; classes whose best eighth has a mean above 0."""
    found = []
    for c in range(cas.shape[1]):
        column = cas[:, c].tolist()
        best = sorted(column)[::-1][: len(column) // 8]
        if not best or not sum(best) / len(best) > 0:
            continue
        threshold = max(column) - (max(column) - min(column)) * 0.5
        for s, e in _stretches([x > threshold for x in column]):
            if e - s >= 2:
                found.append([c, s, e, max(column[s:e]) + 0.7 * sum(best) / len(best)])
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


def cmcs(scores, global_scores, seconds, duration, *, share, decimals=None):
    """Frame by frame, 16 to a snippet: above `share` of the mean, dilated by 20 frames; a quarter of the run around it.

    `seconds` of a snippet; the margins are slices, so that a left one that would begin before the video is empty.
    """
    found = []
    for c, total in enumerate(global_scores):
        column = scores[:, c].tolist()
        if not total > 0.1 or not max(column, default=0.0) > min(column, default=0.0):
            continue
        scaled = [(x - min(column)) / (max(column) - min(column)) for x in column]
        metric = np.interp(np.arange(16 * (len(scaled) - 1) + 1) / 16, np.arange(len(scaled)), scaled)
        passing = [t for t in range(len(metric)) if metric[t] > share * metric.mean()]
        near = {t + step for t in passing for step in range(-10, 10)}
        for s, e in _stretches([t in near for t in range(len(metric))]):
            n = e - s
            left, right = metric[min(int(s - 0.25 * n), s - 1) : s], metric[e : max(int(e + 0.25 * n), e + 1)]
            outer = np.concatenate([left, right])
            score = metric[s:e].mean() - (outer.mean() if len(outer) else 0.0) + 0.25 * total
            found.append([c, *(min(duration, max(0.0, t / 16 * seconds)) for t in (s, e)), score])
    if decimals:
        found = [[c, round(s, decimals[0]), round(e, decimals[0]), round(x, decimals[1])] for c, s, e, x in found]
    return _table(found)


# ------------------------------------------------------------------------------------ proposals that a network scored


def _tiou_eps(a, b):
    """As compiled code has it: 1e-6 on both lengths."""
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inter / ((a[1] - a[0] + 1e-6) + (b[1] - b[0] + 1e-6) - inter)


def _compiled_soft_nms(rows, decay, floor):
    """Rows [class, start, end, score] in the order of the picks; only the first may be below the floor."""
    left, picked = [list(row) for row in rows], []
    while left:
        best = left.pop(max(range(len(left)), key=lambda i: left[i][3]))
        if not picked or floor is None or best[3] >= floor:
            picked.append(best)
            for row in left:
                row[3] *= decay(best[1:3], _tiou_eps(best[1:3], row[1:3]))
    return picked


def gaussian(sigma):
    return lambda pick, overlap: np.exp(-(overlap**2) / sigma)


def improved(sigma, t1, t2):
    """OpenTAD: only what overlaps more than the pick's length allows."""
    return lambda pick, o: np.exp(-(o**2) / sigma) if o >= t1 + t2 * (pick[1] - pick[0] + 1e-6) else 1.0


def _voted(row, voters, threshold, by_overlap):
    total, ends = 0.0, [0.0, 0.0]
    for voter in voters:
        overlap = _tiou(row[1:3], voter[1:3])
        if overlap >= threshold:
            weight = voter[3] * (overlap if by_overlap else 1.0)
            total += weight
            ends = [ends[0] + weight * voter[1], ends[1] + weight * voter[2]]
    return [row[0], ends[0] / total, ends[1] / total, row[3]]


def actionformer(
    rows,
    decay,
    *,
    limit,
    per_class,
    least=None,
    top=None,
    shortest=None,
    floor=0.001,
    voting=None,
    by_overlap=False,
    grid=None,
    decimals=None,
):
    """Rows [class, start, end, score]: choice, suppression, voting, then (seconds per step, duration) and rounding."""
    rows = [list(row) for row in rows]
    if least is not None:
        rows = [row for row in rows if row[3] > least]
    if top is not None:
        rows = sorted(rows, key=lambda row: -row[3])[:top]
    if shortest is not None:
        rows = [row for row in rows if row[2] - row[1] > shortest]
    kept = []
    for c in sorted({row[0] for row in rows}) if per_class else [None]:
        kept += _compiled_soft_nms([row for row in rows if not per_class or row[0] == c], decay, floor)
    kept = sorted(kept, key=lambda row: -row[3])[:limit]
    if voting is not None:
        kept = [_voted(row, rows, voting, by_overlap) for row in kept]
    if grid is not None:
        step, duration = grid
        kept = [[c, *(min(max(t * step, 0.0), duration) for t in ends), score] for c, *ends, score in kept]
    if decimals is not None:
        kept = [[c, *(round(t, decimals[0]) for t in ends), round(score, decimals[1])] for c, *ends, score in kept]
    return _table(kept)


def mmaction(rows, alpha, low, high, top):
    """Rows [class, start, end, score] of fractions; it keeps one more than `top`."""
    left, kept = [list(row) for row in rows], []
    while left and len(kept) <= top:
        best = left.pop(max(range(len(left)), key=lambda i: left[i][3]))
        kept.append(best)
        for row in left:
            overlap = _tiou(best[1:3], row[1:3])
            if overlap > low + (high - low) * (best[2] - best[1]):
                row[3] *= np.exp(-(overlap**2) / alpha)
    return _table(kept)


def pmil(rows, sigma=0.3):
    """Rows [class, start, end, score] in snippets."""
    return _table([row for c in sorted({row[0] for row in rows}) for row in _soft_nms_plus_one(_of(rows, c), sigma)])


def _of(rows, c):
    return [row for row in rows if row[0] == c]
