"""Which of many overlapping segments stay, and with what score."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import Float, Int
from ._kernels import segments as _kernels
from ._kernels import windows
from ._kernels.nms import nms_groups

__all__ = ["batched_nms", "nms", "segment_voting", "soft_nms"]

SOFT_METHODS = {
    "linear": windows.LINEAR,
    "gaussian": windows.GAUSSIAN,
    "gated": windows.GATED,
    "improved": windows.IMPROVED,
}


def nms(
    segments: ArrayLike,
    scores: ArrayLike,
    *,
    tiou_threshold: float,
    idxs: ArrayLike | None = None,
    overlap: Literal["iou", "candidate"] = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
    inclusive: bool = False,
    max_detections: int | None = None,
) -> Int:
    """Greedy non-maximum suppression: the best segment stays, what overlaps it too much goes, and so on.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in one unit, start <= end; negative times are fine.
    scores : (N,) array_like of float
        Any finite numbers; higher is better.
    tiou_threshold : float
        In [0, 1].  A segment is suppressed when its overlap with a kept one of its group is strictly greater.
    idxs : (N,) array_like of int, optional
        Group of every row, such as its class; only rows of one group are compared.  Default: one group.
    overlap, length_offset, area_eps
        How overlap is measured, see `tiou_matrix`; the candidate is the segment that may be suppressed.
    inclusive : bool, default False
        Suppress at equality, too, as BaS-Net and ActionFormer do.
    max_detections : int, optional
        Return at most this many rows, the best of all groups.

    Returns
    -------
    keep : (M,) ndarray of int64
        Rows that stay, best score first over all groups.

    Raises
    ------
    ValueError
        If segments or scores are not finite, a segment ends before it starts, shapes disagree, or a threshold is out
        of range; `inclusive` with threshold 0 is an error, for it would suppress everything.

    See Also
    --------
    soft_nms : lowers scores instead.
    fuse_segments : merges what NMS would drop.

    Notes
    -----
    Among equal scores the earlier row comes first.  Segments without length overlap nothing and all stay, unless
    `length_offset` gives them one.  O(N log N) for any fixed threshold, since boundedly many survivors of like length
    find room in one place; memory O(N).  The conventions are in docs/conventions.md.

    Examples
    --------
    >>> nms([[0, 10], [1, 10], [20, 30]], [0.8, 0.9, 0.5], tiou_threshold=0.5)
    array([1, 2])
    >>> nms([[0, 10], [1, 10], [20, 30]], [0.8, 0.9, 0.5], tiou_threshold=0.5, idxs=[0, 1, 1])
    array([1, 0, 2])
    """
    segments = _checks.as_segments(segments)
    scores = _checks.as_values(scores, len(segments), "scores")
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=inclusive)
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    groups = None if idxs is None else _checks.as_integers(idxs, len(segments), "idxs")
    limit = None if max_detections is None else _checks.as_count(max_detections, "max_detections")

    order, offsets = _kernels.score_order(scores, groups, small=_kernels.SMALL)
    keep, _ = nms_groups(segments, scores, order, offsets, threshold, _checks.as_flag(inclusive, "inclusive"), *how)
    if len(offsets) > 2:
        keep = keep[np.lexsort((keep, -scores[keep]))]
    return keep[:limit]


def batched_nms(segments: ArrayLike, scores: ArrayLike, idxs: ArrayLike, tiou_threshold: float) -> Int:
    """`nms` per group with torchvision's signature: ``nms(segments, scores, tiou_threshold=..., idxs=...)``.

    Groups are kept apart by sorting, not by shifting coordinates, so negative times are safe.  See `nms` and
    docs/conventions.md.

    >>> batched_nms([[0, 10], [1, 10], [0, 9]], [0.8, 0.9, 0.7], [0, 1, 0], 0.5)
    array([1, 0])
    """
    return nms(segments, scores, tiou_threshold=tiou_threshold, idxs=idxs)


def soft_nms(
    segments: ArrayLike,
    scores: ArrayLike,
    *,
    method: Literal["linear", "gaussian", "gated", "improved"] = "gaussian",
    sigma: float = 0.5,
    tiou_threshold: float | None = None,
    gate: tuple[float, float] | None = None,
    min_score: float | None = None,
    keep_first: bool = False,
    decay_negative: bool = False,
    max_detections: int | None = None,
    idxs: ArrayLike | None = None,
    overlap: Literal["iou", "candidate"] = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
) -> tuple[Int, Float]:
    r"""Soft non-maximum suppression: the best segment is picked, what overlaps it loses score, and so on.

    After a pick of length :math:`\ell`, the score of every remaining segment of its group whose overlap with it is
    :math:`o` is multiplied by

    ============  ============================  =========================================  ===============
    method        factor                        where                                      source
    ============  ============================  =========================================  ===============
    "linear"      :math:`1 - o`                 :math:`o \ge` `tiou_threshold`             [1]_, Eq. for s_i
    "gaussian"    :math:`\exp(-o^2 / \sigma)`   everywhere                                 [1]_
    "gated"       :math:`\exp(-o^2 / \sigma)`   :math:`o > t_1 + t_2 \ell`                 BSN, BMN [2]_
    "improved"    :math:`\exp(-o^2 / \sigma)`   :math:`o \ge t_1 + t_2 \ell`               OpenTAD
    ============  ============================  =========================================  ===============

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in one unit, start <= end.  "gated" and "improved" were made for fractions of the video.
    scores : (N,) array_like of float
        Any finite numbers.  A negative score is left as it is, because a factor would raise it; see `decay_negative`.
    method : {"linear", "gaussian", "gated", "improved"}
    sigma : float, default 0.5
        Width of the gaussian decay, > 0 (alpha in BSN and BMN).  "linear" does not use it.
    tiou_threshold : float, optional
        Where the linear decay begins, in (0, 1].  "linear" needs it; the other methods refuse it, because they would
        silently ignore it.
    gate : pair of float, optional
        :math:`(t_1, t_2)`, needed by "gated" and "improved" and refused by the others.  BMN's low and high thresholds
        are ``gate=(low, high - low)``.  The length includes `length_offset` and `area_eps`.
    min_score : float, optional
        Rows whose score is below it when they would be picked are left out.
    keep_first : bool, default False
        Exempt the first pick of every group from `min_score`, as the compiled code of ActionFormer and OpenTAD does.
    decay_negative : bool, default False
        Multiply negative scores, too, and so raise them towards 0, as published code does (it matters for HAM-Net,
        CO2-Net and DELU, whose scores may be negative).
    max_detections : int, optional
        Stop after this many picks in a group, and return at most this many rows, the best of all groups.
    idxs : (N,) array_like of int, optional
        Group of every row; only rows of one group are compared.  Default: one group.
    overlap, length_offset, area_eps
        How overlap is measured, see `tiou_matrix`; the candidate is the row that loses score.

    Returns
    -------
    keep : (M,) ndarray of int64
        Rows, best new score first over all groups; the earlier row first among equal new scores.
    new_scores : (M,) ndarray of float64
        Their scores after the decay, never above the scores that came in (but for `decay_negative`).

    Raises
    ------
    ValueError
        If segments or scores are not finite, a segment ends before it starts, shapes disagree, an option is out of
        range, or an option is given that the method would ignore.

    Notes
    -----
    In one group, best new score first is the order of picking, unless `decay_negative` raises scores.  mmaction2
    returns ``top_k + 1`` rows; ask for ``max_detections=top_k + 1``.  O((N + P) log N) for P pairs of a pick and a row
    left that overlap, and O(N) memory; small groups are a plain loop with the same bits.  The conventions are in
    docs/conventions.md.

    References
    ----------
    .. [1] N. Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017.
    .. [2] T. Lin et al., "BMN: Boundary-Matching Network for Temporal Action Proposal Generation", ICCV 2019.

    Examples
    --------
    >>> keep, new_scores = soft_nms([[0, 10], [0, 10], [20, 30]], [0.9, 0.8, 0.5], sigma=0.5)
    >>> keep
    array([0, 2, 1])
    >>> new_scores.round(4)
    array([0.9   , 0.5   , 0.1083])
    """
    segments = _checks.as_segments(segments)
    scores = _checks.as_values(scores, len(segments), "scores")
    code = SOFT_METHODS[_checks.as_choice(method, "method", tuple(SOFT_METHODS))]
    sigma = _checks.as_number(sigma, "sigma", above=0.0)
    threshold, slope = _checks.as_decay_start(method, tiou_threshold, gate)
    floor = -np.inf if min_score is None else _checks.as_number(min_score, "min_score")
    limit = len(segments) if max_detections is None else _checks.as_count(max_detections, "max_detections")
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    order, offsets = np.arange(len(segments)), np.array([0, len(segments)])
    if idxs is not None:
        groups = _checks.as_integers(idxs, len(segments), "idxs")
        order = np.argsort(groups, kind="stable")
        offsets = _kernels.group_offsets(groups[order])

    exempt, raises = _checks.as_flag(keep_first, "keep_first"), _checks.as_flag(decay_negative, "decay_negative")
    keep, new_scores, _ = windows.soft_nms_groups(
        segments, scores, order, offsets, code, sigma, threshold, slope, floor, exempt, raises, limit, *how
    )
    if len(offsets) > 2 or raises:  # else best new score first is the order of picking
        best = np.lexsort((keep, -new_scores))[:limit]
        keep, new_scores = keep[best], new_scores[best]
    return keep, new_scores


def segment_voting(
    kept_segments: ArrayLike,
    segments: ArrayLike,
    scores: ArrayLike,
    *,
    tiou_threshold: float,
    times_iou: bool = False,
    kept_idxs: ArrayLike | None = None,
    idxs: ArrayLike | None = None,
    overlap: Literal["iou", "candidate"] = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
) -> Float:
    r"""Refine kept segments by a weighted mean of all segments that overlap them.

    A kept segment :math:`a` becomes :math:`\sum_k w_k [s_k, e_k] / \sum_k w_k` over the segments with
    :math:`o(a, k) \ge` `tiou_threshold`, with :math:`w_k = p_k` (OpenTAD) or :math:`w_k = p_k \, o(a, k)`
    (ActionFormer), where :math:`p_k` is the score.

    Parameters
    ----------
    kept_segments : (M, 2) array_like of float
        What suppression left.
    segments : (N, 2) array_like of float
        The voters: usually all segments that went into suppression, in the same unit.
    scores : (N,) array_like of float
        Scores of the voters; those with a score of 0 or less do not vote.
    tiou_threshold : float
        In (0, 1]; a segment that reaches it votes.
    times_iou : bool, default False
        Multiply the score by the overlap.
    kept_idxs, idxs : (M,) and (N,) array_like of int, optional
        Groups, given together; only rows of one group are compared.  Default: one group.
    overlap, length_offset, area_eps
        How overlap is measured, see `tiou_matrix`; the candidate is the voter.

    Returns
    -------
    segments : (M, 2) ndarray of float64
        In the order of `kept_segments`.  One that nobody votes for stays as it is.

    Raises
    ------
    ValueError
        If something is not finite, a segment ends before it starts, shapes disagree, or only one of `kept_idxs` and
        `idxs` is given.

    Notes
    -----
    O((M + N + P) log M) for P pairs of a kept segment and a voter that overlap.  Published code leaves a kept segment
    undefined (0 / 0) where nobody votes for it.  The conventions are in docs/conventions.md.

    Examples
    --------
    >>> segment_voting([[0, 10]], [[0, 10], [1, 11], [30, 40]], [0.6, 0.2, 0.9], tiou_threshold=0.7)
    array([[ 0.25, 10.25]])
    """
    kept = _checks.as_segments(kept_segments, "kept_segments")
    segments = _checks.as_segments(segments)
    scores = _checks.as_values(scores, len(segments), "scores")
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=True)
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    if (kept_idxs is None) != (idxs is None):
        raise ValueError("`kept_idxs` and `idxs` must be given together, got only one of them")
    if kept_idxs is None or idxs is None:
        kept_order, kept_offsets = np.arange(len(kept)), np.array([0, len(kept)])
        order, offsets = np.arange(len(segments)), np.array([0, len(segments)])
    else:
        groups = _checks.as_integers(idxs, len(segments), "idxs")
        order = np.argsort(groups, kind="stable")
        offsets = _kernels.group_offsets(groups[order])
        found = _find_groups(_checks.as_integers(kept_idxs, len(kept), "kept_idxs"), groups[order], offsets)
        kept_order = np.argsort(found, kind="stable")
        kept_offsets = np.searchsorted(found[kept_order], np.arange(len(offsets)))
        kept_order, kept_offsets = kept_order[kept_offsets[0] :], kept_offsets - kept_offsets[0]  # -1: nobody votes
    by_overlap = _checks.as_flag(times_iou, "times_iou")
    return windows.vote_groups(
        kept, kept_order, kept_offsets, segments, scores, order, offsets, threshold, by_overlap, *how
    )


def _find_groups(wanted: Int, sorted_idxs: Int, offsets: Int) -> Int:
    """Position of every wanted group among the groups that `offsets` cuts, -1 where there is none."""
    if not len(sorted_idxs):
        return np.full(len(wanted), -1)
    groups = sorted_idxs[offsets[:-1]]
    found = np.minimum(np.searchsorted(groups, wanted), len(groups) - 1)
    return np.where(groups[found] == wanted, found, -1)
