"""CoLA: ``core/utils.py`` of zhang-can/CoLA (CVPR 2021), and the loop of its ``main_cola.py``.

`nms` and `upgrade_resolution` are those of `tal_postproc.compat.basnet`, `get_proposal_oic` and `minmax_norm` those of
`tal_postproc.compat.um`: the codes have them in common.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .._checks import Float
from ..proposals import extract_proposals, oic_scores
from . import _oic, basnet
from ._oic import Rows
from .basnet import nms, upgrade_resolution
from .um import get_proposal_oic, minmax_norm

__all__ = [
    "ANETdetection",
    "detect",
    "get_pred_activations",
    "get_proposal_dict",
    "get_proposal_oic",
    "minmax_norm",
    "nms",
    "upgrade_resolution",
]


def get_pred_activations(src: Any, pred: ArrayLike, config: Any) -> Float:
    """The searched classes of a map: normalised, limited to [0, 1], upsampled.

    Replaces `get_pred_activations` of zhang-can/CoLA, ``core/utils.py``.

    Parameters
    ----------
    src : (1, T, C) or (1, T) tensor
        A (1, T) tensor, the actionness, is the same for all classes.
    pred : (P,) array_like of int
    config
        ``UP_SCALE`` is read.

    Returns
    -------
    (T * UP_SCALE, P, 1) ndarray of float64

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> get_pred_activations(torch.tensor([[0.0, 2.0]]), [0, 3], SimpleNamespace(UP_SCALE=2))[:, 1, 0].tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    array, pred = _oic.plain(minmax_norm(src)[0]), np.asarray(pred, np.int64)
    chosen = array[:, pred] if array.ndim == 2 else np.repeat(array[:, None], len(pred), axis=1)
    return upgrade_resolution(chosen[:, :, None], config.UP_SCALE)


def get_proposal_dict(
    cas_pred: ArrayLike, aness_pred: ArrayLike, pred: Any, score_np: Any, vid_num_seg: float, config: Any
) -> dict[Any, Rows]:
    """Proposals of all thresholds on both maps.

    Replaces `get_proposal_dict` of zhang-can/CoLA, ``core/utils.py``.

    Parameters
    ----------
    cas_pred, aness_pred : (S, P, 1) array_like of float
        What `get_pred_activations` gives for CAS and actionness.
    pred : (P,) sequence of int
    score_np : indexable
        Score of class c in the video at ``score_np[c]``.
    vid_num_seg : float
        Snippets of the video before it was resampled.
    config
        ``CAS_THRESH``, ``ANESS_THRESH``, ``UP_SCALE`` and ``FEATS_FPS`` are read.

    Returns
    -------
    dict of class -> list of rows [class, score, start, end], in seconds
        Classes in the order in which a threshold first finds them; rows by bank, threshold and time.

    Notes
    -----
    As published: runs of at least 2 steps that reach the threshold and are above 0; those of the CAS are scored on the
    CAS with 0 below the threshold, those of the actionness on the CAS as it is; 0.2 times the video score is added.
    What differs: a class whose runs are all too short at a threshold has none there (the original stops with an
    IndexError).  Core: `extract_proposals` and `oic_scores`, one sweep for all thresholds.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(CAS_THRESH=[0.5], ANESS_THRESH=[0.5], UP_SCALE=1, FEATS_FPS=16)
    >>> cas = np.array([0.0, 0.25, 0.75, 0.75, 0.25, 0.0]).reshape(6, 1, 1)
    >>> found = get_proposal_dict(cas, cas, [3], {3: 0.5}, 6, config)
    >>> [[round(float(value), 6) for value in row] for row in found[3]]
    [[3.0, 0.85, 2.0, 4.0], [3.0, 0.6, 2.0, 4.0]]
    """
    cas = np.asarray(cas_pred)[:, :, 0]
    rows: dict[Any, Rows] = {}
    for own, thresholds in ((cas, config.CAS_THRESH), (np.asarray(aness_pred)[:, :, 0], config.ANESS_THRESH)):
        values = np.asarray(thresholds, np.float64)
        found = extract_proposals(own, values, inclusive=True, positive=True, min_length=2)
        level = found.columns["threshold"]
        zero_below = level if own is cas else None
        scores = (
            oic_scores(cas, found, margin_scale=0.25, layout="oic_a", zero_below=zero_below, inclusive=True)
            + 0.2 * np.array([score_np[c] for c in pred], np.float64)[found.labels]
        )
        seconds = found.segments * _oic.seconds_per_step(
            vid_num_seg, config.UP_SCALE, len(own) // config.UP_SCALE, config.FEATS_FPS
        )
        columns, first = np.unique(found.labels, return_index=True)
        slots = (values[None, :] == level[first, None]).argmax(axis=1) if len(first) else first
        for column in columns[np.lexsort((columns, slots))].tolist():
            mine = rows.setdefault(pred[column], [])
            begin, end = np.searchsorted(found.labels, [column, column + 1])
            mine += [[pred[column], *row] for row in zip(scores[begin:end], *seconds[begin:end].T)]
    return rows


def detect(video_scores: Any, actionness: Any, cas: Any, vid_num_seg: float, config: Any) -> list[list[list[float]]]:
    """What the loop of `test_all` does with one video between the network and `result2json`; the name is ours.

    Parameters
    ----------
    video_scores : (1, C) tensor or array_like
    actionness : (1, T) tensor or array_like
    cas : (1, T, C) tensor or array_like
    vid_num_seg : float
        Snippets of the video before it was resampled to T.
    config
        ``CLASS_THRESH``, ``CAS_THRESH``, ``ANESS_THRESH``, ``UP_SCALE``, ``FEATS_FPS`` and ``NMS_THRESH`` are read.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds
        One list for every class with detections, by class; rows as `nms` gives them.

    Notes
    -----
    As published: classes of at least `CLASS_THRESH`, else the best one.  What differs: it is computed in float64, and
    runs that are too short are left out (the original stops with an IndexError where a class has no others at a
    threshold).  It is the preset ``"cola_thumos"`` with the numbers of `config`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(CLASS_THRESH=0.2, CAS_THRESH=[0.1, 0.2], ANESS_THRESH=[0.5], UP_SCALE=24,
    ...                          FEATS_FPS=25, NMS_THRESH=0.6)
    >>> cas = np.zeros((1, 10, 2))
    >>> cas[0, 3:6, 1] = 1
    >>> (found,) = detect([[0.1, 0.8]], cas[:, :, 1], cas, 10, config)
    >>> [round(value, 2) for value in found[0]]
    [1.0, 0.98, 1.41, 3.73]
    """
    scores, attention = _oic.only_one(video_scores, "video_scores", 2), _oic.only_one(actionness, "actionness", 2)
    pipeline = _oic.adjusted(
        "cola_thumos",
        [config.CAS_THRESH, config.ANESS_THRESH],
        config.UP_SCALE,
        config.CLASS_THRESH,
        nms_thresh=config.NMS_THRESH,
    )
    maps = {"cas": _oic.only_one(cas, "cas", 3), "attention": attention}
    return _oic.detected(pipeline, maps, scores, vid_num_seg, config.FEATS_FPS)


class ANETdetection(basnet.ANETdetection):
    """The family's evaluator (`basnet.ANETdetection`) for files of CoLA, which have ``method`` and ``results``."""

    PREDICTION_FIELDS: ClassVar[list[str]] = ["method", "results"]
