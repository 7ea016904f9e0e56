"""The maps of a few videos as a pipeline names them: classes chosen, blended, normalised, upsampled, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._checks import Float, Int
from .config import Bank, Classes, Pipeline, Signal, TopKMean
from .proposals import Columns, normalized, upsampled
from .types import UnitError, Video

# Codebases call one thing by several names; a map that is missing is looked up under its other name.
_OTHER_NAME = {"cas": "tcam", "tcam": "cas", "attention": "actionness", "actionness": "attention"}
_FIRST = np.zeros(1, np.int64)


def about(video: Video, error: Exception) -> Exception:
    """The same kind of error, with the video's name in front."""
    kind = type(error) if type(error) in (TypeError, UnitError) else ValueError
    return kind(f"video {video.id!r}: {error}" if video.id else str(error))


def map_name(maps: Mapping[str, Any], name: str) -> str:
    """The name under which maps have that map: its own, or the other one that codebases give it."""
    if name in maps:
        return name
    other = _OTHER_NAME.get(name, "")
    if other not in maps:
        raise ValueError(f"the pipeline needs the map {name!r}, got {', '.join(map(repr, maps)) or 'none'}")
    return other


def find_map(video: Video, name: str) -> NDArray[Any]:
    """The video's map of that name, or of the other name that codebases give it."""
    return video.maps[map_name(video.maps, name)]


def class_map(video: Video, map_names: Sequence[str]) -> NDArray[Any] | None:
    """The first of these maps that tells classes apart; all of them must be there."""
    return next((array for array in [find_map(video, name) for name in map_names] if array.ndim == 2), None)


class Searched:
    """One video: its action classes, and their video-level scores."""

    def __init__(self, video: Video, pipeline: Pipeline, map_names: Sequence[str]) -> None:
        self.video = video
        self.background = pipeline.background
        self.maps = {name: find_map(video, name) for name in map_names}
        self.num_classes: int | None = None  # without background; the first map that tells classes apart says it
        for array in self.maps.values():
            if array.ndim == 2:
                self.num_classes = pipeline.count_classes(array.shape[1])
                break
        scores = video.scores.get("video")
        if scores is None and pipeline.video_scores is not None:
            scores = _top_mean(video, pipeline.video_scores)
        if scores is not None:
            if self.num_classes is None:
                self.num_classes = pipeline.count_classes(len(scores))
            begin = self.first_action(len(scores), "`video_scores`")
            scores = scores[begin : begin + self.num_classes]
        self.scores = scores

    def first_action(self, width: int, what: str) -> int:
        """The column of an array of that width that holds action class 0."""
        if width == self.num_classes:
            return 0
        if width - 1 == self.num_classes and self.background != "none":
            return 1 if self.background == "first" else 0
        raise ValueError(f"{what} must have {self.num_classes} classes (background={self.background!r}), got {width}")

    def columns(self, name: str, classes: Int) -> tuple[NDArray[Any], Int]:
        """A map as (T, columns), and which of these belong to the classes."""
        array = self.maps[name]
        if array.ndim == 1:
            return array[:, None], _FIRST
        try:
            first = self.first_action(array.shape[1], f"maps[{name!r}]")
        except ValueError as error:
            raise about(self.video, error) from error
        return array, classes + first if first else classes

    def require_bounds(self, name: str, classes: Int) -> None:
        """ValueError that says where a value is not finite, or too large."""
        try:
            _checks.as_columns(*self.columns(name, classes), f"maps[{name!r}]")
        except ValueError as error:
            raise about(self.video, error) from error


def _top_mean(video: Video, rule: TopKMean) -> Float:
    """Video-level scores of all columns of a map, or of a product of maps."""
    columns: Float = np.ones((1, 1))
    for part in rule.map.split("*"):
        array = find_map(video, part)
        array = array[:, None] if array.ndim == 1 else array
        columns = columns * _checks.as_columns(array, None, f"maps[{part!r}]")
    count = columns.shape[1]
    means = np.zeros(len(columns))
    if count:
        k = max(1, count // rule.ratio)
        means = np.sort(columns, axis=1)[:, count - k :].mean(axis=1)
    if rule.softmax and len(means):
        means = np.exp(means - means.max())
        means /= means.sum()
    return means


def _searched(videos: Sequence[Searched], rule: Classes | None) -> tuple[Int, Int]:
    """The (video, class) pairs that are searched: positions of the videos, which rise, and labels."""
    if rule is None:
        counts = np.array([1 if one.num_classes is None else one.num_classes for one in videos], np.int64)
    else:
        for one in videos:
            if one.scores is None:
                text = f"`video_scores` is needed: the pipeline searches classes with a score of {rule.threshold:g}"
                raise about(one.video, ValueError(text))
        counts = np.array([len(cast(Float, one.scores)) for one in videos], np.int64)
    video = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    label = np.arange(len(video)) - first[video]
    if rule is None:
        return video, label
    scores = np.concatenate([np.empty(0), *(cast(Float, one.scores) for one in videos)])
    passing = scores >= rule.threshold if rule.inclusive else scores > rule.threshold
    if rule.fallback == "argmax":
        none = np.bincount(video[passing], minlength=len(counts)) == 0
        for index in np.flatnonzero(none & (counts > 0)).tolist():
            passing[first[index] + scores[first[index] : first[index] + counts[index]].argmax()] = True
    return video[passing], label[passing]


def outer_mix(bank: Bank) -> tuple[float, tuple[tuple[str, float], ...]]:
    """What runs with `Score.zero_below` are scored on outside: the weight of the bank's signal, and the other maps."""
    rule = bank.score
    if rule.signal is None or rule.signal == bank.signal:
        return 1.0, ()
    ours = bank.signal.mix[0][0]  # the bank is on one map of weight 1: see Bank
    return dict(rule.signal.mix).get(ours, 0.0), tuple(pair for pair in rule.signal.mix if pair[0] != ours)


def _bounds(sizes: Int) -> Int:
    """Where parts of these sizes begin, and the end."""
    return np.concatenate(([0], np.cumsum(sizes)))


class Blended(NamedTuple):
    """A signal of all videos, and which of its rows each (video, class) row reads."""

    columns: Columns
    row: Int  # rises; a (T,) map has one row for all classes of its video


class Batch:
    """A few videos at once; rows are (video, class) pairs, videos without snippets or classes have none."""

    def __init__(self, videos: Sequence[Video], pipeline: Pipeline, map_names: Sequence[str]) -> None:
        ones = []
        for video in videos:
            try:
                ones.append(Searched(video, pipeline, map_names))
            except (ValueError, TypeError) as error:
                raise about(video, error) from error
        self.video, self.label = _searched(ones, pipeline.classes)
        lengths = np.array([video.num_snippets for video in videos], np.int64)
        if not lengths.all():
            filled = lengths[self.video] > 0
            self.video, self.label = self.video[filled], self.label[filled]
        here, counts = np.unique(self.video, return_counts=True)
        self.videos = [ones[index] for index in here.tolist()]
        self._lengths, self._counts = lengths[here], counts
        self._maps: dict[tuple[str, bytes], Float] = {}
        self._made: dict[tuple[Signal, int], Blended] = {}

    def video_scores(self, weight: float) -> Float:
        """The video-level score of every row."""
        for one in self.videos:
            if one.scores is None:
                error = ValueError(f"`video_scores` is needed: the pipeline adds {weight:g} times them to a score")
                raise about(one.video, error)
        parts = zip(self.videos, self._classes())
        return np.concatenate([np.empty(0), *(cast(Float, one.scores)[classes] for one, classes in parts)])

    def _classes(self) -> Iterator[Int]:
        """The classes of one video after the other."""
        stops = np.cumsum(self._counts).tolist()
        return (self.label[start:stop] for start, stop in zip([0, *stops], stops))

    def signal(self, signal: Signal, factor: int) -> Blended:
        """The blended, normalised and upsampled signal; each is made once."""
        key = (signal, factor)
        if key not in self._made:
            names = [part for name, _ in signal.mix for part in name.split("*")]
            tells = [any(one.maps[name].ndim == 2 for name in names) for one in self.videos]
            heights = np.where(tells, self._counts, 1)
            columns = Columns(self._blend(signal, heights), _bounds(np.repeat(self._lengths, heights)))
            columns = upsampled(normalized(columns, signal.normalize, signal.clip), factor, signal.extrapolate)
            self._made[key] = Blended(columns, self._rows_of(heights))
        return self._made[key]

    def _blend(self, signal: Signal, heights: Int) -> Float:
        """The weighted sum of maps and products of maps."""
        total: Float | None = None
        for name, weight in signal.mix:
            first, *others = name.split("*")
            part = self._gathered(first, heights)
            for other in others:
                part = part * self._gathered(other, heights)
            part = part if weight == 1.0 else weight * part
            total = part if total is None else total + part
        return cast(Float, total)

    def _gathered(self, name: str, heights: Int) -> Float:
        """One map of all videos, read once: the searched classes of each, or one row that they share."""
        key = (name, heights.tobytes())
        if key not in self._maps:
            bounds = _bounds(heights * self._lengths)
            values = np.empty(int(bounds[-1]))
            for one, classes, start, stop in zip(self.videos, self._classes(), bounds.tolist(), bounds[1:].tolist()):
                array, columns = one.columns(name, classes)
                rows = values[start:stop].reshape(-1, len(array))
                rows[...] = array[:, columns[0]] if len(columns) == 1 else array.T[columns]
            if not _checks.within_bounds(values):
                for one, classes in zip(self.videos, self._classes()):
                    one.require_bounds(name, classes)
            self._maps[key] = values
        return self._maps[key]

    def _rows_of(self, heights: Int) -> Int:
        """The row that every (video, class) pair reads, where videos have one row or one per class."""
        first = np.cumsum(heights) - heights
        number = np.arange(len(self.label)) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        return np.repeat(first, self._counts) + np.where(np.repeat(heights, self._counts) > 1, number, 0)

    def score_maps(self, bank: Bank) -> tuple[Blended, Float | None, float]:
        """What a bank's runs are scored on: inside, outside, and the weight of its own signal where that passes."""
        rule = bank.score
        full = self.signal(rule.signal or bank.signal, bank.upsample)
        if not rule.zero_below:
            return full, None, 0.0
        weight, others = outer_mix(bank)
        if not others:
            return full, np.zeros_like(full.columns.values), weight
        rest = self.signal(replace(rule.signal or bank.signal, mix=others), bank.upsample)
        bounds = rest.columns.offsets.tolist()
        source = rest.row[np.searchsorted(full.row, np.arange(len(full.columns.offsets) - 1))]
        values = np.concatenate([rest.columns.values[bounds[row] : bounds[row + 1]] for row in source.tolist()])
        return full, values, weight
