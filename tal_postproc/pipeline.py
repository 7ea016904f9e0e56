"""`PostProcessor`: a pipeline applied to one video, to many, or to a stream of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _stages, _threads, fusion, linpro, overlap, presets, suppression
from ._checks import Int
from ._kernels.nms import nms_groups
from ._signals import Batch, about
from ._stages import Rows
from .config import Margin, Pipeline
from .proposals import Runs, contrast, levels_of, runs_above
from .tracing import ThresholdedSignal, Trace, follow
from .types import Segments, Video

__all__ = ["PostProcessor", "warm_up"]


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
        self._listing = _stages.listing(pipeline)
        self._map_names = pipeline.map_names()
        self._main_map = next((name for name in self._map_names if name not in ("attention", "actionness")), "cas")

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
            maps = {self._main_map: video} | ({} if attention is None else {"attention": attention})
            scores = {} if video_scores is None else {"video": video_scores}
            video = Video("", cast(Any, maps), cast(Any, scores), seconds_per_snippet, duration)
        return self._detect([video])[0]

    def process(
        self, videos: Iterable[Video], num_threads: int | None = None, progress: bool = False
    ) -> Iterator[Segments]:
        """Detections of many videos, one `Segments` each, in order.

        `videos` may be any iterable; at most 128 videos, or 8 MiB of maps, are read ahead per thread.  The result is
        the same, byte for byte, for every number of threads.  Default: all cores, one inside a worker process.
        `progress` shows a bar on a terminal and nothing in a pipe.  What a bad video raises comes after the results
        of those before it.

        >>> clips = [Video("a", {"cas": np.eye(4)}), Video("b", {"cas": np.ones((4, 2))})]
        >>> [len(found) for found in PostProcessor.from_preset("rskp", classes=None).process(clips)]
        [0, 2]
        """
        _checks.refuse_tensors(videos, "videos")
        if isinstance(videos, Video) or not isinstance(videos, Iterable):
            raise TypeError(f"`videos` must be an iterable of Video, got {type(videos).__name__}")
        parts = _threads.ordered_map(self._detect_each, videos, num_threads, _weight)
        results = _results(parts)
        if not progress:
            return results
        from tqdm import tqdm

        total = len(videos) if isinstance(videos, Sized) else None
        return iter(tqdm(results, total=total, unit="video", disable=None))

    def trace(self, video: Video) -> Trace:
        """What becomes of the proposals of one video on their way to detections, for pictures and questions.

        Parameters
        ----------
        video : Video

        Returns
        -------
        Trace
            `detections` are what the pipeline returns for the video, `proposals` what entered its first stage.  NMS
            assigns what it drops to the row that drops it; soft-NMS and `Keep` lead nowhere (-1).

        Raises
        ------
        ValueError
            As for a call.

        Examples
        --------
        >>> from tal_postproc.config import Bank, Nms
        >>> chain = Pipeline(banks=(Bank(thresholds=(0.25, 0.75)),), stages=(Nms(threshold=0.3),))
        >>> trace = PostProcessor(chain).trace(Video("v", {"cas": [[0.0], [0.5], [0.9], [0.5], [0.0]]}))
        >>> len(trace.proposals), len(trace.detections), trace.assignment
        (2, 1, array([0, 0]))
        """
        if _kind(video) is not None:
            return follow(self.pipeline.stages, _given([video]), video)
        trace = follow(self.pipeline.stages, self._propose([video]), video)
        batch = Batch([video], self.pipeline, self._map_names)
        signals = []
        for number, bank in enumerate(self.pipeline.banks if batch.videos else ()):
            own = batch.signal(bank.signal, bank.upsample)
            levels = levels_of(own.columns, self._thresholds[number], bank.relative)
            for label, row in zip(batch.label.tolist(), own.row.tolist()):
                values = own.columns.values[own.columns.offsets[row] : own.columns.offsets[row + 1]]
                signals.append(ThresholdedSignal(number, label, values, levels[row if len(levels) > 1 else 0]))
        return replace(trace, signals=tuple(signals))

    # ------------------------------------------------------------------------------------- a few videos, step by step

    def _detect_each(self, videos: Sequence[Video]) -> list[Segments | Exception]:
        """Detections of a few videos; after a bad one comes its error, and nothing more."""
        try:
            return list(self._detect(videos))
        except (ValueError, TypeError):
            found: list[Segments | Exception] = []
            for video in videos:
                try:
                    found += self._detect([video])
                except (ValueError, TypeError) as error:
                    return [*found, error]
            raise

    def _detect(self, videos: Sequence[Video]) -> list[Segments]:
        """Detections of a few videos at once: the work per call is shared, the results do not depend on the company."""
        kinds = [_kind(video) for video in videos]
        if any(kind != kinds[0] for kind in kinds):
            return [found for video in videos for found in self._detect([video])]
        rows = self._propose(videos) if kinds[0] is None else _given(videos)
        for stage in self.pipeline.stages:
            rows = _stages.apply(stage, rows, videos)
        return rows.split(videos)

    def _propose(self, videos: Sequence[Video]) -> Rows:
        """Scored proposals of every bank: by video, by class, then by bank, then as the bank found them."""
        if not self.pipeline.banks:
            raise about(videos[0], ValueError("`proposals` are needed: the pipeline has no banks that could make them"))
        batch = Batch(videos, self.pipeline, self._map_names)
        found = [self._score_runs(n, batch, *self._find_runs(n, batch)) for n in range(len(self.pipeline.banks))]
        return self._listed(batch, found)

    def _listed(self, batch: Batch, found: Sequence[tuple[NDArray[Any], ...]]) -> Rows:
        """The proposals of all banks in one list."""
        if len(found) == 1:
            row, segments, scores, inner, threshold, source, multiplicity = found[0]
        else:
            parts = [np.concatenate(part) for part in zip(*found)]
            order = np.argsort(parts[0], kind="stable")
            row, segments, scores, inner, threshold, source, multiplicity = (part[order] for part in parts)
        columns = {"inner": inner, "threshold": threshold, "bank": source}
        return Rows(
            segments, batch.label[row], scores, batch.video[row], row, columns, "snippet", multiplicity=multiplicity
        )

    def _find_runs(self, number: int, batch: Batch) -> tuple[Int, Runs]:
        """The runs of a bank, and the (video, class) row of each."""
        bank = self.pipeline.banks[number]
        if not batch.videos:
            none, nothing = np.empty(0, np.int64), np.empty(0)
            return none, Runs(none, none, nothing, nothing, nothing, none)
        own = batch.signal(bank.signal, bank.upsample)
        runs = runs_above(
            own.columns,
            self._thresholds[number],
            relative=bank.relative,
            inclusive=bank.inclusive,
            positive=bank.positive,
            min_length=bank.min_length,
            skip_lone_first=bank.skip_lone_first,
            dilate=bank.dilate,
            once=0 if bank.score.zero_below else self._listing,  # zeros below its threshold: each has its own score
        )
        row = runs.row
        if len(own.row) > len(own.columns.offsets) - 1:  # a (T,) map: the same runs for every class of a video
            row, which = _repeated(runs.row, own.row)
            chosen: list[Any] = [column[which] for column in runs]
            runs = Runs(*chosen)
        return row, runs

    def _score_runs(self, number: int, batch: Batch, row: Int, runs: Runs) -> tuple[NDArray[Any], ...]:
        """Row, segment, score, inner score, threshold, number of the bank and multiplicity of every proposal."""
        bank = self.pipeline.banks[number]
        if not batch.videos:
            return row, np.empty((0, 2)), runs.threshold, runs.threshold, runs.threshold, row, row
        own = batch.signal(bank.signal, bank.upsample)
        full, rest, own_weight = batch.score_maps(bank)
        rule = bank.score
        margin = rule.margin or Margin()
        inner, scores = contrast(
            full.columns,
            runs._replace(row=full.row[row]),
            inner=rule.inner,
            margin_scale=None if rule.margin is None else margin.scale,
            margin_power=margin.power,
            layout=margin.layout,
            denominator=margin.denominator,
            outer_weight=rule.outer_weight,
            rest=rest,
            own=own.columns,
            own_weight=own_weight,
            own_row=own.row[row],
            inclusive=bank.inclusive,
        )
        if rule.video_weight != 0.0:
            scores = scores + rule.video_weight * batch.video_scores(rule.video_weight)[row]
        scores = (scores + rule.constant) * rule.scale
        segments = np.empty((len(scores), 2))
        segments[:, 0] = runs.start
        segments[:, 1] = runs.stop + bank.extend_end
        if bank.upsample > 1:
            segments /= bank.upsample
        return row, segments, scores, inner, runs.threshold, np.full(len(scores), number), runs.multiplicity


def _repeated(rising: Int, wanted: Int) -> tuple[Int, Int]:
    """For every entry w of `wanted`, the positions in `rising` that hold w: (entry's number, position)."""
    first = np.searchsorted(rising, wanted)
    counts = np.searchsorted(rising, wanted, side="right") - first
    number = np.repeat(np.arange(len(wanted)), counts)
    start = np.cumsum(counts) - counts
    return number, np.arange(len(number)) - (start - first)[number]


def _weight(video: Video) -> int:
    """Bytes of the maps; what is no video is refused later."""
    total = 0
    if isinstance(video, Video):
        for array in video.maps.values():  # not a sum of a generator: it is called for every video
            total += array.nbytes
    return total


def _results(parts: Generator[Segments | Exception, None, None]) -> Iterator[Segments]:
    """What was found, up to the first error; it ends the work of the threads, too."""
    with closing(parts):
        for found in parts:
            if isinstance(found, Exception):
                raise found
            yield found


def _kind(video: Video) -> tuple[Any, ...] | None:
    """What given proposals must share to be worked on together; None for a video without."""
    if not isinstance(video, Video):
        raise TypeError(f"`videos` must hold Video, got {type(video).__name__}")
    given = video.proposals
    if given is None:
        return None
    if given.num_videos != 1:
        raise about(video, ValueError(f"`proposals` must be of one video, got {given.num_videos}"))
    return given.unit, [(name, column.dtype, column.shape[1:]) for name, column in given.columns.items()]


def _given(videos: Sequence[Video]) -> Rows:
    """The proposals that the videos bring."""
    rows = Segments.concatenate(cast(Segments, video.proposals).replace(video_ids=()) for video in videos)
    classes, compact = np.unique(rows.labels, return_inverse=True)
    group = rows.video_index * len(classes) + compact
    return Rows(rows.segments, rows.labels, rows.scores, rows.video_index, group, dict(rows.columns), rows.unit)


def warm_up() -> None:
    """Compile every kernel now, or load it from numba's cache: several seconds that the first calls then do not take.

    >>> warm_up()
    """
    from .bootstrap import weighing
    from .evaluation import average_recall, largest_overlaps, match_all, mean_average_precision

    video = Video(
        "v",
        {"cas": np.array([[0.0], [0.9], [0.0]]), "attention": np.array([0.0, 0.9, 0.0])},
        {"video": np.ones(1)},
        seconds_per_snippet=1.0,
    )
    found = PostProcessor.from_preset("cola")(video)
    segments, scores = found.segments, found.scores
    suppression.soft_nms(segments, scores)
    whole = np.arange(len(scores)), np.array([0, len(scores)])
    nms_groups(segments, scores, *whole, 0.5, False, False, 0.0, 0.0, plain=0, small=0)
    suppression.segment_voting(segments, segments, scores, tiou_threshold=0.5)
    for distribution in ("gaussian", "exponential", "student_t"):
        fusion.fuse_segments(segments, scores, tiou_threshold=0.5, temperature=0.1, distribution=distribution)
    fusion.weighted_segment_fusion([segments], [scores], [found.labels])
    overlap.tiou_matrix(segments, segments)
    linpro.linpro_labels([[0, 3], [2, 5]], [0.5, 0.5], 6, solver="highs")
    mean_average_precision(found, found, protocol="actionformer")
    average_recall(found, found)
    matched = match_all(found, found, [0.5], "activitynet", None, 1.0)
    largest_overlaps(matched)
    weighing(matched)[0](np.ones((1, 2), np.int64))
