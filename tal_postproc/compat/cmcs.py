"""CMCS: post-processing of Finspire13/CMCS-Temporal-Action-Localization (CVPR 2019), ``utils.py`` and ``detect.py``.

One threshold per class on a map at the frame rate of the video, widened, and scored with margins of its own kind.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import interp1d
from scipy.special import softmax

from .. import _checks
from .._checks import Float
from . import _oic

__all__ = ["detect", "detect_with_thresholding", "interpolate", "mask_to_detections", "normalize"]


def normalize(x: ArrayLike) -> NDArray[Any]:
    """(x - min) / max of what that leaves, over the whole array.

    Replaces `normalize` of the ``utils.py`` of CMCS.  As published, a constant array becomes NaN, which no threshold
    finds.  What differs: the array given stays as it is (the original writes into it), and an empty one is fine.

    >>> normalize([1.0, 2.0, 5.0]).tolist()
    [0.0, 0.25, 1.0]
    """
    array = np.asarray(x)
    if not array.size:
        return array.astype(np.result_type(array, np.float32))
    array = array - array.min()
    with np.errstate(invalid="ignore", divide="ignore"):
        return array / array.max()


def interpolate(
    x: ArrayLike,
    feature_type: Literal["i3d", "untri"],
    frame_cnt: int,
    sample_rate: int,
    snippet_size: int | None = None,
    kind: Any = "linear",
) -> Float:
    """One value per frame, from the frame of the first snippet to that of the last one.

    Replaces `interpolate` of the ``utils.py`` of CMCS.

    Parameters
    ----------
    x : (T,) array_like of float
        Snippet i stands at frame ``i * sample_rate``.
    feature_type : {"i3d", "untri"}
        With "i3d" a snippet covers `snippet_size` frames, and the last one starts where it still fits.
    frame_cnt, sample_rate, snippet_size : int
        T must be the number of snippets that these give.
    kind : str
        "linear", "nearest", "quadratic", or another kind of SciPy's ``interp1d``.

    Returns
    -------
    (F,) ndarray of float64, the frame of the last snippet included

    Notes
    -----
    As published.  What differs: a video shorter than a snippet has no frames (the original stops with an IndexError),
    and a single snippet is its own frame.

    Examples
    --------
    >>> interpolate([0.0, 1.0], "untri", 4, 2).tolist()
    [0.0, 0.5, 1.0]
    """
    _checks.as_choice(feature_type, "feature_type", ("i3d", "untri"))
    if feature_type == "i3d":
        if snippet_size is None:
            raise ValueError('`snippet_size` must be a number of frames with `feature_type` "i3d", got None')
        ticks = np.arange(0, (frame_cnt - snippet_size) // sample_rate * sample_rate + 1, sample_rate)
    else:
        ticks = np.arange(0, frame_cnt, sample_rate)
    values = _checks.as_values(x, len(ticks), "x", per="snippet")
    if len(ticks) < 2:
        return values.copy()
    frames = np.arange(ticks[-1] + 1)
    if kind == "linear":
        return np.interp(frames, ticks, values)
    return interp1d(ticks, values, kind=kind)(frames).astype(np.float64)


def detect_with_thresholding(
    metric: ArrayLike,
    thrh_type: Literal["mean", "max"],
    thrh_value: float,
    proc_type: Literal["dilation", "median"],
    proc_value: int,
    debug_file: Any = None,
) -> NDArray[np.bool_]:
    """Frames above the threshold, widened or smoothed.

    Replaces `detect_with_thresholding` of the ``utils.py`` of CMCS.

    Parameters
    ----------
    metric : (F, 1) array_like of float
    thrh_type : {"mean", "max"}
        Above ``thrh_value * mean``, or above `thrh_value`.
    thrh_value : float
    proc_type : {"dilation", "median"}
    proc_value : int
        Frames of the window; for "median" an odd number.
    debug_file
        Not looked at, as in the original.

    Returns
    -------
    (F, 1) ndarray of bool

    Notes
    -----
    As published: strictly above; a dilation over an even number of frames reaches one farther to the left (20: 10
    before and 9 after), as scikit-image has it; the median sees False beyond both ends.  What differs: the median is
    bool (the original's dtype depends on SciPy), and scikit-image is not needed.

    Examples
    --------
    >>> metric = np.array([[0.0], [0.0], [0.0], [1.0], [0.0], [0.0]])
    >>> detect_with_thresholding(metric, "mean", 1.0, "dilation", 4)[:, 0].astype(int).tolist()
    [0, 1, 1, 1, 1, 0]
    """
    _checks.as_choice(thrh_type, "thrh_type", ("mean", "max"))
    _checks.as_choice(proc_type, "proc_type", ("dilation", "median"))
    width = _checks.as_count(proc_value, "proc_value", at_least=1)
    values = np.asarray(metric)
    if not values.size:
        return np.zeros(values.shape, np.bool_)
    mask = values[:, 0] > (thrh_value if thrh_type == "max" else thrh_value * values.mean())
    if proc_type == "dilation":
        before, after, least = width // 2, (width - 1) // 2, 1
    elif width % 2:
        before, after, least = width // 2, width // 2, width // 2 + 1
    else:
        raise ValueError(f"`proc_value` must be odd with `proc_type` 'median', got {width}")
    sums = np.concatenate(([0], np.cumsum(mask)))
    # frame t is marked by those from t - after to t + before
    frames = np.arange(len(mask))
    count = sums[np.minimum(frames + before + 1, len(mask))] - sums[np.maximum(frames - after, 0)]
    return (count >= least)[:, None]


def mask_to_detections(
    mask: ArrayLike, metric: ArrayLike, weight_inner: float, weight_outter: float
) -> list[list[Any]]:
    """Runs of a mask with their scores.

    Replaces `mask_to_detections` of the ``utils.py`` of CMCS.

    Parameters
    ----------
    mask : (F, 1) array_like of bool
    metric : (F, 1) array_like of float
    weight_inner, weight_outter : float
        Of the mean inside and of the mean of both margins together; 1 and -1 in the published settings.

    Returns
    -------
    list of rows [start, end, None, score], in frames, by time
        The end is exclusive; the class is for the caller to fill in.

    Notes
    -----
    As published: a margin is a quarter of the run, cut by ``int()``, and at least one frame; the left one is a slice
    whose start may fall below 0, and then Python counts it from the end, so that it is empty.  Where both margins are
    empty only the inside counts.  What differs: means are differences of prefix sums; the original marks and searches
    the whole video once for every run.

    Examples
    --------
    >>> metric = np.array([[0.0], [0.5], [1.0], [1.0], [0.5], [0.0]])
    >>> [[int(s), int(e), c, float(score)] for s, e, c, score in mask_to_detections(metric > 0.6, metric, 1, -1)]
    [[2, 4, None, 0.5]]
    """
    values = _checks.as_values(np.asarray(metric)[:, 0], None, "metric", per="frame")
    _, start, end = _oic.runs_of([np.flatnonzero(np.asarray(mask)[:, 0])])
    context = 0.25 * (end - start)
    left = np.minimum((start - context).astype(np.int64), start - 1)
    left = np.minimum(np.where(left < 0, np.maximum(left + len(values), 0), left), start)
    right = np.minimum(np.maximum((end + context).astype(np.int64), end + 1), len(values))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    inner = (sums[end] - sums[start]) / (end - start)
    around = sums[start] - sums[left] + sums[right] - sums[end]
    count = start - left + right - end
    score = inner * weight_inner + np.where(count > 0, around / np.maximum(count, 1), 0.0) * weight_outter
    return [[s, e, None, value] for s, e, value in zip(start, end, score)]


def detect(
    avg_score: ArrayLike,
    weight: ArrayLike | None,
    global_score: ArrayLike,
    *,
    duration: float,
    fps: float,
    frame_cnt: int,
    action_class_num: int,
    feature_type: Literal["i3d", "untri"],
    sample_rate: int,
    base_snippet_size: int | None,
    global_score_thrh: float,
    metric_type: Literal["score", "multiply", "att-filtering"],
    thrh_type: Literal["mean", "max"],
    thrh_value: float,
    interpolate_type: str,
    proc_type: Literal["dilation", "median"],
    proc_value: int,
    sample_offset: float,
    weight_inner: float,
    weight_outter: float,
    weight_global: float,
    att_filtering_value: float | None = None,
) -> list[list[Any]]:
    """What `detect` of the ``detect.py`` of CMCS does with one video, for the classes of its global score.

    Parameters
    ----------
    avg_score : (T, C) array_like of float
        Logits per snippet, background (where trained with one) included.
    weight : (T, 1) array_like of float, optional
        Attention; read by "multiply" and "att-filtering".
    global_score : (C,) array_like of float
        Logits of the video.
    duration, fps, frame_cnt
        Of the video: seconds, frames per second, frames.
    action_class_num : int
        Classes without background.
    feature_type, sample_rate, base_snippet_size
        See `interpolate`.
    global_score_thrh ... att_filtering_value
        The ``detect_params`` of the published configuration, `proc_value` in frames.

    Returns
    -------
    list of rows [start, end, class, score], in seconds within [0, duration], by class and time
        The original puts the video's name in front.

    Notes
    -----
    As published: softmax of the scores over classes, `normalize`, `interpolate`, `detect_with_thresholding`,
    `mask_to_detections`; classes whose softmax is not above `global_score_thrh` are skipped; nothing is suppressed.
    What differs: computed in float64.

    Examples
    --------
    >>> logits = np.zeros((10, 2))
    >>> logits[3:7, 1] = 4
    >>> found = detect(logits, None, [0.0, 2.0], duration=6.4, fps=25, frame_cnt=160, action_class_num=2,
    ...                feature_type="i3d", sample_rate=16, base_snippet_size=16, global_score_thrh=0.2,
    ...                metric_type="score", thrh_type="mean", thrh_value=1.0, interpolate_type="linear",
    ...                proc_type="dilation", proc_value=20, sample_offset=0, weight_inner=1, weight_outter=-1,
    ...                weight_global=0.25)
    >>> [[round(float(value), 2) for value in row] for row in found]
    [[1.2, 4.56, 1.0, 0.98]]
    """
    _checks.as_choice(metric_type, "metric_type", ("score", "multiply", "att-filtering"))
    if metric_type == "att-filtering" and att_filtering_value is None:
        raise ValueError("`att_filtering_value` must be a number with `metric_type` 'att-filtering', got None")
    if metric_type != "score" and weight is None:
        raise ValueError(f"`weight` is needed with `metric_type` {metric_type!r}")
    scores = softmax(np.asarray(avg_score, np.float64), axis=1)
    totals = softmax(np.asarray(global_score, np.float64))
    out: list[list[Any]] = []
    for c in np.flatnonzero(totals[:action_class_num] > global_score_thrh).tolist() if len(scores) else []:
        metric = scores[:, c : c + 1]
        metric = normalize(metric * np.asarray(weight) if metric_type == "multiply" else metric)
        if metric_type == "att-filtering":
            metric = normalize(np.where(np.asarray(weight) < att_filtering_value, 0.0, metric))
        if np.isnan(metric).any():
            continue  # constant: above no threshold
        fine = interpolate(metric[:, 0], feature_type, frame_cnt, sample_rate, base_snippet_size, interpolate_type)
        mask = detect_with_thresholding(fine[:, None], thrh_type, thrh_value, proc_type, proc_value)
        for start, end, _, score in mask_to_detections(mask, fine[:, None], weight_inner, weight_outter):
            ends = [min(duration, max(0, (frame + sample_offset) / fps)) for frame in (start, end)]
            out.append([*ends, c, score + totals[c] * weight_global])
    return out
