"""BaS-Net: ``utils.py`` of Pilhyeon/BaSNet-pytorch (AAAI 2020), and the loop of its ``test.py``.

UM, LACP, CoLA and ASL have copies of these functions that differ in details; each has a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from numpy.typing import ArrayLike

from .._checks import Float
from ..config import Classes
from . import _oic
from ._evaluator import JsonEvaluator
from ._oic import Rows

__all__ = ["ANETdetection", "detect", "get_proposal_oic", "minmax_norm", "nms", "upgrade_resolution"]


def upgrade_resolution(arr: ArrayLike, scale: int) -> Float:
    """Linear interpolation along the first axis, `scale` steps for every snippet.

    Replaces `upgrade_resolution` of the whole family (``utils.py``).

    Parameters
    ----------
    arr : (T, ...) array_like of float
    scale : int
        24 in most codes.

    Returns
    -------
    (T * scale, ...) ndarray of float64

    Notes
    -----
    As published: step i stands at snippet i / scale, and the last ``scale - 1`` steps go on along the last slope.
    What differs: one snippet stays constant (the original gives NaN), and no snippets give none.  Core:
    `upsample_tcam`.

    Examples
    --------
    >>> upgrade_resolution([[0.0], [1.0]], 2).tolist()
    [[0.0], [0.5], [1.0], [1.5]]
    """
    return _oic.upgraded(arr, scale)


def get_proposal_oic(
    tList: Sequence[Any],
    wtcam: ArrayLike,
    final_score: Any,
    c_pred: Any,
    scale: int,
    v_len: float,
    sampling_frames: float,
    num_segments: int,
    lambda_: float = 0.25,
    gamma: float = 0.2,
) -> list[Rows]:
    """Runs of one threshold as scored proposals, class by class.

    Replaces `get_proposal_oic` of Pilhyeon/BaSNet-pytorch, ``utils.py``.

    Parameters
    ----------
    tList : sequence
        For every searched class what ``numpy.where`` gave for the upsampled map: a tuple whose first item holds the
        indices of the steps above the threshold, rising.
    wtcam : (S, P, 1) array_like of float
        The upsampled map of the searched classes, usually 0 below the threshold.
    final_score : indexable
        Score of class c in the video at ``final_score[c]``.
    c_pred : sequence of int
        The searched classes.
    scale, v_len, sampling_frames, num_segments
        One step lasts ``16 * v_len / (scale * num_segments * sampling_frames)`` seconds.
    lambda_, gamma : float
        Margin as a share of the run, and the weight of the video's score.

    Returns
    -------
    list of lists of rows [class, score, start, end], in seconds, by time; one list for every item of `tList`
        The class is the item of `c_pred`, the other three are NumPy floats.

    Notes
    -----
    As published: OIC-A, the mean inside minus the mean of both margins together, which ``int()`` cuts so that the left
    one is rounded up and the right one down; an empty margin counts 0.  A class with no other index than 0 has no
    proposals.  What differs: means are differences of prefix sums, equal to 1e-12 for maps in [0, 1]; a map that is
    not finite is an error.  Core: `oic_scores` with ``layout="oic_a"``, O(S P + runs).

    Examples
    --------
    >>> import numpy as np
    >>> cas = np.array([0.0, 0.0, 0.9, 0.8, 0.7, 0.8, 0.0, 0.0]).reshape(8, 1, 1)
    >>> (row,), = get_proposal_oic([np.where(cas[:, 0, 0] > 0.5)], cas, [0.0, 1.0], [1], 1, 8, 16, 8)
    >>> [round(float(value), 6) for value in row]
    [1.0, 1.0, 2.0, 6.0]
    """
    t_factor = _oic.seconds_per_step(v_len, scale, num_segments, sampling_frames)
    return _oic.proposal_lists(tList, wtcam, final_score, c_pred, t_factor, lambda_, gamma, every_class=True)


def minmax_norm(act_map: Any) -> Any:
    """A map between the ReLU of its least and the ReLU of its largest value over time.

    Replaces `minmax_norm` of Pilhyeon/BaSNet-pytorch, ``utils.py``.

    Parameters
    ----------
    act_map : (1, T, C) or (1, T) tensor

    Returns
    -------
    tensor of that shape, dtype and device; gradients flow

    Notes
    -----
    As published: a range of 0 counts as 1, values below 0 stay below 0, and only a batch of one broadcasts.  What
    differs: without snippets the result is empty.

    Examples
    --------
    >>> import torch
    >>> minmax_norm(torch.tensor([[[1.0], [2.0], [5.0]]])).flatten().tolist()
    [0.0, 0.25, 1.0]
    """
    return _oic.minmax_normed(act_map, None, None, clip=False)


def nms(proposals: ArrayLike, thresh: float) -> list[list[float]]:
    """Greedy suppression of rows [class, score, start, end]; all rows are compared, whatever their class.

    Replaces `nms` of the whole family (``utils.py``).

    Parameters
    ----------
    proposals : (N, 4) array_like, usually a list of rows
    thresh : float
        A row goes when its IoU with a kept one is at least this.

    Returns
    -------
    list of rows, best score first; the class has become a float

    Notes
    -----
    As published: lengths and intersections are 1 longer, in the unit of the rows, so that seconds and snippets give
    different results.  At a threshold of 0 or less the best row alone stays.  What differs: no rows give no rows (the
    original stops with an IndexError), and among equal scores the later row goes first, as ``argsort()[::-1]`` has it
    where the sort is stable.  Core: `nms` with ``length_offset=1`` and ``inclusive=True``, O(N log N).

    Examples
    --------
    >>> nms([[3, 0.9, 0.0, 10.0], [3, 0.8, 1.0, 10.0], [3, 0.7, 20.0, 30.0]], 0.7)
    [[3.0, 0.9, 0.0, 10.0], [3.0, 0.7, 20.0, 30.0]]
    """
    return _oic.kept_rows(proposals, thresh)


def detect(score_supp: Any, cas_supp: Any, vid_num_seg: float, config: Any) -> list[list[list[float]]]:
    """What the loop of ``test.py`` does with one video between the network and `result2json`; the name is ours.

    Parameters
    ----------
    score_supp : (1, C + 1) tensor or array_like
        Video scores of the suppressed branch, background last.
    cas_supp : (1, T, C) or (1, T, C + 1) tensor or array_like
    vid_num_seg : float
        Snippets of the video before it was resampled to T.
    config
        ``act_thresh``, ``class_thresh``, ``scale`` and ``feature_fps`` are read.

    Returns
    -------
    list of lists of rows [class, score, start, end] in seconds
        One list for every class with detections, by class; rows as `nms` gives them.

    Notes
    -----
    As published: classes of at least `class_thresh`, whose score then counts as 1, so that every proposal gets the same
    0.2; none at all where class 0 alone is searched, because the question is ``pred.any()`` of the class numbers.
    What differs: it is computed in float64, and a class without proposals is left out (the original stops with an
    IndexError).  It is the preset ``"basnet_thumos"``, which searches classes *above* the threshold and has no rule for
    class 0, with the numbers of `config`.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(act_thresh=np.arange(0, 0.25, 0.025), class_thresh=0.25, scale=24, feature_fps=25)
    >>> cas = np.zeros((1, 10, 3))
    >>> cas[0, 3:6, 1] = 1
    >>> (found,) = detect([[0.1, 0.8, 0.0, 0.1]], cas, 10, config)
    >>> [round(value, 2) for value in found[0]]
    [1.0, 1.03, 1.44, 3.71]
    """
    scores = _oic.only_one(score_supp, "score_supp", 2)[:-1]
    cas = _oic.only_one(cas_supp, "cas_supp", 3)[:, : len(scores)]
    if not (scores[1:] >= config.class_thresh).any():
        return []
    pipeline = _oic.adjusted("basnet_thumos", [config.act_thresh], config.scale, config.class_thresh)
    pipeline = replace(pipeline, classes=replace(cast(Classes, pipeline.classes), inclusive=True))
    return _oic.detected(pipeline, {"cas": cas}, scores, vid_num_seg, config.feature_fps)


class ANETdetection(JsonEvaluator):
    """The copy of ActivityNet's evaluator in the whole family (``eval/eval_detection.py``); see `anet.ANETdetection`.

    Notes
    -----
    As published: the ground truth needs the field ``database`` only, `check_status` is off, and `evaluate` returns
    ``(mAP, average_mAP)``.
    """
