"""Slow, literal evaluators: each follows its published original step by step.

A detection is ``(video, label, start, end, score)``, an instance ``(video, label, start, end)``.  Protocols return
``{label: [AP per threshold]}`` for the labels of the ground truth.  Where an original leaves ties to an unstable sort,
the earlier row comes first here; where it divides by zero, the overlap is 0.
"""

from __future__ import annotations

import numpy as np


# ------------------------------------------------------------------ overlaps
def tiou(one, other):
    """Continuous temporal IoU of two (start, end), 0 where both are empty."""
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (other[1] - other[0]) + (one[1] - one[0]) - inter
    return inter / union if union > 0 else 0.0


def tiou_clipped(one, other):
    """OpenTAD: the union is at least 1e-8."""
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (other[1] - other[0]) + (one[1] - one[0]) - inter
    return inter / max(union, 1e-8)


def tiou_float32(one, other):
    """mmaction2's mAP: computed in float64, stored in float32."""
    return float(np.float32(tiou(one, other)))


def tiou_frames(detected, annotated):
    """The W-TALC family: two sets of snippet indices; both are whole numbers already."""
    left = set(range(int(detected[0]), int(detected[1])))
    right = set(range(int(annotated[0]), int(annotated[1])))
    return len(left & right) / len(left | right) if left | right else 0.0


# ------------------------------------------------------------------ average precision
def interpolated(hits, positives):
    """VOC 2011: precision is made never rising from the right, then integrated over recall."""
    true = np.cumsum(hits)
    precision = np.hstack([[0], true / np.arange(1, len(hits) + 1), [0]])
    recall = np.hstack([[0], true / positives, [1]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.where(recall[1:] != recall[:-1])[0] + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def not_interpolated(hits, positives):
    """W-TALC: the precision at every true positive, over the number of positives."""
    hits = np.array(hits, dtype=float)
    return float(np.sum(np.cumsum(hits) / np.arange(1, len(hits) + 1) * hits) / positives)


def labels_of(ground_truth):
    return sorted({row[1] for row in ground_truth})


def best_first(detections, label):
    """The detections of one label by falling score; the earlier row first among equals."""
    return sorted((d for d in detections if d[1] == label), key=lambda d: -d[4])


# ------------------------------------------------------------------ the ActivityNet lineage
def activitynet(detections, ground_truth, thresholds, overlap=tiou):
    """Every detection walks down its overlaps and locks the first instance that is still free."""
    result = {}
    for label in labels_of(ground_truth):
        instances = [g for g in ground_truth if g[1] == label]
        ranked = best_first(detections, label)
        if not ranked:
            result[label] = [0.0] * len(thresholds)
            continue
        locked = [[False] * len(instances) for _ in thresholds]
        hits = [[0] * len(ranked) for _ in thresholds]
        for i, d in enumerate(ranked):
            here = [j for j, g in enumerate(instances) if g[0] == d[0]]
            overlaps = {j: overlap(d[2:4], instances[j][2:4]) for j in here}
            falling = sorted(here, key=lambda j: -overlaps[j])
            for t, threshold in enumerate(thresholds):
                for j in falling:
                    if overlaps[j] < threshold:
                        break
                    if locked[t][j]:
                        continue
                    hits[t][i] = 1
                    locked[t][j] = True
                    break
        result[label] = [interpolated(row, len(instances)) for row in hits]
    return result


def mmaction(detections, ground_truth, thresholds):
    return activitynet(detections, ground_truth, thresholds, overlap=tiou_float32)


def rounded(ground_truth, rate=25 / 16):
    """Seconds to whole snippets, Python's rounding (half to even)."""
    return [(v, k, round(s * rate), round(e * rate)) for v, k, s, e in ground_truth]


def activitynet_snippet(detections, ground_truth, thresholds, rate=25 / 16):
    """CO2-Net, DELU: detections in snippets as they are, the ground truth in rounded snippets."""
    return activitynet(detections, rounded(ground_truth, rate), thresholds)


def without_duplicates(ground_truth, accept, tolerance=1e-3):
    """An instance goes when it is too short, or near one of the same video and label that stayed."""
    kept = []
    for v, k, s, e in ground_truth:
        near = any(
            v == v2 and k == k2 and abs(s - s2) <= tolerance and abs(e - e2) <= tolerance for v2, k2, s2, e2 in kept
        )
        if accept(e - s) and not near:
            kept.append((v, k, s, e))
    return kept


def clean_actionformer(ground_truth):
    return without_duplicates(ground_truth, lambda length: length >= 1e-3)


def clean_opentad(ground_truth):
    return without_duplicates(ground_truth, lambda length: length > 0)


def actionformer(detections, ground_truth, thresholds):
    return activitynet(detections, clean_actionformer(ground_truth), thresholds)


def opentad(detections, ground_truth, thresholds):
    return activitynet(detections, clean_opentad(ground_truth), thresholds, overlap=tiou_clipped)


def topkx_recall(detections, ground_truth, thresholds, top_k, overlap=tiou):
    """{label: [per threshold [per k]]}: instances covered by the best k * (instances there) detections of a video."""
    result = {}
    for label in labels_of(ground_truth):
        covered = [[0] * len(top_k) for _ in thresholds]
        total = 0
        for video in sorted({g[0] for g in ground_truth if g[1] == label}, key=str):
            instances = [g for g in ground_truth if g[0] == video and g[1] == label]
            ranked = [d for d in best_first(detections, label) if d[0] == video]
            total += len(instances)
            for t, threshold in enumerate(thresholds):
                for n, k in enumerate(top_k):
                    top = ranked[: k * len(instances)]
                    for g in instances:
                        covered[t][n] += any(overlap(d[2:4], g[2:4]) >= threshold for d in top)
        result[label] = [[c / total for c in row] for row in covered]
    return result


# ------------------------------------------------------------------ the W-TALC lineage
def wtalc(detections, ground_truth, thresholds, rate=25 / 16):
    """The first remaining instance that overlaps enough is matched and deleted; AP is not interpolated."""
    result = {}
    annotated = rounded(ground_truth, rate)
    for label in labels_of(ground_truth):
        result[label] = []
        for threshold in thresholds:
            left = [g for g in annotated if g[1] == label]
            positives = len(left)
            hits = []
            for d in best_first(detections, label):
                hit = 0
                for j, g in enumerate(left):
                    if g[0] == d[0] and tiou_frames(d[2:4], g[2:4]) >= threshold:
                        hit = 1
                        del left[j]
                        break
                hits.append(hit)
            result[label].append(not_interpolated(hits, positives) if sum(hits) else 0.0)
    return result


def wtalc_interpolated(detections, ground_truth, thresholds, rate=25 / 16):
    """RSKP, FAC-Net, GauFuse: the best remaining instance is matched and deleted; AP is interpolated."""
    result = {}
    annotated = rounded(ground_truth, rate)
    for label in labels_of(ground_truth):
        result[label] = []
        for threshold in thresholds:
            left = [g for g in annotated if g[1] == label]
            positives = len(left)
            hits = []
            for d in best_first(detections, label):
                best, best_overlap = None, 0.0
                for j, g in enumerate(left):
                    if g[0] == d[0]:
                        overlap = tiou_frames(d[2:4], g[2:4])
                        if overlap >= threshold and overlap > best_overlap:
                            best, best_overlap = j, overlap
                if best is not None:
                    del left[best]
                hits.append(int(best is not None))
            result[label].append(interpolated(hits, positives) if sum(hits) else 0.0)
    return result


def mean_with_early_exit(detections, ground_truth, ap):
    """[mean over labels per threshold], or all 0 when a label has no detection (the W-TALC lineage)."""
    if not ap:
        return None
    num = len(next(iter(ap.values())))
    if any(not best_first(detections, label) for label in labels_of(ground_truth)):
        return [0.0] * num
    return [float(np.mean([row[t] for row in ap.values()])) for t in range(num)]


def filter_ambiguous(detections, ambiguous, rate=25 / 16):
    """Which detections (snippets) share no snippet with an ambiguous span ``(video, start, end)`` (seconds)."""
    kept = []
    for d in detections:
        spans = [(round(s * rate), round(e * rate)) for v, s, e in ambiguous if v == d[0]]
        kept.append(not any(tiou_frames(d[2:4], span) > 0 for span in spans))
    return kept


# ------------------------------------------------------------------ proposals and videos
def average_recall(proposals, instances, thresholds, max_average=None):
    """mmaction2's AR@AN: dictionaries of (P, 3) start, end, score and of (G, 2), one entry per video, all arrays."""
    num_videos = len(instances)
    total = sum(len(p) for p in proposals.values())
    if not max_average:
        max_average = float(total) / num_videos
    ratio = max_average * float(num_videos) / total
    tables, retrieved = [], 0
    for video, annotated in instances.items():
        found = proposals.get(video, np.empty((0, 3)))
        order = sorted(range(len(found)), key=lambda i: -found[i, 2])
        if not order:
            tables.append(np.zeros((len(annotated), 1)))
            continue
        count = min(int(len(order) * ratio), len(order))
        retrieved += count
        top = found[order][:count, :2].astype(np.float32)
        truth = annotated.astype(np.float32)
        table = np.zeros((len(truth), count), np.float32)
        for i, (s, e) in enumerate(truth):
            for j, (s2, e2) in enumerate(top):
                inter = np.float32(max(np.float32(0), min(e, e2) - max(s, s2)))
                union = np.float32(np.float32((e - s) + (e2 - s2)) - inter)
                table[i, j] = float(inter) / float(union) if union > 0 else 0.0
        tables.append(table)
    fractions = np.arange(1, 101) / 100.0 * (max_average * float(num_videos) / retrieved)
    recall = np.zeros((len(thresholds), 100))
    for t, threshold in enumerate(thresholds):
        for p, fraction in enumerate(fractions):
            covered = 0
            for table in tables:
                top = table[:, : min(int(table.shape[1] * fraction), table.shape[1])]
                covered += int((top >= np.float64(threshold)).any(axis=1).sum())
            recall[t, p] = covered / sum(len(table) for table in tables)
    per_video = fractions * (float(retrieved) / num_videos)
    mean = recall.mean(axis=0)
    area = 0.0
    for p in range(99):
        area += (per_video[p + 1] - per_video[p]) * (mean[p] + mean[p + 1]) / 2
    return recall, mean, per_video, 100.0 * area / per_video[-1]


def classification(video_scores, video_labels):
    """{class: AP}, not interpolated, for the classes that some video has (W-TALC's video-level mAP)."""
    result = {}
    for k in range(video_scores.shape[1]):
        order = sorted(range(len(video_scores)), key=lambda v: -video_scores[v, k])
        hits = [int(video_labels[v, k]) for v in order]
        if sum(hits):
            result[k] = not_interpolated(hits, sum(hits))
    return result


# ------------------------------------------------------------------ the contender of the benchmark
def activitynet_pandas(detections, ground_truth, thresholds):
    """The ActivityNet evaluator as it is published, on data frames: for speed comparisons, and one equality test.

    Both arguments are data frames with the columns video, label, start, end (and score).
    """
    result = {}
    truth_by_label = ground_truth.groupby("label")
    found_by_label = detections.groupby("label")
    for label in sorted(ground_truth["label"].unique()):
        truth = truth_by_label.get_group(label).reset_index(drop=True)
        if label not in found_by_label.groups:
            result[label] = [0.0] * len(thresholds)
            continue
        found = found_by_label.get_group(label).reset_index(drop=True)
        found = found.loc[np.argsort(-found["score"].values, kind="stable")].reset_index(drop=True)
        locked = -np.ones((len(thresholds), len(truth)))
        hits = np.zeros((len(thresholds), len(found)))
        by_video = truth.groupby("video")
        for i, row in found.iterrows():
            if row["video"] not in by_video.groups:
                continue
            here = by_video.get_group(row["video"]).reset_index()
            spans = here[["start", "end"]].values
            span = row[["start", "end"]].values
            inter = (np.minimum(span[1], spans[:, 1]) - np.maximum(span[0], spans[:, 0])).clip(0)
            overlaps = inter.astype(float) / ((spans[:, 1] - spans[:, 0]) + (span[1] - span[0]) - inter).astype(float)
            for t, threshold in enumerate(thresholds):
                for j in np.argsort(-overlaps, kind="stable"):
                    if overlaps[j] < threshold:
                        break
                    if locked[t, here.loc[j]["index"]] >= 0:
                        continue
                    hits[t, i] = 1
                    locked[t, here.loc[j]["index"]] = i
                    break
        result[label] = [interpolated(row, len(truth)) for row in hits]
    return result


# ------------------------------------------------------------------ resampled videos
def resampled(rows, videos, drawn):
    """The rows of a resample: those of a video once per draw, copies side by side; those of no video once."""
    result = []
    for row in rows:
        copies = drawn.count(row[0]) if row[0] in videos else 1
        result += [((row[0], copy), *row[1:]) for copy in range(copies)]
    return result


def bootstrap(detections, ground_truth, videos, thresholds, evaluate, num_resamples, seed):
    """[{label: [AP per threshold]} per resample] for the labels that the resample has."""
    rng = np.random.default_rng(seed)
    videos = sorted(videos)
    result = []
    for _ in range(num_resamples):
        drawn = [videos[i] for i in rng.integers(0, len(videos), len(videos))]
        found, truth = (resampled(rows, videos, drawn) for rows in (detections, ground_truth))
        result.append(evaluate(found, truth, thresholds))
    return result


# ------------------------------------------------------------------ kinds of errors (DETAD)
def error_kinds(detections, ground_truth, threshold, background, overlap=tiou):
    """Kind of every detection (None: its label is unknown), and the instances that none takes."""
    kinds = [None] * len(detections)
    free = [True] * len(ground_truth)
    for label in labels_of(ground_truth):
        rows = sorted((i for i, d in enumerate(detections) if d[1] == label), key=lambda i: -detections[i][4])
        for i in rows:
            video, _, start, end, _ = detections[i]
            here = {j: overlap((start, end), g[2:4]) for j, g in enumerate(ground_truth) if g[0] == video}
            mine = [j for j in here if ground_truth[j][1] == label and free[j] and here[j] >= threshold]
            if mine:
                best = max(mine, key=lambda j: here[j])
                free[best] = False
                kinds[i] = "true positive"
                continue
            top = max(here.values(), default=0.0)
            own = any(ground_truth[j][1] == label for j in here if here[j] == top)
            if top >= threshold:
                kinds[i] = "duplicate" if own else "wrong label"
            elif top >= background:
                kinds[i] = "poor boundaries" if own else "confusion"
            else:
                kinds[i] = "background"
    return kinds, [j for j, is_free in enumerate(free) if is_free]
