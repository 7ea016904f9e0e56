"""What a pipeline did with one video: its proposals, its detections, and which proposals each of them is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _checks, _stages
from ._checks import Float, Int
from ._stages import Rows
from .config import Fuse, Nms, Stage
from .types import FusedSegments, Segments, Video

__all__ = ["ThresholdedSignal", "Trace"]

_ROW = "_row"  # a column that the stages carry along


class ThresholdedSignal(NamedTuple):
    """What one bank of a pipeline compares, for one class, and with which values."""

    bank: int
    label: int
    values: Float  # (T * upsample,)
    thresholds: Float  # (M,) on the scale of `values`, relative ones included


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Proposals of one video, the detections that became of them, and who went where.

    `PostProcessor.trace` makes one; `of_fusion` makes one of `fuse_segments`.

    Parameters
    ----------
    proposals : Segments
        Of one video, N rows, in the unit in which the pipeline starts.  ``times`` is a column where a row stands for
        several equal ones, which several thresholds found.
    detections : Segments
        Of the same video, M rows.
    assignment : (N,) array_like of int
        The detection that every proposal went into, or that suppressed it; -1 where none has it.
    signals : sequence of ThresholdedSignal, optional
        One for every bank and every class that was searched.

    Raises
    ------
    ValueError
        If proposals or detections are of several videos, or `assignment` has another length or names no detection.

    Examples
    --------
    >>> Trace(Segments([[0, 2], [1, 2], [7, 8]]), Segments([[0, 2]]), [0, 0, -1]).members(0)
    array([0, 1])
    """

    proposals: Segments
    detections: Segments
    assignment: Int
    signals: tuple[ThresholdedSignal, ...] = ()

    def __post_init__(self) -> None:
        for name in ("proposals", "detections"):
            part = getattr(self, name)
            if not isinstance(part, Segments):
                raise TypeError(f"`{name}` must be Segments, got {type(part).__name__}")
            if part.num_videos != 1:
                raise ValueError(f"`{name}` must be of one video, got {part.num_videos}")
        assignment = _checks.as_integers(self.assignment, len(self.proposals), "assignment")
        count = len(self.detections)
        bad = np.flatnonzero((assignment < -1) | (assignment >= count))
        if len(bad):
            raise ValueError(
                f"`assignment` must be -1 or below {count}, the number of detections; row {bad[0]} is "
                f"{assignment[bad[0]]} ({len(bad)} of {len(assignment)} rows)"
            )
        object.__setattr__(self, "assignment", assignment)
        object.__setattr__(self, "signals", tuple(self.signals))

    def members(self, detection: int) -> Int:
        """Rows of the proposals that went into a detection."""
        return np.flatnonzero(self.assignment == detection)

    @classmethod
    def of_fusion(cls, proposals: Segments, fused: FusedSegments) -> Trace:
        """The trace of `fuse_segments` on these proposals.

        >>> from tal_postproc import fuse_segments
        >>> rows = Segments([[0, 10], [2, 10], [20, 30]], [4, 4, 4], [0.5, 0.5, 0.4])
        >>> fused = fuse_segments(rows.segments, rows.scores, tiou_threshold=0.5, temperature=0.1)
        >>> Trace.of_fusion(rows, fused).detections.labels
        array([4, 4])
        """
        columns: dict[str, ArrayLike] = {"start_std": fused.start_std, "end_std": fused.end_std}
        labels = proposals.labels[fused.picks]
        detections = Segments(fused.segments, labels, fused.scores, unit=proposals.unit, columns=columns)
        return cls(proposals, detections, fused.assignment)


def follow(stages: Sequence[Stage], rows: Rows, video: Video) -> Trace:
    """The stages on the proposals of one video, and where each of these went."""
    went = np.arange(len(rows.scores))
    columns = dict(rows.columns)
    if rows.multiplicity is not None:
        columns["times"] = rows.multiplicity
    proposals = Segments(rows.segments, rows.labels, rows.scores, unit=rows.unit, columns=columns)
    for stage in stages:
        if isinstance(stage, (Fuse, Nms)):
            fused = _stages.clusters(_as_fusion(stage), rows)
            rows = _stages.fused_rows(rows, fused) if isinstance(stage, Fuse) else _stages.apply(stage, rows, [video])
            step = fused.assignment
        else:
            count = len(rows.scores)
            rows.columns = {**rows.columns, _ROW: np.arange(count)}
            rows = _stages.apply(stage, rows, [video])
            step = _places(rows.columns.pop(_ROW), count)
        went = np.where(went < 0, -1, step[went])
    rows.columns = {**rows.columns, _ROW: np.arange(len(rows.scores))}
    (found,) = rows.split([video])
    kept = {name: column for name, column in found.columns.items() if name != _ROW}
    last = _places(found.columns[_ROW], len(rows.scores))
    return Trace(proposals, found.replace(columns=kept), np.where(went < 0, -1, last[went]))


def _as_fusion(stage: Fuse | Nms) -> Fuse:
    """The fusion whose picks are what the suppression keeps, in the same order."""
    if isinstance(stage, Fuse):
        return stage
    shared = {name: getattr(stage, name) for name in ("threshold", "overlap", "inclusive", "ties", "per_class")}
    return Fuse(temperature=1.0, **shared)


def _places(kept: Int, count: int) -> Int:
    """Where each of so many rows is among those that were kept; -1 for the others."""
    places = np.full(count, -1)
    places[kept] = np.arange(len(kept))
    return places
