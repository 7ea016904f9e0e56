"""OpenTAD (sming256/OpenTAD): ``post_processing/nms/nms.py``, its compiled extension, ``convert_to_seconds``, ``mAP``.

``import nms_1d_cpu`` becomes ``from tal_postproc.compat.opentad import nms_1d_cpu``; nothing is compiled for a version
of torch.  ActionFormer's extension of the same name is `tal_postproc.compat.actionformer.nms_1d_cpu`, and both may be
imported.

Functions of tensors need torch, `mAP` needs pandas; neither is imported before it is used.  Results lie on the device
of what was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import actionformer
from ._evaluator import Evaluator, by_class, distinct, measured, say, table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NMSop",
    "SoftNMSop",
    "batched_nms",
    "convert_to_seconds",
    "mAP",
    "nms",
    "nms_1d_cpu",
    "seg_voting",
    "softnms",
]

nms = actionformer.nms  # the one function that is the same in both
NMSop = actionformer.NMSop


def softnms(
    segs: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    t1: float,
    t2: float,
) -> Tensor:
    """Rows in the order in which soft-NMS picks them: ``nms_1d_cpu.softnms`` of OpenTAD.

    Parameters
    ----------
    segs, scores, dets, iou_threshold, sigma, min_score
        As in `actionformer.softnms`; the first rows of `dets` are overwritten.
    method : int
        0: the score becomes 0; 1: it is multiplied by ``1 - iou``; 2: gaussian; 3: gaussian where
        ``iou >= t1 + t2 * length``, with the length of the pick, for segments in fractions of the video.
    t1, t2 : float
        Of method 3, but no method works without them.

    Returns
    -------
    (M,) Tensor of int64
        Best new score first; the earlier row first among equals.

    Examples
    --------
    >>> import torch
    >>> segs, scores = torch.tensor([[0.0, 0.4], [0.0, 0.3], [0.6, 0.9]]), torch.tensor([0.9, 0.8, 0.5])
    >>> softnms(segs, scores, torch.zeros(3, 3), 0.0, 0.5, 0.0, 3, 0.5, 0.4)
    tensor([0, 2, 1])
    """
    from . import _nms_1d

    keep, new_scores = _nms_1d.soft(
        segs, scores, threshold=iou_threshold, sigma=sigma, min_score=min_score, method=method, gate=(t1, t2)
    )
    _nms_1d.write_dets(dets, segs, keep, new_scores)
    return keep


class nms_1d_cpu:
    """The compiled module as a namespace: ``from tal_postproc.compat.opentad import nms_1d_cpu``."""

    nms = staticmethod(nms)
    softnms = staticmethod(softnms)


class SoftNMSop:
    """``SoftNMSop.apply`` of ``nms.py``, without the autograd Function around it (it has no backward)."""

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
        t1: float,
        t2: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Soft-NMS over all rows, see `softnms`: segments, new scores and classes, best first.

        As published, `max_num` of 0 or less is no limit.

        >>> import torch
        >>> segs, scores = torch.tensor([[0.0, 0.4], [0.0, 0.4], [0.6, 0.9]]), torch.tensor([0.9, 0.8, 0.5])
        >>> SoftNMSop.apply(segs, scores, torch.tensor([4, 5, 6]), 0.1, 0.5, 0.001, 2, 2, 0, 0)[2]
        tensor([4, 6])
        """
        from . import _nms_1d

        options = {"threshold": iou_threshold, "sigma": sigma, "min_score": min_score, "method": method}
        return _nms_1d.soft_nms_op(segs, scores, cls_idxs, max_num, gate=(t1, t2), **options)


def batched_nms(
    segs: Tensor,
    scores: Tensor,
    cls_idxs: Tensor,
    iou_threshold: float = 0.0,
    min_score: float = 0.0,
    max_seg_num: int = 100,
    use_soft_nms: bool = True,
    multiclass: bool = True,
    sigma: float = 0.5,
    voting_thresh: float = 0.0,
    method: int = 2,
    t1: float = 0,
    t2: float = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS or soft-NMS per class or over all classes, then voting: OpenTAD's ``batched_nms``.

    Parameters
    ----------
    segs : (N, 2) Tensor
        Start and end, start <= end; becomes float32 first, as published.
    scores : (N,) Tensor
        Not negative; becomes float32 first.
    cls_idxs : (N,) Tensor of int
    iou_threshold : float, default 0
        Of hard NMS and of methods 0 and 1.
    min_score, max_seg_num, use_soft_nms, multiclass, sigma
        As in `actionformer.batched_nms`.
    voting_thresh : float, default 0
        See `seg_voting`; 0 switches voting off.
    method : int, default 2
    t1, t2 : float, default 0
        See `softnms`.

    Returns
    -------
    segs, scores, cls_idxs : Tensors (M, 2), (M,), (M,)
        New tensors, the first two float32, best score first; the earlier row first among equals.

    Notes
    -----
    As published: voting is switched off when `multiclass` is True; hard NMS with the default threshold of 0 leaves the
    best row of every class.  What differs: all classes are done in one pass, in float64 on the float32 values.

    Examples
    --------
    >>> import torch
    >>> segs, scores = torch.tensor([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0]]), torch.tensor([0.9, 0.8, 0.5])
    >>> batched_nms(segs, scores, torch.tensor([1, 1, 0]), sigma=0.4)[1]
    tensor([0.9000, 0.5000, 0.0657])
    """
    from . import _nms_1d

    return _nms_1d.batched_nms(
        segs.float(),
        scores.float(),
        cls_idxs,
        max_seg_num=max_seg_num,
        use_soft_nms=use_soft_nms,
        multiclass=multiclass,
        voting_thresh=voting_thresh,
        times_iou=False,
        threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        method=method,
        gate=(t1, t2),
    )


def seg_voting(
    nms_segs: Tensor, all_segs: Tensor, all_scores: Tensor, iou_threshold: float, score_offset: float = 1.5
) -> Tensor:
    """Kept segments as weighted means of all that overlap them: OpenTAD's ``seg_voting``.

    As `actionformer.seg_voting`, except for the weight: the score alone, not the score times the IoU.

    >>> import torch
    >>> segs = torch.tensor([[0.0, 10.0], [0.0, 8.0], [30.0, 40.0]])
    >>> seg_voting(segs[:1], segs, torch.tensor([0.6, 0.3, 0.9]), 0.7)
    tensor([[0.0000, 9.3333]])
    """
    from . import _nms_1d

    return _nms_1d.vote(nms_segs, all_segs, all_scores, iou_threshold, times_iou=False)


def convert_to_seconds(segments: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Segments of the feature grid in seconds, within the video: OpenTAD's ``convert_to_seconds``.

    Parameters
    ----------
    segments : (N, 2) Tensor (or ndarray) of float
    meta : mapping
        ``fps``, ``duration`` (seconds), and with ``fps`` -1 ``resize_length``, else ``snippet_stride``,
        ``offset_frames`` and perhaps ``window_start_frame`` (default 0).

    Returns
    -------
    (N, 2) Tensor
        ``segments / resize_length * duration``, or ``(segments * stride + start + offset) / fps``, clipped to
        [0, duration].

    Examples
    --------
    >>> meta = {"fps": 30, "duration": 12.0, "snippet_stride": 4, "offset_frames": 8}
    >>> convert_to_seconds(np.array([[-4.0, 13.0], [20.5, 99.0]]), meta)
    array([[ 0.,  2.],
           [ 3., 12.]])
    """
    duration = meta["duration"]
    if meta["fps"] == -1:
        segments = segments / meta["resize_length"] * duration
    else:
        start = meta.get("window_start_frame", 0)
        segments = (segments * meta["snippet_stride"] + start + meta["offset_frames"]) / meta["fps"]
    return segments.clip(0.0, duration)


class mAP(Evaluator):
    """Evaluator of ``opentad/evaluations/mAP.py``, without worker processes.

    Parameters
    ----------
    ground_truth_filename : str or path
        JSON in the format of ActivityNet.
    prediction_filename : str, path or dict
        JSON with ``results``: video -> list of ``label``, ``segment``, ``score``; or what it holds.
    subset : str
    tiou_thresholds : (I,) array_like
    top_k : sequence of int, optional
        Multiples for the recall; without them there is none.
    blocked_videos : str or path, optional
        JSON list of videos to leave out.
    thread : int
        Not used: there is nothing to wait for.

    Attributes
    ----------
    ground_truth, prediction : DataFrame
        Columns ``video-id``, ``t-start``, ``t-end``, ``label``, ``score``; the ground truth without empty instances,
        and without those within 1e-3 s of an earlier one of their class and video.
    activity_index : dict
        Label -> column of `ap`, in the order in which labels first appear.
    ap : (I, K) ndarray
    mAPs : (I,) ndarray
    average_mAP : float
    recall, mRecall : (I, X, K) and (I, X) ndarray
        Where `top_k` is given.

    Notes
    -----
    As published: predictions of an unknown label become class K and count for nothing; unions are at least 1e-8.  What
    differs: equal scores keep the order of their rows.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "thumos.json"
    >>> event = {"segment": [0, 10], "label": "Diving"}
    >>> _ = path.write_text(json.dumps({"database": {"a": {"subset": "test", "annotations": [event]}}}))
    >>> found = {"results": {"a": [{"label": "Diving", "segment": [0, 8], "score": 0.9}]}}
    >>> mAP(path, found, "test", [0.5, 0.9]).evaluate()
    {'average_mAP': 0.5, 'mAP@0.5': 1.0, 'mAP@0.9': 0.0}
    """

    protocol: ClassVar[str] = "opentad"

    def __init__(
        self,
        ground_truth_filename: Any,
        prediction_filename: Any,
        subset: str,
        tiou_thresholds: Any,
        top_k: Sequence[int] | None = None,
        blocked_videos: Any = None,
        thread: int = 16,
    ) -> None:
        self.subset, self.tiou_thresholds, self.top_k, self.thread = subset, tiou_thresholds, top_k, thread
        self.gt_fields, self.pred_fields = ["database"], ["results"]
        self.blocked_videos = [] if blocked_videos is None else _json(blocked_videos, ())
        database = _json(ground_truth_filename, self.gt_fields)["database"]
        rows = [
            (video, *map(float, event["segment"][:2]), event["label"])
            for video, entry in database.items()
            if entry["subset"] == subset and video not in self.blocked_videos
            for event in entry["annotations"]
        ]
        rows = [rows[i] for i in distinct(rows, self.protocol)]
        self.activity_index = {label: column for column, label in enumerate(dict.fromkeys(row[3] for row in rows))}
        self.ground_truth = self._table(rows)
        self.prediction = self._import_prediction(prediction_filename)

    def _import_prediction(self, prediction_filename: Any) -> Any:
        results = _json(prediction_filename, self.pred_fields)["results"]
        return self._table(
            [
                (video, *map(float, one["segment"][:2]), one["label"], float(one["score"]))
                for video, found in results.items()
                if video not in self.blocked_videos
                for one in found
            ]
        )

    def _table(self, rows: Sequence[tuple[Any, ...]]) -> Any:
        columns = list(zip(*rows)) if rows else [()] * 5
        labels = [self.activity_index.get(label, len(self.activity_index)) for label in columns[3]]
        made = {
            "video-id": np.array(columns[0], object),
            "t-start": np.array(columns[1], np.float64),
            "t-end": np.array(columns[2], np.float64),
            "label": np.array(labels, np.int64),
        }
        if len(columns) == 5:
            made["score"] = np.array(columns[4], np.float64)
        return table(made, "compat.opentad.mAP")

    def evaluate(self) -> dict[str, float]:
        """Set `ap`, `mAPs`, `average_mAP` and, with `top_k`, `recall` and `mRecall`.

        Returns
        -------
        dict
            ``average_mAP``, ``mAP@0.5``, ..., and ``recall@0.5@1``, ...
        """
        options = {} if self.top_k is None else {"top_kx": tuple(self.top_k)}
        found = measured(self.ground_truth, self.prediction, self.tiou_thresholds, self.protocol, **options)
        indices = list(self.activity_index.values())
        self.ap = by_class(found.per_class, found.classes, indices)
        self.mAPs = actionformer._mean(self.ap)
        self.average_mAP = float(self.mAPs.mean())
        metrics = {"average_mAP": self.average_mAP}
        metrics |= {f"mAP@{one}": float(value) for one, value in zip(self.tiou_thresholds, self.mAPs)}
        if self.top_k is not None and found.recall is not None:
            self.recall = by_class(found.recall, found.classes, indices)
            self.mRecall = actionformer._mean(self.recall)
            for one, values in zip(self.tiou_thresholds, self.mRecall):
                metrics |= {f"recall@{one}@{k}": float(value) for k, value in zip(self.top_k, values)}
        return metrics

    def logging(self, logger: Any = None) -> None:
        """Write what `evaluate` found to ``logger.info``, or print it."""
        write = say if logger is None else logger.info
        write(f"Loaded annotations from {self.subset} subset.")
        write(f"Number of ground truth instances: {len(self.ground_truth)}")
        write(f"Number of predictions: {len(self.prediction)}")
        write(f"Fixed threshold for tiou score: {self.tiou_thresholds}")
        write(f"Average-mAP: {100 * self.average_mAP:>4.2f} (%)")
        for one, value in zip(self.tiou_thresholds, self.mAPs):
            write(f"mAP at tIoU {one:.2f} is {100 * value:>4.2f}%")
        if self.top_k is not None:
            for one, values in zip(self.tiou_thresholds, self.mRecall):
                shares = ", ".join(f"R{k} is {100 * value:>4.2f}%" for k, value in zip(self.top_k, values))
                write(f"Recall at tIoU {one:.2f}: {shares}")


def _json(source: Any, fields: Sequence[str]) -> Any:
    """What a JSON file holds, or the dictionary itself; OSError where a field is missing, as published."""
    if not source:
        raise OSError("a ground truth file and a prediction file must be given, got nothing")
    data = source
    if not isinstance(source, Mapping):
        with open(source, encoding="utf-8") as file:
            data = json.load(file)
    missing = [one for one in fields if one not in data]
    if missing:
        raise OSError(f"{str(source)!r:.80} must have the field {missing[0]!r}")
    return data
