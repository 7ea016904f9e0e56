"""ASM-Loc (boheumd/ASM-Loc): ``net_evaluation.py``, ``main_THUMOS.py``, ``main_ActivityNet.py``, ``dataset.py``.

Scores are computed in float64, whatever comes.  ACM-Net, on which it is built, stands in `acmnet`.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks, presets
from .._checks import Float
from .._files import atomic_write
from ..config import Classes, Nms, Pipeline
from ..evaluation import SNIPPETS_PER_SECOND
from ..pipeline import PostProcessor
from ..types import Video
from ._evaluator import JsonEvaluator, compute_average_precision_detection, say
from ._oic import contrast_of, runs_of
from ._rows import plain
from .basnet import nms, upgrade_resolution
from .hamnet import result2json

__all__ = [
    "ANETDetection",
    "compute_average_precision_detection",
    "generate_dynamic_segment_weights",
    "generate_pseudo_segment",
    "get_proposal_oic",
    "get_proposals",
    "get_temp_proposal",
    "nms",
    "pseudo_instance_label",
    "result2json",
    "upgrade_resolution",
]


def _interpolated(x: Float, knots: Float, values: Float) -> Float:
    """Linear between the knots, and on along the outer pieces, as SciPy's ``interp1d`` extrapolates."""
    piece = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (values[piece + 1] - values[piece]) / (knots[piece + 1] - knots[piece])
    return slope * (x - knots[piece]) + values[piece]


def get_proposal_oic(
    tempseg_list: Sequence[Any],
    int_temp_scores: ArrayLike,
    c_pred: Any,
    c_pred_scores: Any,
    t_factor: float,
    lamb: float = 0.25,
    gamma: float = 0.20,
    dynamic_segment_weights_cumsum: Any = None,
    vid_duration: float | None = None,
) -> list[list[list[Any]]]:
    """Outer-inner contrast of the runs of positions, in seconds; replaces ``net_evaluation.get_proposal_oic``.

    Parameters
    ----------
    tempseg_list : list of tuple
        For every class of `c_pred`, what ``numpy.where`` gave: the upsampled steps above a threshold, rising.
    int_temp_scores : (T, C) or (T, C, 1) array_like
        The map that is scored, upsampled, a column per entry of `c_pred`.
    c_pred : (C,) sequence of int
    c_pred_scores : (K,) array_like
        Video-level scores of all classes.
    t_factor : float
        Seconds per step.
    lamb, gamma : float, default 0.25 and 0.20
        Length of a margin over that of its run; weight of the video-level score.
    dynamic_segment_weights_cumsum : (M,) array_like, optional
        Sums of the sampling weights, rising from 0: times go back through that warp.
    vid_duration : float, optional
        Seconds; needed with the warp.

    Returns
    -------
    list of lists of [class, score, start, end]
        A list per class that has steps, perhaps an empty one; the class as it came, then numpy.float64.

    Notes
    -----
    As published: runs of fewer than 2 steps are left out; a class whose only step is 0 has no list (``.any()`` asks for
    steps other than 0); the margins are cut by ``int()``; the warp goes on linearly beyond its ends.

    Examples
    --------
    >>> scores = np.array([[0.1], [0.9], [0.8], [0.1]])
    >>> [[row]] = get_proposal_oic([np.where(scores[:, 0] > 0.5)], scores, [1], [0, 0.5], 0.64)
    >>> np.array(row).round(4).tolist()
    [1.0, 0.85, 0.64, 1.92]
    """
    lists = [np.asarray(one[0]).ravel() for one in tempseg_list]
    steps = np.asarray(int_temp_scores)
    column, start, stop, scores = contrast_of(lists, steps.reshape(len(steps), len(lists)), lamb, min_length=2)
    scores = scores + gamma * np.array([c_pred_scores[c_pred[i]] for i in range(len(lists))], np.float64)[column]
    times = np.array([start, stop]) * t_factor
    if dynamic_segment_weights_cumsum is not None:
        if vid_duration is None:
            raise ValueError("`vid_duration` is needed with `dynamic_segment_weights_cumsum`")
        sums = plain(dynamic_segment_weights_cumsum)
        times = _interpolated(times / vid_duration, sums / sums[-1], np.linspace(0, 1, len(sums))) * vid_duration
    rows: list[list[list[Any]]] = [[] for _ in lists]
    for i, *row in zip(column.tolist(), scores, *times):
        rows[i].append([c_pred[i], *row])
    return [mine for mine, one in zip(rows, lists) if one.any()]


def get_temp_proposal(
    tempseg_list: Sequence[Any], int_temp_scores: ArrayLike, c_pred: Any, c_pred_scores: Any, t_factor: float
) -> list[list[list[Any]]]:
    """The proposals that neither code uses; replaces ``net_evaluation.get_temp_proposal``.

    Parameters
    ----------
    tempseg_list, int_temp_scores, c_pred, t_factor
        As in `get_proposal_oic`.
    c_pred_scores : (C,) array_like
        Scores of the classes of `c_pred`, in that order.

    Returns
    -------
    list of lists of [class, score, start, end]
        A list for every class.

    Notes
    -----
    As published: the end is that of the last step's *start*; the score is the mean inside, minus the mean of the means
    of the two margins, plus 0.3 times the video-level score; margins are ``n // 4 + 1`` steps on the left and ``n // 4
    + 1`` on the right, of which the first is the last one inside; a margin counts 0 at an end of the video.

    Examples
    --------
    >>> scores = np.array([[0.1], [0.9], [0.8], [0.1]])
    >>> [[row]] = get_temp_proposal([np.where(scores[:, 0] > 0.5)], scores, [1], [0.5], 0.64)
    >>> np.array(row).round(4).tolist()
    [1.0, 0.55, 0.64, 1.28]
    """
    steps = _checks.as_values(np.ravel(int_temp_scores), None, "int_temp_scores")
    steps = steps.reshape(len(np.asarray(int_temp_scores)), len(tempseg_list))
    sums = np.vstack([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])
    found = []
    for i, one in enumerate(tempseg_list):
        positions = np.asarray(one[0]).ravel()
        _, start, stop = runs_of([positions] if positions.any() else [])
        reach, last = (stop - start) // 4 + 1, stop - 1
        left, right = np.maximum(0, start - reach), np.minimum(len(steps), last + reach)

        def mean(first: NDArray[Any], after: NDArray[Any], total: Float = sums[:, i]) -> Float:
            return (total[after] - total[first]) / np.maximum(after - first, 1)

        outer = np.where(start > 0, mean(left, start), 0.0) + np.where(stop < len(steps), mean(last, right), 0.0)
        scores = mean(start, stop) - outer / 2 + 0.3 * float(c_pred_scores[i])
        found.append([[c_pred[i], *row] for row in zip(scores, start * t_factor, last * t_factor)])
    return found


# ------------------------------------------------------------------------------------------------ training
def _pseudo_pipeline(args: Any) -> Pipeline:
    """The preset of the data set, up to its suppression, with the numbers of `args`."""
    name = "asmloc_thumos" if args.dataset == "THUMOS" else "asmloc_anet13"
    pipeline = presets.get(f"{name}_pseudo")
    *before, suppression = presets.get(name).stages
    if not isinstance(suppression, Nms):
        raise TypeError(f"the preset {name!r} must end with Nms, got {suppression!r}")
    return replace(
        pipeline,
        banks=tuple(replace(bank, upsample=args.test_upgrade_scale) for bank in pipeline.banks),
        classes=Classes(threshold=args.cls_threshold, inclusive=False, fallback="argmax"),
        stages=(*before, replace(suppression, threshold=args.nms_thresh)),
        background="none",
        num_classes=None,
    )


def generate_pseudo_segment(args: Any, model: Any, dataloader: Any, step: int = 0) -> dict[str, Any]:
    """Pseudo segments of all videos; replaces the function of both main files.

    Parameters
    ----------
    args : object
        With ``dataset`` ("THUMOS", else ActivityNet), ``device``, ``save_dir``, ``action_cls_num``, ``cls_threshold``,
        ``nms_thresh``, ``test_upgrade_scale``, ``segment_frames_num``, ``frames_per_sec``, ``class_name_lst``.
    model : callable
        The network; put in the mode of evaluation, and called as the original calls it.
    dataloader : iterable
        Batches of one video, as ``my_collate_fn`` makes them.
    step : int, default 0
        Goes into the name of the file.

    Returns
    -------
    dict
        ``"results"``: video -> list of dicts with ``label``, ``score`` and ``segment`` (seconds); and ``"version"``,
        ``"class_score"``, ``"external_data"`` as published.  The same is in ``pseudo_proposals_step<step>.json`` of
        ``args.save_dir``.

    Notes
    -----
    As published for THUMOS14: thresholds ``arange(0.4, 0.925, 0.025)`` on the attention, scored on the CAS; for
    ActivityNet ``arange(0.1, 0.305, 0.005)`` on the CAS, scored on 0.7 CAS + 0.3 attention.  Video scores
    ``> cls_threshold``, else the best; IoU with +1 second.  Call it under ``torch.no_grad()``.  What differs: rows come
    by class, best score first; ties as in `nms`; a video without snippets has no rows.
    """
    model.eval()
    process = PostProcessor(_pseudo_pipeline(args))
    results = {}
    for vid_name, feature, _, vid_len, bbox, count, _, sums in dataloader:
        feature, bbox = feature.to(args.device), bbox.to(args.device)
        fg_cls, _, temp_att, _, fg_cas, _, _ = model(
            feature, proposal_bbox=bbox, proposal_count_by_video=count, vid_len=vid_len, vid_name=vid_name
        )
        length = args.segment_frames_num * vid_len[0] / args.frames_per_sec
        warp = None
        if sums[0] is not None:
            knots = plain(sums[0])
            warp = knots / knots[-1] * length, np.linspace(0.0, length, len(knots))
        maps: Any = {"cas": plain(fg_cas)[0, :, : args.action_cls_num], "attention": plain(temp_att)[0, :, 0]}
        scores: Any = {"video": plain(fg_cls)[0, : args.action_cls_num]}
        seconds = length / max(len(maps["cas"]), 1)
        found = process(Video(str(vid_name[0]), maps, scores, seconds_per_snippet=seconds or 1.0, warp=warp))
        rows = np.column_stack([found.labels, found.scores, found.segments]).tolist()
        results[vid_name[0]] = result2json([rows], args.class_name_lst)
    final = {
        "version": "VERSION 1.3",
        "results": results,
        "class_score": {},
        "external_data": {"used": True, "details": "Features from I3D Net"},
    }
    with atomic_write(os.path.join(args.save_dir, f"pseudo_proposals_step{step}.json")) as file:
        json.dump(final, file)
    return final


def _by_label(predictions: Sequence[Mapping[str, Any]], label: str) -> list[list[Any]]:
    """Rows [start, end, score, label] of one label, best score first, the earlier row first among equals."""
    rows = [[*one["segment"][:2], one["score"], label] for one in predictions if one["label"] == label]
    return sorted(rows, key=lambda row: row[2], reverse=True)


def generate_dynamic_segment_weights(
    args: Any, pseudo_segment_dict: Mapping[str, Any], step: int = 0, *, data_dir: str = "data/THUMOS14"
) -> None:
    """Sampling weights of all videos, one ``.npy`` each; replaces the function of both main files.

    Parameters
    ----------
    args : object
        With ``save_dir``, ``gt_dict``, ``alpha``, ``delta``, ``gamma``.
    pseudo_segment_dict : dict
        From `generate_pseudo_segment`.
    step : int, default 0
        Goes into the name of the folder, ``dynamic_segment_weights_pred_step<step>`` in ``args.save_dir``.
    data_dir : str, default "data/THUMOS14"
        Folder with ``train/<video>.npy`` or ``test/<video>.npy``, of which only the lengths are read; the original's
        other main file has "data/ActivityNet13".

    Raises
    ------
    FileNotFoundError
        If a video's features are not there.

    Notes
    -----
    As published: per class, the best rows while the running sum of scores is at most `alpha` of its largest value;
    videos with "validation" in the name keep the classes that they show; rows are extended by `delta` of their length
    on both sides, rounded to snippets (half to even) and, where not longer than ``gamma * (2 * delta + 1)``, weigh that
    over their length; the weights of a stretch are then scaled so that they add up to a whole number.
    """
    folder = os.path.join(args.save_dir, f"dynamic_segment_weights_pred_step{step}")
    os.makedirs(folder, exist_ok=True)
    for video, predictions in pseudo_segment_dict["results"].items():
        paths = [os.path.join(data_dir, part, f"{video}.npy") for part in ("train", "test")]
        path = next((one for one in paths if os.path.isfile(one)), None)
        if path is None:
            raise FileNotFoundError(f"`data_dir` must have the features of {video!r}, neither of {paths} is there")
        length = len(np.load(path, mmap_mode="r", allow_pickle=False))
        shown = args.gt_dict[video]["annotations"] if "validation" in video else predictions
        chosen = []
        for label in sorted({one["label"] for one in shown}):
            rows = _by_label(predictions, label)
            sums = np.cumsum([row[2] for row in rows])
            chosen += rows[: int((sums <= sums.max() * args.alpha).sum())] if len(rows) else []
        with atomic_write(os.path.join(folder, f"{video}.npy"), "wb") as file:
            np.save(file, segment_weights([row[:2] for row in chosen], length, args.delta, args.gamma))


def segment_weights(segments: ArrayLike, length: int, delta: float, gamma: float) -> Float:
    """(T,) sampling weights of a video of T snippets, from segments in seconds.

    >>> segment_weights([[0.64, 1.92]], 6, delta=0.0, gamma=6)
    array([1., 2., 2., 2., 1., 1.])
    """
    rows = np.asarray(segments, np.float64).reshape(-1, 2)
    middle, reach = rows.sum(axis=1) / 2, (delta + 0.5) * (rows[:, 1] - rows[:, 0])
    first = np.maximum(np.rint((middle - reach) * SNIPPETS_PER_SECOND), 0).astype(np.int64)
    last = np.minimum(np.rint((middle + reach) * SNIPPETS_PER_SECOND), length - 1).astype(np.int64)
    most = float(gamma * (2 * delta + 1))
    weights = np.ones(length)
    for start, stop in zip(first.tolist(), (last + 1).tolist()):
        if 1 < stop - start <= most:
            np.maximum(weights[start:stop], most / (stop - start), out=weights[start:stop])
    inside = np.flatnonzero(weights > 1.0)
    _, starts, stops = runs_of([inside])
    for start, stop in zip(starts.tolist(), stops.tolist()):
        total = weights[start:stop].sum()
        weights[start:stop] *= np.round(total) / total
    return weights


def get_proposals(self: Any, pseudo_segment_dict: Mapping[str, Any]) -> None:
    """Pseudo segments as the data set hands them out: ``ASMLocDataset.get_proposals = get_proposals``.

    Parameters
    ----------
    self : object
        The data set, with ``data_list``, ``gt_dict``, ``dataset`` ("THUMOS" or "ActivityNet"), ``action_class_num``,
        ``action_class_idx_dict``.
    pseudo_segment_dict : dict
        From `generate_pseudo_segment`; a video that it lacks has no segments.

    Notes
    -----
    Sets ``label_dict``, ``gt_action_dict``, ``pseudo_segment_dict``, ``pseudo_segment_dict_pseudo`` (empty) and, per
    video, ``pseudo_segment_dict_all``: rows [start, end, score, label] of the classes that count, and
    ``pseudo_segment_dict_att``: [start, end] without repetitions and without those within another, by start.  Training
    videos ("validation" in the name, or subset "train") count the classes that they show, test videos ("test", or
    "val") those that were predicted.  What differs: classes come in the order of their names (the original has the
    order of a set, which Python changes from run to run).
    """
    self.label_dict = {}
    self.gt_action_dict = defaultdict(list)
    self.pseudo_segment_dict = pseudo_segment_dict
    self.pseudo_segment_dict_pseudo = defaultdict(list)
    self.pseudo_segment_dict_all = defaultdict(list)
    self.pseudo_segment_dict_att = defaultdict(list)
    for video in self.data_list:
        entry = self.gt_dict[video]
        labels = np.zeros(self.action_class_num)
        for one in entry["annotations"]:
            labels[self.action_class_idx_dict[one["label"]]] = 1.0
            self.gt_action_dict[video].append([*one["segment"][:2], 1.0, one["label"]])
        self.label_dict[video] = labels

        predictions = pseudo_segment_dict["results"].get(video, [])
        if self.dataset == "THUMOS":
            trains, tests = "validation" in video, "test" in video
        else:
            trains, tests = entry["subset"] == "train", entry["subset"] == "val"
        shown = entry["annotations"] if trains else predictions if tests else []
        rows = [row for label in sorted({one["label"] for one in shown}) for row in _by_label(predictions, label)]
        self.pseudo_segment_dict_all[video] = rows
        self.pseudo_segment_dict_att[video] = _outermost(rows)


def _outermost(rows: Sequence[Sequence[Any]]) -> list[list[float]]:
    """[start, end] by start, of those that end later than all before; the later row first among equal starts."""
    spans = list(dict.fromkeys((row[0], row[1]) for row in rows))[::-1]
    spans.sort(key=lambda span: span[0])
    ends = np.maximum.accumulate([-np.inf, *(end for _, end in spans)])
    return [list(span) for span, before in zip(spans, ends.tolist()) if span[1] > before]


def pseudo_instance_label(
    segments: Sequence[Sequence[Any]],
    gt_labels: ArrayLike,
    output_len: int,
    vid_len: int,
    action_class_idx_dict: Mapping[str, int],
    dynamic_segment_weights_cumsum: Any = None,
) -> NDArray[np.float32]:
    """What ``ASMLocDataset.__getitem__`` paints as ``pseudo_instance_label``.

    Parameters
    ----------
    segments : sequence of [start, end, score, label]
        ``pseudo_segment_dict_all`` of the video, in seconds.
    gt_labels : (C,) array_like
        ``label_dict`` of the video; segments of other classes are left out.
    output_len, vid_len : int
        Snippets that were sampled, and snippets of the video.
    action_class_idx_dict : dict
        Label -> class.
    dynamic_segment_weights_cumsum : (vid_len + 1,) array_like, optional
        Sums of the sampling weights; another length counts as none.

    Returns
    -------
    (output_len, C + 1) ndarray of float32
        Rows add up to 1; the background comes last.

    Notes
    -----
    As published: both ends are rounded (half to even) and included.

    Examples
    --------
    >>> pseudo_instance_label([[0.64, 1.28, 0.9, "Diving"]], [1.0], 4, 4, {"Diving": 0})
    array([[0., 1.],
           [1., 0.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    shown = np.asarray(gt_labels)
    labels = np.zeros((output_len, len(shown) + 1), np.float32)
    labels[:, -1] = 1.0
    rows = [(action_class_idx_dict[row[3]], row[0], row[1]) for row in segments]
    rows = [row for row in rows if shown[row[0]] == 1]
    times = np.array([row[1:] for row in rows], np.float64).reshape(-1, 2)
    steps = vid_len
    sums = None if dynamic_segment_weights_cumsum is None else plain(dynamic_segment_weights_cumsum)
    if sums is not None and len(sums) == vid_len + 1:
        times = _interpolated(times * SNIPPETS_PER_SECOND + 1, np.arange(vid_len + 1.0), sums) - 1
        times, steps = times / SNIPPETS_PER_SECOND, round(float(sums[-1]))
    bounds = np.rint(times * (SNIPPETS_PER_SECOND * output_len / steps)).astype(np.int64) if len(rows) else times
    for (label, _, _), (first, last) in zip(rows, bounds.tolist()):
        painted = slice(max(first, 0), min(last, output_len - 1) + 1)
        labels[painted, label] = 1.0
        labels[painted, -1] = 0.0
    return labels / labels.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------------ evaluation
class ANETDetection(JsonEvaluator):
    """The copy of ASM-Loc: unknown labels are skipped; see `anet.ANETdetection`.

    Parameters
    ----------
    ground_truth_file, prediction_file, ground_truth_fields, prediction_fields, subset, verbose
        As there, under these names; ``subset="full"`` takes all videos.
    tiou_thresholds : (I,) array_like, default linspace(0.1, 0.9, 9)
        The code passes ``numpy.arange(0.1, 1, 0.1)``, whose numbers are not the decimal literals.
    check_status : bool, default True
        Not looked at, as published.
    dataset : str, optional
        "THUMOS": `average_mAP` is over the first seven thresholds, and `ap_dict` holds the AP per label over those.
    logger : object with ``write`` and ``flush``, optional
        Gets what is printed.
    mode : str
        Not looked at, as published.

    Notes
    -----
    As published, `evaluate` prints a table and returns the average mAP.  Besides the attributes of the official class
    there are `activity_count` (label -> instances) and `ap_dict`.
    """

    _skips_unknown: ClassVar[bool] = True

    def __init__(
        self,
        ground_truth_file: Any = None,
        prediction_file: Any = None,
        ground_truth_fields: Sequence[str] | None = None,
        prediction_fields: Sequence[str] | None = None,
        tiou_thresholds: Any = None,
        subset: str = "validation",
        verbose: bool = False,
        check_status: bool = True,
        dataset: str | None = None,
        logger: Any = None,
        mode: str = "all",
    ) -> None:
        self.dataset = dataset
        self.logger = logger
        thresholds = np.linspace(0.1, 0.9, 9) if tiou_thresholds is None else tiou_thresholds
        fields = ground_truth_fields, prediction_fields
        super().__init__(ground_truth_file, prediction_file, *fields, thresholds, subset, verbose)
        self.check_status = check_status
        names = {number: label for label, number in self.activity_index.items()}
        self.activity_count = Counter(names[number] for number in self.ground_truth["label"].tolist())

    def _takes(self, entry: Mapping[str, Any]) -> bool:
        return self.subset in ("full", entry["subset"])

    def evaluate(self) -> float:
        """Set `ap`, `mAP`, `average_mAP` and `ap_dict`; prints the mAPs and returns the average."""
        self._measure()
        self.ap_dict: dict[Any, float] | None = None
        if self.dataset == "THUMOS":
            self.average_mAP = self.mAP[:7].mean()
            means = np.array(self.ap)[:7].mean(axis=0).tolist()
            of_label = zip(sorted(self.activity_index, key=lambda one: self.activity_index[one]), means)
            self.ap_dict = dict(sorted(of_label, key=lambda item: item[1], reverse=True))
        thresholds, values = ("||".join(f"{x:.3f}" for x in row) for row in (self.tiou_thresholds, self.mAP))
        text = f"|t-IoU |{thresholds}|\n|mAP   |{values}|\n|Average-mAP: {self.average_mAP:.4f}"
        say(text)
        if self.logger is not None:
            self.logger.write(text + "\n")
            self.logger.flush()
        return self.average_mAP
