"""RSKP: ``evaluation/detectionMAP.py`` of LeonHLJ/RSKP (CVPR 2022), function by function.

`args` is the namespace of the original's options, or any object with the attributes that a function reads:
``feature_type`` ("I3D", or "UNT" for UntrimmedNet), ``class_threshold``, ``start_threshold``, ``end_threshold`` and
``threshold_interval``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _thumos
from ._thumos import StrPath, Truth

__all__ = ["NonMaximumSuppression", "getActLoc", "getDetectionMAP", "getLocMAP"]


def getActLoc(
    vid_preds: Sequence[ArrayLike],
    frm_preds: Sequence[ArrayLike],
    vid_lens: Any,
    act_thresh_cas: ArrayLike,
    annotation_path: StrPath,
    args: Any,
) -> list[np.ndarray]:
    """Detections of all test videos, class by class.

    Replaces `getActLoc` of LeonHLJ/RSKP, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    vid_preds : sequence of (C,) array_like
        Class scores of every test video, in the order of the annotations; more columns, the background's say, are
        not looked at.
    frm_preds : sequence of (T, C) array_like
        Their maps; T differs.
    vid_lens
        Not looked at, as in the original.
    act_thresh_cas : (M,) array_like
        Thresholds.
    annotation_path : str or path
        Folder with ``segments.npy``, ``labels.npy``, ``videoname.npy``, ``subset.npy``, ``classlist.npy`` and perhaps
        ``Ambiguous_test.txt``.
    args
        ``class_threshold`` and ``feature_type`` are read.

    Returns
    -------
    list of (N, 4) ndarray of float64
        Rows [video, start, end, score], in snippets, best score first; one array for every class that has an instance
        in the test videos, in the alphabetical order of the names.  Videos count from 0 among those with an instance.

    Raises
    ------
    FileNotFoundError, FormatError
        If the folder is not what it should be.
    ValueError
        If a map or score is not finite or of the wrong shape; the message names the video.

    Notes
    -----
    As published: runs of at least 2 snippets where ``x > threshold``; the end is one snippet late; the snippet after
    the run counts as inside and the last snippet of the video never as outside; score = inside - outside, margins of
    ``0.25 n`` cut by ``int()``; classes with a video score of at least ``class_threshold``; NMS over the candidate's
    length at 0.5; detections that share a snippet with an ambiguous span go, and without the list none do.

    What differs: a class without detections has shape (0, 4), not ``[]`` or ``(0,)``; among equal scores the video
    that comes first, and within a video the proposal found last, stands first (the original's order is that of an
    unstable sort); means are taken in float64, the original takes those of float32 maps in float32; object arrays are
    read by a reader that runs nothing.  Videos are worked on by all cores.  O(T + runs) per class and video.

    Examples
    --------
    A data set of one test video:

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
    >>> args = SimpleNamespace(feature_type="I3D", class_threshold=0.1, start_threshold=0.001, end_threshold=0.04,
    ...                        threshold_interval=0.002)
    >>> tcam = np.array([[0.0], [0.9], [0.8], [0.9], [0.0], [0.0]])
    >>> getActLoc([[0.9]], [tcam], None, np.arange(0.001, 0.04, 0.002), folder, args)[0].round(3).tolist()
    [[0.0, 1.0, 5.0, 0.65]]
    >>> dmap_list, iou_list = getDetectionMAP([[0.9]], [tcam], None, folder, args)
    >>> float(np.mean(dmap_list)), iou_list[-1]
    (100.0, 0.7)
    """
    truth = _thumos.read_truth(annotation_path)
    return _detect(truth, vid_preds, frm_preds, act_thresh_cas, args)


def _detect(
    truth: Truth, vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], thresholds: ArrayLike, args: Any
) -> list[np.ndarray]:
    process = _thumos.chain("rskp", thresholds, args.class_threshold)
    rate = _thumos.snippets_per_second(args)
    return _thumos.best_first(_thumos.detect(process, truth, vid_preds, frm_preds, rate))


def NonMaximumSuppression(segs: ArrayLike, overlapThresh: float) -> list[int]:
    """Rows that greedy suppression leaves, best score first.

    Replaces `NonMaximumSuppression` of LeonHLJ/RSKP, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    segs : (N, 4 or more) array_like
        Rows [video, start, end, score, ...] of one video; the video is not looked at.  Any real dtype.
    overlapThresh : float
        In [0, 1]; a row goes when its overlap with a better one is greater.

    Returns
    -------
    list of int64
        Indices into `segs`; ``[]`` for none.

    Raises
    ------
    ValueError
        If a boundary or score is not finite, or a segment ends before it starts.

    Notes
    -----
    As published: the overlap is ``max(0, intersection + 1)`` over the length + 1 of the worse row alone, so that a long
    segment survives a short one within it.  Among equal scores the later row comes first, which is what the original's
    sort does where it happens to be stable.  O(N log N).

    Examples
    --------
    >>> [int(row) for row in NonMaximumSuppression([[0, 1, 9, 0.5], [0, 2, 8, 0.9], [0, 20, 30, 0.1]], 0.5)]
    [1, 2]
    """
    return list(_thumos.suppress(segs, overlapThresh))


def getLocMAP(seg_preds: Sequence[ArrayLike], th: float, annotation_path: StrPath, args: Any) -> float:
    """mAP of detections at one tIoU threshold, in percent.

    Replaces `getLocMAP` of LeonHLJ/RSKP, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    seg_preds : sequence of (N, 4) array_like
        What `getActLoc` returned.
    th : float
        tIoU from which on a detection counts, in (0, 1].
    annotation_path : str or path
        The annotation folder.
    args
        ``feature_type`` is read.

    Returns
    -------
    float64
        In percent; 0 where a class has no detection.

    Raises
    ------
    IndexError
        If `seg_preds` has fewer entries than a class id asks for.

    Warns
    -----
    UserWarning
        If a class without detections makes the whole mAP 0.

    Notes
    -----
    As published: the rows of class c are looked for at ``seg_preds[c]``, although the list has one entry per class
    *with instances*, which is the same only where those are classes 0 to K - 1 in alphabetical order (THUMOS14 is such
    a case); one class without detections makes the mAP of all classes 0; detections become ``int(t)`` and the ground
    truth ``round(25 / 16 t)`` (``10 / 4`` for UNT) snippets; the best instance that is left is taken; AP is
    interpolated.

    What differs: equal scores keep the order of their rows, and a detection and an instance that are both without
    length overlap by 0, where the original divides by zero.  It is `mean_average_precision` with
    ``protocol="wtalc_interpolated"``.

    Examples
    --------
    See `getActLoc`.
    """
    truth = _thumos.read_truth(annotation_path)
    return _thumos.localization_map(seg_preds, [th], truth, _thumos.snippets_per_second(args))[0]


def getDetectionMAP(
    vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], vid_lens: Any, annotation_path: StrPath, args: Any
) -> tuple[list[float], list[float]]:
    """mAP of a model's output at tIoU 0.1 to 0.7.

    Replaces `getDetectionMAP` of LeonHLJ/RSKP, ``evaluation/detectionMAP.py``: `getActLoc`, then `getLocMAP` for every
    threshold; the annotations are read once, and nothing is printed.

    Parameters
    ----------
    vid_preds, frm_preds, vid_lens, annotation_path
        As for `getActLoc`.
    args
        The attributes at the head of this page; thresholds are ``arange(start_threshold, end_threshold,
        threshold_interval)``.

    Returns
    -------
    dmap_list : list of float64
        In percent.
    iou_list : list of float
        0.1, 0.2, ..., 0.7.

    Examples
    --------
    See `getActLoc`.
    """
    truth = _thumos.read_truth(annotation_path)
    found = _detect(truth, vid_preds, frm_preds, _thumos.thresholds_of(args), args)
    return _thumos.all_maps(found, truth, args)
