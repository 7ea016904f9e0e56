"""HAM-Net (asrafulashiq/hamnet): ``utils/utils.py``, ``system/tester.py``, ``eval/eval_detection.py``.

All is computed in float64, whatever comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..config import Classes, TopKMean
from ._attention import attended
from ._evaluator import JsonEvaluator, compute_average_precision_detection, table
from ._oic import seconds_per_step
from ._rows import plain
from .co2net import proposals_of, soft_nms

__all__ = [
    "ANETdetection",
    "compute_average_precision_detection",
    "eval_one_video",
    "get_proposal_oic",
    "result2json",
    "soft_nms",
]


def get_proposal_oic(
    tList: Any,
    wtcam: ArrayLike,
    final_score: ArrayLike,
    c_pred: ArrayLike,
    scale: float,
    v_len: float,
    sampling_frames: float,
    num_segments: int,
    lambda_: float = 0.25,
    gamma: float = 0.2,
    loss_type: str = "oic",
) -> list[list[list[Any]]]:
    """Outer-inner contrast of the runs of positions, in seconds; replaces ``utils.get_proposal_oic``.

    It is `co2net.get_proposal_oic_2` with times multiplied by ``16 * v_len / (scale * num_segments * sampling_frames)``
    where `v_len` is the number of snippets of the video and `sampling_frames` its frames per second.

    Examples
    --------
    >>> wtcam = np.array([0.1, 0.9, 0.8, 0.1]).reshape(4, 1, 1)
    >>> found = get_proposal_oic([np.where(wtcam[:, 0, 0] > 0.5)], wtcam, [0, 0.5], [1], 1, 4, 25, 4)
    >>> np.array(found[0][0][2:]).tolist()
    [0.64, 1.92]
    """
    t_factor = seconds_per_step(v_len, scale, num_segments, sampling_frames)
    return proposals_of(tList, wtcam, final_score, c_pred, t_factor, lambda_, gamma, loss_type)


def result2json(result: Sequence[Sequence[Sequence[float]]], class_dict: Mapping[int, str]) -> list[dict[str, Any]]:
    """Lists of rows [class, score, start, end] as dicts with ``label``, ``score`` and ``segment``.

    >>> result2json([[[1.0, 0.5, 2.0, 3.0]]], {1: "Diving"})
    [{'label': 'Diving', 'score': 0.5, 'segment': [2.0, 3.0]}]
    """
    return [
        {"label": class_dict[int(c)], "score": score, "segment": [start, end]}
        for rows in result
        for c, score, start, end in rows
    ]


def eval_one_video(
    elem: Any,
    element_atn: Any,
    vid_num_seg: float,
    class_dict: Mapping[int, str],
    *,
    rat: int = 10,
    class_thresh: float = 0.2,
    act_thresh: ArrayLike | None = None,
    scale: int = 1,
    feature_fps: float = 25,
    gamma_oic: float = 0.2,
) -> list[dict[str, Any]]:
    """What ``Tester.eval_one_batch`` makes of the network's output, and writes to ``final_res["results"]``.

    Parameters
    ----------
    elem : (1, T, C + 1) tensor or array
        Logits, background last.
    element_atn : (1, T, 1) tensor or array
        Attention in [0, 1].
    vid_num_seg : float
        Number of snippets of the whole video, for the conversion to seconds.
    class_dict : mapping of int to str
        Names of the labels.
    rat, class_thresh, act_thresh, scale, feature_fps, gamma_oic
        What the original reads from its configuration: T // `rat` snippets make the video-level score (20 for
        ActivityNet), `act_thresh` defaults to linspace(0.1, 0.9, 10).

    Returns
    -------
    list of dict with ``label``, ``score``, ``segment``
        Seconds; by class, in the order of picking.  Empty where no class reaches the threshold; the original then
        writes no entry for the video.

    Notes
    -----
    As published: thresholds on the attention with ``>`` (``cas_with_attn="true"``), no fallback class, soft-NMS with
    IoU plus 1 *second*.  It is the preset ``hamnet_thumos``.

    Examples
    --------
    >>> cas = np.zeros((1, 6, 3))
    >>> cas[0, 2:5, 1] = 9.0
    >>> attention = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.05]).reshape(1, 6, 1)
    >>> eval_one_video(cas, attention, 6, {0: "Diving", 1: "LongJump"})[0]["segment"]
    [1.28, 3.2]
    """
    length = plain(elem).shape[1]
    segments, labels, scores = attended(
        elem,
        element_atn,
        "hamnet_thumos",
        gamma_oic,
        thresholds=None if act_thresh is None else np.asarray(act_thresh, np.float64).tolist(),
        seconds=seconds_per_step(vid_num_seg, 1, length, feature_fps),
        scale=scale,
        classes=Classes(threshold=class_thresh),
        video_scores=TopKMean(map="logits*attention", ratio=rat),
    )
    return result2json([np.column_stack([labels, scores, segments]).tolist()], class_dict)


class ANETdetection(JsonEvaluator):
    """The copy of HAM-Net: predictions may be a dict, class numbers come from the file; see `anet.ANETdetection`.

    Notes
    -----
    As published: the ground truth file has ``class-list``, a dict of class numbers (as text) to labels, which numbers
    the classes; both tables are sorted by video; `evaluate` returns three things.  What differs: a class of the list
    without instances has AP 0 (the original stops).
    """

    PREDICTION_FIELDS: ClassVar[list[str]] = ["results"]

    def _index_of(self, data: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[Any, int]:
        return {label: int(number) for number, label in data["class-list"].items()}

    def _table(self, rows: Sequence[tuple[str, Any]], index: Mapping[Any, int], scored: bool = False) -> Any:
        return super()._table(sorted(rows, key=lambda row: row[0]), index, scored)

    def evaluate(self, details: bool = True) -> tuple[Any, Any, Any]:
        """Set `ap`, `mAP` and `average_mAP`.

        Parameters
        ----------
        details : bool
            Not looked at, as published.

        Returns
        -------
        mAP : (I,) ndarray
        average_mAP : float
        df_cls : DataFrame
            AP in percent: a row per class and one for the mean, a column per threshold and one for the mean.
        """
        mAP, average = super().evaluate()
        numbers = sorted(self.activity_index.values())
        names = {number: label for label, number in self.activity_index.items()}
        percent = 100 * np.column_stack([np.array(self.ap).T, np.array(self.ap).mean(axis=0)])
        columns: dict[Any, Any] = {"Name": [f"{names[number]:>20s}" for number in numbers] + [None]}
        means = percent.mean(axis=0, keepdims=True) if len(percent) else np.zeros((1, percent.shape[1]))
        for name, values in zip([*self.tiou_thresholds, "mean"], np.vstack([percent, means]).T):
            columns[name] = values
        frame = table(columns, "compat.hamnet.ANETdetection")
        frame.index = [*numbers, "mean"]
        return mAP, average, frame
