"""The official ActivityNet evaluator: ``Evaluation/eval_detection.py`` of activitynet/ActivityNet.

The copies of it stand with their codebases (`asmloc`, `acmnet`, `hamnet`, `co2net`, `delu`, `pmil`, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ._evaluator import JsonEvaluator, compute_average_precision_detection

__all__ = ["ANETdetection", "compute_average_precision_detection"]


class ANETdetection(JsonEvaluator):
    """mAP of detections in seconds, without joblib and without the network.

    Replaces the class of that name; needs pandas, because its tables are DataFrames.

    Parameters
    ----------
    ground_truth_filename, prediction_filename : str or path
        JSON files in the format of ActivityNet; times in one unit, whatever it is.
    ground_truth_fields, prediction_fields : sequence of str
        Keys that the files must have, else OSError.  Default: the class attributes.
    tiou_thresholds : (I,) array_like, default linspace(0.5, 0.95, 10)
        In (0, 1].
    subset : str, default "validation"
        Videos of the ground truth that count.
    verbose : bool, default False
        Print how much came in and the average mAP.
    check_status : bool, default True
        As published, True asks a server for videos to leave out.  Nothing is fetched here: True warns that no video is
        left out, which is what the original does where the list is empty.

    Attributes
    ----------
    ground_truth, prediction : DataFrame
        Columns ``video-id``, ``t-start``, ``t-end``, ``label`` (int64) and ``score``.
    activity_index : dict
        Label -> class number, in the order in which labels first appear in the ground truth.
    video_lst : list of str
        The video of every row of `ground_truth`.
    ap : (I, K) ndarray, None before `evaluate`
    mAP : (I,) ndarray of float64
    average_mAP : float

    Raises
    ------
    KeyError
        For a prediction of a label that the ground truth does not have, as published.

    Notes
    -----
    What differs: a class without predictions has AP 0 (the original stops with a KeyError), two empty intervals do not
    match, and equal scores keep the order of their rows (the original reverses most of them).  It is
    `mean_average_precision` with ``protocol="activitynet"``, which costs two sorts; the original starts one process per
    class.

    Examples
    --------
    >>> import json, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> truth = {"taxonomy": [], "version": "", "database": {
    ...     "a": {"subset": "validation", "annotations": [{"label": "Diving", "segment": [0, 10]}]}}}
    >>> found = {"version": "", "external_data": {}, "results": {
    ...     "a": [{"label": "Diving", "score": 0.9, "segment": [0, 8]}]}}
    >>> for name, data in (("gt", truth), ("found", found)):
    ...     _ = (folder / name).write_text(json.dumps(data))
    >>> anet = ANETdetection(folder / "gt", folder / "found", tiou_thresholds=[0.5, 0.9], check_status=False)
    >>> anet.evaluate()
    >>> anet.mAP, anet.activity_index
    (array([1., 0.]), {'Diving': 0})
    """

    GROUND_TRUTH_FIELDS: ClassVar[list[str]] = ["database", "taxonomy", "version"]

    def __init__(
        self,
        ground_truth_filename: Any = None,
        prediction_filename: Any = None,
        ground_truth_fields: Sequence[str] | None = None,
        prediction_fields: Sequence[str] | None = None,
        tiou_thresholds: Any = None,
        subset: str = "validation",
        verbose: bool = False,
        check_status: bool = True,
    ) -> None:
        super().__init__(
            ground_truth_filename,
            prediction_filename,
            ground_truth_fields,
            prediction_fields,
            tiou_thresholds,
            subset,
            verbose,
            check_status,
        )

    def evaluate(self) -> None:
        """Set `ap`, `mAP` and `average_mAP`; returns nothing, as published."""
        super().evaluate()
