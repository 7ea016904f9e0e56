"""The stages of a pipeline: rows of several videos in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _checks, fusion, suppression
from ._checks import Float, Int
from ._kernels import segments as _kernels
from ._kernels.nms import nms_groups
from ._kernels.windows import soft_nms_groups
from ._signals import about
from .config import Expand, Fuse, Keep, Nms, Overlap, Pipeline, Round, Seconds, SoftNms, Stage, Vote
from .proposals import segments_to_seconds
from .types import FusedSegments, Segments, Unit, Video


@dataclass(slots=True)
class Rows:
    """Segments of several videos on their way through the stages."""

    segments: Float
    labels: Int
    scores: Float
    video: Int  # position of the row's video
    group: Int  # number of the row's (video, class) pair; rises with video, then class
    columns: dict[str, NDArray[Any]]
    unit: Unit
    pool: Rows | None = None  # what entered the last suppression, for voting
    multiplicity: Int | None = None  # equal rows that a row stands for; None: one

    def take(self, index: NDArray[Any]) -> Rows:
        """Some rows, in the order of `index`."""
        columns = {name: column[index] for name, column in self.columns.items()}
        return Rows(
            self.segments[index],
            self.labels[index],
            self.scores[index],
            self.video[index],
            self.group[index],
            columns,
            self.unit,
            self.pool,
            None if self.multiplicity is None else self.multiplicity[index],
        )

    def groups(self, per_class: bool) -> Int:
        """Rows of one group compete: of one video and class, or of one video."""
        return self.group if per_class else self.video

    def split(self, videos: Sequence[Video]) -> list[Segments]:
        """One `Segments` per video: by class, best score first, the earlier row first among equals."""
        rows = self.take(_ordered(self, per_class=True)[0])
        bounds = np.searchsorted(rows.video, np.arange(len(videos) + 1))
        offsets = np.zeros((len(videos), 2), np.int64)
        offsets[:, 1] = bounds[1:] - bounds[:-1]
        found = []
        for video, own, start, stop in zip(videos, offsets, bounds.tolist(), bounds[1:].tolist()):
            found.append(
                Segments._trusted(
                    rows.segments[start:stop],
                    rows.labels[start:stop],
                    rows.scores[start:stop],
                    own,
                    rows.unit,
                    (video.id,) if video.id else (),
                    {name: column[start:stop] for name, column in rows.columns.items()},
                )
            )
        return found


def listing(pipeline: Pipeline) -> Literal[0, 1, -1]:
    """How a run that several thresholds find may enter the stages: as often (0), once as the first or the last (-1).

    Of equal rows NMS keeps one, and fusion has all in one cluster, which needs to know how many: less work, and the
    same result.
    """
    stage = pipeline.stages[0] if pipeline.stages else None
    if not isinstance(stage, (Nms, Fuse)) or any(isinstance(later, Vote) for later in pipeline.stages):
        return 0
    if isinstance(stage, Fuse) and stage.weights == "threshold":
        return 0
    for bank in pipeline.banks:
        candidate, length_offset, area_eps = _measure(stage.overlap)
        shortest = (bank.min_length + bank.extend_end) / bank.upsample + length_offset
        whole = shortest + (1.0 if candidate else 2.0) * area_eps
        if not shortest > (stage.threshold + 1e-9) * whole:  # equal ones would not suppress each other
            return 0
    return -1 if stage.ties == "last" else 1


def apply(stage: Stage, rows: Rows, videos: Sequence[Video]) -> Rows:
    """The rows after one stage."""
    return _STAGES[type(stage)](stage, rows, videos)


def _measure(overlap: Overlap) -> tuple[bool, float, float]:
    return overlap.kind == "candidate", overlap.length_offset, overlap.area_eps


def _ordered(rows: Rows, per_class: bool, ties: str = "first", small: int = 0) -> tuple[Int, Int]:
    """Rows by group, best first, and the groups' offsets; codes that take the last of an ascending sort have "last"."""
    return _kernels.score_order(rows.scores, rows.groups(per_class), ties == "last", small)


def _nms(stage: Nms, rows: Rows, videos: Sequence[Video]) -> Rows:
    order, offsets = _ordered(rows, stage.per_class, stage.ties, _kernels.SMALL)
    how = stage.threshold, stage.inclusive, *_measure(stage.overlap)
    keep, _ = nms_groups(rows.segments, rows.scores, order, offsets, *how)
    return replace(rows.take(keep), pool=rows, multiplicity=None)


def _soft_nms(stage: SoftNms, rows: Rows, videos: Sequence[Video]) -> Rows:
    order, offsets = _ordered(rows, stage.per_class)
    keep, scores, _ = soft_nms_groups(rows.segments, rows.scores, order, offsets, *soft_nms_rule(stage, len(order)))
    kept = replace(rows.take(keep), scores=scores, pool=rows)
    return kept if stage.max_detections is None else _keep(Keep(top=stage.max_detections), kept, videos)


def soft_nms_rule(stage: SoftNms, room: int) -> tuple[Any, ...]:
    """What `soft_nms_groups` gets besides the rows; room for so many picks."""
    start, slope = _checks.as_decay_start(stage.method, stage.threshold, stage.gate)
    return (
        suppression.SOFT_METHODS[stage.method],
        stage.sigma,
        start,
        slope,
        -np.inf if stage.min_score is None else stage.min_score,
        stage.keep_first,
        stage.decay_negative,
        room,
        *_measure(stage.overlap),
    )


def _fuse(stage: Fuse, rows: Rows, videos: Sequence[Video]) -> Rows:
    return fused_rows(rows, clusters(stage, rows))


def clusters(stage: Fuse, rows: Rows) -> FusedSegments:
    """What a fusion makes of the rows, and which of them went where."""
    weights = fusion_weights(stage, rows)
    if stage.weights != "scores":
        weights = _checks.as_values(weights, len(weights), f"columns[{stage.weights!r}]")
    order, offsets = _ordered(rows, stage.per_class, stage.ties, _kernels.SMALL)
    fused, _ = fusion.fuse_groups(
        rows.segments, rows.scores, weights, order, offsets, multiplicity=rows.multiplicity, **fusion_rule(stage)
    )
    return fused


def fusion_rule(stage: Fuse) -> dict[str, Any]:
    """What `fuse_groups` gets besides the rows."""
    return {
        "overlap": (stage.threshold, stage.inclusive, *_measure(stage.overlap)),
        "temperature": stage.temperature,
        "distribution": stage.distribution,
        "dof": stage.dof,
        "fit": stage.scale == "fit",
        "signed_denominator": stage.signed_denominator,
    }


def fusion_weights(stage: Fuse, rows: Rows) -> Any:
    """The scores, or the column that a fusion takes in their place."""
    if stage.weights == "scores":
        return rows.scores
    if stage.weights not in rows.columns:
        raise ValueError(f"`Fuse.weights` must be 'scores' or one of {sorted(rows.columns)}, got {stage.weights!r}")
    return rows.columns[stage.weights]


def fused_rows(rows: Rows, fused: Any) -> Rows:
    """The clusters of rows as rows, what is known of each in columns."""
    columns = {
        "pick": rows.segments[fused.picks],
        "size": fused.sizes,
        "effective_size": fused.effective_size,
        "start_std": fused.start_std,
        "end_std": fused.end_std,
    }
    picks = rows.take(fused.picks)
    return replace(picks, segments=fused.segments, scores=fused.scores, columns=columns, pool=rows, multiplicity=None)


def _vote(stage: Vote, rows: Rows, videos: Sequence[Video]) -> Rows:
    pool = voters(rows)
    voted = suppression.segment_voting(
        rows.segments,
        pool.segments,
        pool.scores,
        tiou_threshold=stage.threshold,
        times_iou=stage.times_iou,
        kept_idxs=rows.groups(stage.per_class),
        idxs=pool.groups(stage.per_class),
    )
    return replace(rows, segments=voted)


def voters(rows: Rows) -> Rows:
    """What entered the last suppression."""
    if rows.pool is None or rows.pool.unit != rows.unit:
        raise ValueError("`Vote` must follow a suppression in the same unit: it votes among the rows that entered it")
    return rows.pool


def _keep(stage: Keep, rows: Rows, videos: Sequence[Video]) -> Rows:
    passing = np.ones(len(rows.scores), bool)
    if stage.min_score is not None:
        passing &= rows.scores > stage.min_score
    if stage.min_length is not None:
        passing &= rows.segments[:, 1] - rows.segments[:, 0] > stage.min_length
    rows = rows.take(np.flatnonzero(passing))
    if stage.top is None and stage.cumulative is None:
        return rows
    order, offsets = _ordered(rows, stage.per == "class")
    chosen = []
    for start, stop in zip(offsets.tolist(), offsets[1:].tolist()):
        members = order[start:stop][: stage.top]
        if stage.cumulative is not None and len(members):
            sums = np.cumsum(rows.scores[members])
            members = members[: np.count_nonzero(sums <= stage.cumulative * sums.max())]
        chosen.append(members)
    return rows.take(np.concatenate(chosen))


def _seconds(stage: Seconds, rows: Rows, videos: Sequence[Video]) -> Rows:
    require_snippets(rows)
    for name, needed in (("seconds_per_snippet", True), ("duration", stage.clamp)):
        for video in videos:
            if needed and getattr(video, name) is None:
                raise about(video, ValueError(f"`{name}` is needed: the pipeline converts to seconds"))
    steps = np.array([video.seconds_per_snippet for video in videos])[rows.video]

    def converted(segments: Float) -> Float:
        seconds = segments * steps[:, None]
        for index, video in enumerate(videos):
            if video.warp is not None:
                mine = rows.video == index
                seconds[mine] = segments_to_seconds(seconds[mine], 1.0, warp=video.warp)
        if stage.clamp:
            seconds = np.clip(seconds, 0.0, np.array([video.duration for video in videos])[rows.video][:, None])
        return seconds

    columns = dict(rows.columns)
    if "pick" in columns:
        columns["pick"] = converted(columns["pick"])
    for name in ("start_std", "end_std"):  # a spread goes through no warp
        if name in columns:
            columns[name] = columns[name] * steps
    return replace(rows, segments=converted(rows.segments), columns=columns, unit="second")


def require_snippets(rows: Rows) -> None:
    """ValueError unless the rows can be converted to seconds."""
    if rows.unit != "snippet":
        raise ValueError(f"`Seconds` converts snippets, got rows in unit {rows.unit!r}")


def _expand(stage: Expand, rows: Rows, videos: Sequence[Video]) -> Rows:
    grow = 0.5 * stage.ratio * (rows.segments[:, 1] - rows.segments[:, 0])
    lengths = {
        "snippet": [video.num_snippets if video.maps else np.inf for video in videos],
        "second": [video.duration or np.inf for video in videos],
        "relative": [1.0] * len(videos),
    }
    ends = lengths[rows.unit]
    grown = np.column_stack([rows.segments[:, 0] - grow, rows.segments[:, 1] + grow])
    return replace(rows, segments=np.clip(grown, 0.0, np.array(ends, np.float64)[rows.video][:, None]))


def _round(stage: Round, rows: Rows, videos: Sequence[Video]) -> Rows:
    return replace(rows, segments=rows.segments.round(stage.segments), scores=rows.scores.round(stage.scores))


_STAGES: dict[type[Stage], Callable[[Any, Rows, Sequence[Video]], Rows]] = {
    Nms: _nms,
    SoftNms: _soft_nms,
    Fuse: _fuse,
    Vote: _vote,
    Keep: _keep,
    Seconds: _seconds,
    Expand: _expand,
    Round: _round,
}
