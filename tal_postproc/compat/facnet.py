"""FAC-Net: ``evaluation/detectionMAP.py`` of LeonHLJ/FAC-Net (ICCV 2021), function by function.

`args` is the namespace of the original's options, or any object with the attributes that a function reads:
``feature_type`` ("I3D", or "UNT" for UntrimmedNet), ``class_threshold``, ``start_threshold``, ``end_threshold``,
``threshold_interval`` and, for two streams, ``class_num``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _thumos
from ._thumos import StrPath, Truth
from .rskp import NonMaximumSuppression, getLocMAP

__all__ = [
    "IntergrateSegs",
    "NonMaximumSuppression",
    "getActLoc",
    "getLocMAP",
    "getSingleStreamDetectionMAP",
    "getTwoStreamDetectionMAP",
]

NUM_VID = 212  # videos that `IntergrateSegs` knows: the test set of THUMOS14


def getActLoc(
    vid_preds: Sequence[ArrayLike],
    frm_preds: Sequence[ArrayLike],
    vid_lens: Any,
    act_thresh_cas: ArrayLike,
    annotation_path: StrPath,
    args: Any,
) -> list[np.ndarray]:
    """Detections of all test videos of one stream, class by class.

    Replaces `getActLoc` of LeonHLJ/FAC-Net, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    vid_preds : sequence of (C,) array_like
        Class scores of every test video, in the order of the annotations.
    frm_preds : sequence of (T, C) array_like
        Their maps; T differs.
    vid_lens
        Not looked at, as in the original.
    act_thresh_cas : (M,) array_like
        Thresholds.
    annotation_path : str or path
        The annotation folder, as for `rskp.getActLoc`.
    args
        ``class_threshold`` and ``feature_type`` are read.

    Returns
    -------
    list of (N, 4) ndarray of float64
        Rows [video, start, end, score] in snippets, by video, then best score first; one array per class with
        instances.

    Notes
    -----
    As published, and unlike RSKP: runs of at least 3 snippets, score = inside - 0.6 outside, NMS at 0.2, and rows are
    not sorted over videos.  All else, and what differs from the original, is as `rskp.getActLoc` says.

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
    >>> args = SimpleNamespace(feature_type="I3D", class_threshold=0.1, start_threshold=0.03, end_threshold=0.055,
    ...                        threshold_interval=0.005, class_num=1)
    >>> tcam = np.array([[0.0], [0.9], [0.8], [0.9], [0.0], [0.0]])
    >>> getActLoc([[0.9]], [tcam], None, np.arange(0.03, 0.055, 0.005), folder, args)[0].round(3).tolist()
    [[0.0, 1.0, 5.0, 0.65]]
    >>> float(np.mean(getTwoStreamDetectionMAP([[0.9]], [[0.9]], [tcam], [tcam], None, folder, args)[0]))
    100.0
    """
    return _detect(_thumos.read_truth(annotation_path), vid_preds, frm_preds, act_thresh_cas, args)


def _detect(
    truth: Truth, vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], thresholds: ArrayLike, args: Any
) -> list[np.ndarray]:
    process = _thumos.chain("facnet", thresholds, args.class_threshold)
    return _thumos.detect(process, truth, vid_preds, frm_preds, _thumos.snippets_per_second(args))


def IntergrateSegs(
    rgb_segs: Sequence[ArrayLike], flow_segs: Sequence[ArrayLike], th: float, args: Any
) -> list[np.ndarray]:
    """The detections of two streams as one list.

    Replaces `IntergrateSegs` of LeonHLJ/FAC-Net, ``evaluation/detectionMAP.py`` (its spelling).

    Parameters
    ----------
    rgb_segs, flow_segs : sequence of (N, 4) array_like
        What `getActLoc` returned for either stream.
    th : float
        Threshold of `NonMaximumSuppression` over both streams.
    args
        ``class_num`` is read: so many entries of both lists are merged.

    Returns
    -------
    list of (N, 4) ndarray of float64
        Rows [video, start, end, score] of every class, video by video: best score first where both streams have rows,
        else as they came.

    Notes
    -----
    As published: NMS runs only in videos with rows of both streams, and videos from number 212 (`NUM_VID`) on are lost.
    What differs: a class without rows is fine, where the original stops with an IndexError; among equal scores the
    later row comes first, those of flow before those of RGB.  O(N log N).

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> rgb, flow = [[[0, 1, 9, 0.05], [3, 1, 4, 0.01]]], [[[0, 1, 9, 0.5]]]
    >>> IntergrateSegs(rgb, flow, 0.9, SimpleNamespace(class_num=1))[0].tolist()
    [[0.0, 1.0, 9.0, 0.5], [3.0, 1.0, 4.0, 0.01]]
    """
    streams = [
        [np.reshape(np.asarray(segs[c], np.float64), (-1, 4)) for c in range(args.class_num)]
        for segs in (rgb_segs, flow_segs)
    ]
    parts = [part for both in zip(*streams) for part in both]  # class by class, RGB before flow
    rows = np.concatenate([np.empty((0, 4)), *parts])
    part = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    known = (rows[:, 0] >= 0) & (rows[:, 0] < NUM_VID)
    rows, part = rows[known], part[known]
    group = (part // 2) * NUM_VID + rows[:, 0].astype(np.int64)
    mixed = np.isin(group, np.intersect1d(group[part % 2 == 0], group[part % 2 == 1]))
    candidates = np.flatnonzero(mixed)
    kept = candidates[_thumos.suppress(rows[candidates], th, group[candidates])]
    chosen = np.concatenate([np.flatnonzero(~mixed), kept])
    chosen = chosen[np.argsort(group[chosen], kind="stable")]
    return _thumos.by_class(rows[chosen], part[chosen] // 2, args.class_num)


def getSingleStreamDetectionMAP(
    vid_preds: Sequence[ArrayLike], frm_preds: Sequence[ArrayLike], vid_lens: Any, annotation_path: StrPath, args: Any
) -> tuple[list[float], list[float]]:
    """mAP of one stream at tIoU 0.1 to 0.7, in percent.

    Replaces `getSingleStreamDetectionMAP` of LeonHLJ/FAC-Net, ``evaluation/detectionMAP.py``: `getActLoc`, then
    `getLocMAP` for every threshold; nothing is printed.

    Parameters
    ----------
    vid_preds, frm_preds, vid_lens, annotation_path
        As for `getActLoc`.
    args
        The attributes at the head of this page, without ``class_num``.

    Returns
    -------
    dmap_list : list of float64
    iou_list : list of float

    Notes
    -----
    Interpolated AP, best instance first.  Early versions of the repository took the first instance that fits and did
    not interpolate; that is `wtalc`'s rule, see `mean_average_precision` with ``protocol="wtalc"``.

    Examples
    --------
    See `getActLoc`.
    """
    truth = _thumos.read_truth(annotation_path)
    found = _detect(truth, vid_preds, frm_preds, _thumos.thresholds_of(args), args)
    return _thumos.all_maps(found, truth, args)


def getTwoStreamDetectionMAP(
    rgb_vid_preds: Sequence[ArrayLike],
    flow_vid_preds: Sequence[ArrayLike],
    rgb_frm_preds: Sequence[ArrayLike],
    flow_frm_preds: Sequence[ArrayLike],
    vid_lens: Any,
    annotation_path: StrPath,
    args: Any,
) -> tuple[list[float], list[float]]:
    """mAP of both streams together at tIoU 0.1 to 0.7, in percent.

    Replaces `getTwoStreamDetectionMAP` of LeonHLJ/FAC-Net, ``evaluation/detectionMAP.py``.

    Parameters
    ----------
    rgb_vid_preds, flow_vid_preds : sequence of (C,) array_like
        Class scores of every test video.
    rgb_frm_preds, flow_frm_preds : sequence of (T, C) array_like
        Maps of every test video.
    vid_lens, annotation_path
        As for `getActLoc`.
    args
        The attributes at the head of this page.

    Returns
    -------
    dmap_list : list of float64
    iou_list : list of float

    Notes
    -----
    As published: maps and thresholds of the RGB stream are both multiplied by 0.1, so that it finds the same segments
    and its scores come below those of flow; `IntergrateSegs` at 0.9.

    Examples
    --------
    See `getActLoc`.
    """
    truth = _thumos.read_truth(annotation_path)
    thresholds = _thumos.thresholds_of(args)
    dimmed = [np.asarray(tcam) * 0.1 for tcam in rgb_frm_preds]
    rgb = _detect(truth, rgb_vid_preds, dimmed, thresholds * 0.1, args)
    flow = _detect(truth, flow_vid_preds, flow_frm_preds, thresholds, args)
    return _thumos.all_maps(IntergrateSegs(rgb, flow, 0.9, args), truth, args)
