"""What HAM-Net, CO2-Net, DELU and P-MIL share: soft-NMS on rows, runs of the attention, the ambiguous filter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks, presets
from .._checks import Float, Int
from .._kernels import windows
from .._signals import Searched
from ..evaluation import SNIPPETS_PER_SECOND, filter_ambiguous
from ..pipeline import PostProcessor
from ..types import Segments, Video
from ._evaluator import table
from ._rows import as_rows, plain

AMBIGUOUS_LIST = "./Thumos14reduced-Annotations/Ambiguous_test.txt"


def decayed(
    segments: Float, scores: Float, groups: Int, iou_thr: float, method: str, sigma: float
) -> tuple[Int, Float]:
    """Rows in the order of picking, group after group, and their scores; IoU with +1, negative scores decay, too."""
    # "linear" starts above the threshold, not at it; "hard" is a decay to 0 above it
    code, width, start = windows.GAUSSIAN, sigma, 0.0
    if method == "linear":
        code, start = windows.LINEAR, np.nextafter(_checks.as_number(iou_thr, "iou_thr"), np.inf)
    elif method != "gaussian":
        code, width, start = windows.GATED, 1e-300, _checks.as_number(iou_thr, "iou_thr")
    order = np.argsort(groups, kind="stable")
    offsets = np.append(np.flatnonzero(np.diff(groups[order], prepend=-1)), len(order))
    keep, decay, _ = windows.soft_nms_groups(
        segments, scores, order, offsets, code, float(width), float(start), 0.0, -np.inf, False, True, len(order),
        False, 1.0, 0.0,
    )  # fmt: skip
    return keep, decay


def soft_nms_rows(dets: ArrayLike, columns: str, iou_thr: float, method: str, sigma: float) -> list[list[float]]:
    """Soft-NMS of rows of four numbers; `columns` are their names."""
    rows = as_rows(dets, "dets", columns).astype(np.float64)
    start, end, score = map(columns.split(", ").index, ("start", "end", "score"))
    segments = _checks.as_segments(rows[:, [start, end]], "dets")
    scores = _checks.as_values(rows[:, score], len(rows), "dets")
    _checks.as_number(sigma, "sigma", above=0.0)
    keep, rows_scores = decayed(segments, scores, np.zeros(len(rows), np.int64), iou_thr, method, sigma)
    picked = rows[keep]
    picked[:, score] = rows_scores
    kept: list[list[float]] = picked.tolist()
    return kept


@lru_cache(maxsize=16)
def _extraction(preset: str, thresholds: tuple[float, ...] | None, gamma: float, **changes: Any) -> PostProcessor:
    """The preset without its suppression."""
    pipeline = presets.get(preset)
    bank = pipeline.banks[0]
    bank = replace(
        bank,
        thresholds=bank.thresholds if thresholds is None else thresholds,
        upsample=changes.pop("scale", 1),
        score=replace(bank.score, video_weight=gamma),
    )
    return PostProcessor(replace(pipeline, banks=(bank,), stages=(), num_classes=None, **changes))


def _video(cas: Any, attention: Any) -> Video:
    logits, weights = plain(cas), plain(attention)
    if logits.ndim != 3 or weights.ndim != 3 or not len(logits) or not len(weights):
        raise ValueError(
            "the maps must have shapes (1, T, C + 1) and (1, T, 1), got cas of shape "
            f"{logits.shape} and attention of shape {weights.shape}"
        )
    return Video("", {"logits": logits[0], "attention": weights[0][:, 0]})


def video_scores(cas: Any, attention: Any, preset: str) -> Float:
    """(C,) video-level scores: softmax of the mean of the largest values, without the background."""
    pipeline = replace(presets.get(preset), num_classes=None)
    scores = Searched(_video(cas, attention), pipeline, pipeline.map_names()).scores
    return np.zeros(0) if scores is None else scores


def attended(
    cas: Any,
    attention: Any,
    preset: str,
    gamma: float,
    thresholds: Sequence[float] | None = None,
    seconds: float = 1.0,
    **changes: Any,
) -> tuple[Float, Int, Float]:
    """Segments, classes and scores after soft-NMS, by class, in the order of picking.

    `cas` is (1, T, C + 1), `attention` (1, T, 1); background comes last.  `changes` are fields of the pipeline.
    """
    values = None if thresholds is None else tuple(np.asarray(thresholds, np.float64).tolist())
    found = _extraction(preset, values, float(gamma), **changes)(_video(cas, attention))
    segments = found.segments * seconds
    keep, scores = decayed(segments, found.scores, found.labels, 0.0, "gaussian", 0.3)
    return segments[keep], found.labels[keep], scores


def ambiguous_rows(segments: Float, video: str, ambiguous: Any) -> NDArray[np.bool_]:
    """Which rows, in snippets, share no whole snippet with an ambiguous span of the video.

    `ambiguous` is a list of fields (name first, start and end last), or the path of such a list.
    """
    if isinstance(ambiguous, (str, os.PathLike)):
        path = Path(ambiguous)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        ambiguous = [line.split() for line in lines]
    spans = np.array([[float(x) for x in line[-2:]] for line in ambiguous if line and line[0] == video]).reshape(-1, 2)
    kept = filter_ambiguous(
        Segments(segments, columns={"row": np.arange(len(segments))}),
        Segments(spans, unit="second"),
        snippets_per_second=SNIPPETS_PER_SECOND,
    )
    free = np.zeros(len(segments), bool)
    free[kept.columns["row"]] = True
    return free


def prediction_table(video: str, segments: Float, labels: Int, scores: Float, what: str) -> Any:
    """The DataFrame that the three codes hand to their evaluator; all numbers are float64, the label too."""
    columns = {
        "video-id": [video] * len(segments),
        "t-start": segments[:, 0],
        "t-end": segments[:, 1],
        "label": labels.astype(np.float64),
        "score": scores,
    }
    return table(columns, what)


def text(name: Any) -> str:
    """A video's name, which is bytes in these codes."""
    return name.decode() if isinstance(name, bytes) else str(name)
