"""STPN: ``code/utils.py`` of bellos1203/STPN (CVPR 2018) behind the network, without TensorFlow, and its ``test.py``.

`upgrade_resolution` is that of `tal_postproc.compat.basnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from .. import suppression
from .._checks import Float
from . import _oic
from ._oic import Rows
from ._rows import as_rows
from .basnet import ANETdetection, upgrade_resolution

__all__ = [
    "ANETdetection",
    "detect",
    "get_temp_proposal",
    "get_tempseg_list",
    "get_wtCAM",
    "integrated_prop",
    "interpolated_wtCAM",
    "nms_prop",
    "upgrade_resolution",
]

NUM_SEGMENTS = 400
SAMPLING_FRAMES = 10
NUM_INPUT_FRAMES = 16
NUM_CLASS = 20
ALPHA = 0.5


def get_wtCAM(
    main_tCAM: ArrayLike, sub_tCAM: ArrayLike, attention_Weights: ArrayLike, alpha: float, pred: ArrayLike
) -> NDArray[Any]:
    """The map that is thresholded and the map that scores, for the searched classes.

    Replaces `get_wtCAM` of bellos1203/STPN, ``code/utils.py``.

    Parameters
    ----------
    main_tCAM, sub_tCAM : (T, C) array_like of float
        Of this stream and of the other one.
    attention_Weights : (T, 1) array_like of float
    alpha : float
        Share of this stream in the score.
    pred : (P,) array_like of int

    Returns
    -------
    (T, P, 2) ndarray
        ``A * sigmoid(main)`` and ``A * (alpha * main + (1 - alpha) * sub)``, in the dtype of the maps.

    Notes
    -----
    As published.  What differs: any T (the original has 400), and no TensorFlow session.

    Examples
    --------
    >>> get_wtCAM([[0.0, 1.0]], [[0.0, 3.0]], [[0.5]], 0.5, [1]).round(4).tolist()
    [[[0.3655, 1.0]]]
    """
    pred = np.asarray(pred, np.int64)
    main, sub, attention = np.asarray(main_tCAM)[:, pred], np.asarray(sub_tCAM)[:, pred], np.asarray(attention_Weights)
    return np.stack([attention * expit(main), attention * (alpha * main + (1 - alpha) * sub)], axis=2)


def interpolated_wtCAM(wT: ArrayLike, scale: int) -> Float:
    """(T, P, 2) maps upsampled, the first one 0 below 0.05.

    Replaces `interpolated_wtCAM` of bellos1203/STPN, ``code/utils.py``.  As published, both maps become 0 there.

    Examples
    --------
    >>> interpolated_wtCAM([[[0.0, 1.0]], [[0.1, 2.0]]], 2)[:, 0].tolist()
    [[0.0, 0.0], [0.05, 1.5], [0.1, 2.0], [0.15000000000000002, 2.5]]
    """
    fine = upgrade_resolution(wT, scale)
    return np.where(fine[:, :, :1] < 0.05, 0.0, fine)


def get_tempseg_list(wtcam: ArrayLike, c_len: int) -> list[tuple[NDArray[np.intp], ...]]:
    """For every class what ``numpy.where`` gives for the first map above 0.

    Replaces `get_tempseg_list` of bellos1203/STPN, ``code/utils.py``.

    >>> get_tempseg_list([[[0.0, 1.0]], [[0.1, 2.0]]], 1)
    [(array([1]),)]
    """
    maps = np.asarray(wtcam)
    return [np.where(maps[:, i, 0] > 0) for i in range(c_len)]


def get_temp_proposal(tList: Sequence[Any], wtcam: ArrayLike, c_pred: Any, scale: int, v_len: float) -> list[Rows]:
    """Runs as proposals, scored by the mean of the second map inside.

    Replaces `get_temp_proposal` of bellos1203/STPN, ``code/utils.py``.

    Parameters
    ----------
    tList : sequence
        What `get_tempseg_list` gives.
    wtcam : (S, P, 2) array_like of float
    c_pred : (P,) sequence of int
    scale, v_len
        One step lasts ``16 * v_len / (scale * 400 * 10)`` seconds.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds, one list for every class

    Notes
    -----
    As published: the 400 segments and 10 frames per second are constants of the code, whatever the shape of `wtcam`; a
    class with no other index than 0 has no proposals.  Core: `oic_scores` without margins.

    Examples
    --------
    >>> maps = interpolated_wtCAM([[[0.0, 1.0]], [[0.1, 2.0]], [[0.1, 4.0]]], 1)
    >>> (rows,) = get_temp_proposal(get_tempseg_list(maps, 1), maps, [4], 1, 250)
    >>> [[float(value) for value in row] for row in rows]
    [[4.0, 3.0, 1.0, 3.0]]
    """
    t_factor = _oic.seconds_per_step(v_len, scale, NUM_SEGMENTS, SAMPLING_FRAMES)
    nothing = dict.fromkeys(np.asarray(c_pred).tolist(), 0.0)
    maps = np.asarray(wtcam)[:, :, 1:]
    return _oic.proposal_lists(tList, maps, nothing, c_pred, t_factor, 0.0, 0.0, every_class=True)


def nms_prop(arr: ArrayLike) -> NDArray[np.int32]:
    """Which rows [class, score, start, end] stay: greedy suppression above IoU 0.5, at most 1,000 of them.

    Replaces `nms_prop` of bellos1203/STPN, ``code/utils.py``, which calls ``tf.image.non_max_suppression``.

    Notes
    -----
    As published: the IoU has no "+1", and the class is not looked at.  Among equal scores the earlier row goes first.
    What differs: computed in float64, where TensorFlow takes float32.  Core: `nms`.

    Examples
    --------
    >>> nms_prop([[3, 0.5, 0, 10], [3, 0.9, 0, 9], [3, 0.4, 20, 30]])
    array([1, 2], dtype=int32)
    """
    rows = as_rows(arr, "arr", _oic.COLUMNS)
    return suppression.nms(rows[:, 2:4], rows[:, 1], tiou_threshold=0.5, max_detections=1000).astype(np.int32)


def integrated_prop(rgbProp: Sequence[Any], flowProp: Sequence[Any], rPred: Any, fPred: Any) -> list[Any]:
    """Proposals of both streams in one list: suppressed only for classes that both streams predict.

    Replaces `integrated_prop` of bellos1203/STPN, ``code/utils.py``.

    Parameters
    ----------
    rgbProp, flowProp : sequence of lists of rows [class, score, start, end]
        One list for every item of `rPred` and `fPred`.
    rPred, fPred : list of int
        Predicted classes of the streams.

    Returns
    -------
    list of rows, by class
        (4,) ndarray of float64 for classes of both streams, best score first; else the rows as they came.

    Notes
    -----
    As published: equal rows of both streams count once, class numbers of 20 and more are ignored, and among equal
    scores the larger class, then the later start, then the later end goes first.  What differs: without any proposal
    for a class that both predict there is none (the original stops with an error).

    Examples
    --------
    >>> found = integrated_prop([[[0, 0.5, 0.0, 9.0]]], [[[0, 0.8, 0.0, 8.0]], [[2, 0.1, 0.0, 1.0]]], [0], [0, 2])
    >>> [[float(value) for value in row] for row in found]
    [[0.0, 0.8, 0.0, 8.0], [2.0, 0.1, 0.0, 1.0]]
    """
    streams = dict(zip(list(rPred), rgbProp)), dict(zip(list(fPred), flowProp))
    out: list[Any] = []
    for i in range(NUM_CLASS):
        parts = [list(stream[i]) for stream in streams if i in stream]
        if len(parts) < 2:
            out += parts[0] if parts else []
        elif parts[0] or parts[1]:
            rows = np.unique(np.array(parts[0] + parts[1], np.float64), axis=0)  # rising by class, score, start, end
            rows = rows[np.lexsort((rows[:, 3], rows[:, 2], rows[:, 0], rows[:, 1]))[::-1]]
            out += list(rows[nms_prop(rows)])
    return out


def detect(
    rgb_tCam: ArrayLike,
    flow_tCam: ArrayLike,
    rgb_attention: ArrayLike,
    flow_attention: ArrayLike,
    rgb_class_result: ArrayLike,
    flow_class_result: ArrayLike,
    vid_len: float,
    scale: int = 24,
    class_threshold: float = 0.1,
) -> list[list[Any]]:
    """What the loop of ``test.py`` does with one video between the networks and `result2json`; the name is ours.

    Parameters
    ----------
    rgb_tCam, flow_tCam : (400, C) array_like of float
    rgb_attention, flow_attention : (400, 1) array_like of float
    rgb_class_result, flow_class_result : (1, C) array_like of float
        Classes above `class_threshold` are searched.
    vid_len : int
        Snippets of the video, at 10 frames per second.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds
        One list of all, where both streams predict a class; else a list for every class of the one that does.

    Notes
    -----
    As published: a stream that predicts class 0 alone counts as one that predicts nothing, because the question is
    ``any()`` of the class numbers.  No setting of a preset can say what `integrated_prop` does.

    Examples
    --------
    >>> cam = np.full((400, 3), -9.0)
    >>> cam[100:200, 2] = 3.0
    >>> (rows,) = detect(cam, cam, np.ones((400, 1)), np.ones((400, 1)), [[0, 0, 1]], [[0, 0, 1]], 500)
    >>> len(rows), rows[0][2:].round(1).tolist()
    (1, [198.2, 399.9])
    """
    found, predicted = [], []
    for main, sub, attention, result, alpha in (
        (rgb_tCam, flow_tCam, rgb_attention, rgb_class_result, ALPHA),
        (flow_tCam, rgb_tCam, flow_attention, flow_class_result, 1 - ALPHA),
    ):
        pred = np.where(np.asarray(result) > class_threshold)[1]
        if pred.any():
            maps = interpolated_wtCAM(get_wtCAM(main, sub, attention, alpha, pred), scale)
            found.append(get_temp_proposal(get_tempseg_list(maps, len(pred)), maps, pred, scale, vid_len))
            predicted.append(pred.tolist())
    if len(found) == 2:
        return [integrated_prop(found[0], found[1], predicted[0], predicted[1])]
    return found[0] if found else []
