"""BSN (wzmsltw/BSN-boundary-sensitive-network): the soft-NMS of ``Post_processing.py``.  Needs pandas."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..suppression import soft_nms
from ._evaluator import table

__all__ = ["Soft_NMS"]

MOST = 101  # rows that the original returns at most


def Soft_NMS(df: Any) -> Any:
    """Soft-NMS of proposals in fractions of the video: ``Post_processing.py: Soft_NMS``.

    Scores decay by ``exp(-iou ** 2 / 0.75)`` where ``iou > 0.65 + 0.25 * length of the pick``.

    Parameters
    ----------
    df : DataFrame
        Columns ``xmin``, ``xmax`` (start and end in [0, 1], start <= end) and ``score`` (not negative); others do not
        matter.

    Returns
    -------
    DataFrame
        Columns ``score``, ``xmin``, ``xmax`` (float64), best new score first; the earlier row first among equals.

    Notes
    -----
    As published: it stops when one row is left, which is not returned, and after 101 rows; the paper's threshold is
    0.65 without the length.

    Examples
    --------
    >>> import pandas as pd
    >>> Soft_NMS(pd.DataFrame({"xmin": [0.0, 0.0, 0.5], "xmax": [0.3, 0.3, 0.9], "score": [0.9, 0.8, 0.4]}))
       score  xmin  xmax
    0    0.9   0.0   0.3
    1    0.4   0.5   0.9
    """
    segments = np.column_stack([np.asarray(df[name], np.float64) for name in ("xmin", "xmax")])
    most = min(max(len(segments) - 1, 0), MOST)
    scores = np.asarray(df["score"], np.float64)
    keep, new_scores = soft_nms(segments, scores, method="gated", gate=(0.65, 0.25), sigma=0.75, max_detections=most)
    return table({"score": new_scores, "xmin": segments[keep, 0], "xmax": segments[keep, 1]}, "compat.bsn")
