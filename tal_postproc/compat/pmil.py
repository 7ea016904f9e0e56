"""P-MIL (RenHuan1999/CVPR2023_P-MIL): ``utils.py``, ``eval_detection.py``, and the slow loop of ``model.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from .._checks import Float
from ..overlap import tiou_matrix
from ..suppression import nms
from ._attention import ambiguous_rows, decayed, prediction_table, soft_nms_rows, text
from ._evaluator import Evaluator, compute_average_precision_detection, say
from ._rows import plain
from .co2net import filter_segments, rounded_ground_truth

__all__ = [
    "ANETdetection",
    "compute_average_precision_detection",
    "filter_segments",
    "get_prediction",
    "prop_comp_loss",
    "pseudo_instances",
    "soft_nms",
]


def soft_nms(dets: ArrayLike, iou_thr: float = 0.7, method: str = "gaussian", sigma: float = 0.3) -> list[list[float]]:
    """Soft-NMS of rows [start, end, class, score]: `co2net.soft_nms` with other columns; replaces ``utils.soft_nms``.

    >>> [[round(x, 3) for x in row] for row in soft_nms([[0, 9, 3, 0.9], [0, 9, 3, 0.8], [20, 29, 3, 0.5]])]
    [[0.0, 9.0, 3.0, 0.9], [20.0, 29.0, 3.0, 0.5], [0.0, 9.0, 3.0, 0.029]]
    """
    return soft_nms_rows(dets, "start, end, class, score", iou_thr, method, sigma)


def get_prediction(
    vid_name: bytes | str, data_dict: dict[str, Any], dataset: Any, args: Any
) -> tuple[Any, NDArray[np.int64], NDArray[Any]]:
    """Detections of one video from scored proposals; replaces ``utils.get_prediction``.

    Parameters
    ----------
    vid_name : bytes or str
        One of ``dataset.videonames``.
    data_dict : dict
        ``prop_v_cas``, ``prop_f_cas`` (1, M, C + 1), and ``prop_v_attn``, ``prop_f_attn``, ``prop_v_iou``,
        ``prop_f_iou`` (1, M, 1): what the network gives for M proposals, logits, tensors on any device or arrays.
    dataset : object
        With ``videonames``, ``proposals`` (one (M, 2) array per video, in snippets) and ``ambilist`` (split lines).
    args : object
        With ``threshold_cls`` and ``gamma_vid``.

    Returns
    -------
    prediction : pandas.DataFrame
        ``video-id``, ``t-start``, ``t-end``, ``label``, ``score``; numbers float64.  By class, in the order of picking.
    pred : (P,) ndarray of int64
        Classes that were searched.
    pred_vid_score : (C,) ndarray of the dtype of ``prop_v_cas``

    Notes
    -----
    As published: softmax of the logits and sigmoid of attention and IoU, halves of both streams; video-level score
    sum(cas * att) / (sum(att) + 1e-6), classes ``>= threshold_cls``, else the best; score cas * att * iou + `gamma_vid`
    times the video-level score; soft-NMS with sigma 0.3.  What differs: float64 inside; no proposals give an empty
    table.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> dataset = SimpleNamespace(videonames=[b"v"], proposals=[np.array([[0.0, 4.0], [6.0, 9.0]])], ambilist=[])
    >>> width = {"cas": 3, "attn": 1, "iou": 1}
    >>> outputs = {f"prop_{stream}_{name}": np.zeros((1, 2, width[name])) for stream in "vf" for name in width}
    >>> args = SimpleNamespace(threshold_cls=0.2, gamma_vid=0.2)
    >>> prediction, pred, scores = get_prediction(b"v", outputs, dataset, args)
    >>> prediction["score"].round(4).tolist(), pred.tolist(), scores.round(4).tolist()
    ([0.15, 0.15, 0.15, 0.15], [0, 1], [0.3333, 0.3333])
    """
    logits = {
        name: [plain(data_dict[f"prop_{stream}_{name}"])[0] for stream in "vf"] for name in ("cas", "attn", "iou")
    }
    cas = np.mean(softmax(logits["cas"], axis=2), axis=0)
    attention, overlap = (np.mean(expit(logits[name]), axis=0) for name in ("attn", "iou"))
    proposals = plain(dataset.proposals[list(dataset.videonames).index(vid_name)]).reshape(-1, 2)
    video_scores = ((cas * attention).sum(axis=0) / (attention.sum(axis=0) + 1e-6))[:-1]
    pred = np.flatnonzero(video_scores >= args.threshold_cls)
    if not len(pred):
        pred = np.array([np.argmax(video_scores)])

    scores = ((cas * attention * overlap)[:, pred] + args.gamma_vid * video_scores[pred]).T.ravel()
    labels = np.repeat(pred, len(proposals))
    segments = np.tile(proposals, (len(pred), 1))
    keep, scores = decayed(segments, scores, labels, 0.7, "gaussian", 0.3)
    free = ambiguous_rows(segments[keep], text(vid_name), dataset.ambilist)
    keep, scores = keep[free], scores[free]
    table = prediction_table(text(vid_name), segments[keep], labels[keep], scores, "compat.pmil.get_prediction")
    kind = getattr(data_dict["prop_v_cas"], "detach", lambda: data_dict["prop_v_cas"])()
    dtype = np.float32 if "float32" in str(getattr(kind, "dtype", "")) else np.float64
    return table, pred, video_scores.astype(dtype)


def pseudo_instances(proposals: Any, attention: Any, gamma: float) -> Any:
    """The proposals that become pseudo instances in training: confident ones that do not touch a better one.

    Parameters
    ----------
    proposals : (M, 2) tensor or array
        In any unit.
    attention : (M,) tensor or array
    gamma : float
        Proposals whose attention is above `gamma` times the largest are looked at (0.8 in the original's options).

    Returns
    -------
    (P, 2) tensor or array, of the dtype and on the device of `proposals`
        Best attention first; ties: the earlier row first.

    Notes
    -----
    As published: any overlap above 0 suppresses, touching ends do not.  A proposal without length is taken (the
    original never ends there).  It is `tal_postproc.nms`, O(M log M); the original has a loop over an M by M matrix.

    Examples
    --------
    >>> pseudo_instances(np.array([[0, 4], [3, 8], [8, 9]]), np.array([0.9, 0.8, 0.85]), 0.8)
    array([[0, 4],
           [8, 9]])
    """
    values = plain(attention)
    if not len(values):
        return proposals[:0]
    candidates = np.flatnonzero(values > gamma * values.max())
    keep = nms(plain(proposals)[candidates], values[candidates], tiou_threshold=0.0)
    return proposals[candidates[keep]]


def prop_comp_loss(self: Any, pred_iou: Any, attn: Any, mask: Any, proposals: Any, gamma: float) -> Any:
    """The completeness loss with fast pseudo instances: ``P_MIL.prop_comp_loss = prop_comp_loss``.

    Parameters
    ----------
    self : object
        Not looked at.
    pred_iou, attn : (B, M, 1) tensor
    mask : (B, M, 1) tensor of bool
        Proposals that are there.
    proposals : list of (M_b, 2) tensor
    gamma : float

    Returns
    -------
    tensor, a scalar
        Mean over the videos of the mean squared difference of `pred_iou` and the best IoU with a pseudo instance; the
        gradient goes to `pred_iou`.

    Notes
    -----
    As published: 1e-6 is added to the union.  A video without proposals adds 0.

    Examples
    --------
    >>> import torch
    >>> ones = torch.ones(1, 2, 1)
    >>> prop_comp_loss(None, 0.5 * ones, ones, ones.bool(), [torch.tensor([[0.0, 4.0], [6.0, 9.0]])], 0.8)
    tensor(0.2500)
    """
    loss: Any = 0.0
    for b, rows in enumerate(proposals):
        predicted = pred_iou[b][mask[b]]
        if not len(predicted):
            continue
        chosen = pseudo_instances(rows, attn[b][mask[b]], gamma)
        target = np.zeros(len(rows))
        if len(chosen):
            target = tiou_matrix(plain(rows), plain(chosen), area_eps=5e-7).max(axis=1)
        loss = loss + ((predicted - predicted.new_tensor(target)) ** 2).mean()
    return loss / len(proposals)


class ANETdetection(Evaluator):
    """ActivityNet's mAP in snippets; replaces the class of ``eval_detection.py``.

    As `co2net.ANETdetection`, but all classes of the folder count (a class without instances has AP 0; the original
    stops there), `activity_index` leads from label to number, and `evaluate` returns two things.

    Parameters
    ----------
    annotation_path : str
        Folder of W-TALC annotations.
    tiou_thresholds : (I,) array_like, default linspace(0.5, 0.95, 10)
    subset : str, default "validation"
    verbose : bool, default False
    """

    def __init__(
        self,
        annotation_path: str | None = None,
        tiou_thresholds: Any = None,
        subset: str = "validation",
        verbose: bool = False,
    ) -> None:
        if not annotation_path:
            raise OSError("`annotation_path` must be a folder of annotations, got nothing")
        self.subset = subset
        self.tiou_thresholds = np.linspace(0.5, 0.95, 10) if tiou_thresholds is None else tiou_thresholds
        self.verbose = verbose
        self.ap = None
        self.ground_truth, self.activity_index = self._import_ground_truth(annotation_path)

    def _import_ground_truth(self, annotation_path: str) -> tuple[Any, dict[Any, int]]:
        frame, truth = rounded_ground_truth(annotation_path, self.subset, "compat.pmil.ANETdetection")
        return frame, {label: number for number, label in enumerate(truth.classes)}

    def evaluate(self) -> tuple[Float, Any]:
        """Set `ap`, `mAP` and `average_mAP`; returns the (I,) mAP and the (I, K) AP."""
        self._measure()
        if self.verbose:
            say(f"{self.subset}: {len(self.ground_truth)} instances, {len(self.prediction)} predictions")
            for threshold, value in zip(self.tiou_thresholds, self.mAP):
                say(f"Detection mAP @ {threshold:f} = {value:f}")
        return self.mAP, self.ap
