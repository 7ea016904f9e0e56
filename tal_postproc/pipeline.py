"""`PostProcessor`: a pipeline applied to one video, to many, or to a stream of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _threads, fusion, overlap, presets, suppression
from ._checks import Float, Int
from ._kernels import sequences as _kernels
from .config import (
    Bank,
    Expand,
    Fuse,
    Keep,
    Nms,
    Overlap,
    Pipeline,
    Round,
    Seconds,
    Settings,
    Signal,
    SoftNms,
    Vote,
)
from .proposals import Runs, contrast, normalized, runs_above, segments_to_seconds
from .types import Segments, Unit, Video

__all__ = ["PostProcessor", "warm_up"]

# Codebases call one thing by several names; a map that is missing is looked up under its other name.
_OTHER_NAME = {"cas": "tcam", "tcam": "cas", "attention": "actionness", "actionness": "attention"}


@dataclass(slots=True)
class _Rows:
    """The segments of one video on their way through the stages."""

    segments: Float
    labels: Int
    scores: Float
    columns: dict[str, NDArray[Any]]
    unit: Unit
    pool: _Rows | None = None  # what entered the last suppression, for voting

    def take(self, index: NDArray[Any]) -> _Rows:
        columns = {name: column[index] for name, column in self.columns.items()}
        return _Rows(self.segments[index], self.labels[index], self.scores[index], columns, self.unit, self.pool)

    def groups(self, per_class: bool) -> Int | None:
        return self.labels if per_class else None


class PostProcessor:
    """A post-processing chain: TCAMs in, detections out.

    Parameters
    ----------
    pipeline : config.Pipeline
        From `presets.get`, or your own.

    Examples
    --------
    >>> tcam = np.array([[0.0, 0.1], [0.9, 0.1], [0.8, 0.1], [0.9, 0.1], [0.0, 0.1], [0.0, 0.1]])
    >>> found = PostProcessor.from_preset("rskp")(tcam, video_scores=[0.9, 0.05])
    >>> found.segments.tolist(), found.labels.tolist()
    ([[1.0, 5.0]], [0])

    The reported end is one snippet late, as RSKP publishes it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        if not isinstance(pipeline, Pipeline):
            raise TypeError(f"`pipeline` must be a config.Pipeline (see presets.get), got {type(pipeline).__name__}")
        self.pipeline = pipeline
        self._thresholds = [np.array(bank.thresholds) for bank in pipeline.banks]
        self._main_map = next((name for name in pipeline.map_names() if name not in ("attention", "actionness")), "cas")

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> PostProcessor:
        """The preset of that name, with some fields of its `Pipeline` exchanged.

        >>> PostProcessor.from_preset("rskp", classes=None).pipeline.classes is None
        True
        """
        return cls(replace(presets.get(name), **changes))

    def __repr__(self) -> str:
        stages = ", ".join(type(stage).__name__ for stage in self.pipeline.stages)
        return f"<PostProcessor: {len(self.pipeline.banks)} bank(s), stages [{stages}]>"

    def __call__(
        self,
        video: Video | ArrayLike,
        video_scores: ArrayLike | None = None,
        *,
        attention: ArrayLike | None = None,
        seconds_per_snippet: float | None = None,
        duration: float | None = None,
    ) -> Segments:
        """Detections of one video.

        Parameters
        ----------
        video : Video, or (T, K) array_like
            An array is shorthand for a video with the one map that the pipeline reads besides the attention:
            ``"cas"``, or ``"logits"`` for HAM-Net, CO2-Net and DELU.  The other arguments then say the rest.
        video_scores : (K,) array_like, optional
        attention : (T,) array_like, optional
        seconds_per_snippet, duration : float, optional
            Presets that suppress in seconds need the first.

        Returns
        -------
        Segments
            One video; rows by class, best score first (ties: the earlier row of the last stage).  In snippets unless
            the pipeline has a `Seconds` stage.

        Raises
        ------
        ValueError
            A map, score or timing that the pipeline needs is missing, not finite or of the wrong shape; the message
            names the video.
        """
        if isinstance(video, Video):
            if not (video_scores is attention is seconds_per_snippet is duration is None):
                raise TypeError("a Video brings its own scores, attention and timing; give them to Video(...)")
        else:
            maps = {self._main_map: np.asarray(video)} | (
                {} if attention is None else {"attention": np.asarray(attention)}
            )
            scores = {} if video_scores is None else {"video": np.asarray(video_scores)}
            video = Video("", maps, cast(Any, scores), seconds_per_snippet, duration)
        try:
            return self._detect(video)
        except (ValueError, TypeError) as error:
            if not video.id:
                raise
            raise type(error)(f"video {video.id!r}: {error}") from error

    def process(
        self, videos: Iterable[Video], num_threads: int | None = None, progress: bool = False
    ) -> Iterator[Segments]:
        """Detections of many videos, one `Segments` each, in order.

        `videos` may be any iterable; a few chunks of it are in memory at a time.  The result is the same, byte for
        byte, for every number of threads.  Default: all cores, one inside a worker process.  `progress` shows a bar
        on a terminal and nothing in a pipe.

        >>> clips = [Video("a", {"cas": np.eye(4)}), Video("b", {"cas": np.ones((4, 2))})]
        >>> [len(found) for found in PostProcessor.from_preset("rskp", classes=None).process(clips)]
        [0, 2]
        """
        results = _threads.ordered_map(self, videos, num_threads)
        if not progress:
            return results
        from tqdm import tqdm

        total = len(videos) if isinstance(videos, Sized) else None
        return iter(tqdm(results, total=total, unit="video", disable=None))

    # ------------------------------------------------------------------------------------- one video, step by step

    def _detect(self, video: Video) -> Segments:
        rows = self._given(video) if video.proposals is not None else self._propose(video)
        for stage in self.pipeline.stages:
            rows = _STAGES[type(stage)](stage, rows, video)
        rows = rows.take(np.lexsort((-rows.scores, rows.labels)))
        ids = (video.id,) if video.id else ()
        return Segments._trusted(
            rows.segments, rows.labels, rows.scores, np.array([0, len(rows.scores)]), rows.unit, ids, rows.columns
        )

    def _given(self, video: Video) -> _Rows:
        given = cast(Segments, video.proposals)
        if given.num_videos != 1:
            raise ValueError(f"`proposals` must be of one video, got {given.num_videos}")
        return _Rows(given.segments, given.labels, given.scores, dict(given.columns), given.unit)

    def _propose(self, video: Video) -> _Rows:
        """Scored proposals of every bank: by class, then by bank, then as the bank found them."""
        reader = _Reader(video, self.pipeline)
        classes, scores = reader.select_classes()
        found = [
            self._score_bank(number, bank, reader, classes, scores) for number, bank in enumerate(self.pipeline.banks)
        ]
        if len(found) == 1:
            row, segments, values, inner, threshold, source = found[0]
        else:
            parts = [np.concatenate(part) for part in zip(*found)] or [np.empty((0, 2))] * 6
            order = np.argsort(parts[0], kind="stable")
            row, segments, values, inner, threshold, source = (part[order] for part in parts)
        columns = {"inner": inner, "threshold": threshold, "bank": source}
        return _Rows(segments, classes[row], values, columns, "snippet")

    def _score_bank(
        self, number: int, bank: Bank, reader: _Reader, classes: Int, scores: Float | None
    ) -> tuple[NDArray[Any], ...]:
        own = reader.signal(bank.signal, bank.upsample, classes)
        runs = runs_above(
            own,
            self._thresholds[number],
            relative=bank.relative,
            inclusive=bank.inclusive,
            positive=bank.positive,
            min_length=bank.min_length,
            skip_lone_first=bank.skip_lone_first,
        )
        own_row = runs.row
        if len(own) == 1 and len(classes) != 1:  # one signal for all classes: the same runs for each
            count = len(runs.row)
            tiled: list[Any] = [np.tile(column, len(classes)) for column in runs]
            runs = Runs(*tiled)._replace(row=np.repeat(np.arange(len(classes)), count))
            own_row = np.zeros(len(runs.row), np.int64)
        full, rest, own_weight = reader.score_maps(bank, own, classes)
        rule = bank.score
        margin = rule.margin
        inner, values = contrast(
            full,
            runs,
            inner=rule.inner,
            margin_scale=None if margin is None else margin.scale,
            margin_power=1.0 if margin is None else margin.power,
            layout="symmetric" if margin is None else margin.layout,
            denominator="pooled" if margin is None else margin.denominator,
            outer_weight=rule.outer_weight,
            rest=rest,
            own=own,
            own_weight=own_weight,
            own_row=own_row,
            inclusive=bank.inclusive,
        )
        if rule.video_weight != 0.0:
            if scores is None:
                raise ValueError(
                    f"`video_scores` is needed: the pipeline adds {rule.video_weight:g} times them to a score"
                )
            values = values + rule.video_weight * scores[classes[runs.row]]
        if rule.constant != 0.0:
            values = values + rule.constant
        if rule.scale != 1.0:
            values = values * rule.scale
        segments = np.empty((len(values), 2))
        segments[:, 0] = runs.start
        segments[:, 1] = runs.stop + bank.extend_end
        if bank.upsample > 1:
            segments /= bank.upsample
        return runs.row, segments, values, inner, runs.threshold, np.full(len(values), number)


class _Reader:
    """The maps of one video as the pipeline names them: products, blends, normalised, upsampled, without background."""

    def __init__(self, video: Video, pipeline: Pipeline) -> None:
        self.video = video
        self.pipeline = pipeline
        self.num_classes: int | None = None  # action classes, known from the first (T, K) map
        self.made: dict[tuple[Signal, int], Float] = {}
        for name in pipeline.map_names():
            array = self.find(name)
            if array.ndim == 2 and self.num_classes is None:
                self.num_classes = self.count_classes(array.shape[1])

    def find(self, name: str) -> NDArray[Any]:
        maps = self.video.maps
        if name not in maps and _OTHER_NAME.get(name) in maps:
            name = _OTHER_NAME[name]
        if name not in maps:
            raise ValueError(f"the pipeline needs the map {name!r}, got {', '.join(map(repr, maps)) or 'none'}")
        return maps[name]

    def count_classes(self, width: int) -> int:
        if self.pipeline.background == "none":
            return width
        if self.pipeline.num_classes is None:
            return width - 1
        return width - 1 if width == self.pipeline.num_classes + 1 else width

    def action_columns(self, width: int, what: str) -> slice:
        """The columns of an array of that width that are action classes."""
        if width == self.num_classes:
            return slice(0, width)
        if width - 1 == self.num_classes and self.pipeline.background != "none":
            return slice(1, width) if self.pipeline.background == "first" else slice(0, width - 1)
        raise ValueError(
            f"{what} must have {self.num_classes} classes (background={self.pipeline.background!r}), got {width}"
        )

    def columns(self, name: str, classes: Int | None) -> Float:
        """The map, or product of maps, of that name: (C, T), or (1, T) where no class is told apart."""
        product: Float | None = None
        for part in name.split("*"):
            array = self.find(part)
            if array.ndim == 1:
                one = _checks.as_columns(array[:, None], None, f"maps[{part!r}]")
            elif classes is None:
                one = _checks.as_columns(array, None, f"maps[{part!r}]")
            else:
                first = self.action_columns(array.shape[1], f"maps[{part!r}]").start
                one = _checks.as_columns(array, classes + first, f"maps[{part!r}]")
            product = one if product is None else product * one
        return cast(Float, product)

    def signal(self, signal: Signal, factor: int, classes: Int) -> Float:
        """The blended, normalised and upsampled buffer; each is made once per video."""
        key = (signal, factor)
        if key not in self.made:
            total: Float | None = None
            for name, weight in signal.mix:
                part = self.columns(name, classes)
                part = part if weight == 1.0 else weight * part
                total = part if total is None else total + part
            buffer = normalized(cast(Float, total), signal.normalize, signal.clip)
            self.made[key] = _kernels.upsample(buffer, factor) if factor > 1 else buffer
        return self.made[key]

    def score_maps(self, bank: Bank, own: Float, classes: Int) -> tuple[Float, Float, float]:
        """What the score is taken on: inside, outside, and the weight of the bank's own map where it passes."""
        rule = bank.score
        full = own if rule.signal is None else self.signal(rule.signal, bank.upsample, classes)
        weight = 1.0
        rest = np.zeros_like(full)
        if rule.signal is not None and rule.zero_below:
            ours = bank.signal.mix[0][0]
            weight = dict(rule.signal.mix).get(ours, 0.0)
            others = tuple(pair for pair in rule.signal.mix if pair[0] != ours)
            if others:
                rest = rest + self.signal(replace(rule.signal, mix=others), bank.upsample, classes)
        if len(full) < len(classes):
            full, rest = (np.repeat(part, len(classes), axis=0) for part in (full, rest))
        return (full, rest, weight) if rule.zero_below else (full, full, 0.0)

    def select_classes(self) -> tuple[Int, Float | None]:
        """The classes to search, rising, and the video-level scores of all action classes."""
        scores = self.video_scores()
        rule = self.pipeline.classes
        if rule is None:
            return np.arange(self.num_classes or 1), scores
        if scores is None:
            raise ValueError(
                f"`video_scores` is needed: the pipeline searches classes with a score of {rule.threshold:g}"
            )
        passing = scores >= rule.threshold if rule.inclusive else scores > rule.threshold
        if not passing.any() and rule.fallback == "argmax" and len(scores):
            passing = np.arange(len(scores)) == scores.argmax()
        return np.flatnonzero(passing), scores

    def video_scores(self) -> Float | None:
        given = self.video.scores.get("video")
        rule = self.pipeline.video_scores
        if given is None and rule is not None:
            columns = self.columns(rule.map, None)
            length = columns.shape[1]
            if length == 0:
                given = np.zeros(len(columns))
            else:
                k = max(1, length // rule.ratio)
                given = np.sort(columns, axis=1)[:, length - k :].mean(axis=1)
                if rule.softmax:
                    given = np.exp(given - given.max())
                    given /= given.sum()
        if given is None:
            return None
        if self.num_classes is None:
            self.num_classes = self.count_classes(len(given))
        return given[self.action_columns(len(given), "`video_scores`")]


# -------------------------------------------------------------------------------------------------------------- stages


def _overlap(overlap: Overlap) -> dict[str, Any]:
    return {"overlap": overlap.kind, "length_offset": overlap.length_offset, "area_eps": overlap.area_eps}


def _in_tie_order(rows: _Rows, ties: str) -> _Rows:
    """Suppression takes the earlier of equal rows first; codes that take the last of an ascending sort do not."""
    return rows if ties == "first" else rows.take(np.arange(len(rows.scores))[::-1])


def _nms(stage: Nms, rows: _Rows, video: Video) -> _Rows:
    rows = _in_tie_order(rows, stage.ties)
    keep = suppression.nms(
        rows.segments,
        rows.scores,
        tiou_threshold=stage.threshold,
        idxs=rows.groups(stage.per_class),
        inclusive=stage.inclusive,
        **_overlap(stage.overlap),
    )
    kept = rows.take(keep)
    kept.pool = rows
    return kept


def _soft_nms(stage: SoftNms, rows: _Rows, video: Video) -> _Rows:
    keep, scores = suppression.soft_nms(
        rows.segments,
        rows.scores,
        method=stage.method,
        sigma=stage.sigma,
        tiou_threshold=stage.threshold,
        gate=stage.gate,
        min_score=stage.min_score,
        decay_negative=stage.decay_negative,
        max_detections=stage.max_detections,
        idxs=rows.groups(stage.per_class),
        **_overlap(stage.overlap),
    )
    kept = rows.take(keep)
    kept.scores, kept.pool = scores, rows
    return kept


def _fuse(stage: Fuse, rows: _Rows, video: Video) -> _Rows:
    if stage.weights != "scores" and stage.weights not in rows.columns:
        raise ValueError(f"`Fuse.weights` must be 'scores' or one of {sorted(rows.columns)}, got {stage.weights!r}")
    rows = _in_tie_order(rows, stage.ties)
    fused = fusion.fuse_segments(
        rows.segments,
        rows.scores,
        tiou_threshold=stage.threshold,
        temperature=stage.temperature,
        distribution=stage.distribution,
        weights=None if stage.weights == "scores" else rows.columns[stage.weights],
        idxs=rows.groups(stage.per_class),
        signed_denominator=stage.signed_denominator,
        **_overlap(stage.overlap),
    )
    columns = {
        "pick": rows.segments[fused.picks],
        "size": fused.sizes,
        "effective_size": fused.effective_size,
        "start_std": fused.start_std,
        "end_std": fused.end_std,
    }
    return _Rows(fused.segments, rows.labels[fused.picks], fused.scores, columns, rows.unit, rows)


def _vote(stage: Vote, rows: _Rows, video: Video) -> _Rows:
    pool = rows.pool
    if pool is None or pool.unit != rows.unit:
        raise ValueError("`Vote` must follow a suppression in the same unit: it votes among the rows that entered it")
    voted = rows.take(np.arange(len(rows.scores)))
    voted.segments = suppression.segment_voting(
        rows.segments,
        pool.segments,
        pool.scores,
        tiou_threshold=stage.threshold,
        times_iou=stage.times_iou,
        kept_idxs=rows.groups(stage.per_class),
        idxs=pool.groups(stage.per_class),
    )
    return voted


def _keep(stage: Keep, rows: _Rows, video: Video) -> _Rows:
    passing = np.ones(len(rows.scores), bool)
    if stage.min_score is not None:
        passing &= rows.scores > stage.min_score
    if stage.min_length is not None:
        passing &= rows.segments[:, 1] - rows.segments[:, 0] > stage.min_length
    rows = rows.take(np.flatnonzero(passing))
    if stage.top is None and stage.cumulative is None:
        return rows
    group = rows.labels if stage.per == "class" else np.zeros(len(rows.scores), np.int64)
    order = np.lexsort((-rows.scores, group))
    chosen = []
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if stage.top is not None:
            members = members[: stage.top]
        if stage.cumulative is not None and len(members):
            sums = np.cumsum(rows.scores[members])
            members = members[sums <= stage.cumulative * sums.max()]
        chosen.append(members)
    return rows.take(np.concatenate(chosen))


def _seconds(stage: Seconds, rows: _Rows, video: Video) -> _Rows:
    if video.seconds_per_snippet is None:
        raise ValueError("`seconds_per_snippet` is needed: the pipeline converts to seconds")
    if stage.clamp and video.duration is None:
        raise ValueError("`duration` is needed: the pipeline limits segments to the video")
    if rows.unit != "snippet":
        raise ValueError(f"`Seconds` converts snippets, got rows in unit {rows.unit!r}")
    limit = video.duration if stage.clamp else None
    seconds = segments_to_seconds(rows.segments, video.seconds_per_snippet, warp=video.warp, duration=limit)
    return _Rows(seconds, rows.labels, rows.scores, rows.columns, "second")


def _expand(stage: Expand, rows: _Rows, video: Video) -> _Rows:
    grow = 0.5 * stage.ratio * (rows.segments[:, 1] - rows.segments[:, 0])
    limit = video.duration if rows.unit == "second" else float(video.num_snippets)
    grown = np.column_stack([rows.segments[:, 0] - grow, rows.segments[:, 1] + grow])
    return _Rows(np.clip(grown, 0.0, limit), rows.labels, rows.scores, rows.columns, rows.unit)


def _round(stage: Round, rows: _Rows, video: Video) -> _Rows:
    segments, scores = rows.segments.round(stage.segments), rows.scores.round(stage.scores)
    return _Rows(segments, rows.labels, scores, rows.columns, rows.unit)


_STAGES: dict[type[Settings], Callable[[Any, _Rows, Video], _Rows]] = {
    Nms: _nms,
    SoftNms: _soft_nms,
    Fuse: _fuse,
    Vote: _vote,
    Keep: _keep,
    Seconds: _seconds,
    Expand: _expand,
    Round: _round,
}


def warm_up() -> None:
    """Compile every kernel now, or load it from numba's cache: a few seconds that the first calls then do not take.

    >>> warm_up()
    """
    from .evaluation import average_recall, mean_average_precision

    video = Video(
        "v",
        {"cas": np.array([[0.0], [0.9], [0.0]]), "attention": np.array([0.0, 0.9, 0.0])},
        {"video": np.ones(1)},
        seconds_per_snippet=1.0,
    )
    found = PostProcessor.from_preset("cola")(video)
    segments, scores = found.segments, found.scores
    suppression.soft_nms(segments, scores)
    suppression.segment_voting(segments, segments, scores, tiou_threshold=0.5)
    fusion.fuse_segments(segments, scores, tiou_threshold=0.5, temperature=0.1)
    fusion.weighted_segment_fusion([segments], [scores], [found.labels])
    overlap.tiou_matrix(segments, segments)
    mean_average_precision(found, found)
    average_recall(found, found)
