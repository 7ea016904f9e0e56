"""ACM-Net (ispc-lab/ACM-Net): ``utils/net_evaluation.py``; most of it went into ASM-Loc as it is, see `asmloc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from . import asmloc
from .asmloc import compute_average_precision_detection, get_temp_proposal, nms, result2json, upgrade_resolution

__all__ = [
    "ANETDetection",
    "compute_average_precision_detection",
    "get_proposal_oic",
    "get_temp_proposal",
    "nms",
    "result2json",
    "upgrade_resolution",
]


def get_proposal_oic(
    tempseg_list: Sequence[Any],
    int_temp_scores: ArrayLike,
    c_pred: Any,
    c_pred_scores: Any,
    t_factor: float,
    lamb: float = 0.25,
    gamma: float = 0.20,
) -> list[list[list[Any]]]:
    """Outer-inner contrast of the runs of positions, in seconds: `asmloc.get_proposal_oic` without its warp.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.array([[0.1], [0.9], [0.8], [0.1]])
    >>> [[row]] = get_proposal_oic([np.where(scores[:, 0] > 0.5)], scores, [1], [0, 0.5], 0.64)
    >>> np.array(row).round(4).tolist()
    [1.0, 0.85, 0.64, 1.92]
    """
    return asmloc.get_proposal_oic(tempseg_list, int_temp_scores, c_pred, c_pred_scores, t_factor, lamb, gamma)


class ANETDetection(asmloc.ANETDetection):
    """The copy of ACM-Net: as `asmloc.ANETDetection`, but an unknown label is a KeyError, and it is verbose.

    The average is over all thresholds.
    """

    _skips_unknown: ClassVar[bool] = False

    def __init__(
        self,
        ground_truth_file: Any = None,
        prediction_file: Any = None,
        ground_truth_fields: Sequence[str] | None = None,
        prediction_fields: Sequence[str] | None = None,
        tiou_thresholds: Any = None,
        subset: str = "validation",
        verbose: bool = True,
        check_status: bool = True,
    ) -> None:
        fields = ground_truth_fields, prediction_fields
        super().__init__(ground_truth_file, prediction_file, *fields, tiou_thresholds, subset, verbose, check_status)
