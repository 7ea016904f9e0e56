"""ensemble-boxes (ZFTurbo/Weighted-Boxes-Fusion): ``weighted_boxes_fusion_1d``.

The package's ``nms`` and ``soft_nms`` are for boxes in two dimensions; `tal_postproc.nms` is for segments.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import Float
from ..fusion import weighted_segment_fusion

__all__ = ["weighted_boxes_fusion_1d"]


def weighted_boxes_fusion_1d(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: Any = "avg",
    allows_overflow: bool = False,
) -> tuple[Float, Float, Float]:
    """Weighted boxes fusion of segments in [0, 1]: ``ensemble_boxes.weighted_boxes_fusion_1d``.

    Parameters
    ----------
    boxes_list : sequence of (N_m, 2) array_like of float
        One per model.  As published, divide by the duration first: what lies outside [0, 1] is clipped, with a warning.
        `tal_postproc.weighted_segment_fusion` takes seconds.
    scores_list, labels_list : sequence of (N_m,) array_like
        Labels are cut to whole numbers.
    weights : (M,) array_like of float, optional
        Of the models, > 0.  Default, and with a warning for a wrong number of them: all 1.
    iou_thr : float, default 0.55
        A segment joins the cluster whose running mean it overlaps most, if that is more than this.
    skip_box_thr : float, default 0
        Segments with a lower score are left out.
    conf_type : {"avg", "max", "box_and_model_avg", "absent_model_aware_avg"}
    allows_overflow : bool, default False
        Let scores of "avg" exceed 1; the others do not read it.

    Returns
    -------
    boxes, scores, labels : (M, 2), (M,), (M,) ndarray of float64
        Best score first; among equals the smaller label.

    Raises
    ------
    ValueError
        Where the original prints and ends the process: lists of different lengths, an unknown `conf_type`.

    Warns
    -----
    UserWarning
        Once per kind of repair, as published: an end before its start is swapped, values are clipped to [0, 1],
        segments without length are left out.

    Notes
    -----
    As published: fused boundaries are float32 numbers (in a float64 array), labels are floats.  What differs: running
    means are kept in float64, so that boundaries and scores agree to about 1e-7, and a segment that meets `iou_thr`
    exactly may fall on the other side; members whose scores are all 0 are fused to the first of them (NaN in the
    original).  Cost: near-linear; the original takes time rows x clusters.

    Examples
    --------
    >>> boxes = [[[0.0, 0.5]], [[0.1, 0.5], [0.8, 0.9]]]
    >>> boxes, scores, labels = weighted_boxes_fusion_1d(boxes, [[0.6], [0.6, 0.4]], [[0], [0, 3]])
    >>> boxes.round(6), scores, labels
    (array([[0.05, 0.5 ],
           [0.8 , 0.9 ]]), array([0.6, 0.2]), array([0., 3.]))
    """
    if len(scores_list) != len(boxes_list) or len(labels_list) != len(boxes_list):
        lengths = f"{len(boxes_list)}, {len(scores_list)} and {len(labels_list)}"
        raise ValueError(f"`boxes_list`, `scores_list` and `labels_list` must have one entry per model, got {lengths}")
    if weights is not None and np.shape(weights) != (len(boxes_list),):
        warnings.warn(
            f"`weights` must have one entry per model ({len(boxes_list)}), got shape {np.shape(weights)}: all are 1",
            stacklevel=2,
        )
        weights = None
    parts, changed = [], np.zeros(len(_REPAIRS), np.int64)
    for m, given in enumerate(zip(boxes_list, scores_list, labels_list)):
        part, repairs = _model(m, *given, skip_box_thr)
        parts.append(part)
        changed += repairs
    for count, repair in zip(changed.tolist(), _REPAIRS):
        if count:
            warnings.warn(f"{count} segments {repair}", stacklevel=2)

    names = np.unique(np.concatenate([np.empty(0), *(labels for _, _, labels in parts)]))  # any, also negative ones
    fused = weighted_segment_fusion(
        [boxes for boxes, _, _ in parts],
        [scores for _, scores, _ in parts],
        [np.searchsorted(names, labels) for _, _, labels in parts],
        model_weights=weights,
        tiou_threshold=iou_thr,
        min_score=skip_box_thr,
        conf_type=conf_type,
        allows_overflow=bool(allows_overflow) and conf_type == "avg",
    )
    rounded = fused.segments.astype(np.float32).astype(np.float64)
    return np.where(fused.sizes[:, None] > 1, rounded, fused.segments), fused.scores, names[fused.labels]


_REPAIRS = (
    "end before they start: swapped",
    "reach out of [0, 1]: clipped; divide by the duration first",
    "have no length: left out",
)


def _model(
    m: int, boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike, least: float
) -> tuple[tuple[Float, Float, Float], list[int]]:
    """The rows of model m that take part, and how many were repaired in which way."""
    rows = np.asarray(_checks.as_real(boxes, f"boxes_list[{m}]"), np.float64)
    rows = rows.reshape(0, 2) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise ValueError(f"`boxes_list[{m}]` must have shape (N, 2), got shape {rows.shape}")
    values = _checks.as_values(scores, len(rows), f"scores_list[{m}]")
    kinds = np.trunc(_checks.as_values(labels, len(rows), f"labels_list[{m}]"))
    able = values >= least
    rows, values, kinds = rows[able], values[able], kinds[able]
    swapped = rows[:, 0] > rows[:, 1]
    outside = ((rows < 0) | (rows > 1)).any(axis=1)
    rows = np.sort(rows, axis=1).clip(0.0, 1.0)
    empty = rows[:, 0] == rows[:, 1]
    repairs = [int(kind.sum()) for kind in (swapped, outside, empty)]
    return (rows[~empty], values[~empty], kinds[~empty]), repairs
