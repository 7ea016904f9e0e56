"""UM, uncertainty modelling: ``utils.py`` of Pilhyeon/WTAL-Uncertainty-Modeling (AAAI 2021), and its ``test.py``.

`nms` and `upgrade_resolution` are those of `tal_postproc.compat.basnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from . import _oic
from ._oic import Rows
from ._rows import plain
from .basnet import ANETdetection, nms, upgrade_resolution

__all__ = ["ANETdetection", "detect", "get_proposal_oic", "minmax_norm", "nms", "upgrade_resolution"]


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
    """Runs of one threshold, of at least 2 steps, as scored proposals, class by class.

    Replaces `get_proposal_oic` of Pilhyeon/WTAL-Uncertainty-Modeling, ``utils.py``, and of zhang-can/CoLA,
    ``core/utils.py``.

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
    `tList`; a class whose runs are all too short has an empty one.  What differs is what differs in BaS-Net's.

    Examples
    --------
    >>> import numpy as np
    >>> cas = np.array([0.0, 0.6, 0.0, 0.8, 0.8]).reshape(5, 1, 1)
    >>> found = get_proposal_oic([np.where(cas[:, 0, 0] > 0.5)], cas, [0.5], [0], 1, 5, 16, 5)
    >>> [[round(float(value), 6) for value in row] for row in found[0]]
    [[0.0, 0.9, 3.0, 5.0]]
    """
    t_factor = _oic.seconds_per_step(v_len, scale, num_segments, sampling_frames)
    return _oic.proposal_lists(
        tList, wtcam, final_score, c_pred, t_factor, _lambda, gamma, min_length=2, every_class=False
    )


def minmax_norm(act_map: Any, min_val: Any = None, max_val: Any = None) -> Any:
    """A map between two values, limited to [0, 1].

    Replaces `minmax_norm` of Pilhyeon/WTAL-Uncertainty-Modeling, ``utils.py``, and of zhang-can/CoLA,
    ``core/utils.py``.

    Parameters
    ----------
    act_map : (1, T, C) or (1, T) tensor
    min_val, max_val : tensor, optional
        What becomes 0 and 1, of any shape that broadcasts.  Where one is missing, both are the ReLU of the least and
        of the largest value over time.

    Returns
    -------
    tensor of that shape, dtype and device; gradients flow

    Notes
    -----
    As published: a range of 0 or less counts as 1.  What differs: without snippets the result is empty.

    Examples
    --------
    >>> import torch
    >>> minmax_norm(torch.tensor([[-1.0, 2.0, 4.0]])).tolist()
    [[0.0, 0.5, 1.0]]
    """
    return _oic.minmax_normed(act_map, min_val, max_val, clip=True)


def detect(
    score_act: Any, cas_softmax: Any, feat_magnitudes: Any, vid_num_seg: float, config: Any
) -> list[list[list[float]]]:
    """What the loop of ``test.py`` does with one video between the network and `result2json`; the name is ours.

    Parameters
    ----------
    score_act : (1, C) tensor or array_like
    cas_softmax : (1, T, C) tensor or array_like
    feat_magnitudes : (1, T, C) or (1, T) tensor or array_like
        Magnitudes of the features, after `minmax_norm` between those of background and action.
    vid_num_seg : float
        Snippets of the video before it was resampled to T.
    config
        ``act_thresh_cas``, ``act_thresh_magnitudes``, ``class_thresh``, ``scale`` and ``feature_fps`` are read.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds
        One list for every class with detections, by class.

    Notes
    -----
    As published: where no class reaches `class_thresh`, class 0 is searched (the original asks for the largest of one
    number).  What differs: it is computed in float64, and a class whose runs are all shorter than 2 steps is left out
    (the original stops with an IndexError).  It is the preset ``"um_thumos"``, which falls back to the best class, with
    the numbers of `config`.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(act_thresh_cas=np.arange(0, 0.25, 0.025), class_thresh=0.2, scale=24, feature_fps=25,
    ...                          act_thresh_magnitudes=np.arange(0.4, 0.625, 0.025))
    >>> cas = np.zeros((1, 10, 2))
    >>> cas[0, 3:6, 1] = 1
    >>> found = detect([[0.1, 0.8]], cas, np.ones((1, 10)), 10, config)
    >>> [round(value, 2) for value in found[0][0]]
    [1.0, 0.99, 1.44, 3.71]
    """
    scores = _oic.only_one(score_act, "score_act", 2)
    cas, magnitude = _oic.only_one(cas_softmax, "cas_softmax", 3), plain(feat_magnitudes)
    magnitude = _oic.only_one(magnitude, "feat_magnitudes", 2 if magnitude.ndim == 2 else 3)
    if not (scores >= config.class_thresh).any():
        scores, cas = scores[:1], cas[:, :1]
        magnitude = magnitude if magnitude.ndim == 1 else magnitude[:, :1]
    pipeline = _oic.adjusted(
        "um_thumos", [config.act_thresh_cas, config.act_thresh_magnitudes], config.scale, config.class_thresh
    )
    return _oic.detected(pipeline, {"cas": cas, "magnitude": magnitude}, scores, vid_num_seg, config.feature_fps)
