"""What the copies of ActivityNet's evaluator share: tables in, average precisions out, no worker processes.

A table is a pandas DataFrame with the columns ``video-id``, ``t-start``, ``t-end``, ``label`` and perhaps ``score``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .._checks import Float
from ..evaluation import PROTOCOLS, distinct_rows, mean_average_precision
from ..types import MeanAveragePrecision, MissingExtraError


def table(columns: Mapping[str, Any], what: str) -> Any:
    """A DataFrame of the columns; `what` is who needs pandas."""
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("pandas", "pandas", what) from None
    return pandas.DataFrame(dict(columns))


def say(text: str) -> None:
    """A line on standard output: these classes print what they found, as the originals do when `verbose` is set."""
    sys.stdout.write(f"{text}\n")


def flat(frame: Any, unit: str = "second") -> dict[str, Any]:
    """The columns of a table as `mean_average_precision` takes them; a table without rows may lack its columns."""
    if not len(frame):
        names = ("video", "labels", "scores")
        return {name: np.zeros(0) for name in names} | {"segments": np.zeros((0, 2)), "unit": unit}
    columns = {
        "video": np.asarray(frame["video-id"], object),
        "segments": np.column_stack([np.asarray(frame[name], np.float64) for name in ("t-start", "t-end")]),
        "labels": np.asarray(frame["label"]),
        "unit": unit,
    }
    return columns | ({"scores": np.asarray(frame["score"], np.float64)} if "score" in frame else {})


def measured(
    ground_truth: Any, prediction: Any, tiou_thresholds: ArrayLike, protocol: str = "activitynet", **options: Any
) -> MeanAveragePrecision:
    """`mean_average_precision` of two tables, compared in the unit that they have."""
    return mean_average_precision(
        flat(prediction), flat(ground_truth), tiou_thresholds=tiou_thresholds, protocol=protocol, **options
    )


def distinct(rows: Sequence[tuple[str, float, float, Any]], protocol: str) -> list[int]:
    """The instances (video, start, end, label) that the clean-up of a protocol leaves, rising."""
    if not rows:
        return []
    rule = PROTOCOLS[protocol]
    videos, starts, ends, labels = zip(*rows)
    label, video = (np.unique(np.asarray(column, str), return_inverse=True)[1] for column in (labels, videos))
    segments = np.column_stack((starts, ends)).astype(np.float64)
    kept: list[int] = distinct_rows(segments, label, video, rule.duplicate_tolerance, rule.min_length).tolist()
    return kept


def by_class(values: Float, classes: ArrayLike, indices: Sequence[int]) -> Float:
    """(..., K) values of the K class indices, in rising order; 0 for those that are not among `classes`."""
    columns = np.zeros((*values.shape[:-1], len(indices)))
    known = np.isin(classes, indices)
    columns[..., np.searchsorted(np.sort(indices), np.asarray(classes)[known])] = values[..., known]
    return columns


def compute_average_precision_detection(
    ground_truth: Any, prediction: Any, tiou_thresholds: ArrayLike | None = None
) -> Float:
    """AP of one class: all copies of the evaluator have this function, and call it once per class.

    Parameters
    ----------
    ground_truth, prediction : DataFrame
        Columns ``video-id``, ``t-start``, ``t-end``, and ``score`` for the prediction; other columns do not matter.
    tiou_thresholds : (I,) array_like, default linspace(0.5, 0.95, 10)

    Returns
    -------
    (I,) ndarray of float64

    Notes
    -----
    As published: interpolated AP (VOC 2011), a detection takes the best free instance at ``tIoU >= threshold``.  What
    differs: equal scores keep the order of their rows (the original reverses most of them).

    Examples
    --------
    >>> import pandas as pd
    >>> truth = pd.DataFrame({"video-id": ["a"], "t-start": [0.0], "t-end": [10.0]})
    >>> compute_average_precision_detection(truth, truth.assign(score=[0.9]), [0.5, 0.95])
    array([1., 1.])
    """
    thresholds = np.linspace(0.5, 0.95, 10) if tiou_thresholds is None else tiou_thresholds
    one, other = (frame.assign(label=0) for frame in (ground_truth, prediction))
    found = measured(one, other, thresholds)
    return by_class(found.per_class, found.classes, [0])[:, 0]


class Evaluator:
    """Average precisions of `prediction` against `ground_truth`, two tables, by the class numbers of `activity_index`.

    Attributes
    ----------
    ground_truth, prediction : DataFrame
        Tables; those who set `prediction` themselves (CO2-Net, P-MIL) do so before `evaluate`.
    activity_index : dict
        Label -> class number.
    tiou_thresholds : (I,) array_like
    ap : (I, K) ndarray or None
        After `evaluate`; column k is the k-th smallest class number, which is number k in every original.
    mAP : (I,) ndarray
    average_mAP : float
    """

    ground_truth: Any
    prediction: Any
    activity_index: dict[Any, int]
    tiou_thresholds: Any
    subset: str
    verbose: bool
    protocol: ClassVar[str] = "activitynet"

    def wrapper_compute_average_precision(self) -> Float:
        """(I, K) AP of every class; 0 for a class without predictions."""
        found = measured(self.ground_truth, self.prediction, self.tiou_thresholds, self.protocol)
        return by_class(found.per_class, found.classes, list(self.activity_index.values()))

    def _measure(self) -> None:
        """Set `ap`, `mAP` and `average_mAP`; without classes they are 0."""
        self.ap: Float | None = self.wrapper_compute_average_precision()
        self.mAP: Float = self.ap.mean(axis=1) if self.ap.shape[1] else np.zeros(len(self.ap))
        self.average_mAP = self.mAP.mean()


class JsonEvaluator(Evaluator):
    """The constructor and the files of the official evaluator; its copies change the class attributes.

    See `anet.ANETdetection`.
    """

    GROUND_TRUTH_FIELDS: ClassVar[list[str]] = ["database"]
    PREDICTION_FIELDS: ClassVar[list[str]] = ["results", "version", "external_data"]
    _skips_unknown: ClassVar[bool] = False  # else a label that the ground truth lacks is a KeyError

    def __init__(
        self,
        ground_truth_filename: Any = None,
        prediction_filename: Any = None,
        ground_truth_fields: Sequence[str] | None = None,
        prediction_fields: Sequence[str] | None = None,
        tiou_thresholds: Any = None,
        subset: str = "validation",
        verbose: bool = False,
        check_status: bool = False,
    ) -> None:
        if not ground_truth_filename:
            raise OSError("`ground_truth_filename` must be a ground truth file, got nothing")
        if not prediction_filename:
            raise OSError("`prediction_filename` must be a prediction file, got nothing")
        self.subset = subset
        self.tiou_thresholds = np.linspace(0.5, 0.95, 10) if tiou_thresholds is None else tiou_thresholds
        self.verbose = verbose
        self.gt_fields = self.GROUND_TRUTH_FIELDS if ground_truth_fields is None else ground_truth_fields
        self.pred_fields = self.PREDICTION_FIELDS if prediction_fields is None else prediction_fields
        self.ap = None
        self.check_status = check_status
        self.blocked_videos: list[str] = []
        if check_status:
            warnings.warn(
                "the list of blocked videos is not fetched: no video is left out (check_status=False says so)",
                stacklevel=3,
            )
        self.ground_truth, self.activity_index = self._import_ground_truth(ground_truth_filename)
        self.video_lst = self.ground_truth["video-id"].tolist()
        self.prediction = self._import_prediction(prediction_filename)
        if self.verbose:
            self._say_what_came()

    def _say_what_came(self) -> None:
        say(f"{self.subset}: {len(self.ground_truth)} instances, {len(self.prediction)} predictions")
        say(f"tIoU thresholds: {self.tiou_thresholds}")

    def _takes(self, entry: Mapping[str, Any]) -> bool:
        return self.subset == entry["subset"]

    def _index_of(self, data: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[Any, int]:
        """Label -> number, in the order in which labels first appear."""
        labels = dict.fromkeys(one["label"] for entry in entries.values() for one in entry["annotations"])
        return {label: number for number, label in enumerate(labels)}

    def _import_ground_truth(self, ground_truth_filename: Any) -> tuple[Any, dict[Any, int]]:
        """The instances of the subset as a table, and the numbers of their labels."""
        data = _loaded(ground_truth_filename, self.gt_fields, "ground_truth_filename")
        entries = {video: entry for video, entry in data["database"].items() if self._takes(entry)}
        index = self._index_of(data, entries)
        rows = [(video, one) for video, entry in entries.items() for one in entry["annotations"]]
        return self._table(rows, index), index

    def _import_prediction(self, prediction_filename: Any) -> Any:
        """The predictions as a table; KeyError for a label that the ground truth does not have."""
        data = _loaded(prediction_filename, self.pred_fields, "prediction_filename")
        rows = [(video, one) for video, entry in data["results"].items() for one in entry]
        unknown = sorted({str(one["label"]) for _, one in rows if one["label"] not in self.activity_index})
        if unknown and not self._skips_unknown:
            raise KeyError(f"{unknown[0]!r} is not a label of the ground truth ({len(unknown)} such labels)")
        rows = [(video, one) for video, one in rows if one["label"] in self.activity_index]
        return self._table(rows, self.activity_index, scored=True)

    def _table(self, rows: Sequence[tuple[str, Any]], index: Mapping[Any, int], scored: bool = False) -> Any:
        columns: dict[str, Any] = {
            "video-id": [video for video, _ in rows],
            "t-start": np.array([float(one["segment"][0]) for _, one in rows]),
            "t-end": np.array([float(one["segment"][1]) for _, one in rows]),
            "label": np.array([index[one["label"]] for _, one in rows], np.int64),
        }
        if scored:
            columns["score"] = np.array([float(one["score"]) for _, one in rows])
        return table(columns, f"{type(self).__module__}.{type(self).__name__}")

    def evaluate(self) -> Any:
        """Set `ap`, `mAP` and `average_mAP`.

        Returns
        -------
        (mAP, average_mAP)
            A (I,) array and a float, fractions of 1.
        """
        self._measure()
        if self.verbose:
            say(f"Average-mAP: {self.average_mAP}")
        return self.mAP, self.average_mAP


def _loaded(source: Any, fields: Sequence[str], name: str) -> Mapping[str, Any]:
    """A JSON file, or a dict as HAM-Net hands it over, with the fields."""
    if isinstance(source, Mapping):
        data: Mapping[str, Any] = source
    else:
        with open(source, encoding="utf-8") as file:
            data = json.load(file)
    missing = [one for one in fields if one not in data]
    if missing:
        raise OSError(f"`{name}` must have the fields {list(fields)}, {missing[0]!r} is missing")
    return data
