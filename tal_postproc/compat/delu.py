"""DELU (MengyuanChen21/ECCV2022-DELU): ``proposal_methods.py``; its other functions are those of CO2-Net.

Its ``test.py`` then keeps what is longer than one snippet,
``proposals[proposals["t-end"] - proposals["t-start"] > 1]``: that line stays with the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import Classes
from ._attention import AMBIGUOUS_LIST, video_scores
from .co2net import (
    ANETdetection,
    compute_average_precision_detection,
    detections,
    filter_segments,
    get_proposal_oic_2,
    soft_nms,
)

__all__ = [
    "ANETdetection",
    "compute_average_precision_detection",
    "filter_segments",
    "get_proposal_oic_2",
    "multiple_threshold_hamnet",
    "multiple_threshold_hamnet_modified",
    "soft_nms",
]


def multiple_threshold_hamnet(
    vid_name: bytes | str,
    data_dict: dict[str, Any],
    *,
    gamma_oic: float = 0.2,
    ambilist: Any = AMBIGUOUS_LIST,
) -> Any:
    """Detections of one video, as `co2net.multiple_threshold_hamnet` with 20 thresholds, ``linspace(0.1, 0.9, 20)``.

    It is the preset ``delu_thumos``.

    Examples
    --------
    >>> cas = np.zeros((1, 6, 3))
    >>> cas[0, 2:5, 1] = 4.0
    >>> attention = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.05]).reshape(1, 6, 1)
    >>> len(multiple_threshold_hamnet(b"v", {"cas": cas, "attn": attention}))
    20
    """
    return detections(vid_name, data_dict, "delu_thumos", gamma_oic, ambilist, "compat.delu")


def multiple_threshold_hamnet_modified(
    vid_name: bytes | str,
    data_dict: dict[str, Any],
    labels: Any,
    *,
    gamma_oic: float = 0.2,
    ambilist: Any = AMBIGUOUS_LIST,
) -> tuple[Any, Any, Any]:
    """Detections of all classes above 0.01, and which classes these are.

    Parameters
    ----------
    vid_name, data_dict, gamma_oic, ambilist
        As in `multiple_threshold_hamnet`; the thresholds are CO2-Net's ten.
    labels : (C,) ndarray
        1 for the classes that the video shows.

    Returns
    -------
    prediction : pandas.DataFrame
    correct_pred : (C,) ndarray of the dtype of `labels`
        1 for the classes that were searched and are shown.
    pred_one_hot : (C,) ndarray of the dtype of `labels`
        1 for the classes that were searched.

    Notes
    -----
    As published: classes with a video-level score ``>= 0.01``, else the best one.

    Examples
    --------
    >>> cas = np.zeros((1, 6, 3))
    >>> cas[0, 2:5, 1] = 9.0
    >>> attention = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.05]).reshape(1, 6, 1)
    >>> maps = {"cas": cas, "attn": attention}
    >>> _, correct, searched = multiple_threshold_hamnet_modified("v", maps, np.array([1, 1]))
    >>> correct, searched
    (array([0, 1]), array([0, 1]))
    """
    classes = Classes(threshold=0.01, fallback="argmax")
    what = "compat.delu"
    prediction = detections(vid_name, data_dict, "co2net_thumos", gamma_oic, ambilist, what, classes=classes)
    scores = video_scores(data_dict["cas"], data_dict["attn"], "delu_thumos")
    searched = scores >= 0.01
    if len(scores) and not searched.any():
        searched[np.argmax(scores)] = True
    pred_one_hot = np.zeros_like(labels)
    pred_one_hot[searched] = 1
    return prediction, pred_one_hot * labels, pred_one_hot
