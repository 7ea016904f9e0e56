"""Slow literal answers for everything that compares segments; imports nothing from the package.

Plain Python floats and loops, written from the papers and from descriptions of published code, before the fast code.
"""

from __future__ import annotations

import math

import numpy as np


def overlap(a, b, kind="iou", length_offset=0.0, area_eps=0.0):
    """Overlap of segment `a` with the candidate `b`."""
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + length_offset)
    len_a = a[1] - a[0] + length_offset + area_eps
    len_b = b[1] - b[0] + length_offset + area_eps
    whole = len_b if kind == "candidate" else len_a + len_b - inter
    return inter / whole if whole > 0 else 0.0


def overlap_matrix(a, b, **how):
    return np.array([[overlap(x, y, **how) for y in b] for x in a], dtype=float).reshape(len(a), len(b))


def nms(segments, scores, threshold, idxs=None, inclusive=False, max_detections=None, **how):
    """Take the best, drop what overlaps it too much, repeat."""
    idxs = [0] * len(scores) if idxs is None else idxs
    todo, kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), []
    while todo:
        best, *todo = todo
        kept.append(best)
        left = []
        for i in todo:
            o = overlap(segments[best], segments[i], **how)
            if idxs[i] == idxs[best] and (o > threshold or (inclusive and o == threshold)):
                continue
            left.append(i)
        todo = left
    return np.array(kept[:max_detections], dtype=np.int64)


def soft_nms(
    segments,
    scores,
    method="gaussian",
    sigma=0.5,
    threshold=None,
    gate=None,
    min_score=None,
    keep_first=False,
    decay_negative=False,
    max_detections=None,
    idxs=None,
    **how,
):
    """Bodla et al. 2017: take the best, decay the score of what overlaps it, repeat; per group, then merged."""
    idxs = [0] * len(scores) if idxs is None else list(idxs)
    picked = []
    for group in sorted(set(idxs)):
        now = {i: float(scores[i]) for i in range(len(scores)) if idxs[i] == group}
        first = True
        while now and sum(idxs[i] == group for i, _ in picked) != max_detections:
            best = min(now, key=lambda i: (-now[i], i))
            score = now.pop(best)
            if min_score is not None and score < min_score and not (keep_first and first):
                break
            picked.append((best, score))
            first = False
            width = segments[best][1] - segments[best][0]
            width += how.get("length_offset", 0.0) + how.get("area_eps", 0.0)
            for i in now:
                o = overlap(segments[best], segments[i], **how)
                if method == "linear":
                    weight = 1 - o if o >= threshold else 1.0
                elif method == "gaussian":
                    weight = math.exp(-(o**2) / sigma)
                elif method == "gated":
                    weight = math.exp(-(o**2) / sigma) if o > gate[0] + gate[1] * width else 1.0
                elif method == "improved":
                    weight = math.exp(-(o**2) / sigma) if o >= gate[0] + gate[1] * width else 1.0
                if now[i] > 0 or decay_negative:
                    now[i] *= weight
    picked.sort(key=lambda pair: (-pair[1], pair[0]))
    picked = picked[:max_detections]
    return np.array([i for i, _ in picked], dtype=np.int64), np.array([s for _, s in picked], dtype=float)


def vote(kept, segments, scores, threshold, times_iou=False, kept_idxs=None, idxs=None, **how):
    """Every kept segment becomes the weighted mean of the segments of its group that overlap it."""
    kept_idxs = [0] * len(kept) if kept_idxs is None else kept_idxs
    idxs = [0] * len(segments) if idxs is None else idxs
    out = []
    for segment, group in zip(kept, kept_idxs):
        weights = []
        for other, score, g in zip(segments, scores, idxs):
            o = overlap(segment, other, **how)
            voter = g == group and o >= threshold and score > 0
            weights.append(score * (o if times_iou else 1.0) if voter else 0.0)
        if sum(weights) > 0:
            segment = [sum(w * s[side] for w, s in zip(weights, segments)) / sum(weights) for side in (0, 1)]
        out.append(list(segment))
    return np.array(out, dtype=float).reshape(len(kept), 2)


def clusters(segments, scores, threshold, idxs=None, inclusive=False, **how):
    """Lists of rows, head first: NMS that remembers whom it dropped."""
    idxs = [0] * len(scores) if idxs is None else idxs
    todo, found = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), []
    while todo:
        head, *todo = todo
        members, left = [head], []
        for i in todo:
            o = overlap(segments[head], segments[i], **how)
            joins = idxs[i] == idxs[head] and (o > threshold or (inclusive and o == threshold))
            (members if joins else left).append(i)
        todo = left
        found.append(members)
    return found


def softmax(weights, temperature):
    top = max(weights)
    powers = [math.exp((w - top) / temperature) for w in weights]
    return [p / sum(powers) for p in powers]


def weighted_median(values, shares):
    """Midpoint of the smallest value with at least, and the smallest with more than, half of the weight to its left."""
    pairs = sorted(zip(values, shares))
    lower = upper = None
    below = 0.0
    for value, share in pairs:
        below += share
        if lower is None and below >= 0.5 - 1e-12:
            lower = value
        if upper is None and below > 0.5 + 1e-12:
            upper = value
    return 0.5 * (lower + (pairs[-1][0] if upper is None else upper))


def student_entropy(at, values, shares, scale, dof):
    """Cross-entropy between the shares and a Student t density, without its constant."""
    at = np.asarray(at, dtype=float)[..., None]
    u = (np.asarray(values, dtype=float) - at) / scale
    return (np.asarray(shares) * (np.log(scale) + 0.5 * (dof + 1) * np.log1p(u * u / dof))).sum(axis=-1)


def student_location(values, shares, scale, dof):
    """Global minimum over the location: a dense grid around every value, then ever finer grids around the best."""
    values = np.asarray(values, dtype=float)
    low, high = values.min(), values.max()
    if not high > low:
        return low
    near = (values[:, None] + scale * math.sqrt(dof) * np.linspace(-3, 3, 241)).ravel()
    grid = np.concatenate([np.linspace(low, high, 20001), near, values])
    grid = np.sort(grid[(grid >= low) & (grid <= high)])
    at = grid[np.argmin(student_entropy(grid, values, shares, scale, dof))]
    width = max((high - low) / 10000, scale * math.sqrt(dof) / 20)
    for _ in range(12):
        grid = np.clip(np.linspace(at - width, at + width, 201), low, high)
        at = grid[np.argmin(student_entropy(grid, values, shares, scale, dof))]
        width /= 20
    return at


def fuse(
    segments,
    scores,
    threshold,
    temperature,
    distribution="gaussian",
    weights=None,
    idxs=None,
    inclusive=False,
    signed_denominator=False,
    dof=4.0,
    **how,
):
    """Zhou et al. 2023, Eq. 1, 3 and 4, and the other templates; a list of dicts, best pick first."""
    weights = scores if weights is None else weights
    found = []
    for members in clusters(segments, scores, threshold, idxs, inclusive, **how):
        shares = softmax([weights[i] for i in members], temperature)
        cluster = {"members": members, "effective_size": 1 / sum(g * g for g in shares)}
        columns = [[segments[i][0] for i in members], [segments[i][1] for i in members], [scores[i] for i in members]]
        centre, std = [], []
        for values in columns:
            mean = sum(g * x for g, x in zip(shares, values))
            spread = math.sqrt(sum(g * (x - mean) ** 2 for g, x in zip(shares, values)))
            std.append(spread)
            if distribution == "gaussian":
                if signed_denominator:
                    mean /= sum(math.copysign(g, weights[i]) if weights[i] else 0.0 for g, i in zip(shares, members))
                centre.append(mean)
            elif distribution == "exponential":
                centre.append(weighted_median(values, shares))
            elif distribution == "uniform":
                centre.append(0.5 * (min(values) + max(values)))
            elif max(values) == min(values):
                centre.append(values[0])
            else:
                centre.append(student_location(values, shares, spread, dof))
        cluster["segment"], cluster["score"] = centre[:2], centre[2]
        cluster["start_std"], cluster["end_std"] = std[:2]
        found.append(cluster)
    return found


def weighted_segment_fusion(
    segments_list, scores_list, labels_list, model_weights, threshold, min_score, conf_type, allows_overflow=False
):
    """Solovyev et al. 2021 (weighted boxes fusion) on intervals; rows (label, score, start, end), best first."""
    rows = []  # label, weighted score, model weight, model, segment
    for model, (segments, scores, labels) in enumerate(zip(segments_list, scores_list, labels_list)):
        for segment, score, label in zip(segments, scores, labels):
            if score >= min_score:
                rows.append((label, score * model_weights[model], model_weights[model], model, segment))
    total_weight, results = sum(model_weights), []
    for label in sorted({row[0] for row in rows}):
        found = []  # each: members, centre
        for row in sorted((row for row in rows if row[0] == label), key=lambda row: -row[1]):
            best, best_overlap = None, threshold
            for cluster in found:
                o = overlap(cluster["centre"], row[4])
                if o > best_overlap:
                    best, best_overlap = cluster, o
            if best is None:
                best = {"members": [], "centre": row[4]}
                found.append(best)
            best["members"].append(row)
            mass = sum(m[1] for m in best["members"])
            if mass > 0:
                best["centre"] = [sum(m[1] * m[4][side] for m in best["members"]) / mass for side in (0, 1)]
        for cluster in found:
            members = cluster["members"]
            score = sum(m[1] for m in members) / len(members)
            member_weight = sum(m[2] for m in members)
            present = {m[3] for m in members}
            if conf_type == "box_and_model_avg":
                score = score * len(members) / member_weight * sum(model_weights[m] for m in present) / total_weight
            elif conf_type == "absent_model_aware_avg":
                absent = sum(w for m, w in enumerate(model_weights) if m not in present)
                score = score * len(members) / (member_weight + absent)
            elif conf_type == "max":
                score = max(m[1] for m in members) / max(model_weights)
            elif allows_overflow:
                score = score * len(members) / total_weight
            else:
                score = score * min(len(model_weights), len(members)) / total_weight
            results.append((label, score, *cluster["centre"]))
    return sorted(results, key=lambda r: -r[1])
