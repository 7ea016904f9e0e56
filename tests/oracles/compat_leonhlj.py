"""RSKP, FAC-Net, GauFuse and W-TALC written down literally, in the manner and at the cost of the originals.

Every function has the arguments of the original's and does, in lists and loops, what is known of it.  Where the
original divides by zero on an empty cluster or a pair of empty segments, or stops on an empty class, so does this.
"""

from __future__ import annotations

import os

import numpy as np
from scipy.optimize import linprog

from .evaluation import filter_ambiguous, interpolated, not_interpolated, tiou_frames
from .pipelines import _greedy, _rskp_proposals


def factor_of(args):
    return 10.0 / 4.0 if args.feature_type == "UNT" else 25.0 / 16.0


def read_folder(path):
    """(segments, labels, names) of the test videos with an instance, names of classes, ambiguous spans, positions."""
    load = {n: np.load(f"{path}/{n}.npy", allow_pickle=True) for n in ("segments", "labels", "videoname", "subset")}
    classes = [name.decode() for name in np.load(f"{path}/classlist.npy")]
    test = [i for i, subset in enumerate(load["subset"]) if subset.decode() == "test"]
    kept = [p for p, i in enumerate(test) if len(load["segments"][i])]
    videos = [
        (load["segments"][i], list(load["labels"][i]), load["videoname"][i].decode()) for i in (test[p] for p in kept)
    ]
    spans = None
    if os.path.isfile(f"{path}/Ambiguous_test.txt"):
        with open(f"{path}/Ambiguous_test.txt") as file:
            fields = [line.strip("\n").split(" ") for line in file]
        spans = [(one[0], float(one[2]), float(one[3])) for one in fields]
    return videos, classes, spans, kept


def class_order(videos, classes):
    return [classes.index(name) for name in sorted({name for _, labels, _ in videos for name in labels})]


def nms(segs, overlapThresh):
    """Indices of rows [video, start, end, score] that stay."""
    if len(segs) == 0:
        return []
    return [pick for pick, _ in _greedy(segs[:, 1:], overlapThresh)]


def fuse(segs, overlapThresh, T):
    """(picks, [start, end, score]) of rows [start, end, score, inner]."""
    picks, fused = [], []
    if len(segs) == 0:
        return picks, fused
    for pick, members in _greedy(segs, overlapThresh):
        sums, total = [0.0, 0.0, 0.0], 0.0
        for row in [pick, *members[:0:-1]]:  # the pick, then from the worst score up
            weight = np.exp(segs[row, 3] / T)
            sums = [one + weight * value for one, value in zip(sums, segs[row, :3])]
            total += np.sign(segs[row, 3]) * weight
        picks.append(pick)
        fused.append([one / total for one in sums])
    return picks, fused


RULES = {
    "rskp": {"min_length": 2, "ratio": 0.25, "power": 1.0, "outer_weight": 1.0, "overlap": 0.5},
    "facnet": {"min_length": 3, "ratio": 0.25, "power": 1.0, "outer_weight": 0.6, "overlap": 0.2},
    "gaufuse": {"min_length": 2, "ratio": 0.0785, "power": 0.9, "outer_weight": 1.0, "overlap": 0.25},
}


def _unambiguous(rows, names, spans, rate):
    """Rows [video, start, end, score] that share no snippet with an ambiguous span of their video."""
    stay = filter_ambiguous([(names[int(row[0])], 0, row[1], row[2]) for row in rows], spans, rate)
    return [row for row, stays in zip(rows, stay) if stays]


def get_act_loc(codebase, vid_preds, frm_preds, vid_lens, act_thresh_cas, annotation_path, args):
    """A list over classes of arrays [video, start, end, score]; `codebase` is a key of RULES.

    Fused boundaries are rounded, which the original does not do: where all members of a cluster say 16, its sums may
    say 15.999999999999998, and int() then makes that 15.
    """
    rule = dict(RULES[codebase])
    overlap = rule.pop("overlap")
    videos, classes, spans, kept = read_folder(annotation_path)
    result = []
    for c in class_order(videos, classes):
        rows = []
        for i, position in enumerate(kept):
            if vid_preds[position][c] < args.class_threshold:
                continue
            found = _rskp_proposals(frm_preds[position][:, c], act_thresh_cas, **rule)
            if codebase == "gaufuse" and args.use_new_predictor:
                for start, end, score in fuse(found, overlap, args.eval_temperature)[1]:
                    rows.append([i, round(start, 9), round(end, 9), score])
            else:
                table = np.column_stack([np.full(len(found), i), found[:, :3]])
                rows += [list(table[k]) for k in nms(table, overlap)]
        if codebase != "facnet":
            rows.sort(key=lambda row: -row[3])
        if spans is not None and rows:
            rows = _unambiguous(rows, [name for _, _, name in videos], spans, factor_of(args))
        result.append(np.array(rows).reshape(-1, 4))
    return result


def get_loc_map(seg_preds, th, annotation_path, args, first=False):
    """mAP in percent; with `first`, the first instance that fits is taken and the AP is not interpolated."""
    videos, classes, _, _ = read_folder(annotation_path)
    rate, aps = factor_of(args), []
    for c in class_order(videos, classes):
        rows = seg_preds[c]
        if len(rows) == 0:
            return 0
        left = [
            (i, (round(start * rate), round(end * rate)))
            for i, (segments, labels, _) in enumerate(videos)
            for (start, end), label in zip(segments, labels)
            if classes.index(label) == c
        ]
        positives, hits = len(left), []
        for row in sorted(rows, key=lambda row: -row[3]):
            fits = [(tiou_frames(row[1:3], span), j) for j, (i, span) in enumerate(left) if i == row[0]]
            fits = [(overlap, j) for overlap, j in fits if overlap >= th]
            if fits:
                best = max(overlap for overlap, _ in fits)
                del left[fits[0][1] if first else next(j for overlap, j in fits if overlap == best)]
            hits.append(int(bool(fits)))
        if not sum(hits):
            aps.append(0.0)
        else:
            aps.append(not_interpolated(hits, positives) if first else interpolated(hits, positives))
    return 100 * np.mean(aps) if aps else 0


IOUS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def thresholds_of(args):
    return np.arange(args.start_threshold, args.end_threshold, args.threshold_interval)


def get_detection_map(codebase, vid_preds, frm_preds, vid_lens, annotation_path, args):
    found = get_act_loc(codebase, vid_preds, frm_preds, vid_lens, thresholds_of(args), annotation_path, args)
    return [get_loc_map(found, iou, annotation_path, args) for iou in IOUS], IOUS


def integrate_segs(rgb_segs, flow_segs, th, args):
    """Rows of both streams, video by video: NMS where both have some; only the first 212 videos."""
    merged = []
    for c in range(args.class_num):
        rows = []
        for video in range(212):
            rgb = [row for row in rgb_segs[c] if row[0] == video]
            flow = [row for row in flow_segs[c] if row[0] == video]
            both = np.array(rgb + flow)
            rows += [both[k] for k in nms(both, th)] if rgb and flow else rgb + flow
        merged.append(np.array(rows).reshape(-1, 4))
    return merged


def score_matrix(segment, vid_lens):
    """(rows, scores): 1 inside, -1 in the margins, written slice by slice; the last snippet is in no margin."""
    matrix, scores = np.zeros((len(segment), vid_lens)), np.zeros(len(segment))
    for row, (start, end, score) in enumerate(segment):
        s, e = int(start), int(end)
        margin = 0.0785 * (e - s) ** 0.9
        for t in range(vid_lens):
            if s <= t < e:
                matrix[row, t] = 1.0
            elif max(0, int(s - margin)) <= t < s or e <= t < min(vid_lens - 1, int(e + margin + 1)):
                matrix[row, t] = -1.0
        scores[row] = score
    return matrix, scores


def segment_to_tensor(prediction_list, vid_lens, num_cls=21):
    """(T, classes) labels by SciPy's default solver; a column of NaN where there are none."""
    labels = np.zeros((vid_lens, num_cls))
    for c in range(num_cls):
        if len(prediction_list[c]):
            matrix, scores = score_matrix(prediction_list[c], vid_lens)
            labels[:, c] = linprog(np.ones(vid_lens), A_eq=matrix, b_eq=scores, bounds=(0.0, 1.0)).x
    return labels


def generate_segs(vid_preds, frm_preds, args, num_cls=21):
    """A list over classes of [start, end, score], best first."""
    rule = dict(RULES["gaufuse"])
    overlap = rule.pop("overlap")
    result = []
    for c in range(num_cls):
        rows = []
        if vid_preds[c] >= args.class_threshold:
            found = _rskp_proposals(frm_preds[:, c], thresholds_of(args), **rule)
            rows = sorted(fuse(found, overlap, args.dist_temperature)[1], key=lambda row: -row[2])
        result.append(np.array(rows).reshape(-1, 3))
    return result


def wtalc_detections(predictions, annotation_path, args):
    """A list over all classes of [video, start, end, score] that no ambiguous span touches."""
    videos, classes, spans, kept = read_folder(annotation_path)
    names = [name for _, _, name in videos]
    result = [np.empty((0, 4))] * len(classes)
    for c in class_order(videos, classes):
        rows = []
        for i, position in enumerate(kept):
            column = predictions[position][:, c]
            top = np.sort(column)[::-1][: int(len(column) / 8)]
            share = np.mean(top) if len(top) else 0.0
            if not share > 0.0:
                continue
            threshold = np.max(column) - (np.max(column) - np.min(column)) * 0.5
            above = np.concatenate([np.zeros(1), (column > threshold).astype(np.float64), np.zeros(1)])
            steps = [above[t] - above[t - 1] for t in range(1, len(above))]
            starts = [t for t, step in enumerate(steps) if step == 1]
            stops = [t for t, step in enumerate(steps) if step == -1]
            rows += [[i, s, e, np.max(column[s:e]) + 0.7 * share] for s, e in zip(starts, stops) if e - s >= 2]
        result[c] = np.array(_unambiguous(rows, names, spans, factor_of(args))).reshape(-1, 4)
    return result


def wtalc_loc_map(predictions, th, annotation_path, args):
    return get_loc_map(wtalc_detections(predictions, annotation_path, args), th, annotation_path, args, first=True)


def wtalc_detection_map(predictions, annotation_path, args):
    return [wtalc_loc_map(predictions, iou, annotation_path, args) for iou in IOUS[:5]], IOUS[:5]
