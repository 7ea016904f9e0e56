"""GauFuse: ``evaluation/detectionMAP.py`` and ``utils/utils.py`` of zhou745/GauFuse_WSTAL (CVPR 2023).

`args` is the namespace of the original's options, or any object with the attributes that a function reads:
``feature_type`` ("I3D", or "UNT" for UntrimmedNet), ``class_threshold``, ``start_threshold``, ``end_threshold``,
``threshold_interval``; for detections also ``use_new_predictor`` and ``eval_temperature``; for pseudo labels
``dist_temperature`` and ``frm_coef_pseudo``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks, presets
from ..config import Fuse, LinPro
from ..fusion import fuse_segments
from ..linpro import linpro_label_map, margin_bounds
from ..pipeline import PostProcessor
from ..types import MissingExtraError, Segments, Video
from . import _thumos
from ._rows import as_rows
from ._thumos import StrPath, Truth
from .rskp import getLocMAP

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NonMaximumSuppression",
    "compute_score_matrix",
    "convert_segment_to_tensor",
    "fuse_current_pred",
    "generate_segs",
    "generate_segs_eval",
    "getActLoc",
    "getDetectionMAP",
    "getLocMAP",
    "prediction_fuse_module",
]

_LINPRO = presets.for_labels("gaufuse").labels or LinPro()


# ---------------------------------------------------------------------------------------------------------- detections
def getActLoc(
    vid_preds: Sequence[ArrayLike],
    frm_preds: Sequence[ArrayLike],
    vid_lens: Any,
    act_thresh_cas: ArrayLike,
    annotation_path: StrPath,
    args: Any,
) -> list[np.ndarray]:
    """Detections of all test videos, class by class.

    Replaces `getActLoc` of zhou745/GauFuse_WSTAL, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    vid_preds : sequence of (C,) array_like
        Class scores of every test video, in the order of the annotations.
    frm_preds : sequence of (T, C) array_like
        Their maps; T differs.
    vid_lens
        Not looked at: the original counts occupied snippets with it, and does nothing with the counts.
    act_thresh_cas : (M,) array_like
        Thresholds.
    annotation_path : str or path
        The annotation folder, as for `rskp.getActLoc`.
    args
        ``class_threshold``, ``feature_type``, ``use_new_predictor`` and ``eval_temperature`` are read.

    Returns
    -------
    list of (N, 4) ndarray of float64
        Rows [video, start, end, score] in snippets, best score first; one array per class with instances.

    Notes
    -----
    As published, and unlike RSKP: margins of ``0.0785 n ** 0.9``, overlap 0.25, and every pick is replaced by the mean
    of its cluster, weighted by ``exp(inner / eval_temperature)`` and divided by the sum of ``sign(inner) *
    exp(inner / eval_temperature)``; ``use_new_predictor == False`` keeps the picks.

    What differs: a boundary on which all members of a cluster agree stays whole.  The original's sums may say
    15.999999999999998 for 16, which the ambiguous filter and `getLocMAP` then cut to 15: its mAP changes with the
    version of NumPy, by up to 1.1 points on 12 videos.  Its own detections, rounded to nine decimals, have exactly our
    mAP.  Where the divisor is not positive, see `prediction_fuse_module`.  All else, and what else differs, is as
    `rskp.getActLoc` says.

    Examples
    --------
    >>> import os, tempfile
    >>> from types import SimpleNamespace
    >>> folder = tempfile.mkdtemp()
    >>> spans = np.empty(1, object)
    >>> spans[0] = [[0.64, 3.2]]
    >>> names = np.empty(1, object)
    >>> names[0] = ["Diving"]
    >>> for stem, array in {"segments": spans, "labels": names, "videoname": [b"clip"], "subset": [b"test"]}.items():
    ...     np.save(os.path.join(folder, stem + ".npy"), array)
    >>> np.save(os.path.join(folder, "classlist.npy"), [b"Diving"])
    >>> args = SimpleNamespace(feature_type="I3D", class_threshold=0.16, start_threshold=0.001, end_threshold=0.04,
    ...                        threshold_interval=0.002, use_new_predictor=True, eval_temperature=0.2)
    >>> tcam = np.array([[0.0], [0.9], [0.8], [0.9], [0.0], [0.0]])
    >>> getActLoc([[0.9]], [tcam], None, np.arange(0.001, 0.04, 0.002), folder, args)[0].round(3).tolist()
    [[0.0, 1.0, 5.0, 0.65]]
    >>> float(np.mean(getDetectionMAP([[0.9]], [tcam], None, folder, args)[0]))
    100.0
    """
    return _detect(_thumos.read_truth(annotation_path), vid_preds, frm_preds, act_thresh_cas, args)


def _detect(
    truth: Truth, vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], thresholds: ArrayLike, args: Any
) -> list[np.ndarray]:
    if args.use_new_predictor == False:  # noqa: E712 - as published: nothing else that Python takes for False
        process = _thumos.chain("gaufuse_thumos_nms", thresholds, args.class_threshold)
    else:
        process = _at(_thumos.chain("gaufuse", thresholds, args.class_threshold), args.eval_temperature)
    rate = _thumos.snippets_per_second(args)
    return _thumos.best_first(_thumos.detect(process, truth, vid_preds, frm_preds, rate))


def _at(process: PostProcessor, temperature: Any) -> PostProcessor:
    """The same chain with another temperature of the fusion."""
    stages = tuple(
        replace(stage, temperature=temperature) if isinstance(stage, Fuse) else stage
        for stage in process.pipeline.stages
    )
    return PostProcessor(replace(process.pipeline, stages=stages))


def getDetectionMAP(
    vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], vid_lens: Any, annotation_path: StrPath, args: Any
) -> tuple[list[float], list[float]]:
    """mAP of a model's output at tIoU 0.1 to 0.7, in percent.

    Replaces `getDetectionMAP` of zhou745/GauFuse_WSTAL, ``evaluation/detectionMAP.py``: `getActLoc`, then `getLocMAP`
    for every threshold; the annotations are read once, and nothing is printed.

    Parameters
    ----------
    vid_preds, frm_preds, vid_lens, annotation_path
        As for `getActLoc`.
    args
        As for `getActLoc`, and the three numbers of the thresholds.

    Returns
    -------
    dmap_list : list of float64
    iou_list : list of float
        0.1, 0.2, ..., 0.7.

    Examples
    --------
    See `getActLoc`.
    """
    truth = _thumos.read_truth(annotation_path)
    found = _detect(truth, vid_preds, frm_preds, _thumos.thresholds_of(args), args)
    return _thumos.all_maps(found, truth, args)


# ----------------------------------------------------------------------------------------------- suppression and fusion
def NonMaximumSuppression(
    segs: ArrayLike, overlapThresh: float, lenth: Any, T: float = 0.01
) -> tuple[list[int], list[list[float]]]:
    """Picks of greedy suppression, and the fused segment of every pick's cluster.

    Replaces `NonMaximumSuppression` of zhou745/GauFuse_WSTAL, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    segs : (N, 5) array_like
        Rows [video, start, end, score, inner] of one video.
    overlapThresh : float
        In [0, 1].
    lenth
        Number of snippets (the original's spelling); not looked at.
    T : float, default 0.01
        Temperature, above 0.

    Returns
    -------
    pick : list of int64
        Indices into `segs`, best score first; ``[]`` for none.
    refined_seg : list of [video, start, end, score]
        One for every pick.

    Notes
    -----
    As `prediction_fuse_module`, on rows that begin with their video.

    Examples
    --------
    >>> pick, refined = NonMaximumSuppression([[3, 0, 10, 0.5, 0.6], [3, 2, 10, 0.4, 0.6]], 0.25, 12, T=0.2)
    >>> [int(row) for row in pick], refined
    ([0], [[3.0, 1.0, 10.0, 0.45]])
    """
    rows = as_rows(segs, "segs", "video, start, end, score, inner")
    pick, refined = prediction_fuse_module(rows[:, 1:], overlapThresh, T=T)
    return pick, [[float(rows[row, 0]), *fused] for row, fused in zip(pick, refined)]


def prediction_fuse_module(
    segs: ArrayLike, overlapThresh: float, fuse_power: Any = 10.5, T: float = 0.1
) -> tuple[list[int], list[list[float]]]:
    """Picks of greedy suppression, and the fused segment of every pick's cluster.

    Replaces `prediction_fuse_module` of zhou745/GauFuse_WSTAL, ``utils/utils.py``.

    Parameters
    ----------
    segs : (N, 4) array_like
        Rows [start, end, score, inner] of one class of one video, in snippets; any real dtype.
    overlapThresh : float
        In [0, 1]; rows that overlap a pick by more join its cluster.
    fuse_power
        Not looked at, as in the original.
    T : float, default 0.1
        Temperature, above 0.

    Returns
    -------
    pick : list of int64
        Indices into `segs`, best score first; ``[]`` for none.
    refined_seg : list of [start, end, score]
        One for every pick, in that order.

    Raises
    ------
    ValueError
        If a number is not finite, or a segment ends before it starts.

    Notes
    -----
    As published: the overlap is ``max(0, intersection + 1)`` over the length + 1 of the worse row; start, end and score
    become means weighted by ``w = exp(inner / T)``, divided by the sum of ``sign(inner) w``.

    What differs: no temperature overflows (the original's weights do where ``inner / T`` exceeds 709); where the sum of
    ``sign(inner) w`` is not positive, which the original turns into NaN, infinities or mirrored segments, it is the sum
    of w; an end before its start becomes the start; among equal scores the later row comes first.  It is
    `fuse_segments`.

    Examples
    --------
    >>> pick, refined = prediction_fuse_module([[0, 10, 0.5, 0.6], [2, 10, 0.4, 0.6], [20, 30, 0.1, 0.2]], 0.25)
    >>> [int(row) for row in pick], refined
    ([0, 2], [[1.0, 10.0, 0.45], [20.0, 30.0, 0.1]])
    """
    rows = as_rows(segs, "segs", "start, end, score, inner")[::-1]
    fused = fuse_segments(
        rows[:, :2],
        rows[:, 2],
        tiou_threshold=overlapThresh,
        temperature=T,
        weights=rows[:, 3],
        overlap="candidate",
        length_offset=1.0,
        signed_denominator=True,
    )
    return list(len(rows) - 1 - fused.picks), np.column_stack([fused.segments, fused.scores]).tolist()


# ------------------------------------------------------------------------------------------------------- pseudo labels
def generate_segs_eval(vid_preds: ArrayLike, frm_preds: ArrayLike, args: Any, num_cls: int = 21) -> list[np.ndarray]:
    """Fused segments of one video, class by class.

    Replaces `generate_segs_eval` of zhou745/GauFuse_WSTAL, ``utils/utils.py``.

    Parameters
    ----------
    vid_preds : (C,) array_like
        Class scores of the video.
    frm_preds : (T, C) array_like
        Its map.
    args
        ``class_threshold``, ``dist_temperature`` and the three numbers of the thresholds are read.
    num_cls : int, default 21
        So many columns are looked at; 21 has the background of THUMOS14 among them, as published.

    Returns
    -------
    list of (N, 3) ndarray of float64
        Rows [start, end, score] of every class, in snippets, best score first.

    Notes
    -----
    The chain is that of `getActLoc` with ``dist_temperature``, which is 0.1 by default and falls from 0.02 to 0.0016 in
    the original's schedule.  What differs: a class without segments has shape (0, 3), not ``[]``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> args = SimpleNamespace(class_threshold=0.16, start_threshold=0.001, end_threshold=0.04,
    ...                        threshold_interval=0.002, dist_temperature=0.1, feature_type="I3D")
    >>> tcam = np.array([[0.0, 0.1], [0.9, 0.1], [0.8, 0.1], [0.9, 0.1], [0.0, 0.1], [0.0, 0.1]])
    >>> [one.round(3).tolist() for one in generate_segs_eval([0.9, 0.1], tcam, args, num_cls=2)]
    [[[1.0, 5.0, 0.65]], []]
    """
    process = _thumos.chain("gaufuse", _thumos.thresholds_of(args), args.class_threshold)
    tcam, scores = np.asarray(frm_preds)[:, :num_cls], np.asarray(vid_preds)[:num_cls]
    found = _at(process, args.dist_temperature)(Video("", {"cas": tcam}, {"video": scores}))
    rows = np.column_stack([found.segments, found.scores])
    return _thumos.best_first(_thumos.by_class(rows, found.labels, num_cls))


def generate_segs(
    vid_preds: ArrayLike, frm_preds: ArrayLike, vid_lens: Any, gtlabels: Any, args: Any
) -> list[np.ndarray]:
    """Fused segments of one video, for as many classes as `gtlabels` has columns.

    Replaces `generate_segs` of zhou745/GauFuse_WSTAL, ``utils/utils.py``.

    Parameters
    ----------
    vid_preds : (C,) array_like
    frm_preds : (T, C) array_like
    vid_lens
        Not looked at, as in the original.
    gtlabels : (..., C) array or tensor
        Only its last length counts: as published, classes that the video does not show are searched, too.
    args
        As for `generate_segs_eval`.

    Returns
    -------
    list of (N, 3) ndarray of float64
        As of `generate_segs_eval`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> args = SimpleNamespace(class_threshold=0.16, start_threshold=0.001, end_threshold=0.04,
    ...                        threshold_interval=0.002, dist_temperature=0.1, feature_type="I3D")
    >>> len(generate_segs(np.zeros(3), np.zeros((5, 3)), 5, np.zeros((1, 3)), args))
    3
    """
    return generate_segs_eval(vid_preds, frm_preds, args, int(gtlabels.shape[-1]))


def compute_score_matrix(segment: ArrayLike, vid_lens: int) -> tuple[np.ndarray, np.ndarray]:
    """The linear system of GauFuse's pseudo labels.

    Replaces `compute_score_matrix` of zhou745/GauFuse_WSTAL, ``utils/utils.py``: the second function of that name,
    which hides the first.

    Parameters
    ----------
    segment : (N, 3) array_like
        Rows [start, end, score] of one class, in snippets.
    vid_lens : int
        T, the number of snippets.

    Returns
    -------
    Matrix : (N, T) ndarray of float64
        1 inside of a segment, -1 in its margins, 0 elsewhere.
    Score : (N,) ndarray of float64

    Notes
    -----
    As published: ``s = int(start)`` and ``e = int(end)``; margins of ``0.0785 (e - s) ** 0.9``, cut by ``int()``, the
    right one up to a snippet longer; the last snippet of the video is in no margin.  Nothing else of the library makes
    this matrix: `linpro_labels` solves the system without it.

    Examples
    --------
    >>> compute_score_matrix([[2, 5, 0.4]], 9)
    (array([[ 0., -1.,  1.,  1.,  1., -1.,  0.,  0.,  0.]]), array([0.4]))
    """
    rows = as_rows(segment, "segment", "start, end, score")
    left, start, stop, right = margin_bounds(_checks.as_segments(rows[:, :2]), vid_lens, _LINPRO).T[:, :, None]
    snippet = np.arange(vid_lens)
    inside = (start <= snippet) & (snippet < stop)
    window = (left <= snippet) & (snippet < right)
    return np.where(inside, 1.0, np.where(window, -1.0, 0.0)), rows[:, 2].astype(np.float64)


def convert_segment_to_tensor(
    prediction_list: Sequence[ArrayLike],
    vid_lens: int,
    cls_labels: Any = None,
    thresh_list: Any = None,
    num_cls: int = 21,
) -> np.ndarray:
    """Snippet-wise labels from segments, by linear programming.

    Replaces `convert_segment_to_tensor` of zhou745/GauFuse_WSTAL, ``utils/utils.py``.

    Parameters
    ----------
    prediction_list : sequence of (N, 3) array_like
        Rows [start, end, score] of every class, as `generate_segs` returns them.
    vid_lens : int
        T, the number of snippets.
    cls_labels, thresh_list
        Not looked at, nor does the original use them.
    num_cls : int, default 21
        Number of classes; `prediction_list` has at least as many entries.

    Returns
    -------
    (T, num_cls) ndarray of float64

    Notes
    -----
    As published, the labels g of a class are least in sum among those in [0, 1] with ``Matrix @ g = Score`` (see
    `compute_score_matrix`).  The original leaves the rest to SciPy, and with it to SciPy's version:

    * Usually many g have the same sum.  Up to version 1.8, on which the original was trained, SciPy's default is an
      interior-point method, which ends near the middle of them: a lone instance gets an even ``score / length``.
      Later versions end at a vertex: one snippet gets all.  Here it is always the one of least sum of squares, even in
      the same sense.  Sums are those of SciPy.
    * Where no g meets all scores, the original's column becomes NaN, and with it the loss.  Here it is the g of least
      ``sum |Matrix @ g - Score|``, then of least sum.  Labels are never NaN.

    It is `linpro_label_map` with the options of preset ``gaufuse``, which also says what is proven of the labels.

    Examples
    --------
    >>> convert_segment_to_tensor([[[2, 4, 0.5]], []], 6, num_cls=2).T
    array([[0.  , 0.  , 0.25, 0.25, 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  , 0.  , 0.  ]])
    """
    parts = [np.reshape(np.asarray(prediction_list[c], np.float64), (-1, 3)) for c in range(num_cls)]
    rows = np.concatenate([np.empty((0, 3)), *parts])
    found = Segments(rows[:, :2], np.repeat(np.arange(num_cls), [len(part) for part in parts]), rows[:, 2])
    return linpro_label_map(found, vid_lens, num_cls, **asdict(_LINPRO)).labels


def fuse_current_pred(
    d_o_out: Sequence[Tensor],
    d_m_out: Sequence[Tensor],
    d_em_out: Any,
    gtlabels: Any,
    args: Any,
    approach: str = "naive",
) -> Tensor:
    """Pseudo labels of one video from the outputs of both branches.

    Replaces `fuse_current_pred` of zhou745/GauFuse_WSTAL, ``utils/utils.py``.

    Parameters
    ----------
    d_o_out, d_m_out : sequence of tensors
        Outputs of the two branches for a batch of one: item 0 the class scores (1, C), item 2 the attention (1, T),
        item 3 the class logits (1, T, C), with C = 21.
    d_em_out
        Not looked at, as in the original.
    gtlabels : (..., C) tensor
        Only its last length counts.
    args
        ``frm_coef_pseudo``, and what `generate_segs_eval` reads.
    approach : "naive"
        The only one there is.

    Returns
    -------
    (T, 21) tensor of float64
        On the device of ``d_o_out[0]``, without gradient.

    Raises
    ------
    MissingExtraError
        If torch is not installed.

    Notes
    -----
    As published: map = (``frm_coef_pseudo`` softmax(o) + (1 - ``frm_coef_pseudo``) softmax(m)) * attention of o, video
    scores = 0.6 o + 0.4 m; then `generate_segs` and `convert_segment_to_tensor`, on the CPU.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> args = SimpleNamespace(class_threshold=0.16, start_threshold=0.001, end_threshold=0.04, feature_type="I3D",
    ...                        threshold_interval=0.002, dist_temperature=0.1, frm_coef_pseudo=0.8)
    >>> out = [torch.ones(1, 21), None, torch.ones(1, 8), torch.zeros(1, 8, 21)]
    >>> labels = fuse_current_pred(out, out, None, torch.zeros(1, 21), args)
    >>> labels.shape, labels.dtype
    (torch.Size([8, 21]), torch.float64)
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "torch", "compat.gaufuse.fuse_current_pred") from None
    _checks.as_choice(approach, "approach", ("naive",))
    with torch.no_grad():
        share = args.frm_coef_pseudo
        tcam = d_o_out[3].softmax(-1) * share + d_m_out[3].softmax(-1) * (1 - share)
        tcam = (tcam * d_o_out[2][..., None]).squeeze(0).cpu().numpy()
        scores = (d_o_out[0] * 0.6 + d_m_out[0] * 0.4).squeeze(0).cpu().numpy()
    labels = convert_segment_to_tensor(generate_segs(scores, tcam, len(tcam), gtlabels, args), len(tcam))
    return torch.from_numpy(labels).to(d_o_out[0].device)
