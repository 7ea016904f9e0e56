"""What RSKP, FAC-Net, GauFuse and W-TALC share: the annotation folder, rows for every class, and their mAP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import presets
from .._checks import Float, Int
from ..config import Classes
from ..evaluation import filter_ambiguous, mean_average_precision
from ..formats import read_wtalc_annotations
from ..pipeline import PostProcessor
from ..suppression import nms
from ..types import Segments, Video
from ._rows import as_rows

StrPath = str | PathLike[str]
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


class Truth(NamedTuple):
    """The test videos that have an instance, numbered from 0."""

    positions: Int  # where each one stands among all test videos, as predictions do
    names: tuple[str, ...]
    classes: Int  # class ids that have an instance, in the alphabetical order of their names
    instances: dict[str, Any]  # as `mean_average_precision` takes them
    ambiguous: dict[str, Any] | None  # None where the folder has no list


def read_truth(annotation_path: StrPath) -> Truth:
    """What the originals take from the folder, through the restricted reader."""
    found = read_wtalc_annotations(annotation_path, subset="test")
    positions = np.flatnonzero(np.diff(found.segments.offsets))
    number = np.full(found.num_videos, -1)
    number[positions] = np.arange(len(positions))

    def numbered(spans: Segments) -> dict[str, Any]:
        video = number[spans.video_index]
        own = video >= 0
        return {"video": video[own], "labels": spans.labels[own], "segments": spans.segments[own]}

    classes = sorted(np.unique(found.segments.labels).tolist(), key=lambda label: found.classes[label])
    return Truth(
        positions,
        tuple(found.video_ids[position] for position in positions),
        np.array(classes, np.int64),
        numbered(found.segments),
        None if found.ambiguous is None else numbered(found.ambiguous),
    )


def snippets_per_second(args: Any) -> float:
    """Of UntrimmedNet's features, or of I3D's."""
    return 10.0 / 4.0 if args.feature_type == "UNT" else 25.0 / 16.0


def thresholds_of(args: Any) -> Float:
    """The list that every function of the family builds from its options, rounding of `numpy.arange` included."""
    return np.arange(args.start_threshold, args.end_threshold, args.threshold_interval)


def chain(name: str, thresholds: ArrayLike, class_threshold: float) -> PostProcessor:
    """A preset with the thresholds of the caller, on the columns that it is given."""
    pipeline = presets.get(name)
    bank = replace(pipeline.banks[0], thresholds=tuple(np.ravel(thresholds).tolist()))
    classes = Classes(threshold=class_threshold)
    return PostProcessor(replace(pipeline, banks=(bank,), classes=classes, background="none", num_classes=None))


def detect(
    process: PostProcessor,
    truth: Truth,
    video_scores: Sequence[ArrayLike | None],
    maps: Sequence[ArrayLike],
    rate: float,
) -> list[Float]:
    """A (N, 4) array [video, start, end, score] for each of `truth.classes`, without rows on ambiguous spans.

    Where the scores of a video are None, the chain makes them from its map.
    """

    def videos() -> Iterator[Video]:
        for position, name in zip(truth.positions.tolist(), truth.names):
            tcam, scores = np.asarray(maps[position])[:, truth.classes], video_scores[position]
            yield Video(name, {"cas": tcam}, {} if scores is None else {"video": np.asarray(scores)[truth.classes]})

    found = Segments.concatenate(process.process(videos()))
    if truth.ambiguous is not None:
        found = filter_ambiguous(found, truth.ambiguous, snippets_per_second=rate)
    rows = np.column_stack([found.video_index, found.segments, found.scores])
    return by_class(rows, found.labels, len(truth.classes))


def by_class(rows: Float, labels: Int, num_classes: int) -> list[Float]:
    """The rows of every class, in their order."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(num_classes + 1)).tolist()
    return [rows[order[start:stop]] for start, stop in pairwise(bounds)]


def best_first(per_class: Iterable[Float]) -> list[Float]:
    """Rows by falling score, which is their last column; the earlier row first among equal scores."""
    return [rows[np.argsort(-rows[:, -1], kind="stable")] for rows in per_class]


def all_maps(found: Sequence[ArrayLike], truth: Truth, args: Any) -> tuple[list[float], list[float]]:
    """What `getDetectionMAP` of RSKP, FAC-Net and GauFuse returns: mAPs in percent, and their tIoUs."""
    return list(localization_map(found, IOUS, truth, snippets_per_second(args))), list(IOUS)


def localization_map(
    seg_preds: Sequence[ArrayLike],
    thresholds: Sequence[float],
    truth: Truth,
    rate: float,
    protocol: str = "wtalc_interpolated",
) -> Float:
    """mAP in percent for every tIoU threshold; rows of class c are taken from ``seg_preds[c]``."""
    parts = [np.reshape(np.asarray(seg_preds[c], np.float64), (-1, 4)) for c in truth.classes.tolist()]
    rows = np.concatenate([np.empty((0, 4)), *parts])
    found = {
        "video": rows[:, 0],
        "labels": np.repeat(truth.classes, [len(part) for part in parts]),
        "segments": rows[:, 1:3],
        "scores": rows[:, 3],
        "unit": "snippet",
    }
    result = mean_average_precision(
        found, truth.instances, tiou_thresholds=thresholds, protocol=protocol, snippets_per_second=rate
    )
    return 100.0 * result.per_threshold


def suppress(segs: ArrayLike, threshold: float, idxs: ArrayLike | None = None) -> Int:
    """NMS of rows [video, start, end, score] over the candidate's length with "+1"; the last of equal scores first."""
    rows = as_rows(segs, "segs", "video, start, end, score")[::-1]
    groups = None if idxs is None else np.asarray(idxs)[::-1]
    options: Any = {"overlap": "candidate", "length_offset": 1.0, "idxs": groups}
    return len(rows) - 1 - nms(rows[:, 1:3], rows[:, 3], tiou_threshold=threshold, **options)
