"""ActionFormer (happyharrycn/actionformer_release): ``libs/utils/nms.py``, its compiled extension, and ``metrics.py``.

``import nms_1d_cpu`` becomes ``from tal_postproc.compat.actionformer import nms_1d_cpu``; nothing is compiled for a
version of torch.  OpenTAD's extension of the same name is `tal_postproc.compat.opentad.nms_1d_cpu`, and both may be
imported.  TriDet and other forks call these functions in the same way.

Functions of tensors need torch, `ANETdetection` needs pandas; neither is imported before it is used.  Results lie on
the device and in the dtype of what was given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _checks
from .._checks import Float
from ._evaluator import Evaluator, by_class, distinct, measured, say, table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ANETdetection",
    "NMSop",
    "SoftNMSop",
    "batched_nms",
    "nms",
    "nms_1d_cpu",
    "postprocess_results",
    "seg_voting",
    "softnms",
]


def nms(segs: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Rows that hard NMS keeps: ``nms_1d_cpu.nms``.

    Parameters
    ----------
    segs : (N, 2) Tensor of float
        Start and end, start <= end, in any one unit.
    scores : (N,) Tensor of float
    iou_threshold : float
        A row goes when its IoU with a kept one reaches the threshold (``>=``).

    Returns
    -------
    (M,) Tensor of int64
        Best score first; the earlier row first among equals.

    Notes
    -----
    As published: 1e-6 is added to every length; a threshold of 0 or less leaves the best row alone.  What differs:
    overlaps are computed in float64, the original's in float32, so that a row whose overlap is the threshold itself may
    fall on the other side; float64 and float16 are taken, too.

    Examples
    --------
    >>> import torch
    >>> nms(torch.tensor([[0.0, 10.0], [1.0, 10.0], [20.0, 30.0]]), torch.tensor([0.8, 0.9, 0.5]), 0.5)
    tensor([1, 2])
    """
    from . import _nms_1d

    return _nms_1d.hard(segs, scores, iou_threshold)


def softnms(
    segs: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
) -> Tensor:
    """Rows in the order in which soft-NMS picks them: ``nms_1d_cpu.softnms``.

    Parameters
    ----------
    segs : (N, 2) Tensor of float
    scores : (N,) Tensor of float
        Not negative.
    dets : (N, 3) Tensor of float
        A buffer for output: its first M rows are overwritten with start, end and new score of the rows returned.
    iou_threshold : float
        Of methods 0 and 1, which act where the IoU reaches it.  Method 2 ignores it.
    sigma : float
        Of method 2, > 0: scores are multiplied by ``exp(-iou ** 2 / sigma)``.
    min_score : float
        A row whose score falls below it is left out.
    method : int
        0: the score becomes 0; 1: it is multiplied by ``1 - iou``; 2: gaussian.

    Returns
    -------
    (M,) Tensor of int64
        Best new score first; the earlier row first among equals.

    Notes
    -----
    As published: 1e-6 is added to every length; the first pick is exempt from `min_score`; with method 0 and a
    `min_score` of 0, what is suppressed follows at the end with score 0.  `dets` is the one argument that is changed.
    What differs: float64 inside, see `nms`.

    Examples
    --------
    >>> import torch
    >>> segs, scores = torch.tensor([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0]]), torch.tensor([0.9, 0.8, 0.5])
    >>> dets = torch.zeros(3, 3)
    >>> softnms(segs, scores, dets, 0.1, 0.5, 0.2, 2)
    tensor([0, 2])
    >>> dets
    tensor([[ 0.0000, 10.0000,  0.9000],
            [20.0000, 30.0000,  0.5000],
            [ 0.0000,  0.0000,  0.0000]])
    """
    from . import _nms_1d

    keep, new_scores = _nms_1d.soft(
        segs, scores, threshold=iou_threshold, sigma=sigma, min_score=min_score, method=method
    )
    _nms_1d.write_dets(dets, segs, keep, new_scores)
    return keep


class nms_1d_cpu:
    """The compiled module as a namespace: ``from tal_postproc.compat.actionformer import nms_1d_cpu``."""

    nms = staticmethod(nms)
    softnms = staticmethod(softnms)


class NMSop:
    """``NMSop.apply`` of ``libs/utils/nms.py``, without the autograd Function around it (it has no backward)."""

    @staticmethod
    def apply(
        segs: Tensor, scores: Tensor, cls_idxs: Tensor, iou_threshold: float, min_score: float, max_num: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hard NMS over all rows: segments, scores and classes of those kept, best first.

        As published: only scores above a positive `min_score` take part, and `max_num` of 0 or less is no limit.

        >>> import torch
        >>> segs, scores = torch.tensor([[0.0, 10.0], [1.0, 10.0], [20.0, 30.0]]), torch.tensor([0.8, 0.9, 0.5])
        >>> NMSop.apply(segs, scores, torch.tensor([4, 5, 6]), 0.5, 0.5, -1)[2]
        tensor([5])
        """
        from . import _nms_1d

        return _nms_1d.nms_op(segs, scores, cls_idxs, iou_threshold, min_score, max_num)


class SoftNMSop:
    """``SoftNMSop.apply`` of ``libs/utils/nms.py``, without the autograd Function around it (it has no backward)."""

    @staticmethod
    def apply(
        segs: Tensor,
        scores: Tensor,
        cls_idxs: Tensor,
        iou_threshold: float,
        sigma: float,
        min_score: float,
        method: int,
        max_num: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Soft-NMS over all rows, see `softnms`: segments, new scores and classes, best first.

        As published, `max_num` of 0 or less is no limit.

        >>> import torch
        >>> segs, scores = torch.tensor([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0]]), torch.tensor([0.9, 0.8, 0.5])
        >>> SoftNMSop.apply(segs, scores, torch.tensor([4, 5, 6]), 0.1, 0.5, 0.001, 2, 2)[1:]
        (tensor([0.9000, 0.5000]), tensor([4, 6]))
        """
        from . import _nms_1d

        options = {"threshold": iou_threshold, "sigma": sigma, "min_score": min_score, "method": method}
        return _nms_1d.soft_nms_op(segs, scores, cls_idxs, max_num, **options)


def batched_nms(
    segs: Tensor,
    scores: Tensor,
    cls_idxs: Tensor,
    iou_threshold: float,
    min_score: float,
    max_seg_num: int,
    use_soft_nms: bool = True,
    multiclass: bool = True,
    sigma: float = 0.5,
    voting_thresh: float = 0.75,
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS or soft-NMS per class or over all classes, then voting: ``libs/utils/nms.py: batched_nms``.

    Parameters
    ----------
    segs : (N, 2) Tensor of float
        Start and end, start <= end, in any one unit (feature grid points in ActionFormer).
    scores : (N,) Tensor of float
        Not negative.
    cls_idxs : (N,) Tensor of int
    iou_threshold : float
        Of hard NMS; soft-NMS ignores it, as published.
    min_score : float
        Soft-NMS drops what falls below it, hard NMS starts with what is above it.
    max_seg_num : int
        Rows returned at most.
    use_soft_nms : bool, default True
        Gaussian soft-NMS, else hard NMS.
    multiclass : bool, default True
        Compare rows of one class only.
    sigma : float, default 0.5
    voting_thresh : float, default 0.75
        See `seg_voting`; 0 switches voting off.

    Returns
    -------
    segs, scores, cls_idxs : Tensors (M, 2), (M,), (M,)
        New tensors, best score first; the earlier row first among equals.

    Notes
    -----
    As published: voting is switched off when `multiclass` is True; the first pick of every class is exempt from
    `min_score` in soft-NMS; `max_seg_num` of 0 returns nothing, -1 all but the last.  What differs: all classes
    are done in one pass in float64, and tensors of a GPU stay there (the original computes on the CPU).

    Examples
    --------
    >>> import torch
    >>> segs, scores = torch.tensor([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0]]), torch.tensor([0.9, 0.8, 0.5])
    >>> new_segs, new_scores, labels = batched_nms(segs, scores, torch.tensor([1, 1, 0]), 0.1, 0.001, 200)
    >>> new_scores, labels
    (tensor([0.9000, 0.5000, 0.1083]), tensor([1, 0, 1]))
    """
    from . import _nms_1d

    return _nms_1d.batched_nms(
        segs,
        scores,
        cls_idxs,
        max_seg_num=max_seg_num,
        use_soft_nms=use_soft_nms,
        multiclass=multiclass,
        voting_thresh=voting_thresh,
        times_iou=True,
        threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        method=2,
    )


def seg_voting(
    nms_segs: Tensor, all_segs: Tensor, all_scores: Tensor, iou_threshold: float, score_offset: float = 1.5
) -> Tensor:
    """Kept segments as weighted means of all that overlap them: ``libs/utils/nms.py: seg_voting``.

    Parameters
    ----------
    nms_segs, all_segs : (M, 2) and (N, 2) Tensor of float
    all_scores : (N,) Tensor of float
        Above 0, else a row does not vote.
    iou_threshold : float
        In (0, 1]; rows that reach it vote with the weight score times IoU.
    score_offset : float
        As published: never used.

    Returns
    -------
    (M, 2) Tensor

    Notes
    -----
    What differs: there is no M x N table in memory, and a segment that nobody votes for stays (NaN in the original).

    Examples
    --------
    >>> import torch
    >>> segs = torch.tensor([[0.0, 10.0], [0.0, 8.0], [30.0, 40.0]])
    >>> seg_voting(segs[:1], segs, torch.tensor([0.6, 0.3, 0.9]), 0.7)
    tensor([[0.0000, 9.4286]])
    """
    from . import _nms_1d

    return _nms_1d.vote(nms_segs, all_segs, all_scores, iou_threshold, times_iou=True)


# ------------------------------------------------------------------------------------------- results as dictionaries
def postprocess_results(
    results: Mapping[str, Any], cls_score_file: str | Mapping[str, Any], num_pred: int = 200, topk: int = 2
) -> dict[str, Any]:
    """Fuse detections with external video scores: ``libs/utils/postprocessing.py: postprocess_results``.

    Each of the best `num_pred` segments of a video is repeated for the best `topk` classes of that video, with the
    score ``sqrt(class score * segment score)``.

    Parameters
    ----------
    results : dict
        ``video-id`` (N,) names, ``t-start``, ``t-end``, ``label``, ``score`` (N,) arrays or tensors on the CPU.
    cls_score_file : str or mapping
        JSON file, video id -> list of class scores, perhaps below the key ``results``; or such a mapping.
    num_pred : int, default 200
    topk : int, default 2

    Returns
    -------
    dict
        The same keys: ``video-id`` a list, the others arrays (float64, labels int64).  Videos in the order of their
        names; within one, class after class, best first.

    Raises
    ------
    KeyError
        If a video has no scores, as published.

    Notes
    -----
    As published, the label that a segment had does not matter.  What differs: pickled files are refused, because
    reading a pickle runs what it says; load it yourself and hand over the mapping.  Equal scores come in the order of
    their rows or classes.

    Examples
    --------
    >>> found = {"video-id": ["a", "a"], "t-start": np.array([0.0, 5.0]), "t-end": np.array([4.0, 9.0]),
    ...          "label": np.array([0, 0]), "score": np.array([0.25, 1.0])}
    >>> fused = postprocess_results(found, {"a": [0.04, 0.0, 0.16]}, topk=2)
    >>> fused["label"], fused["score"], fused["t-start"]
    (array([2, 2, 0, 0]), array([0.4, 0.2, 0.2, 0.1]), array([5., 0., 5., 0.]))
    """
    if not isinstance(results, Mapping):
        raise TypeError(f"`results` must be a dictionary of arrays, got {type(results).__name__}; a pickle is not read")
    if isinstance(cls_score_file, Mapping):
        cls_scores: Mapping[str, Any] = cls_score_file
    elif ".json" in str(cls_score_file):
        with open(cls_score_file, encoding="utf-8") as file:
            cls_scores = json.load(file)
        cls_scores = cls_scores.get("results", cls_scores)
    else:
        raise ValueError(f"`cls_score_file` must be a JSON file or a mapping, got {str(cls_score_file)!r:.80}")
    most, classes = _checks.as_count(num_pred, "num_pred"), _checks.as_count(topk, "topk")
    columns = {name: np.asarray(results[name], np.float64) for name in ("t-start", "t-end", "score")}
    names, video = np.unique(np.asarray(results["video-id"], str), return_inverse=True)
    order = np.lexsort((-columns["score"], video))
    bounds = np.searchsorted(video[order], np.arange(len(names) + 1))

    fused: dict[str, Any] = {"video-id": [], "t-start": [], "t-end": [], "label": [], "score": []}
    for v, name in enumerate(names.tolist()):
        rows = order[bounds[v] : bounds[v + 1]][:most]
        scores = np.asarray(cls_scores[name], np.float64)
        best = np.argsort(-scores, kind="stable")[:classes]
        fused["video-id"] += [name] * (len(rows) * len(best))
        fused["t-start"].append(np.tile(columns["t-start"][rows], len(best)))
        fused["t-end"].append(np.tile(columns["t-end"][rows], len(best)))
        fused["label"].append(np.repeat(best, len(rows)))
        fused["score"].append(np.sqrt(np.outer(scores[best], columns["score"][rows])).ravel())
    for name, dtype in (("t-start", np.float64), ("t-end", np.float64), ("label", np.int64), ("score", np.float64)):
        fused[name] = np.concatenate([np.empty(0, dtype), *fused[name]])
    return fused


class ANETdetection(Evaluator):
    """mAP and top-kx recall: ``libs/utils/metrics.py: ANETdetection``, without joblib.

    Parameters
    ----------
    ant_file : str or path
        JSON with ``database``: video -> ``subset``, ``annotations`` with ``segment`` and the key `label`.
    split : str, optional
        Subset in lower case.  Default: all videos.
    tiou_thresholds : (I,) array_like, default linspace(0.1, 0.5, 5)
    top_k : sequence of int, default (1, 5)
    label : str, default "label_id"
        Key of the class number; a list of numbers (verb, noun) becomes one number with `label_offset`.
    label_offset : int, default 0
    num_workers : int
        Not used: there is nothing to wait for.
    dataset_name : str, optional
        For what is printed.  Default: the file's name without ``.json``.

    Attributes
    ----------
    ground_truth : DataFrame
        Columns ``video-id``, ``t-start``, ``t-end``, ``label``, the latter numbered by `activity_index`; without
        instances that are shorter than 1e-3 s, or within 1e-3 s of an earlier one of their class and video.
    activity_index : dict
        Class number in the file -> column of `ap`.
    ap : (I, K) ndarray, None before `evaluate`
    recall : (I, X, K) ndarray

    Notes
    -----
    As published: a list of numbers becomes the sum of ``label_offset ** i + x`` (a product was probably meant); a
    predicted class that the ground truth lacks keeps its number, and is taken for the class that has that column.  What
    differs: the table that is handed to `evaluate` is not changed, equal scores keep the order of their rows, and no
    warning is printed for a class without predictions, whose AP is 0.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "thumos14.json"
    >>> event = {"segment": [0, 10], "label": "Diving", "label_id": 7}
    >>> _ = path.write_text(json.dumps({"database": {"a": {"subset": "Test", "annotations": [event]}}}))
    >>> found = {"video-id": ["a"], "t-start": np.array([0.0]), "t-end": np.array([8.0]),
    ...          "label": np.array([7]), "score": np.array([0.9])}
    >>> mAP, average_mAP, mRecall = ANETdetection(path, "test", [0.5, 0.9]).evaluate(found, verbose=False)
    >>> mAP, mRecall.tolist()
    (array([1., 0.]), [[1.0, 1.0], [0.0, 0.0]])
    """

    protocol: ClassVar[str] = "actionformer"

    def __init__(
        self,
        ant_file: Any,
        split: str | None = None,
        tiou_thresholds: Any = None,
        top_k: Sequence[int] = (1, 5),
        label: str = "label_id",
        label_offset: int = 0,
        num_workers: int = 8,
        dataset_name: str | None = None,
    ) -> None:
        self.tiou_thresholds = np.linspace(0.1, 0.5, 5) if tiou_thresholds is None else tiou_thresholds
        self.top_k = tuple(top_k)
        self.num_workers = num_workers
        self.split = split
        self.dataset_name = os.path.basename(ant_file).replace(".json", "") if dataset_name is None else dataset_name
        self.ap = None
        self._label = label, label_offset
        with open(ant_file, encoding="utf-8") as file:
            database = json.load(file)["database"]
        rows = [
            (video, *map(float, event["segment"][:2]), self._number(event))
            for video, entry in database.items()
            if split is None or entry["subset"].lower() == split
            for event in entry["annotations"]
        ]
        rows = [rows[i] for i in distinct(rows, self.protocol)]
        self.activity_index = {number: column for column, number in enumerate(sorted({row[3] for row in rows}))}
        self.ground_truth = _table(rows)
        self.ground_truth["label"] = self._columns(self.ground_truth["label"])

    def _number(self, event: Mapping[str, Any]) -> int:
        key, offset = self._label
        value = event[key]
        if isinstance(value, (list, tuple)):
            return sum(offset**i + int(x) for i, x in enumerate(reversed(value)))
        return int(value)

    def _columns(self, labels: Any) -> Any:
        """Class numbers as columns of `ap`."""
        return np.array([self.activity_index.get(one, one) for one in np.asarray(labels).tolist()], np.int64)

    def evaluate(self, preds: Any, verbose: bool = True) -> tuple[Float, float, Float]:
        """Set `ap` and `recall`.

        Parameters
        ----------
        preds : DataFrame, dict or str
            Columns ``video-id``, ``t-start``, ``t-end``, ``label``, ``score``: a table, arrays or tensors on the CPU,
            or a JSON file with ``database``: video -> events with ``segment``, ``label_id`` and ``scores``.
        verbose : bool, default True
            Print mAP and recall at every threshold.

        Returns
        -------
        mAP, average_mAP, mRecall : (I,) ndarray, float, (I, X) ndarray
        """
        if isinstance(preds, (str, os.PathLike)):
            with open(preds, encoding="utf-8") as file:
                database = json.load(file)["database"]
            preds = _table(
                [
                    (video, *map(float, event["segment"][:2]), int(event["label_id"]), float(event["scores"]))
                    for video, events in database.items()
                    for event in events
                ]
            )
        names = ("video-id", "t-start", "t-end", "label", "score")
        columns = {name: np.asarray(preds[name], object if name == "video-id" else None) for name in names}
        self.prediction = table({**columns, "label": self._columns(columns["label"])}, "compat.actionformer")
        thresholds = np.asarray(self.tiou_thresholds, np.float64)
        found = measured(self.ground_truth, self.prediction, thresholds, self.protocol, top_kx=self.top_k)
        indices = list(self.activity_index.values())
        self.ap = by_class(found.per_class, found.classes, indices)
        recall = found.recall if found.recall is not None else np.zeros((len(thresholds), len(self.top_k), 0))
        self.recall: Float = by_class(recall, found.classes, indices)
        self.mAP = _mean(self.ap)
        self.average_mAP = float(self.mAP.mean())
        mean_recall = _mean(self.recall)
        if verbose:
            say(f"[RESULTS] Action detection results on {self.dataset_name}.")
            for threshold, precision, recalls in zip(thresholds, self.mAP, mean_recall):
                shares = " ".join(f"Recall@{k}x = {100 * r:.2f} (%)" for k, r in zip(self.top_k, recalls))
                say(f"|tIoU = {threshold:.2f}: mAP = {100 * precision:.2f} (%) {shares}")
            say(f"Average mAP: {100 * self.average_mAP:.2f} (%)")
        return self.mAP, self.average_mAP, mean_recall


def _table(rows: Sequence[tuple[Any, ...]]) -> Any:
    """Rows (video, start, end, label[, score]) as a table."""
    columns = list(zip(*rows)) if rows else [()] * 5
    dtypes = {"video-id": object, "t-start": float, "t-end": float, "label": np.int64, "score": float}
    made = {name: np.array(column, dtype) for (name, dtype), column in zip(dtypes.items(), columns)}
    return table(made, "compat.actionformer.ANETdetection")


def _mean(values: Float) -> Float:
    """Mean over the classes; 0 without classes."""
    return values.mean(axis=-1) if values.shape[-1] else np.zeros(values.shape[:-1])
