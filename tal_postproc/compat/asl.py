"""ASL: ``utils/misc_utils.py`` of layer6ai-labs/ASL (CVPR 2021), and the loop of its ``inference_thumos.py``.

`get_proposal_oic` and `upgrade_resolution` are those of `tal_postproc.compat.basnet`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..config import Signal
from ..fusion import fuse_segments
from . import _oic
from ._rows import as_rows
from .basnet import get_proposal_oic, upgrade_resolution

__all__ = ["basnet_nms", "detect", "get_proposal_oic", "instance_selection_function", "upgrade_resolution"]


def basnet_nms(proposals: ArrayLike, thresh: float, soft_nms: bool = False, nms_alpha: float = 0) -> list[list[float]]:
    r"""Greedy suppression of rows [class, score, start, end]; with `soft_nms`, what goes comes back with less score.

    Replaces `basnet_nms` of layer6ai-labs/ASL, ``utils/misc_utils.py``.

    Parameters
    ----------
    proposals : (N, 4) array_like, usually a list of rows
    thresh : float
        A row goes when its IoU with a kept one is at least this.
    soft_nms : bool
    nms_alpha : float
        A suppressed row keeps :math:`\exp(-o^2 / \alpha)` of its score, once, for its IoU o with the row that
        suppressed it; 0 leaves nothing.

    Returns
    -------
    list of rows
        The kept ones, best score first.  With `soft_nms`, then the suppressed ones by the row that suppressed them,
        best score first; the list as a whole is not sorted.

    Notes
    -----
    As published: lengths and intersections are 1 longer.  What differs: no rows give no rows, and among equal scores
    the later row goes first.  Core: `nms` and the clusters of `fuse_segments`.

    Examples
    --------
    >>> rows = [[3, 0.9, 0.0, 9.0], [3, 0.8, 0.0, 9.0], [3, 0.7, 20.0, 30.0]]
    >>> basnet_nms(rows, 0.4)
    [[3.0, 0.9, 0.0, 9.0], [3.0, 0.7, 20.0, 30.0]]
    >>> round(basnet_nms(rows, 0.4, soft_nms=True, nms_alpha=1.0)[2][1], 4)
    0.2943
    """
    rows = as_rows(proposals, "proposals", _oic.COLUMNS)
    keep = _oic.keep_plus_one(rows, thresh)
    kept = rows[keep].tolist()
    if not soft_nms or len(keep) == len(rows):
        return kept
    turned = rows[::-1].astype(np.float64)
    if thresh > 0:
        fused = fuse_segments(
            turned[:, 2:4],
            turned[:, 1],
            tiou_threshold=thresh,
            temperature=1.0,
            length_offset=1.0,
            inclusive=True,
        )
        cluster, head = fused.assignment, turned[fused.picks[fused.assignment]]
    else:
        cluster, head = np.zeros(len(turned), np.int64), np.broadcast_to(rows[keep[0]], turned.shape)
    inter = np.minimum(turned[:, 3], head[:, 3]) - np.maximum(turned[:, 2], head[:, 2]) + 1
    iou = np.maximum(inter, 0) / (turned[:, 3] - turned[:, 2] + head[:, 3] - head[:, 2] + 2 - np.maximum(inter, 0))
    gone = np.flatnonzero(~np.isin(np.arange(len(rows)), len(rows) - 1 - keep))
    gone = gone[np.lexsort((gone, -turned[gone, 1], cluster[gone]))]
    turned[gone, 1] *= np.exp(-np.square(iou[gone]) / nms_alpha) if nms_alpha else 0.0
    return kept + turned[gone].tolist()


def instance_selection_function(cas: Any, *actionness: Any) -> Any:
    """The mean of maps, of tensors or arrays that broadcast.

    Replaces `instance_selection_function` of layer6ai-labs/ASL, ``utils/misc_utils.py``.

    >>> instance_selection_function(np.array([[0.5, 0.8]]), np.array([[0.2]]), np.array([[0.2]])).round(6).tolist()
    [[0.3, 0.4]]
    """
    return (cas + sum(actionness)) / (1 + len(actionness))


def detect(score_supp: Any, combined_cas: Any, vid_num_seg: float, config: Any) -> list[list[list[float]]]:
    """What the loop of `inference` does with one video between the network and `result2json`; the name is ours.

    Parameters
    ----------
    score_supp : (1, C) tensor or array_like
    combined_cas : (1, T, C) tensor or array_like
        What `instance_selection_function` gives.
    vid_num_seg : float
        Snippets of the video before it was resampled to T.
    config
        ``act_thresh``, ``class_thresh``, ``scale``, ``feature_fps``, ``gamma``, ``nms_thresh``, ``soft_nms`` and
        ``nms_alpha`` are read.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds
        One list for every class with detections, by class; rows as `basnet_nms` gives them.

    Notes
    -----
    As published: `config.gamma` arrives in the place of `lambda_`, so that it is the margin (0.2 of the run by default)
    while the video score's weight stays 0.2.  Classes of at least `class_thresh`, else the best one.  What differs: it
    is computed in float64.  It is the preset ``"asl_thumos"``, whose own margin is 0.25, with the numbers of `config`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(act_thresh=np.arange(0.1, 1.0, 0.1), class_thresh=0.25, scale=24, feature_fps=25,
    ...                          gamma=0.2, nms_thresh=0.4, soft_nms=False, nms_alpha=0.35)
    >>> cas = np.zeros((1, 10, 2))
    >>> cas[0, 3:6, 1] = 1
    >>> (found,) = detect([[0.1, 0.8]], cas, 10, config)
    >>> [round(value, 2) for value in found[0]]
    [1.0, 0.95, 1.41, 3.73]
    """
    scores = _oic.only_one(score_supp, "score_supp", 2)
    pipeline = _oic.adjusted("asl_thumos", [config.act_thresh], config.scale, config.class_thresh, margin=config.gamma)
    bank = replace(pipeline.banks[0], signal=Signal())
    pipeline = replace(pipeline, banks=(bank,), stages=pipeline.stages[:1])
    maps = {"cas": _oic.only_one(combined_cas, "combined_cas", 3)}
    found = _oic.detected(pipeline, maps, scores, vid_num_seg, config.feature_fps)
    return [basnet_nms(rows, config.nms_thresh, config.soft_nms, config.nms_alpha) for rows in found]
