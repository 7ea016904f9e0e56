"""W-TALC: ``detectionMAP.py`` of sujoyp/wtalc-pytorch (ECCV 2018), which detects and evaluates in one.

`args` is any object with the attribute ``feature_type`` ("I3D", or "UNT" for UntrimmedNet).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import presets
from ..pipeline import PostProcessor
from . import _thumos
from ._thumos import StrPath

__all__ = ["getDetectionMAP", "getLocMAP"]

_CHAIN = replace(presets.get("wtalc"), num_classes=None)


def getLocMAP(predictions: Sequence[ArrayLike], th: float, annotation_path: StrPath, args: Any) -> float:
    """Detections of a model's output, and their mAP at one tIoU threshold, in percent.

    Replaces `getLocMAP` of sujoyp/wtalc-pytorch, ``detectionMAP.py``.

    Parameters
    ----------
    predictions : sequence of (T, C) array_like
        The map of every test video, in the order of the annotations; T differs.
    th : float
        tIoU from which on a detection counts, in (0, 1].
    annotation_path : str or path
        Folder with ``segments.npy``, ``labels.npy``, ``videoname.npy``, ``subset.npy``, ``classlist.npy`` and
        ``Ambiguous_test.txt``.
    args
        ``feature_type`` is read.

    Returns
    -------
    float64
        In percent; 0 where a class has no detection.

    Raises
    ------
    FileNotFoundError
        If a file is missing; as published, the list of ambiguous spans must be there.
    ValueError
        If a map is not finite or of the wrong shape; the message names the video.

    Warns
    -----
    UserWarning
        If a class without detections makes the whole mAP 0.

    Notes
    -----
    As published: one threshold per class and video, ``max - 0.5 (max - min)``, and ``>``; runs of at least 2 snippets,
    half-open; score = largest value inside + 0.7 s, where s is the mean of the ``int(T / 8)`` largest values of the
    class; classes with s <= 0, and all of a video of fewer than 8 snippets, find nothing; no NMS; detections on
    ambiguous spans go; the first instance that fits is taken; AP is not interpolated.

    What differs: equal scores come by video, then by time (the original's sort is unstable); float32 maps are worked
    on in float64; two empty segments overlap by 0.  It is `mean_average_precision` with ``protocol="wtalc"``.  Videos
    are worked on by all cores.

    Examples
    --------
    >>> import os, tempfile
    >>> from types import SimpleNamespace
    >>> folder = tempfile.mkdtemp()
    >>> spans = np.empty(1, object)
    >>> spans[0] = [[0.64, 2.56]]
    >>> names = np.empty(1, object)
    >>> names[0] = ["Diving"]
    >>> for stem, array in {"segments": spans, "labels": names, "videoname": [b"clip"], "subset": [b"test"]}.items():
    ...     np.save(os.path.join(folder, stem + ".npy"), array)
    >>> np.save(os.path.join(folder, "classlist.npy"), [b"Diving"])
    >>> open(os.path.join(folder, "Ambiguous_test.txt"), "w").close()
    >>> tcam = np.array([[0.0], [0.9], [0.8], [0.9], [0.0], [0.0], [0.0], [0.0]])
    >>> float(getLocMAP([tcam], 0.5, folder, SimpleNamespace(feature_type="I3D")))
    100.0
    """
    return _maps(predictions, [th], annotation_path, args)[0]


def getDetectionMAP(
    predictions: Sequence[ArrayLike], annotation_path: StrPath, args: Any
) -> tuple[list[float], list[float]]:
    """mAP of a model's output at tIoU 0.1 to 0.5, in percent.

    Replaces `getDetectionMAP` of sujoyp/wtalc-pytorch, ``detectionMAP.py``: `getLocMAP` for every threshold, but what
    does not depend on it is done once, and nothing is printed.

    Parameters
    ----------
    predictions, annotation_path, args
        As for `getLocMAP`.

    Returns
    -------
    dmap_list : list of float64
    iou_list : list of float

    Examples
    --------
    See `getLocMAP`.
    """
    ious = list(_thumos.IOUS[:5])
    return _maps(predictions, ious, annotation_path, args), ious


def _maps(predictions: Sequence[ArrayLike], ious: list[float], annotation_path: StrPath, args: Any) -> list[float]:
    truth, rate = _thumos.read_truth(annotation_path), _thumos.snippets_per_second(args)
    if truth.ambiguous is None:
        missing = os.path.join(annotation_path, "Ambiguous_test.txt")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), missing)
    # an eighth of fewer than 8 snippets is none: no class passes; the chain would look at one snippet
    scores = [None if len(one) >= 8 else np.zeros(one.shape[1]) for one in map(np.asarray, predictions)]
    found = _thumos.detect(PostProcessor(_CHAIN), truth, scores, predictions, rate)
    rows: dict[int, np.ndarray] = dict(zip(truth.classes.tolist(), found))
    per_class = [rows.get(c, np.empty((0, 4))) for c in range(max(rows, default=-1) + 1)]
    return list(_thumos.localization_map(per_class, ious, truth, rate, "wtalc"))
