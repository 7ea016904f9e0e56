"""One chain after another over the same videos: what two of them share is made once, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from .. import _stages
from .._signals import Batch
from .._stages import Rows
from ..config import Pipeline, Score, Seconds
from ..pipeline import PostProcessor, _given, _kind
from ..types import Segments, Video

T = TypeVar("T")
PIECE = 256  # videos that are worked on at once: what is not kept takes memory for so many


class Shared:
    """Detections of the same videos under many pipelines."""

    def __init__(self, videos: Sequence[Video], cache_bytes: int) -> None:
        kinds = [_kind(video) for video in videos]
        if any(kind != kinds[0] for kind in kinds):
            raise ValueError("`videos` must all bring proposals with the same columns, or none of them any")
        self._pieces = [videos[first : first + PIECE] for first in range(0, len(videos), PIECE)]
        self._proposed = kinds[0] is None
        self._timed = all(video.seconds_per_snippet is not None for video in videos)
        self._room = cache_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._used = 0
        self._lock = Lock()

    def detections(self, pipeline: Pipeline, unit: str) -> Segments:
        """What `PostProcessor` finds, of all videos; in seconds where `unit` asks for them and videos can."""
        process = PostProcessor(pipeline)
        parts = [self._finished(number, process, unit) for number in range(len(self._pieces))]
        counts = [np.bincount(part.video, minlength=len(piece)) for part, piece in zip(parts, self._pieces)]
        return Segments._trusted(
            np.concatenate([part.segments for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
            parts[0].unit,
            (),
            {},
        )

    def _finished(self, number: int, process: PostProcessor, unit: str) -> Rows:
        videos, stages = self._pieces[number], process.pipeline.stages
        rows, key = self._proposals(number, process)
        for count, stage in enumerate(stages, 1):
            rows = self._once((key, stages[:count]), partial(_stages.apply, stage, rows, videos))
        if unit == "second" and rows.unit == "snippet" and self._timed:
            rows = _stages.apply(Seconds(), rows, videos)
        return rows.take(_stages._ordered(rows, per_class=True)[0])

    def _proposals(self, number: int, process: PostProcessor) -> tuple[Rows, Hashable]:
        videos, pipeline = self._pieces[number], process.pipeline
        if not self._proposed:
            return self._once(number, partial(_given, videos)), number
        if not pipeline.banks:
            return process._propose(videos), number  # says that proposals are needed
        about, runs, scored = _keys(pipeline)
        batch = self._once((number, about), partial(Batch, videos, pipeline, process._map_names))
        found = []
        for n in range(len(pipeline.banks)):
            places = self._once((number, about, runs[n]), partial(process._find_runs, n, batch))
            found.append(self._once((number, about, scored[n]), partial(process._score_runs, n, batch, *places)))
        self._put((number, about), batch)  # it has grown: the signals are made when they are read
        key = (number, about, scored)
        return self._once(key, partial(process._listed, batch, found)), key

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What stands under the key, or is made and put there."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                value: T = self._kept[key][0]
                return value
        made = make()
        self._put(key, made)
        return made

    def _put(self, key: Hashable, value: Any) -> None:
        """Keep a value where it fits at all; what was not used for longest goes first."""
        size = _bytes(value)
        with self._lock:
            self._used -= self._kept.pop(key, (None, 0))[1]
            if size <= self._room:
                self._kept[key] = value, size
                self._used += size
            while self._used > self._room:
                self._used -= self._kept.popitem(last=False)[1][1]


def _keys(pipeline: Pipeline) -> tuple[Hashable, tuple[Hashable, ...], tuple[Hashable, ...]]:
    """What the classes and signals depend on, and for every bank what its runs and what its scores do."""
    rest = replace(pipeline, banks=(), stages=(), labels=None, protocol="", provenance="")
    about = rest, pipeline.map_names()
    listing = _stages.listing(pipeline)
    runs = tuple(
        (n, replace(bank, score=Score(), extend_end=0), 0 if bank.score.zero_below else listing)
        for n, bank in enumerate(pipeline.banks)
    )
    return about, runs, tuple(zip(runs, pipeline.banks))


def order_key(pipeline: Pipeline) -> str:
    """Sorted by it, pipelines that share work stand together, those that share most next to each other."""
    about, runs, scored = _keys(pipeline)
    return repr((about, runs, scored, pipeline.stages))


def _bytes(value: Any) -> int:
    """Bytes of the arrays in it."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Batch):
        return _bytes([*value._maps.values(), *value._made.values(), value.video, value.label])
    if isinstance(value, Rows):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, dict):
        return _bytes(list(value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
