"""AFSD (TencentYoutuResearch/ActionDetection-AFSD): the suppression of ``AFSD/common/segment_utils.py``.

Needs torch.  Results lie on the device of what was given, except those of `soft_nms`; the original's soft-NMS moves
everything to the CPU, and decays the caller's tensor in place, which does not happen here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import torch as tpt
from . import _nms_1d

__all__ = ["nms", "soft_nms", "softnms_v2"]


def nms(segments: Tensor, overlap: float = 0.5, top_k: int = 1000) -> tuple[Tensor, int]:
    """Hard NMS among the best `top_k` rows: ``segment_utils.py: nms``.

    Parameters
    ----------
    segments : (N, 3) Tensor of float
        Start, end, score; start <= end.
    overlap : float, default 0.5
        A row stays when its IoU with every kept one is below it.
    top_k : int, default 1000
        Rows that take part; 0 takes all, as published.

    Returns
    -------
    keep : (N,) Tensor of int64
        The rows that stay, best score first, then zeros.
    count : int
        How many of `keep` are rows.

    Notes
    -----
    As published: of segments without length only the best one stays, wherever the others lie.  Ties: the earlier row
    first.

    Examples
    --------
    >>> nms(torch.tensor([[0.0, 10.0, 0.8], [1.0, 10.0, 0.9], [20.0, 30.0, 0.5]]))
    (tensor([1, 2, 0]), 2)
    """
    rows = torch.sort(segments[:, 2], descending=True, stable=True).indices[: top_k or None]
    chosen = segments[rows]
    kept = rows[_nms_1d.hard(chosen[:, :2], chosen[:, 2], overlap, eps=0.0)]
    points = segments[kept, 0] == segments[kept, 1]
    kept = kept[~points | (points.cumsum(0) == 1)]
    keep = torch.zeros(len(segments), dtype=torch.int64, device=segments.device)
    keep[: len(kept)] = kept
    return keep, len(kept)


def softnms_v2(
    segments: Tensor, sigma: float = 0.5, top_k: int = 1000, score_threshold: float = 0.001
) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS: ``segment_utils.py: softnms_v2``.

    Parameters
    ----------
    segments : (N, 3) Tensor of float
        Start, end, score; start <= end, scores not negative.
    sigma : float, default 0.5
    top_k : int, default 1000
        Rows returned at most.
    score_threshold : float, default 0.001
        What falls below it is left out.

    Returns
    -------
    segments : (M, 3) Tensor
        Start, end and new score, in the order in which the rows came in (not by score).
    count : () Tensor of int64
        M.

    Notes
    -----
    As published: it stops when one candidate is left, so that the last one is never returned, and a single row gives
    nothing.  What differs: `segments` is not changed (the original decays the scores of a CPU tensor in place), and
    the earlier row comes first among equal scores.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 10.0, 0.8], [0.0, 10.0, 0.9], [20.0, 30.0, 0.5]])
    >>> softnms_v2(rows)
    (tensor([[ 0.0000, 10.0000,  0.9000],
            [20.0000, 30.0000,  0.5000]]), tensor(2))
    >>> softnms_v2(rows[:1])[1]
    tensor(0)
    """

    def picks(rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
        given = segments.detach()[rows]
        options = {"sigma": float(sigma), "min_score": float(score_threshold), "max_detections": most}
        keep, new_scores = tpt.soft_nms(given[:, :2], given[:, 2], **options)  # type: ignore[arg-type]
        return rows[keep], new_scores

    rows = torch.arange(len(segments), device=segments.device)
    keep, new_scores = picks(rows, top_k + 1)
    if len(keep) > top_k:
        keep, new_scores = keep[:top_k], new_scores[:top_k]
    elif len(keep):  # the last pick counts if another row was left beside it: one that is picked in its absence
        others, _ = picks(rows[rows != keep[-1]], len(keep))
        left = len(keep) if len(others) == len(keep) else len(keep) - 1
        keep, new_scores = keep[:left], new_scores[:left]
    order = keep.argsort()
    kept = torch.cat((segments.detach()[keep[order], :2], new_scores[order, None].to(segments.dtype)), dim=1)
    return kept, torch.tensor(len(kept), device=segments.device)


def soft_nms(segments: Tensor, overlap: float = 0.3, sigma: float = 0.5, top_k: int = 1000) -> tuple[Tensor, int]:
    """Soft-NMS with the overlap of ``segment_utils.py: soft_nms``, which is not the IoU.

    Parameters
    ----------
    segments : (N, 3) Tensor of float
        Start, end, score; start <= end.
    overlap : float, default 0.3
        Scores decay where the overlap is greater.
    sigma : float, default 0.5
    top_k : int, default 1000

    Returns
    -------
    segments : (M, 3) Tensor of float64 on the CPU
        Start, end and new score in the order of picking.
    count : int
        M.

    Notes
    -----
    As published: the length of the pick counts as 1e-5 at most (``minimum``, where ``maximum`` was meant), so that the
    overlap is ``inter / (1e-5 + length of the other - inter)``, which reaches far above 1; it stops below a score of
    0.001, and when one row is left, which is not returned.  The core knows no such overlap, so there is a loop over
    picks here.  `softnms_v2` is what AFSD uses.

    Examples
    --------
    >>> soft_nms(torch.tensor([[0.0, 10.0, 0.8], [5.0, 15.0, 0.9], [20.0, 30.0, 0.5]]))
    (tensor([[ 5.0000, 15.0000,  0.9000],
            [20.0000, 30.0000,  0.5000]], dtype=torch.float64), 2)
    """
    start, end, score = segments.detach().cpu().double().numpy().T.copy()
    left = np.ones(len(score), np.bool_)
    kept: list[int] = []
    while left.sum() > 1 and len(kept) < top_k:
        best = int(np.argmax(np.where(left, score, -np.inf)))
        if score[best] < 0.001:
            break
        kept.append(best)
        left[best] = False
        inter = np.maximum(np.minimum(end[best], end) - np.maximum(start[best], start), 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = inter / (min(end[best] - start[best], 1e-5) + (end - start) - inter)
        near = left & (ratio > overlap)
        score[near] *= np.exp(-np.square(ratio[near]) / sigma)
    return torch.from_numpy(np.stack((start, end, score), axis=1)[kept]), len(kept)
