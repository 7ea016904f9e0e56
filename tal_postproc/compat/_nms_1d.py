"""What the ``nms.py`` of ActionFormer and OpenTAD share, and the compiled ``nms_1d_cpu`` beneath them, for tensors.

Coordinates and scores are compared in float64; the compiled original does that in float32.
"""

from __future__ import annotations

from typing import Any

from ..types import MissingExtraError

try:
    import torch
except ModuleNotFoundError as _error:
    raise MissingExtraError("torch", "torch", "compat.actionformer, compat.opentad and compat.afsd") from _error

from torch import Tensor

from .. import _checks
from .. import torch as tpt

AREA_EPS = 1e-6  # what the original adds to every length
DECAYS = {1: "linear", 2: "gaussian", 3: "improved"}
Kept = tuple[Tensor, Tensor, Tensor]


def hard(segs: Tensor, scores: Tensor, threshold: float, idxs: Tensor | None = None, eps: float = AREA_EPS) -> Tensor:
    """Rows that stay, best score first; reaching the threshold is enough to go."""
    threshold = _checks.as_number(threshold, "iou_threshold")
    if 0 < threshold <= 1:
        return tpt.nms(segs, scores, tiou_threshold=threshold, idxs=idxs, inclusive=True, area_eps=eps)
    order = tpt.nms(segs, scores, tiou_threshold=1.0)  # all of them: no pair is above 1
    if threshold > 1 or not len(order):
        return order
    return order[:1] if idxs is None else order[_firsts(idxs[order])]  # every pair reaches it: the best one stays


def _firsts(idxs: Tensor) -> Tensor:
    """The positions, rising, at which a value comes for the first time."""
    rising = torch.sort(idxs, stable=True)
    new = torch.ones_like(rising.indices, dtype=torch.bool)
    new[1:] = rising.values[1:] != rising.values[:-1]
    return rising.indices[new].sort().values


def soft(
    segs: Tensor,
    scores: Tensor,
    *,
    threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    gate: tuple[float, float] | None = None,
    idxs: Tensor | None = None,
    limit: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows and their new scores, best new score first; the best row of a group stays whatever its score."""
    methods = (0, *DECAYS) if gate is not None else (0, 1, 2)
    if method not in methods:
        raise ValueError(f"`method` must be one of {', '.join(map(str, methods))}, got {method!r}")
    if method:
        own: dict[str, Any] = {"tiou_threshold": max(threshold, 5e-324)} if method == 1 else {}
        own |= {"gate": gate} if method == 3 else {}
        return tpt.soft_nms(
            segs,
            scores,
            method=DECAYS[method],  # type: ignore[arg-type]
            sigma=float(sigma),
            min_score=float(min_score),
            keep_first=True,
            max_detections=limit,
            idxs=idxs,
            area_eps=AREA_EPS,
            **own,
        )
    keep = hard(segs, scores, threshold, idxs)
    new_scores = scores[keep]
    if min_score > 0:  # what is suppressed has score 0
        stays = new_scores >= min_score
        stays[:1] = True
        if idxs is not None:
            stays[_firsts(idxs[keep])] = True
        return keep[stays], new_scores[stays]
    gone = torch.ones_like(scores, dtype=torch.bool)
    gone[keep] = False
    rest = gone.nonzero().squeeze(1)
    return torch.cat((keep, rest)), torch.cat((new_scores, torch.zeros_like(scores[rest])))


def write_dets(dets: Tensor, segs: Tensor, keep: Tensor, new_scores: Tensor) -> None:
    """Fill the first rows of the caller's buffer with start, end and new score of what stays."""
    if dets.ndim != 2 or dets.shape[1] != 3 or len(dets) < len(keep):
        raise ValueError(f"`dets` must have shape ({len(segs)}, 3), got shape {tuple(dets.shape)}")
    with torch.no_grad():
        dets[: len(keep), :2] = segs[keep].reshape(-1, 2).to(dets)
        dets[: len(keep), 2] = new_scores.to(dets)


def above(segs: Tensor, scores: Tensor, min_score: float) -> Tensor:
    """Rows with a score above `min_score`; all of them where that is 0 or less."""
    return (scores > min_score).nonzero().squeeze(1) if min_score > 0 else torch.arange(len(segs), device=segs.device)


def nms_op(segs: Tensor, scores: Tensor, cls_idxs: Tensor, threshold: float, min_score: float, max_num: int) -> Kept:
    """``NMSop.apply`` of both."""
    with torch.no_grad():
        rows = above(segs, scores, min_score)
        keep = rows[hard(segs[rows], scores[rows], threshold)][: max_num if max_num > 0 else None]
        return segs[keep].reshape(-1, 2), scores[keep], cls_idxs[keep]


def soft_nms_op(segs: Tensor, scores: Tensor, cls_idxs: Tensor, max_num: int, **options: Any) -> Kept:
    """``SoftNMSop.apply`` of both; options are those of `soft`."""
    with torch.no_grad():
        limit = max_num if max_num > 0 else None
        keep, new_scores = soft(segs, scores, limit=limit, **options)
        return segs[keep][:limit].reshape(-1, 2), _as(new_scores[:limit], segs), cls_idxs[keep][:limit]


def batched_nms(
    segs: Tensor,
    scores: Tensor,
    cls_idxs: Tensor,
    *,
    max_seg_num: int,
    use_soft_nms: bool,
    multiclass: bool,
    voting_thresh: float,
    times_iou: bool,
    **options: Any,
) -> Kept:
    """``batched_nms`` of both; further options are those of `soft`."""
    with torch.no_grad():
        groups = cls_idxs if multiclass else None
        if use_soft_nms:
            limit = max_seg_num if max_seg_num > 0 else None
            keep, new_scores = soft(segs, scores, idxs=groups, limit=limit, **options)
        else:
            rows = above(segs, scores, options["min_score"])
            keep = rows[hard(segs[rows], scores[rows], options["threshold"], None if groups is None else groups[rows])]
            new_scores = scores[keep]
        # the most rows of a class are the most of all of them, so one cut at the end does both
        keep, new_scores = keep[:max_seg_num], new_scores[:max_seg_num]
        new_segs = segs[keep].reshape(-1, 2)
        if not multiclass and voting_thresh > 0:
            new_segs = vote(new_segs, segs, scores, voting_thresh, times_iou)
        return new_segs, _as(new_scores, segs), cls_idxs[keep]


def vote(nms_segs: Tensor, all_segs: Tensor, all_scores: Tensor, threshold: float, times_iou: bool) -> Tensor:
    with torch.no_grad():
        voted = tpt.segment_voting(nms_segs, all_segs, all_scores, tiou_threshold=float(threshold), times_iou=times_iou)
        return _as(voted, all_segs)


def _as(values: Tensor, segs: Tensor) -> Tensor:
    """In the dtype of the segments; whole numbers cannot hold scores and means."""
    return values.to(segs.dtype) if segs.is_floating_point() else values
