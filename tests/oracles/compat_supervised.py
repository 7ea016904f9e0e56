"""Slow and literal: the suppression of the fully supervised codebases, in the data structures that they use.

Written from descriptions of ActionFormer, OpenTAD, mmaction2, AFSD and BSN; imports nothing of ours.  Rows of equal
score: the earlier row first.
"""

from __future__ import annotations

import math

import numpy as np


# ------------------------------------------------------------------ the compiled extension of ActionFormer and OpenTAD
def overlap_1d(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inter / ((a[1] - a[0] + 1e-6) + (b[1] - b[0] + 1e-6) - inter)


def nms_1d(segs, scores, iou_threshold):
    """Kept rows, best first; what reaches the threshold goes."""
    todo, kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), []
    while todo:
        best, *todo = todo
        kept.append(best)
        todo = [i for i in todo if overlap_1d(segs[best], segs[i]) < iou_threshold]
    return kept


def softnms_1d(segs, scores, iou_threshold, sigma, min_score, method, t1=0.0, t2=0.0):
    """(rows, scores) in the order of picking; the first pick is never compared with min_score."""
    left = {i: float(score) for i, score in enumerate(scores)}
    rows, values = [], []
    while left:
        best = min(left, key=lambda i: (-left[i], i))
        rows.append(best)
        values.append(left.pop(best))
        width = segs[best][1] - segs[best][0] + 1e-6
        for i in list(left):
            iou = overlap_1d(segs[best], segs[i])
            weight = 1.0
            if method == 0 and iou >= iou_threshold:
                weight = 0.0
            elif method == 1 and iou >= iou_threshold:
                weight = 1.0 - iou
            elif method == 2 or (method == 3 and iou >= t1 + t2 * width):
                weight = math.exp(-iou * iou / sigma)
            left[i] *= weight
            if left[i] < min_score:
                del left[i]
    return rows, values


def batched_nms(
    segs,
    scores,
    labels,
    iou_threshold,
    min_score,
    max_seg_num,
    use_soft_nms,
    multiclass,
    sigma,
    voting_thresh,
    method=2,
    t1=0.0,
    t2=0.0,
    times_iou=True,
):
    """Rows (start, end, score, label): per class or over all, cut, voting where it is not per class, sorted, cut."""
    found = []
    for group in sorted(set(labels)) if multiclass else [None]:
        own = [i for i in range(len(scores)) if group is None or labels[i] == group]
        if use_soft_nms:
            mine = [segs[i] for i in own], [scores[i] for i in own]
            rows, values = softnms_1d(*mine, iou_threshold, sigma, min_score, method, t1, t2)
        else:
            own = [i for i in own if scores[i] > min_score] if min_score > 0 else own
            rows = nms_1d([segs[i] for i in own], [scores[i] for i in own], iou_threshold)
            values = [scores[own[r]] for r in rows]
        if max_seg_num > 0:
            rows, values = rows[:max_seg_num], values[:max_seg_num]
        found += [(own[r], value) for r, value in zip(rows, values)]
    boundaries = [segs[i] for i, _ in found]
    if not multiclass and voting_thresh > 0:
        boundaries = voting(boundaries, segs, scores, voting_thresh, times_iou)
    out = [(*map(float, b), value, labels[i], i) for b, (i, value) in zip(boundaries, found)]
    out.sort(key=lambda row: (-row[2], row[4]))
    return [row[:4] for row in out][: min(max_seg_num, len(out))]


def voting(kept, segs, scores, threshold, times_iou):
    """A dense table of weights; a row that nobody votes for stays."""
    out = []
    for a in kept:
        weights = []
        for b, score in zip(segs, scores):
            inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
            union = (a[1] - a[0]) + (b[1] - b[0]) - inter
            iou = inter / union if union > 0 else 0.0
            weights.append(score * (iou if times_iou else 1.0) if iou >= threshold else 0.0)
        total = sum(weights)
        out.append([sum(w * b[k] for w, b in zip(weights, segs)) / total for k in (0, 1)] if total > 0 else list(a))
    return out


# ------------------------------------------------------------------ the same in the types of the originals
def batched_nms_tensors(segs, scores, cls_idxs, *arguments, **options):
    """`batched_nms` on tensors of float32, for comparisons of speed."""
    import torch

    rows = batched_nms(segs.tolist(), scores.tolist(), cls_idxs.tolist(), *arguments, **options)
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return torch.tensor(table[:, :2]).float(), torch.tensor(table[:, 2]).float(), torch.tensor(table[:, 3]).long()


def seg_voting_dense(nms_segs, all_segs, all_scores, iou_threshold):
    """ActionFormer's voting as operations on M x N tensors."""
    import torch

    a, b = nms_segs[:, None], all_segs[None]
    inter = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    iou = inter / (a[..., 1] - a[..., 0] + b[..., 1] - b[..., 0] - inter)
    weights = (iou >= iou_threshold).to(all_scores.dtype) * all_scores * iou
    return (weights / weights.sum(1, keepdim=True)) @ all_segs


# ------------------------------------------------------------------ external scores
def postprocess_results(results, cls_scores, num_pred=200, topk=2):
    """Detections of a video, repeated for its best classes, with the geometric mean of both scores."""
    by_video = {}
    columns = ("video-id", "t-start", "t-end", "score")
    for video, start, end, score in zip(*(results[name] for name in columns)):
        by_video.setdefault(video, []).append((float(start), float(end), float(score)))
    out = []
    for video in sorted(by_video):
        best = sorted(by_video[video], key=lambda row: -row[2])[:num_pred]
        classes = sorted(range(len(cls_scores[video])), key=lambda k: -cls_scores[video][k])[:topk]
        for k in classes:
            out += [(video, start, end, k, math.sqrt(cls_scores[video][k] * score)) for start, end, score in best]
    names = ("video-id", "t-start", "t-end", "label", "score")
    return {name: [row[i] for row in out] for i, name in enumerate(names)}


# ------------------------------------------------------------------ BSN's lineage
def iou_of(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    return inter / union if union > 0 else 0.0


def soft_nms_lists(rows, alpha, low, high, most, leave):
    """Rows (start, end, score) in the order of picking, at most `most`, while more than `leave` are left."""
    starts, ends, scores = (
        (list(column) for column in zip(*sorted(rows, key=lambda row: -row[2]))) if rows else ([],) * 3
    )
    out = []
    while len(scores) > leave and len(out) < most:
        at = int(np.argmax(scores))  # the first of equals
        start, end = starts.pop(at), ends.pop(at)
        out.append((start, end, scores.pop(at)))
        inter = np.maximum(np.minimum(end, np.array(ends)) - np.maximum(start, np.array(starts)), 0.0)
        union = (end - start) + (np.array(ends) - np.array(starts)) - inter
        ious = inter / np.where(union > 0, union, 1.0)
        factors = np.exp(-np.square(ious) / alpha)
        for i, iou in enumerate(ious):
            if iou > low + (high - low) * (end - start):
                scores[i] *= factors[i]
    return np.array(out, dtype=np.float64).reshape(-1, 3)


def mmaction_soft_nms(proposals, alpha, low_threshold, high_threshold, top_k):
    rows = [(row[0], row[1], row[-1]) for row in np.asarray(proposals, dtype=np.float64).tolist()]
    return soft_nms_lists(rows, alpha, low_threshold, high_threshold, top_k + 1, 0)


def mmaction_post_processing(result, video_info, alpha, low, high, top_k, interval):
    rows = mmaction_soft_nms(result, alpha, low, high, top_k)
    frames = video_info["duration_frame"]
    duration = float(frames // interval * interval) / frames * video_info["duration_second"]
    return [
        {"score": score, "segment": [max(0, start) * duration, min(1, end) * duration]}
        for start, end, score in rows.tolist()[:top_k]
    ]


def bsn_soft_nms(df):
    import pandas

    rows = list(zip(df.xmin.tolist(), df.xmax.tolist(), df.score.tolist()))
    out = soft_nms_lists(rows, 0.75, 0.65, 0.9, 101, 1)
    return pandas.DataFrame({"score": out[:, 2], "xmin": out[:, 0], "xmax": out[:, 1]})


# ------------------------------------------------------------------ AFSD
def afsd_softnms_v2(rows, sigma=0.5, top_k=1000, score_threshold=0.001):
    """Rows (start, end, score) in input order; the loop ends when one candidate is left, which is lost."""
    scores = [row[2] for row in rows]
    undone = [i for i, score in enumerate(scores) if score >= score_threshold]
    done = []
    while len(undone) > 1 and len(done) < top_k:
        best = min(undone, key=lambda i: (-scores[i], i))
        undone.remove(best)
        done.append(best)
        for i in undone:
            scores[i] *= math.exp(-(iou_of(rows[best], rows[i]) ** 2) / sigma)
        undone = [i for i in undone if scores[i] >= score_threshold]
    out = [(rows[i][0], rows[i][1], scores[i]) for i in sorted(done)]
    return np.array(out, dtype=np.float64).reshape(-1, 3)


def afsd_softnms_v2_tensors(segments, sigma=0.5, top_k=1000, score_threshold=0.001):
    """The same as a loop of tensor operations, for comparisons of speed."""
    import torch

    start, end, score = segments.cpu().clone().unbind(1)
    undone, done = score >= score_threshold, torch.zeros(len(score), dtype=torch.bool)
    while undone.sum() > 1 and done.sum() < top_k:
        best = torch.where(undone, score, -torch.inf).argmax().item()
        undone[best], done[best] = False, True
        inter = (torch.minimum(end[undone], end[best]) - torch.maximum(start[undone], start[best])).clamp(min=0)
        union = (end[best] - start[best]).clamp(min=1e-5) + end[undone] - start[undone] - inter
        score[undone] *= torch.exp(-((inter / union) ** 2) / sigma)
        undone &= score >= score_threshold
    return torch.stack((start, end, score), 1)[done], done.sum()


def afsd_nms(rows, overlap=0.5, top_k=1000):
    """Kept rows, best first; among the best top_k; NaN (two segments without length) is not below the threshold."""
    todo = sorted(range(len(rows)), key=lambda i: (-rows[i][2], i))
    todo, kept = todo[: top_k or None], []
    while todo:
        best, *todo = todo
        kept.append(best)
        stay = []
        for i in todo:
            points = rows[best][0] == rows[best][1] and rows[i][0] == rows[i][1]
            if not points and iou_of(rows[best], rows[i]) < overlap:
                stay.append(i)
        todo = stay
    return kept


def afsd_soft_nms(rows, overlap=0.3, sigma=0.5, top_k=1000):
    """The pick's length is at most 1e-5."""
    left, out = [list(row) for row in rows], []
    while len(left) > 1 and len(out) < top_k:
        at = max(range(len(left)), key=lambda i: (left[i][2], -i))
        if left[at][2] < 0.001:
            break
        best = left.pop(at)
        out.append(best)
        for row in left:
            inter = max(min(best[1], row[1]) - max(best[0], row[0]), 0)
            denominator = min(best[1] - best[0], 1e-5) + (row[1] - row[0]) - inter
            ratio = inter / denominator if denominator else math.nan
            if ratio > overlap:
                row[2] *= math.exp(-(ratio**2) / sigma)
    return np.array(out, dtype=np.float64).reshape(-1, 3)
