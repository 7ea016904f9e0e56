"""The maps of a few videos as a pipeline names them: classes chosen, blended, normalised, upsampled, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._checks import Float, Int
from .config import Bank, Pipeline, Signal
from .proposals import Columns, normalized, upsampled
from .types import UnitError, Video

# Codebases call one thing by several names; a map that is missing is looked up under its other name.
_OTHER_NAME = {"cas": "tcam", "tcam": "cas", "attention": "actionness", "actionness": "attention"}


def about(video: Video, error: Exception) -> Exception:
    """The same kind of error, with the video's name in front."""
    kind = type(error) if type(error) in (TypeError, UnitError) else ValueError
    return kind(f"video {video.id!r}: {error}" if video.id else str(error))


def find_map(video: Video, name: str) -> NDArray[Any]:
    """The video's map of that name, or of the other name that codebases give it."""
    maps = video.maps
    if name not in maps:
        other = _OTHER_NAME.get(name, "")
        if other not in maps:
            raise ValueError(f"the pipeline needs the map {name!r}, got {', '.join(map(repr, maps)) or 'none'}")
        name = other
    return maps[name]


def class_map(video: Video, map_names: Sequence[str]) -> NDArray[Any] | None:
    """The first of these maps that tells classes apart; all of them must be there."""
    return next((array for array in [find_map(video, name) for name in map_names] if array.ndim == 2), None)


class _One:
    """The maps of one video, without background, and the classes in which it is searched."""

    def __init__(self, video: Video, pipeline: Pipeline, map_names: Sequence[str]) -> None:
        self.video = video
        self.pipeline = pipeline
        first = class_map(video, map_names)
        self.num_classes = None if first is None else pipeline.count_classes(first.shape[1])  # without background
        self.scores = self.video_scores()
        self.classes = self.select_classes()

    def first_action(self, width: int, what: str) -> int:
        """The column of an array of that width that holds action class 0."""
        if width == self.num_classes:
            return 0
        if width - 1 == self.num_classes and self.pipeline.background != "none":
            return 1 if self.pipeline.background == "first" else 0
        raise ValueError(
            f"{what} must have {self.num_classes} classes (background={self.pipeline.background!r}), got {width}"
        )

    def video_scores(self) -> Float | None:
        """Of the action classes: those that the video brings, or those that the pipeline computes."""
        given = self.video.scores.get("video")
        rule = self.pipeline.video_scores
        if given is None and rule is not None:
            columns = self.columns(rule.map, None)
            count = columns.shape[1]
            given = np.zeros(len(columns))
            if count:
                k = max(1, count // rule.ratio)
                given = np.sort(columns, axis=1)[:, count - k :].mean(axis=1)
            if rule.softmax and len(given):
                given = np.exp(given - given.max())
                given /= given.sum()
        if given is None:
            return None
        if self.num_classes is None:
            self.num_classes = self.pipeline.count_classes(len(given))
        first = self.first_action(len(given), "`video_scores`")
        return given[first : first + self.num_classes]

    def select_classes(self) -> Int:
        rule = self.pipeline.classes
        if rule is None:
            return np.arange(1 if self.num_classes is None else self.num_classes)
        if self.scores is None:
            raise ValueError(
                f"`video_scores` is needed: the pipeline searches classes with a score of {rule.threshold:g}"
            )
        passing = self.scores >= rule.threshold if rule.inclusive else self.scores > rule.threshold
        found = passing.nonzero()[0]
        if rule.fallback == "argmax" and len(found) == 0 and len(self.scores):
            found = np.array([self.scores.argmax()])
        return found

    def columns(self, name: str, classes: Int | None) -> Float:
        """The map, or product of maps, of that name: (C, T), or (1, T) where no class is told apart."""
        product: Float | None = None
        for part in name.split("*"):
            array = find_map(self.video, part)
            chosen = None
            if array.ndim == 1:
                array = array[:, None]
            elif classes is not None:
                chosen = classes + self.first_action(array.shape[1], f"maps[{part!r}]")
            one = _checks.as_columns(array, chosen, f"maps[{part!r}]")
            product = one if product is None else product * one
        return cast(Float, product)

    def blend(self, signal: Signal) -> Float:
        total: Float | None = None
        for name, weight in signal.mix:
            part = self.columns(name, self.classes)
            part = part if weight == 1.0 else weight * part
            total = part if total is None else total + part
        return cast(Float, total)


class Blended(NamedTuple):
    """A signal of all videos, and which of its rows each (video, class) row reads."""

    columns: Columns
    row: Int  # rises; a (T,) map has one row for all classes of its video


class Batch:
    """A few videos at once; rows are (video, class) pairs, videos without snippets or classes have none."""

    def __init__(self, videos: Sequence[Video], pipeline: Pipeline, map_names: Sequence[str]) -> None:
        self.videos: list[_One] = []
        where = []
        for index, video in enumerate(videos):
            try:
                one = _One(video, pipeline, map_names)
            except (ValueError, TypeError) as error:
                raise about(video, error) from error
            if len(one.classes) and video.num_snippets:
                self.videos.append(one)
                where.append(index)
        counts = [len(one.classes) for one in self.videos]
        self.video = np.repeat(where, counts).astype(np.int64)
        self.label = np.concatenate([[], *(one.classes for one in self.videos)]).astype(np.int64)
        self._counts = np.array(counts, np.int64)
        self._made: dict[tuple[Signal, int], Blended] = {}

    def video_scores(self, weight: float) -> Float:
        """The video-level score of every row."""
        for one in self.videos:
            if one.scores is None:
                error = ValueError(f"`video_scores` is needed: the pipeline adds {weight:g} times them to a score")
                raise about(one.video, error)
        return np.concatenate([[], *(cast(Float, one.scores)[one.classes] for one in self.videos)])

    def signal(self, signal: Signal, factor: int) -> Blended:
        """The blended, normalised and upsampled signal; each is made once."""
        key = (signal, factor)
        if key not in self._made:
            parts = []
            for one in self.videos:
                try:
                    parts.append(one.blend(signal))
                except (ValueError, TypeError) as error:
                    raise about(one.video, error) from error
            columns = upsampled(normalized(Columns.stacked(parts), signal.normalize, signal.clip), factor)
            self._made[key] = Blended(columns, self._rows_of(np.array([len(part) for part in parts])))
        return self._made[key]

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
        ours = bank.signal.mix[0][0]
        if rule.signal is None or rule.signal == bank.signal:
            weight, others = 1.0, tuple[tuple[str, float], ...]()
        else:  # the bank is on one map of weight 1: see Bank
            weight = dict(rule.signal.mix).get(ours, 0.0)
            others = tuple(pair for pair in rule.signal.mix if pair[0] != ours)
        if not others:
            return full, np.zeros_like(full.columns.values), weight
        rest = self.signal(replace(rule.signal or bank.signal, mix=others), bank.upsample)
        bounds = rest.columns.offsets.tolist()
        source = rest.row[np.searchsorted(full.row, np.arange(len(full.columns.offsets) - 1))]
        values = np.concatenate([rest.columns.values[bounds[row] : bounds[row + 1]] for row in source.tolist()])
        return full, values, weight
