"""mmaction2 (open-mmlab/mmaction2): its soft-NMS of proposals, and its evaluators.  NumPy only.

``proposal_utils.py`` lies in ``mmaction/models/localizers/utils``, ``ActivityNetLocalization`` and
``average_recall_at_avg_proposals`` lie in ``mmaction/evaluation/functional``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import Float
from ..evaluation import average_recall, mean_average_precision
from ..overlap import tiou_matrix
from ..suppression import soft_nms as _soft_nms
from ..types import Segments
from ._evaluator import by_class, say
from ._rows import as_rows

__all__ = [
    "ActivityNetLocalization",
    "average_recall_at_avg_proposals",
    "post_processing",
    "soft_nms",
    "temporal_iop",
    "temporal_iou",
]


def temporal_iou(proposal_min: ArrayLike, proposal_max: ArrayLike, gt_min: ArrayLike, gt_max: ArrayLike) -> Any:
    """IoU of proposals with one instance, or of one proposal with instances: ``proposal_utils.py: temporal_iou``.

    Parameters
    ----------
    proposal_min, proposal_max, gt_min, gt_max : float or (N,) array_like
        Starts and ends in one unit; one of the two sides is a single segment.

    Returns
    -------
    (N,) ndarray of float64, or a float for two single segments

    Notes
    -----
    What differs: two segments without length overlap by 0 (NaN in the original).

    Examples
    --------
    >>> temporal_iou(np.array([0.0, 5.0]), np.array([10.0, 15.0]), 0.0, 10.0)
    array([1.        , 0.33333333])
    """
    return _one_to_many(proposal_min, proposal_max, gt_min, gt_max, "iou")


def temporal_iop(proposal_min: ArrayLike, proposal_max: ArrayLike, gt_min: ArrayLike, gt_max: ArrayLike) -> Any:
    """Intersection over the length of the proposal: ``proposal_utils.py: temporal_iop``.

    As `temporal_iou`, with the length of the proposal as the denominator.

    >>> temporal_iop(np.array([0.0, 5.0]), np.array([10.0, 15.0]), 0.0, 10.0)
    array([1. , 0.5])
    """
    return _one_to_many(proposal_min, proposal_max, gt_min, gt_max, "candidate")


def _one_to_many(proposal_min: Any, proposal_max: Any, gt_min: Any, gt_max: Any, kind: Any) -> Any:
    proposals, instances = (
        np.stack(np.broadcast_arrays(*pair), -1) for pair in ((proposal_min, proposal_max), (gt_min, gt_max))
    )
    if proposals.ndim > 1 and instances.ndim > 1:
        shapes = f"{proposals.shape[:-1]} and {instances.shape[:-1]}"
        raise ValueError(f"one side must be a single segment, got proposals and instances of shape {shapes}")
    values = tiou_matrix(instances.reshape(-1, 2), proposals.reshape(-1, 2), overlap=kind).ravel()
    return values if max(proposals.ndim, instances.ndim) > 1 else values[0]


def soft_nms(
    proposals: NDArray[Any], alpha: float, low_threshold: float, high_threshold: float, top_k: int
) -> NDArray[Any]:
    """Soft-NMS of proposals in fractions of the video: ``proposal_utils.py: soft_nms``.

    Scores decay by ``exp(-iou ** 2 / alpha)`` where ``iou > low + (high - low) * length of the pick``.

    Parameters
    ----------
    proposals : (N, C) ndarray of real numbers, C >= 3
        Start and end in [0, 1] in the first two columns, score (not negative) in the last one.
    alpha : float
        > 0.
    low_threshold, high_threshold : float
    top_k : int

    Returns
    -------
    (M, 3) ndarray
        Start, end, new score in the order of picking, in the dtype of `proposals` (float64 for integers); the earlier
        row first among equals (the original: the later one).

    Notes
    -----
    As published: **top_k + 1** rows come back, and columns between end and score do not.  What differs: scores decay in
    float64 also where the proposals are float32.

    Examples
    --------
    >>> proposals = np.array([[0.0, 0.3, 0.9], [0.0, 0.3, 0.8], [0.5, 0.9, 0.4]])
    >>> soft_nms(proposals, 0.4, 0.5, 0.9, 1)
    array([[0. , 0.3, 0.9],
           [0.5, 0.9, 0.4]])
    """
    rows = _proposals(proposals)
    keep, new_scores = _soft_nms(
        rows[:, :2],
        rows[:, -1],
        method="gated",
        gate=(float(low_threshold), float(high_threshold) - float(low_threshold)),
        sigma=float(alpha),
        max_detections=max(_checks.as_count(top_k, "top_k", at_least=-1) + 1, 0),
    )
    return np.column_stack((rows[keep, :2], new_scores)).astype(rows.dtype)


def _proposals(value: Any) -> NDArray[Any]:
    rows = as_rows(value, "proposals", "start, end, score")
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def post_processing(
    result: NDArray[Any],
    video_info: Mapping[str, Any],
    soft_nms_alpha: float,
    soft_nms_low_threshold: float,
    soft_nms_high_threshold: float,
    post_process_top_k: int,
    feature_extraction_interval: int,
) -> list[dict[str, Any]]:
    """Soft-NMS, the best `post_process_top_k`, and seconds: ``proposal_utils.py: post_processing``.

    Parameters
    ----------
    result : (N, C) ndarray of real numbers, C >= 3
        As `soft_nms` takes them.
    video_info : mapping
        ``duration_frame`` and ``duration_second``.
    soft_nms_alpha, soft_nms_low_threshold, soft_nms_high_threshold : float
    post_process_top_k : int
    feature_extraction_interval : int
        Frames per feature; the frames after the last whole interval do not count for the duration.

    Returns
    -------
    list of dict
        ``score`` and ``segment`` [start, end] in seconds, best first; floats of Python, so that JSON takes them.

    Examples
    --------
    >>> info = {"duration_frame": 100, "duration_second": 10.0}
    >>> post_processing(np.array([[-0.1, 0.5, 0.9], [0.5, 1.2, 0.8]]), info, 0.4, 0.5, 0.9, 1, 16)
    [{'score': 0.9, 'segment': [0.0, 4.8]}]
    """
    rows = soft_nms(result, soft_nms_alpha, soft_nms_low_threshold, soft_nms_high_threshold, post_process_top_k)
    rows = rows[: _checks.as_count(post_process_top_k, "post_process_top_k")].astype(np.float64)
    frames, interval = video_info["duration_frame"], feature_extraction_interval
    duration = float(frames // interval * interval) / frames * video_info["duration_second"]
    starts, ends = np.maximum(rows[:, 0], 0) * duration, np.minimum(rows[:, 1], 1) * duration
    columns = rows[:, 2].tolist(), starts.tolist(), ends.tolist()
    return [{"score": score, "segment": [start, end]} for score, start, end in zip(*columns)]


# -------------------------------------------------------------------------------------------------------- evaluation
def average_recall_at_avg_proposals(
    ground_truth: Mapping[str, ArrayLike],
    proposals: Mapping[str, ArrayLike],
    total_num_proposals: int,
    max_avg_proposals: float | None = None,
    temporal_iou_thresholds: ArrayLike | None = None,
) -> tuple[Float, Float, Float, float]:
    """Recall of proposals against their average number per video: the function of that name in ``accuracy.py``.

    Parameters
    ----------
    ground_truth : mapping of str to (G, 2) array_like
        Start and end of the instances of every video that counts.
    proposals : mapping of str to (P, 3) array_like
        Start, end, score, in the same unit.
    total_num_proposals : int
        Rows in `proposals`.
    max_avg_proposals : float, optional
        Default: all, `total_num_proposals` per number of videos.
    temporal_iou_thresholds : (I,) array_like, default linspace(0.5, 0.95, 10)

    Returns
    -------
    recall, avg_recall, proposals_per_video, auc : (I, 100), (100,), (100,) ndarray, float
        `auc` in percent.

    Raises
    ------
    ValueError
        If `total_num_proposals` is another number than that of the rows.

    Notes
    -----
    `average_recall` of `tal_postproc`, which works without ``numpy.trapz`` (NumPy 2.4 has none).  What differs: nothing
    to find or nothing found gives recall 0; ties: the earlier row first.

    Examples
    --------
    >>> truth, found = {"a": [[0, 10], [20, 30]]}, {"a": [[0, 10, 0.9], [20, 31, 0.8]]}
    >>> recall, avg_recall, per_video, auc = average_recall_at_avg_proposals(truth, found, 2)
    >>> avg_recall[[49, 99]].tolist(), per_video[-1].item()
    ([0.5, 0.95], 2.0)
    """
    found, truth = _as_segments(proposals, "proposals", 3), _as_segments(ground_truth, "ground_truth", 2)
    if total_num_proposals != len(found):
        raise ValueError(
            f"`total_num_proposals` must be {len(found)}, the rows of `proposals`, got {total_num_proposals}"
        )
    thresholds = np.linspace(0.5, 0.95, 10) if temporal_iou_thresholds is None else temporal_iou_thresholds
    result = average_recall(found, truth, max_average_proposals=max_avg_proposals or None, tiou_thresholds=thresholds)
    return result.recall, result.average_recall, result.proposals_per_video, result.area


def _as_segments(videos: Mapping[str, ArrayLike], name: str, columns: int) -> Segments:
    """The rows of all videos, scores from the third column where there is one."""
    parts = [np.asarray(rows, np.float64) for rows in videos.values()]
    parts = [rows[:, :columns] if rows.size else np.empty((0, columns)) for rows in parts]
    rows = np.concatenate([np.empty((0, columns)), *parts])
    scores = rows[:, 2] if columns == 3 else None
    offsets = np.cumsum([0, *map(len, parts)])
    return Segments(rows[:, :2], scores=scores, offsets=offsets, unit="second", video_ids=list(videos))


class ActivityNetLocalization:
    """mAP on ActivityNet: the class of that name in ``activitynet_evaluation.py``.  No pandas.

    Parameters
    ----------
    ground_truth_filename : str or path
        JSON: video -> ``annotations`` with ``segment`` and ``label``.  As published, the first two characters of the
        video ids (``v_``) are cut off here, not in the predictions.
    prediction_filename : str or path
        JSON with ``results``: video -> list of ``label``, ``segment``, ``score``.
    tiou_thresholds : (I,) array_like, default linspace(0.5, 0.95, 10)
    verbose : bool, default False
        Print how much came in.

    Attributes
    ----------
    ground_truth, prediction : list of dict
        ``video-id``, ``t-start``, ``t-end``, ``label`` (a number), and ``score``.
    activity_index : dict
        Label -> number, in the order in which labels first appear.
    ap : (I, K) ndarray, None before `evaluate`
    mAP : (I,) ndarray
    average_mAP : float

    Raises
    ------
    KeyError
        For a predicted label that the ground truth does not have, as published.

    Notes
    -----
    As published: the IoU is rounded to float32, equal scores keep the order of their rows.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> truth = {"v_a": {"annotations": [{"label": "Diving", "segment": [0, 10]}]}}
    >>> found = {"results": {"a": [{"label": "Diving", "score": 0.9, "segment": [0, 8]}]}}
    >>> for name, data in (("gt", truth), ("found", found)):
    ...     _ = (folder / name).write_text(json.dumps(data))
    >>> ActivityNetLocalization(folder / "gt", folder / "found", [0.5, 0.9]).evaluate()
    (array([1., 0.]), 0.5)
    """

    def __init__(
        self,
        ground_truth_filename: Any = None,
        prediction_filename: Any = None,
        tiou_thresholds: Any = None,
        verbose: bool = False,
    ) -> None:
        for name, value in (("ground_truth", ground_truth_filename), ("prediction", prediction_filename)):
            if not value:
                raise OSError(f"`{name}_filename` must be a JSON file, got nothing")
        self.ground_truth_filename, self.prediction_filename = ground_truth_filename, prediction_filename
        self.tiou_thresholds = np.linspace(0.5, 0.95, 10) if tiou_thresholds is None else tiou_thresholds
        self.verbose = verbose
        self.ap: Float | None = None
        self.ground_truth, self.activity_index = self._import_ground_truth(ground_truth_filename)
        self.prediction = self._import_prediction(prediction_filename)
        if verbose:
            say(f"{len(self.ground_truth)} instances, {len(self.prediction)} predictions, tIoU {self.tiou_thresholds}")

    @staticmethod
    def _import_ground_truth(ground_truth_filename: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
        with open(ground_truth_filename, encoding="utf-8") as file:
            data = json.load(file)
        rows = [(video[2:], one) for video, entry in data.items() for one in entry["annotations"]]
        index = {label: number for number, label in enumerate(dict.fromkeys(one["label"] for _, one in rows))}
        return [_row(video, one, index) for video, one in rows], index

    def _import_prediction(self, prediction_filename: Any) -> list[dict[str, Any]]:
        with open(prediction_filename, encoding="utf-8") as file:
            results = json.load(file)["results"]
        return [
            {**_row(video, one, self.activity_index), "score": one["score"]}
            for video, found in results.items()
            for one in found
        ]

    def wrapper_compute_average_precision(self) -> Float:
        """(I, K) AP of every class; 0 for a class without predictions."""
        found = mean_average_precision(
            _flat(self.prediction), _flat(self.ground_truth), tiou_thresholds=self.tiou_thresholds, protocol="mmaction"
        )
        return by_class(found.per_class, found.classes, list(self.activity_index.values()))

    def evaluate(self) -> tuple[Float, float]:
        """Set `ap`, `mAP` and `average_mAP`; the latter two are returned."""
        self.ap = self.wrapper_compute_average_precision()
        self.mAP: Float = self.ap.mean(axis=1) if self.ap.shape[1] else np.zeros(len(self.ap))
        self.average_mAP = float(self.mAP.mean())
        return self.mAP, self.average_mAP


def _row(video: str, one: Mapping[str, Any], index: Mapping[str, int]) -> dict[str, Any]:
    start, end = one["segment"][:2]
    return {"video-id": video, "t-start": float(start), "t-end": float(end), "label": index[one["label"]]}


def _flat(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A list of dictionaries as flat columns."""
    columns = {
        "video": np.array([row["video-id"] for row in rows], object),
        "segments": np.array([(row["t-start"], row["t-end"]) for row in rows], np.float64).reshape(-1, 2),
        "labels": np.array([row["label"] for row in rows], np.int64),
        "scores": np.array([row.get("score", 1.0) for row in rows], np.float64),
    }
    return columns
