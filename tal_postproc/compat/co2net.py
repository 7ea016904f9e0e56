"""CO2-Net (harlanhong/MM2021-CO2-Net): ``proposal_methods.py``, ``utils/wsad_utils.py``, ``eval/eval_detection.py``.

``from tal_postproc.compat.co2net import multiple_threshold_hamnet, ANETdetection`` in place of the two imports.  The
originals parse the command line when they are imported; nothing here does.  All is computed in float64, whatever comes.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..evaluation import SNIPPETS_PER_SECOND
from ..formats import read_wtalc_annotations
from ._attention import AMBIGUOUS_LIST, ambiguous_rows, attended, prediction_table, soft_nms_rows, text
from ._evaluator import Evaluator, compute_average_precision_detection, say, table
from ._oic import COLUMNS, proposal_lists

__all__ = [
    "ANETdetection",
    "compute_average_precision_detection",
    "filter_segments",
    "get_proposal_oic_2",
    "multiple_threshold_hamnet",
    "soft_nms",
]


def soft_nms(dets: ArrayLike, iou_thr: float = 0.7, method: str = "gaussian", sigma: float = 0.3) -> list[list[float]]:
    """Soft-NMS of rows [class, score, start, end]; replaces ``utils.wsad_utils.soft_nms``.

    Parameters
    ----------
    dets : (N, 4) array_like
        Rows of one class; the class is not looked at.
    iou_thr : float, default 0.7
        "linear" and hard suppression begin above it; the gaussian decay does not use it.
    method : str, default "gaussian"
        "linear", "gaussian", or anything else for hard suppression.
    sigma : float, default 0.3
        Width of the gaussian decay.

    Returns
    -------
    list of [class, score, start, end], floats
        All rows in the order in which they are picked, scores decayed; ``[]`` for no rows (the original stops there).

    Notes
    -----
    As published: lengths and intersections are one unit longer than they are; nothing is dropped, a row that hard
    suppression hits goes on with score 0; a negative score is multiplied, too, and rises.  Ties: the earlier row first
    (the original moves rows about as it picks).  It is `tal_postproc.soft_nms`, O(N log N), not O(N^2).

    Examples
    --------
    >>> [[round(x, 3) for x in row] for row in soft_nms([[3, 0.9, 0, 9], [3, 0.8, 0, 9], [3, 0.5, 20, 29]])]
    [[3.0, 0.9, 0.0, 9.0], [3.0, 0.5, 20.0, 29.0], [3.0, 0.029, 0.0, 9.0]]
    """
    return soft_nms_rows(dets, COLUMNS, iou_thr, method, sigma)


def get_proposal_oic_2(
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
    """Outer-inner contrast of the runs of positions; replaces ``utils.wsad_utils.get_proposal_oic_2``.

    Parameters
    ----------
    tList : list of tuple
        For every class of `c_pred`, what ``numpy.where`` gave: the positions above a threshold, rising.
    wtcam : (T, C, 1) array_like
        The map that is scored, a column per entry of `c_pred`.
    final_score : (K,) array_like
        Video-level scores of all classes.
    c_pred : (C,) array_like of int
    scale, v_len, sampling_frames, num_segments
        As published they only make a factor to seconds, which the function then does not use.
    lambda_ : float, default 0.25
        Length of a margin over that of its run.
    gamma : float, default 0.2
        Weight of the video-level score.
    loss_type : str, default "oic"
        Anything else gives the mean inside alone.

    Returns
    -------
    list of lists of [class, score, start, end]
        A list per class that has positions; the class as it came, numpy.float64, and numpy.int64 twice; snippets, the
        end exclusive.

    Notes
    -----
    As published: a class whose only position is 0 has no list (``.any()`` asks for positions other than 0); the margins
    are cut by ``int()``, which makes the left one the longer.  ``wtcam`` is read in float64.

    Examples
    --------
    >>> wtcam = np.array([0.1, 0.9, 0.8, 0.1]).reshape(4, 1, 1)
    >>> above = [np.where(wtcam[:, 0, 0] > 0.5)]
    >>> [[(c, score, start, end)]] = get_proposal_oic_2(above, wtcam, [0, 0.5], [1], 1, 4, 25, 4)
    >>> c, float(score.round(3)), int(start), int(end)
    (1, 0.85, 1, 3)
    """
    return proposals_of(tList, wtcam, final_score, c_pred, 1, lambda_, gamma, loss_type)


def proposals_of(
    tList: Any,
    wtcam: ArrayLike,
    final_score: Any,
    c_pred: Any,
    t_factor: float,
    lambda_: float,
    gamma: float,
    loss_type: str,
) -> list[list[list[Any]]]:
    """`get_proposal_oic_2` in any unit; without margins and video-level score, the mean inside is left."""
    if loss_type != "oic":
        lambda_ = gamma = 0.0
    return proposal_lists(tList, wtcam, final_score, c_pred, t_factor, lambda_, gamma, every_class=False)


def filter_segments(segment_predict: ArrayLike, vn: str, ambilist: Any = AMBIGUOUS_LIST) -> NDArray[np.float64]:
    """Rows that share no snippet with an ambiguous span of the video; replaces ``proposal_methods.filter_segments``.

    Parameters
    ----------
    segment_predict : (N, 4) array_like
        Rows [start, end, score, class] in snippets.
    vn : str
        The video's name.
    ambilist : path, or list of lists of str
        Lines ``name  start end`` in seconds, or such lines already split.  Default: the original's relative path.  As
        published, a file that is not there filters nothing.

    Returns
    -------
    (M, 4) ndarray of float64
        Rows that stay, in their order; (0, 4) where the original gives (0,).

    Examples
    --------
    >>> filter_segments([[0, 4, 0.9, 7], [9, 12, 0.8, 7]], "v", ambilist=[["v", "", "1.0", "2.0"]])
    array([[ 9. , 12. ,  0.8,  7. ]])
    """
    rows = np.array(segment_predict, np.float64).reshape(-1, 4)
    return rows[ambiguous_rows(rows[:, :2], vn, ambilist)]


def multiple_threshold_hamnet(
    vid_name: bytes | str,
    data_dict: dict[str, Any],
    *,
    gamma_oic: float = 0.2,
    ambilist: Any = AMBIGUOUS_LIST,
) -> Any:
    """Detections of one video; replaces the function that ``--proposal_method multiple_threshold_hamnet`` chooses.

    Parameters
    ----------
    vid_name : bytes or str
    data_dict : dict
        ``"cas"`` (1, T, C + 1), logits with the background last, and ``"attn"`` (1, T, 1), attention in [0, 1]: tensors
        on any device, or arrays.  They are read, never changed.
    gamma_oic : float, default 0.2
        What the original reads from its options.
    ambilist
        Ambiguous spans, see `filter_segments`.

    Returns
    -------
    pandas.DataFrame
        Columns ``video-id``, ``t-start``, ``t-end`` (snippets), ``label``, ``score``; all numbers float64, the label
        too.  By class, in the order of picking.

    Raises
    ------
    ValueError
        If a map is not finite or has another shape.

    Notes
    -----
    As published: thresholds ``linspace(0.1, 0.9, 10)`` on the attention with ``>``; classes with a video-level score
    (softmax of the mean of the T // 10 largest) ``>= 0.2``, else the best one; times stay in snippets; a run of snippet
    0 alone is dropped; soft-NMS with sigma 0.3 and IoU with +1.  What differs: float64 inside (the original has the
    dtype of the tensors), T = 0 gives an empty table, ties as in `soft_nms`.  It is the preset ``co2net_thumos``.

    Examples
    --------
    >>> cas = np.zeros((1, 6, 3))
    >>> cas[0, 2:5, 1] = 4.0
    >>> attention = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.05]).reshape(1, 6, 1)
    >>> found = multiple_threshold_hamnet(b"v", {"cas": cas, "attn": attention})
    >>> found[["t-start", "t-end", "label", "score"]].iloc[0].round(4).tolist()
    [2.0, 5.0, 1.0, 3.9914]
    """
    return detections(vid_name, data_dict, "co2net_thumos", gamma_oic, ambilist, "compat.co2net")


def detections(
    vid_name: bytes | str,
    data_dict: dict[str, Any],
    preset: str,
    gamma: float,
    ambilist: Any,
    what: str,
    **others: Any,
) -> Any:
    """The table of one video; `others` are thresholds and fields of the pipeline."""
    segments, labels, scores = attended(data_dict["cas"], data_dict["attn"], preset, gamma, **others)
    free = ambiguous_rows(segments, text(vid_name), ambilist)
    return prediction_table(text(vid_name), segments[free], labels[free], scores[free], what)


class ANETdetection(Evaluator):
    """ActivityNet's mAP in snippets, ground truth from a folder of W-TALC; replaces the class of that name.

    Parameters
    ----------
    annotation_path : str, default './Thumos14reduced-Annotations'
        The folder.  Its pickles are read by an unpickler that runs nothing (`formats.read_wtalc_annotations`).
    tiou_thresholds : (I,) array_like, default [0.1, 0.3, 0.5]
    args : object with ``path_dataset``, optional
        `annotation_path` is joined to it; None leaves it as it is (the original stops there).
    subset : str, default "test"
    verbose : bool, default False
        Print counts and mAPs.

    Attributes
    ----------
    prediction : DataFrame
        To be set before `evaluate`, from `multiple_threshold_hamnet`; times in snippets.
    ground_truth : DataFrame
        ``round(seconds * 25 / 16)``, half to even; label numbers are those of `classlist`.
    activity_index : dict
        0, 1, ... -> label number, for the classes that have instances.
    classlist, videoname : ndarray of str
    templabelidx : list of int
    ambilist : list of [video, start, end]
        The spans of the folder's lists, for those who read them; nothing is filtered here.
    ap, mAP, average_mAP
        After `evaluate`.

    Notes
    -----
    As published: overlaps are continuous on rounded instances; instances that rounding leaves empty cannot be found and
    count.  What differs: column k of `ap` is the k-th class that has instances (the original fails where class numbers
    have gaps), two empty intervals do not match, ties keep the order of rows.

    Examples
    --------
    See `docs/howto/replace_co2net.md`.
    """

    def __init__(
        self,
        annotation_path: str = "./Thumos14reduced-Annotations",
        tiou_thresholds: Any = None,
        args: Any = None,
        subset: str = "test",
        verbose: bool = False,
    ) -> None:
        self.subset = subset
        self.args = args
        self.tiou_thresholds = np.array([0.1, 0.3, 0.5]) if tiou_thresholds is None else tiou_thresholds
        self.verbose = verbose
        self.ap = None
        self.annotation_path = annotation_path if args is None else os.path.join(args.path_dataset, annotation_path)
        self.prediction = None
        self._import_ground_truth(self.annotation_path)

    def _import_ground_truth(self, annotation_path: str) -> None:
        self.ground_truth, truth = rounded_ground_truth(annotation_path, self.subset, "compat.co2net.ANETdetection")
        counts = np.diff(truth.segments.offsets)
        self.idx_to_take = np.flatnonzero(counts).tolist()
        self.classlist = np.array(truth.classes)
        self.videoname = np.array(truth.segments.video_ids)[counts > 0]
        self.templabelidx = sorted(set(truth.segments.labels.tolist()), key=lambda one: truth.classes[one])
        self.activity_index = dict(enumerate(self.templabelidx))
        spans = truth.ambiguous
        self.ambilist = (
            []
            if spans is None
            else [
                [spans.video_ids[v], *map(str, row)]
                for v, row in zip(spans.video_index.tolist(), spans.segments.tolist())
            ]
        )

    def evaluate(self) -> NDArray[np.float64]:
        """Set `ap`, `mAP` and `average_mAP`; returns the (I,) mAP."""
        self._measure()
        if self.verbose:
            say(f"{self.subset}: {len(self.ground_truth)} instances, {len(self.prediction)} predictions")
            for threshold, value in zip(self.tiou_thresholds, self.mAP):
                say(f"Detection map @ {threshold:f} = {value:f}")
        return self.mAP


def rounded_ground_truth(folder: str, subset: str, what: str) -> tuple[Any, Any]:
    """The instances of a subset in rounded snippets as a table, and the annotations as they were read."""
    truth = read_wtalc_annotations(folder, subset=subset)
    rows = truth.segments
    snippets = np.rint(rows.segments * SNIPPETS_PER_SECOND).astype(np.int64)
    columns = {
        "video-id": [rows.video_ids[v] for v in rows.video_index.tolist()],
        "t-start": snippets[:, 0],
        "t-end": snippets[:, 1],
        "label": rows.labels,
    }
    return table(columns, what), truth
