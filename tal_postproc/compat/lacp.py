"""LACP: ``utils.py`` of Pilhyeon/Learning-Action-Completeness-from-Points (ICCV 2021), and its ``test.py``.

`nms` and `upgrade_resolution` are those of `tal_postproc.compat.basnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _oic
from ._oic import Rows
from .basnet import ANETdetection, nms, upgrade_resolution

__all__ = [
    "ANETdetection",
    "detect",
    "get_oic_score",
    "get_proposal_oic",
    "minmax_norm",
    "nms",
    "select_seed",
    "upgrade_resolution",
]


def get_proposal_oic(
    tList: Sequence[Any],
    wtcam: ArrayLike,
    final_score: Any,
    c_pred: Any,
    scale: int,
    v_len: float,
    sampling_frames: float,
    num_segments: int,
    _lambda: float = 0.25,
    gamma: float = 0.2,
) -> list[Rows]:
    """Runs of one threshold as scored proposals, class by class.

    Replaces `get_proposal_oic` of Pilhyeon/Learning-Action-Completeness-from-Points, ``utils.py``.

    Parameters
    ----------
    tList, wtcam, final_score, c_pred, scale, v_len, sampling_frames, num_segments, gamma
        As in `tal_postproc.compat.basnet.get_proposal_oic`.
    _lambda : float
        Margin as a share of the run.

    Returns
    -------
    list of lists of rows [class, score, start, end], in seconds, by time

    Notes
    -----
    As published: a class whose indices are none, or 0 alone, has no list, so that lists need not stand at the places of
    `tList`; runs of one step count.  What differs is what differs in BaS-Net's.

    Examples
    --------
    >>> cas = np.array([0.0, 0.0, 0.0, 0.8, 0.8]).reshape(5, 1, 1)
    >>> found = get_proposal_oic([np.where(cas[:, 0, 0] > 0.5)], cas, [0.5], [0], 1, 5, 16, 5)
    >>> [[round(float(value), 6) for value in row] for row in found[0]]
    [[0.0, 0.9, 3.0, 5.0]]
    """
    t_factor = _oic.seconds_per_step(v_len, scale, num_segments, sampling_frames)
    return _oic.proposal_lists(tList, wtcam, final_score, c_pred, t_factor, _lambda, gamma, every_class=False)


def minmax_norm(act_map: Any, min_val: Any = None, max_val: Any = None) -> Any:
    """A map between two values, limited to [0, 1]; no gradient flows through the range.

    Replaces `minmax_norm` of Pilhyeon/Learning-Action-Completeness-from-Points, ``utils.py``.

    Parameters
    ----------
    act_map : (1, T, C) or (1, T) tensor
    min_val, max_val : tensor, optional
        As in `tal_postproc.compat.um.minmax_norm`.

    Returns
    -------
    tensor of that shape, dtype and device

    Notes
    -----
    As published: a range of 0 or less counts as 1; the test does not call it.  What differs: without snippets the
    result is empty.

    Examples
    --------
    >>> import torch
    >>> minmax_norm(torch.tensor([[1.0, 2.0, 5.0]])).tolist()
    [[0.0, 0.25, 1.0]]
    """
    return _oic.minmax_normed(act_map, min_val, max_val, clip=True, fixed_range=True)


def get_oic_score(cas_sigmoid_fuse: Any, start: int, end: int, delta: float = 0.25) -> Any:
    """Mean of snippets start ... end minus the mean of the margins around them.

    Replaces `get_oic_score` of Pilhyeon/Learning-Action-Completeness-from-Points, ``utils.py``, which its search for a
    sequence of actions calls for every candidate.

    Parameters
    ----------
    cas_sigmoid_fuse : (T,) tensor
    start, end : int
        First and last snippet: the end is included.
    delta : float
        Margin as a share of the length.

    Returns
    -------
    tensor without axes, of that dtype and device; gradients flow

    Notes
    -----
    As published: OIC-A, whose margins ``int()`` cuts.  Margins are read as slices, not through a list of indices.

    Examples
    --------
    >>> import torch
    >>> get_oic_score(torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.0]), 2, 5)
    tensor(0.7500)
    """
    margin = delta * (end - start + 1)
    left = cas_sigmoid_fuse[max(0, int(start - margin)) : start]
    right = cas_sigmoid_fuse[end + 1 : min(len(cas_sigmoid_fuse) - 1, int(end + margin)) + 1]
    inner, count = cas_sigmoid_fuse[start : end + 1].mean(), left.numel() + right.numel()
    return inner - (left.sum() + right.sum()) / count if count else inner


def select_seed(cas_sigmoid_fuse: Any, point_anno: Any) -> tuple[Any, Any]:
    """Snippets that training may take for action or background, around annotated points.

    Replaces `select_seed` of Pilhyeon/Learning-Action-Completeness-from-Points, ``utils.py``.

    Parameters
    ----------
    cas_sigmoid_fuse : (B, T, C + 1) tensor
        Background last.
    point_anno : (B, T, C) tensor
        Above 0 at annotated snippets.

    Returns
    -------
    act_seed : (B, T, C) tensor
        `point_anno`, and its value at a point for the snippets beside it whose background score is at most 0.1, as far
        as they reach without a gap or a background seed.
    bkg_seed : (B, T) tensor
        1 for background: from the start, the end, or between two points, all between the first and the last snippet
        of at least 0.95, or the snippet of the largest score where there is none; before the first point from the very
        start and after the last one to the very end.  Both of the dtype and on the device of `point_anno`.

    Notes
    -----
    As published, both thresholds included; among equal largest scores the first counts.  What differs: a video without
    a point has no seeds (the original stops with an IndexError).  The original walks snippet by snippet on the device;
    here one copy goes to the CPU, and a region between two points is a few NumPy calls.

    Examples
    --------
    >>> import torch
    >>> point = torch.tensor([[[0.0], [0.0], [1.0], [0.0], [0.0]]])
    >>> background = torch.tensor([[0.97, 0.5, 0.1, 0.05, 0.96]])
    >>> act_seed, bkg_seed = select_seed(torch.stack([1 - background, background], dim=2), point)
    >>> act_seed[0, :, 0].tolist(), bkg_seed[0].tolist()
    ([0.0, 0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0])
    """
    score = cas_sigmoid_fuse[:, :, -1].detach().cpu().double().numpy()
    points = (point_anno.detach().amax(dim=2) != 0).cpu().numpy()
    # compared in the dtype of the scores, as tensors compare with numbers
    act_thresh, bkg_thresh = (float(cas_sigmoid_fuse.new_tensor(value)) for value in (0.1, 0.95))
    background = np.zeros(score.shape, np.bool_)
    source = np.tile(np.arange(score.shape[1]), (len(score), 1))  # whose annotation every snippet takes
    for at, values, row, origin in zip(points, score, background, source):
        place = np.flatnonzero(at)
        if not len(place):
            continue
        for before, after in zip([-1, *place.tolist()], [*place.tolist(), len(at)]):
            region = values[before + 1 : after]
            if not len(region):
                continue
            sure = np.flatnonzero(region >= bkg_thresh)
            first, last = (sure[0], sure[-1]) if len(sure) else 2 * (region.argmax(),)
            begin = 0 if before < 0 else before + 1 + first
            stop = len(at) if after == len(at) else before + 2 + last
            row[begin:stop] = True
        blocked = at | row | (values > act_thresh)
        ends = np.where(blocked, np.arange(len(at)), -1)
        left = np.maximum.accumulate(ends)  # the last snippet before that no point reaches through
        right = np.minimum.accumulate(np.where(blocked, ends, len(at))[::-1])[::-1]
        for side, inside in ((left, left >= 0), (right, right < len(at))):
            taken = np.flatnonzero(inside & ~blocked)
            taken = taken[at[side[taken]]]
            origin[taken] = side[taken]
    act_seed = point_anno.detach()[np.arange(len(score))[:, None], source]
    return act_seed, point_anno.new_tensor(background)


def detect(vid_score: Any, cas_sigmoid_fuse: Any, vid_num_seg: float, config: Any) -> list[list[float]]:
    """What the loop of ``test.py`` does with one video between the network and `result2json`; the name is ours.

    Parameters
    ----------
    vid_score : (1, C) tensor or array_like
    cas_sigmoid_fuse : (1, T, C + 1) tensor or array_like
        Background last.
    vid_num_seg : float
        Snippets of the video before it was resampled to T.
    config
        ``act_thresh_cas``, ``act_thresh_agnostic``, ``class_thresh``, ``scale`` and ``feature_fps`` are read.

    Returns
    -------
    list of rows [class, score, start, end] in seconds
        By class, and within a class as `nms` gives them.

    Notes
    -----
    As published: classes of at least `class_thresh`, else the best one; maps are not normalised.  What differs: it is
    computed in float64.  It is the preset ``"lacp_thumos"`` with the numbers of `config`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(act_thresh_cas=np.arange(0, 0.25, 0.025), class_thresh=0.5, scale=24, feature_fps=25,
    ...                          act_thresh_agnostic=np.arange(0.5, 0.725, 0.025))
    >>> cas = np.zeros((1, 10, 3))
    >>> cas[0, 3:6, 1], cas[0, :, 2] = 1, 1 - cas[0, :, 1]
    >>> [round(value, 2) for value in detect([[0.1, 0.8]], cas, 10, config)[0]]
    [1.0, 0.99, 1.44, 3.71]
    """
    cas = _oic.only_one(cas_sigmoid_fuse, "cas_sigmoid_fuse", 3)
    pipeline = _oic.adjusted(
        "lacp_thumos", [config.act_thresh_cas, config.act_thresh_agnostic], config.scale, config.class_thresh
    )
    maps = {"cas": cas[:, :-1], "attention": 1 - cas[:, -1]}
    scores = _oic.only_one(vid_score, "vid_score", 2)
    found = _oic.detected(pipeline, maps, scores, vid_num_seg, config.feature_fps)
    return [row for rows in found for row in rows]
