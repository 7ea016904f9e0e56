"""HAM-Net, CO2-Net, DELU and P-MIL, written down literally: what their functions return, element by element."""

from __future__ import annotations

import numpy as np


def soft_nms(dets, iou_thr=0.7, method="gaussian", sigma=0.3, columns=(2, 3, 1)):
    """Rows in the order in which they are picked; the first of the best is picked."""
    s, e, p = columns
    left, picked = [[float(x) for x in row] for row in dets], []
    while left:
        best = 0
        for i in range(len(left)):
            if left[i][p] > left[best][p]:
                best = i
        pick = left.pop(best)
        picked.append(pick)
        for row in left:
            inter = max(min(pick[e], row[e]) - max(pick[s], row[s]) + 1, 0.0)
            iou = inter / ((pick[e] - pick[s] + 1) + (row[e] - row[s] + 1) - inter)
            if method == "linear":
                weight = 1 - iou if iou > iou_thr else 1.0
            elif method == "gaussian":
                weight = float(np.exp(-(iou * iou) / sigma))
            else:
                weight = 0.0 if iou > iou_thr else 1.0
            row[p] *= weight
    return picked


def soft_nms_arrays(dets, iou_thr=0.7, method="gaussian", sigma=0.3, columns=(2, 3, 1)):
    """The same at the cost of the originals: arrays for the rows that are left, a copy of them per pick."""
    s, e, p = columns
    left, picked = np.array(dets, dtype=float), []
    while len(left):
        best = int(np.argmax(left[:, p]))
        pick, left = left[best], np.delete(left, best, axis=0)
        picked.append(pick.tolist())
        inter = np.maximum(np.minimum(pick[e], left[:, e]) - np.maximum(pick[s], left[:, s]) + 1, 0.0)
        iou = inter / ((pick[e] - pick[s] + 1) + (left[:, e] - left[:, s] + 1) - inter)
        if method == "gaussian":
            left[:, p] *= np.exp(-(iou * iou) / sigma)
        else:
            left[:, p] *= np.where(iou > iou_thr, 1 - iou if method == "linear" else 0.0, 1.0)
    return picked


def groups_of(positions):
    """Stretches of consecutive numbers."""
    groups = []
    for t in positions:
        if groups and groups[-1][-1] == t - 1:
            groups[-1].append(int(t))
        else:
            groups.append([int(t)])
    return groups


def contrast(column, group, lambda_):
    """Inner mean, and the pooled mean of both margins (0 where there is none)."""
    n = len(group)
    first = max(0, int(group[0] - lambda_ * n))
    last = min(len(column) - 1, int(group[-1] + lambda_ * n))
    outer = list(range(first, group[0])) + list(range(group[-1] + 1, last + 1))
    return np.mean(column[group]), np.mean(column[outer]) if outer else 0.0


def proposals(
    tList, wtcam, final_score, c_pred, t_factor=1, lambda_=0.25, gamma=0.2, loss_type="oic", min_length=1, warp=None
):
    """A list of rows [class, score, start, end] for every class that has a position other than 0."""
    found = []
    for i, where in enumerate(tList):
        positions = where[0]
        if not any(t != 0 for t in positions):
            continue
        column, rows = np.asarray(wtcam, float)[:, i].ravel(), []
        for group in groups_of(positions):
            if len(group) < min_length:
                continue
            inside, outside = contrast(column, group, lambda_)
            score = inside - outside + gamma * final_score[c_pred[i]] if loss_type == "oic" else inside
            ends = [group[0] * t_factor, (group[-1] + 1) * t_factor]
            rows.append([c_pred[i], score, *(ends if warp is None else [warp(t) for t in ends])])
        found.append(rows)
    return found


def video_scores(weighted, ratio):
    """Softmax of the mean of the largest values of every column, without the last one."""
    k = max(1, len(weighted) // ratio)
    means = [sum(sorted(column)[-k:]) / k for column in weighted.T.tolist()]
    powers = [float(np.exp(mean - max(means))) for mean in means]
    return [power / sum(powers) for power in powers][:-1]


def chain(
    cas, attention, thresholds, class_threshold=0.2, fallback=True, ratio=10, gamma=0.2, t_factor=1, suppress=soft_nms
):
    """Rows [class, score, start, end] of one video: (T, C + 1) logits and (T,) attention."""
    if not len(cas):
        return []
    weighted = np.asarray(cas, float) * np.asarray(attention, float)[:, None]
    scores = video_scores(weighted, ratio)
    classes = [c for c, score in enumerate(scores) if score >= class_threshold]
    if not classes and fallback:
        classes = [max(range(len(scores)), key=lambda c: scores[c])]
    by_class = {}
    for threshold in thresholds:
        where = [([t for t, a in enumerate(attention) if a > threshold],) for _ in classes]
        for rows in proposals(where, weighted[:, classes], scores, classes, t_factor, 0.25, gamma):
            by_class.setdefault(rows[0][0], []).extend(rows)
    return [row for rows in by_class.values() for row in suppress(rows)]


def unambiguous(rows, name, spans):
    """Rows [start, end, ...] whose snippets are none of those of an ambiguous span (name, "", start, end)."""
    kept = []
    for row in rows:
        mine = set(range(int(row[0]), int(row[1])))
        if not any(
            span[0] == name and mine & set(range(round(float(span[2]) * 25 / 16), round(float(span[3]) * 25 / 16)))
            for span in spans
        ):
            kept.append(row)
    return kept


def pmil(outputs, proposals, threshold, gamma, suppress=soft_nms):
    """Rows [start, end, class, score], the classes and the video-level scores of one video."""

    def half(name, how):
        return 0.5 * how(outputs[f"prop_v_{name}"][0]) + 0.5 * how(outputs[f"prop_f_{name}"][0])

    def softmax(logits):
        return np.array([np.exp(row) / sum(np.exp(row)) for row in logits])

    def sigmoid(logits):
        return 1 / (1 + np.exp(-logits))

    cas, attention, overlap = half("cas", softmax), half("attn", sigmoid), half("iou", sigmoid)
    video = (sum(cas * attention) / (sum(attention) + 1e-6))[:-1]
    classes = [c for c in range(len(video)) if video[c] >= threshold]
    classes = classes or [int(np.argmax(video))]
    rows = []
    for c in classes:
        mine = [[*proposals[i], c, (cas * attention * overlap)[i, c] + gamma * video[c]] for i in range(len(proposals))]
        rows += suppress(mine, columns=(0, 1, 3))
    return rows, classes, video


def pseudo_instances(proposals, attention, gamma):
    """Rows of the proposals that are chosen, the best one that no chosen one overlaps at a time."""
    left = [i for i in range(len(proposals)) if attention[i] > gamma * max(attention)]
    chosen = []
    while left:
        best = max(left, key=lambda i: (attention[i], -i))
        chosen.append(best)
        s, e = proposals[best]
        left = [i for i in left if i != best and min(e, proposals[i][1]) - max(s, proposals[i][0]) <= 0]
    return chosen


def pseudo_instances_arrays(proposals, attention, gamma):
    """The same at the cost of the original: a matrix of overlaps, and a pass over all rows per choice."""
    start, end = proposals[:, 0], proposals[:, 1]
    overlaps = np.minimum(end[:, None], end) - np.maximum(start[:, None], start) > 0
    left, chosen = attention > gamma * attention.max(), []
    while left.any():
        chosen.append(int(np.flatnonzero(left)[np.argmax(attention[left])]))
        left = left & ~overlaps[chosen[-1]]
        left[chosen[-1]] = False
    return chosen


def completeness(predicted, proposals, chosen):
    """Mean squared difference of the predictions and the best IoU with a chosen proposal."""
    total = 0.0
    for value, (s, e) in zip(predicted, proposals):
        best = 0.0
        for k in chosen:
            inter = min(e, proposals[k][1]) - max(s, proposals[k][0])
            union = (e - s) + (proposals[k][1] - proposals[k][0]) - inter
            best = max(best, inter / (union + 1e-6))
        total += (value - best) ** 2
    return total / len(proposals)
