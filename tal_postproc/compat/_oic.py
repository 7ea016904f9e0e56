"""What the BaS-Net family shares: OIC-A of lists of indices, suppression with "+1", and whole videos by a preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks, presets
from .._checks import Float, Int
from ..config import Classes, Margin, Nms, Pipeline
from ..pipeline import PostProcessor
from ..proposals import oic_scores, upsample_tcam
from ..suppression import nms as core_nms
from ..types import Video
from ._rows import as_rows, plain

COLUMNS = "class, score, start, end"
Rows = list[list[Any]]  # of these columns


def upgraded(arr: ArrayLike, scale: int) -> Float:
    """Linear interpolation over the first axis of an array of any shape."""
    array = np.asarray(arr)
    flat = array.reshape(len(array), -1) if array.size else np.empty((len(array), 0))
    return upsample_tcam(flat, scale).reshape(len(array) * scale, *array.shape[1:])


def minmax_normed(act_map: Any, min_val: Any, max_val: Any, *, clip: bool, fixed_range: bool = False) -> Any:
    """`minmax_norm` of the family, of tensors; `fixed_range` lets no gradient through the range."""
    if not hasattr(act_map, "masked_fill"):
        raise TypeError(f"`act_map` must be a tensor, got {type(act_map).__name__}")
    if not act_map.numel():
        return act_map.clone()
    if min_val is None or max_val is None:
        max_val, min_val = act_map.max(dim=1)[0].relu(), act_map.min(dim=1)[0].relu()
    delta = max_val - min_val
    delta = delta.masked_fill(delta <= 0, 1)
    ret = (act_map - min_val) / (delta.detach() if fixed_range else delta)
    return ret.clamp(0, 1) if clip else ret


def runs_of(lists: Sequence[Any]) -> tuple[Int, Int, Int]:
    """Stretches of consecutive numbers: (position of the list, start, stop), in the order of the lists."""
    arrays = [np.asarray(one, np.int64) for one in lists]
    column = np.repeat(np.arange(len(arrays)), [len(one) for one in arrays])
    index = np.concatenate([np.empty(0, np.int64), *arrays])
    first = np.flatnonzero((np.diff(index, prepend=-2) != 1) | (np.diff(column, prepend=-1) != 0))
    start = index[first]
    return column[first], start, start + np.diff(np.append(first, len(index)))


def contrast_of(
    lists: Sequence[Any], maps: ArrayLike, margin: float, *, min_length: int = 1
) -> tuple[Int, Int, Int, Float]:
    """OIC-A of the runs of sorted lists of indices, list i on column i of `maps` (T, C).

    (position of the list, start, stop, contrast) of every run of at least `min_length`; a list that holds nothing but
    index 0 has none, because the published question is whether any index is true.
    """
    column, start, stop = runs_of(lists)
    counts = np.array([bool(np.any(one)) for one in lists], np.bool_)
    keep = counts[column] & (stop - start >= min_length)
    column, start, stop = column[keep], start[keep], stop[keep]
    used, place = np.unique(column, return_inverse=True)  # columns without runs are not even read
    segments = np.column_stack([start, stop])
    scores = oic_scores(np.asarray(maps)[:, used], segments, place, margin_scale=margin, layout="oic_a")
    return column, start, stop, scores


def proposal_lists(
    tList: Sequence[Any],
    wtcam: ArrayLike,
    final_score: Any,
    c_pred: Any,
    t_factor: float,
    margin: float,
    gamma: float,
    *,
    min_length: int = 1,
    every_class: bool,
) -> list[Rows]:
    """`get_proposal_oic` of the family: rows of every class, or of those whose list holds more than index 0."""
    lists = [one[0] for one in tList]
    column, start, stop, scores = contrast_of(lists, np.asarray(wtcam)[:, :, 0], margin, min_length=min_length)
    scores = scores + gamma * np.array([final_score[c_pred[i]] for i in range(len(lists))], np.float64)[column]
    rows: list[Rows] = [[] for _ in lists]
    for i, *row in zip(column.tolist(), scores, start * t_factor, stop * t_factor):
        rows[i].append([c_pred[i], *row])
    return [mine for mine, one in zip(rows, lists) if every_class or np.any(one)]


def seconds_per_step(v_len: float, scale: float, num_segments: int, fps: float) -> float:
    """t_factor of the family: 16 frames a snippet of the whole video; 0 for a video without snippets."""
    steps = scale * num_segments * fps
    return 16 * v_len / steps if steps else 0.0


def keep_plus_one(rows: NDArray[Any], thresh: float) -> Int:
    """Which rows [class, score, start, end] stay: best first, the later row first among equal scores.

    IoU in which lengths and intersections are 1 longer, in whatever unit; a row goes at the threshold.
    """
    thresh, last = _checks.as_number(thresh, "thresh"), len(rows) - 1
    if not 0.0 < thresh <= 1.0:  # at 0 all others go, above 1 none
        order = last - np.argsort(-rows[::-1, 1], kind="stable")
        return order[:1] if thresh <= 0.0 else order
    segments, scores = rows[::-1, 2:4], rows[::-1, 1]
    return last - core_nms(segments, scores, tiou_threshold=thresh, length_offset=1.0, inclusive=True)


def kept_rows(proposals: ArrayLike, thresh: float) -> list[list[float]]:
    """`nms` of the family."""
    rows = as_rows(proposals, "proposals", COLUMNS)
    return rows[keep_plus_one(rows, thresh)].tolist()


def adjusted(
    name: str,
    thresholds: Sequence[ArrayLike],
    scale: int,
    class_thresh: float,
    *,
    nms_thresh: float | None = None,
    margin: float = 0.25,
) -> Pipeline:
    """A preset of the family with the numbers of a config, for maps without background."""
    pipeline = presets.get(name)
    banks = []
    for bank, values in zip(pipeline.banks, thresholds):
        score = replace(bank.score, margin=replace(cast(Margin, bank.score.margin), scale=float(margin)))
        values = tuple(np.asarray(values, np.float64).tolist())
        banks.append(replace(bank, thresholds=values, upsample=int(scale), score=score))
    stages = pipeline.stages
    if nms_thresh is not None:
        *others, nms = stages
        stages = (*others, replace(cast(Nms, nms), threshold=float(nms_thresh)))
    classes = replace(cast(Classes, pipeline.classes), threshold=float(class_thresh))
    return replace(pipeline, banks=tuple(banks), classes=classes, stages=stages, background="none", num_classes=None)


def detected(
    pipeline: Pipeline, maps: Mapping[str, NDArray[Any]], scores: NDArray[Any], v_len: float, fps: float
) -> list[list[list[float]]]:
    """Detections of one video: a list of rows for every class that has some, by class."""
    num_segments = len(next(iter(maps.values())))
    if not num_segments:
        return []
    step = seconds_per_step(v_len, 1, num_segments, fps)
    found = PostProcessor(pipeline)(Video("", dict(maps), {"video": scores}, seconds_per_snippet=step))
    return by_class(np.column_stack([found.labels, found.scores, found.segments]))


def only_one(batch: Any, name: str, ndim: int) -> NDArray[Any]:
    """What a batch of one video holds: the originals test videos one by one."""
    array = plain(batch)
    if array.ndim != ndim or len(array) != 1:
        raise ValueError(f"`{name}` must be a batch of one video with {ndim} axes, got shape {array.shape}")
    return array[0]


def by_class(rows: Float) -> list[list[list[float]]]:
    """Rows of rising classes, as a list for every class."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows[:, 0])) + 1)
    return [part.tolist() for part in parts if len(part)]
