"""What goes in and what comes out: videos, segments, results, and our errors.

All of them are frozen, hold plain NumPy arrays, and check themselves when they are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int

__all__ = [
    "Annotations",
    "AverageRecall",
    "BootstrapMAP",
    "ClassificationMAP",
    "EnsembledSegments",
    "ErrorBreakdown",
    "FormatError",
    "FusedSegments",
    "LabelChurn",
    "LabelCollapseWarning",
    "LabelQuality",
    "LabelState",
    "LinProLabelMap",
    "LinProLabels",
    "MeanAveragePrecision",
    "MissedInstances",
    "MissingExtraError",
    "PairedBootstrap",
    "RefreshReport",
    "Segments",
    "UnitError",
    "Video",
    "Videos",
]

Unit = Literal["snippet", "second", "relative"]
UNITS = ("snippet", "second", "relative")


class UnitError(ValueError):
    """Segments came in another unit than the function needs."""


class FormatError(ValueError):
    """A file or record is not what its format says, or is larger than it may be."""


class LabelCollapseWarning(UserWarning):
    """Pseudo labels are all zero, or nonzero nearly everywhere: a training on them learns nothing."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(package, extra, what)  # so that it survives a pickle

    def __str__(self) -> str:
        package, extra, what = self.args
        return f"{what} needs {package}, which is not installed: pip install 'tal_postproc[{extra}]'"


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Proposals, detections or annotations of one or many videos, in flat columns.

    Row i is the interval ``segments[i] = [start, end]`` of class ``labels[i]`` with score ``scores[i]``.  The rows of
    video v are ``offsets[v]:offsets[v + 1]``.  There is no padding and no trick on the coordinates.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in `unit`, finite, start <= end.
    labels : (N,) array_like of int, optional
        Class index of every row, >= 0.  Default: all 0.
    scores : (N,) array_like of float, optional
        Any finite number.  Default: all 1 (annotations).
    offsets : (V+1,) array_like of int, optional
        Default: one video that owns all rows.
    unit : {"snippet", "second", "relative"}
        "relative" means fractions of the video's duration.
    video_ids : sequence of str, optional
        One per video, or empty where names do not matter.
    columns : mapping of str to (N,) array, optional
        Named extra columns, such as ``inner`` or ``threshold``.

    Examples
    --------
    >>> found = Segments([[1, 4], [6, 7]], labels=[0, 2], scores=[0.9, 0.4])
    >>> len(found), found.num_videos, found.unit
    (2, 1, 'snippet')
    >>> found.to_seconds(0.64).segments.tolist()
    [[0.64, 2.56], [3.84, 4.48]]
    """

    segments: Float
    labels: Int
    scores: Float
    offsets: Int
    unit: Unit
    video_ids: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    def __init__(
        self,
        segments: ArrayLike,
        labels: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        offsets: ArrayLike | None = None,
        unit: Unit = "snippet",
        video_ids: Sequence[str] = (),
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        rows = _checks.as_segments(segments)
        n = len(rows)
        bounds = _checks.as_offsets([0, n] if offsets is None else offsets, n)
        ids = tuple(map(str, video_ids))
        if ids and len(ids) != len(bounds) - 1:
            raise ValueError(f"`video_ids` must name {len(bounds) - 1} videos, got {len(ids)}")
        if len(set(ids)) != len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ValueError(f"`video_ids` must differ, {twice!r} stands {ids.count(twice)} times")
        if columns is not None and not isinstance(columns, Mapping):
            raise TypeError(f"`columns` must be a mapping of names to arrays, got {type(columns).__name__}")
        extra: dict[str, NDArray[Any]] = {}
        for name, column in (columns or {}).items():
            _checks.refuse_tensors(column, f"columns[{name!r}]")
            extra[name] = np.asarray(column)
            if extra[name].shape[:1] != (n,):
                raise ValueError(f"`columns[{name!r}]` must have {n} rows, got shape {extra[name].shape}")
        for name, value in (
            ("segments", rows),
            ("labels", np.zeros(n, np.int64) if labels is None else _checks.as_labels(labels, n)),
            ("scores", np.ones(n) if scores is None else _checks.as_values(scores, n, "scores")),
            ("offsets", bounds),
            ("unit", _checks.as_choice(unit, "unit", UNITS)),
            ("video_ids", ids),
            ("columns", extra),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def _trusted(
        cls,
        segments: Float,
        labels: Int,
        scores: Float,
        offsets: Int,
        unit: Unit,
        video_ids: tuple[str, ...],
        columns: Mapping[str, NDArray[Any]],
    ) -> Segments:
        """Wrap arrays that are canonical already: our own results, checked when they came in."""
        made = object.__new__(cls)
        for put, value in zip(_PUT, (segments, labels, scores, offsets, unit, video_ids, columns)):
            put(made, value)
        return made

    @classmethod
    def empty(cls, unit: Unit = "snippet", video_ids: Sequence[str] = ("",)) -> Segments:
        """No rows, for as many videos as are named."""
        return cls(np.empty((0, 2)), offsets=np.zeros(len(video_ids) + 1, np.int64), unit=unit, video_ids=video_ids)

    @classmethod
    def concatenate(cls, parts: Iterable[Segments]) -> Segments:
        """The videos of all parts, one after the other; all parts share unit and extra columns.

        >>> Segments.concatenate([Segments([[0, 1]]), Segments([[2, 3], [4, 5]])]).offsets.tolist()
        [0, 1, 3]
        """
        parts = list(parts)
        if not parts:
            return cls.empty(video_ids=())
        first = parts[0]
        for part in parts:
            if part.unit != first.unit:
                raise UnitError(f"`parts` must share one unit, got {first.unit!r} and {part.unit!r}")
            if len(part) and part.columns.keys() != first.columns.keys():
                raise ValueError(
                    f"`parts` must share their extra columns, got {sorted(first.columns)} and {sorted(part.columns)}"
                )
        named = all(len(part.video_ids) == part.num_videos for part in parts)
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return cls(
            np.concatenate([part.segments for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([[0], *(part.offsets[1:] + start for part, start in zip(parts, starts))]),
            first.unit,
            tuple(name for part in parts for name in part.video_ids) if named else (),
            {
                name: np.concatenate([part.columns[name] for part in parts if name in part.columns])
                for name in first.columns
            },
        )

    def __len__(self) -> int:
        return len(self.segments)

    def __repr__(self) -> str:
        extra = f", columns={sorted(self.columns)}" if self.columns else ""
        return f"<Segments: {len(self)} rows of {self.num_videos} video(s), unit={self.unit!r}{extra}>"

    @property
    def num_videos(self) -> int:
        """Number of videos V, those without rows included."""
        return len(self.offsets) - 1

    @property
    def video_index(self) -> Int:
        """(N,) int64: the video that every row belongs to."""
        return np.repeat(np.arange(self.num_videos), np.diff(self.offsets))

    def video(self, which: int | str) -> Segments:
        """The rows of one video, by position or by id."""
        if isinstance(which, str):
            if which not in self.video_ids:
                raise KeyError(f"no video {which!r} among {len(self.video_ids)} named videos")
            which = self.video_ids.index(which)
        if not -self.num_videos <= which < self.num_videos:
            raise IndexError(f"video {which} is out of range for {self.num_videos} videos")
        which %= self.num_videos
        rows = slice(int(self.offsets[which]), int(self.offsets[which + 1]))
        return Segments._trusted(
            self.segments[rows],
            self.labels[rows],
            self.scores[rows],
            np.array([0, rows.stop - rows.start]),
            self.unit,
            self.video_ids[which : which + 1],
            {name: column[rows] for name, column in self.columns.items()},
        )

    def split(self) -> Iterator[Segments]:
        """One `Segments` per video; the reverse of `concatenate`."""
        return (self.video(v) for v in range(self.num_videos))

    def select(self, rows: NDArray[Any]) -> Segments:
        """Some rows, by mask or by index; the videos stay, and rows are regrouped by video in the order given.

        >>> Segments([[0, 1], [2, 3], [4, 5]]).select(np.array([2, 0])).segments.tolist()
        [[4.0, 5.0], [0.0, 1.0]]
        """
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise ValueError(f"`rows` must have one entry per row ({len(self)}), got shape {rows.shape}")
        index = np.flatnonzero(rows) if rows.dtype == bool else _checks.as_integers(rows, None, "rows")
        video = self.video_index[index]
        if self.num_videos > 1 and (np.diff(video) < 0).any():
            order = np.argsort(video, kind="stable")
            index, video = index[order], video[order]
        return Segments._trusted(
            self.segments[index],
            self.labels[index],
            self.scores[index],
            np.searchsorted(video, np.arange(self.num_videos + 1)),
            self.unit,
            self.video_ids,
            {name: column[index] for name, column in self.columns.items()},
        )

    def replace(self, **changes: Any) -> Segments:
        """A copy with some fields exchanged, checked like a new one."""
        return replace(self, **changes)

    def require_unit(self, unit: Unit, argument: str) -> None:
        """Raise `UnitError` unless the rows are in `unit`."""
        if self.unit != unit:
            raise UnitError(
                f"`{argument}` must be in {unit}s, got unit {self.unit!r}; convert it first (to_seconds, to_snippets)"
            )

    def _scaled(self, factor: float | ArrayLike, unit: Unit, name: str) -> Segments:
        per_video = np.asarray(factor, np.float64)
        if per_video.ndim == 1 and len(per_video) != self.num_videos:
            raise ValueError(f"`{name}` must be one number or one per video ({self.num_videos}), got {len(per_video)}")
        if not (np.isfinite(per_video) & (per_video > 0)).all():
            raise ValueError(f"`{name}` must be finite and above 0, got {per_video.tolist()}")
        by = per_video if per_video.ndim == 0 else per_video[self.video_index]
        times = {name: self.columns[name] for name in _TIMES if name in self.columns} | {"": self.segments}
        for name, value in times.items():
            times[name] = (value.T * by).T if unit == "second" else (value.T / by).T
        return replace(self, segments=times.pop(""), unit=unit, columns={**self.columns, **times})

    def to_seconds(self, seconds_per_snippet: float | ArrayLike) -> Segments:
        """Snippets to seconds; one number, or one per video.  What a fusion adds in snippets is converted, too."""
        self.require_unit("snippet", "segments")
        return self._scaled(seconds_per_snippet, "second", "seconds_per_snippet")

    def to_snippets(self, seconds_per_snippet: float | ArrayLike) -> Segments:
        """Seconds to snippets, the reverse; nothing is rounded."""
        self.require_unit("second", "segments")
        return self._scaled(seconds_per_snippet, "snippet", "seconds_per_snippet")


_TIMES = ("pick", "start_std", "end_std")  # columns in the unit of the segments
_PUT = [getattr(Segments, name).__set__ for name in Segments.__slots__]  # the fields of a frozen object, set directly


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """What the pipeline needs to know of one video; nothing is copied.

    Parameters
    ----------
    id : str
        The name under which detections are reported.
    maps : mapping of str to (T,) or (T, K) array
        Named maps of equal length: ``"cas"`` (T, K), ``"attention"`` (T,), ``"logits"`` (T, K) ...; any real dtype.
    scores : mapping of str to (K,) array
        Named video-level class scores; ``"video"`` is what presets look for.
    seconds_per_snippet : float, optional
        Seconds that one snippet lasts.
    duration : float, optional
        Length in seconds.
    warp : pair of (M,) arrays, optional
        Piecewise linear time warp ``(knots, times)``: the second ``knots[i]`` of the uniform grid is really
        ``times[i]``.
    proposals : Segments, optional
        Given proposals, for pipelines that only suppress.

    Examples
    --------
    >>> video = Video("v", {"cas": np.zeros((8, 3))}, {"video": [0.1, 0.8, 0.1]}, seconds_per_snippet=0.64)
    >>> video.num_snippets
    8
    """

    id: str
    maps: Mapping[str, NDArray[Any]]
    scores: Mapping[str, Float] = field(default_factory=dict)
    seconds_per_snippet: float | None = None
    duration: float | None = None
    warp: tuple[Float, Float] | None = None
    proposals: Segments | None = None

    def __post_init__(self) -> None:
        for name in ("maps", "scores"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(
                    f"`{name}` must be a mapping of names to arrays, got {type(getattr(self, name)).__name__}"
                )
        maps: dict[str, NDArray[Any]] = {}
        length: int | None = None
        for name, value in self.maps.items():
            maps[name] = _checks.as_map(value, f"maps[{name!r}]", length=length)
            length = len(maps[name])
        scores = {name: _checks.as_values(value, None, f"scores[{name!r}]") for name, value in self.scores.items()}
        put = object.__setattr__
        put(self, "maps", maps)
        put(self, "scores", scores)
        for name in ("seconds_per_snippet", "duration"):
            if getattr(self, name) is not None:
                put(self, name, _checks.as_number(getattr(self, name), name, above=0.0))
        if self.warp is not None:
            put(self, "warp", _checks.as_warp(self.warp))
        if self.proposals is not None and not isinstance(self.proposals, Segments):
            raise TypeError(f"`proposals` must be Segments, got {type(self.proposals).__name__}")

    @property
    def num_snippets(self) -> int:
        """T, the common length of the maps; 0 where there is none."""
        return len(next(iter(self.maps.values()))) if self.maps else 0


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Ground truth of a set of videos: what happens when, and what the evaluation has to leave out.

    Parameters
    ----------
    segments : Segments
        Instances in seconds; `video_ids` names every video, those without an instance included.
    classes : sequence of str
        Names of the labels, in the order of their indices.
    durations : (V,) array_like of float, optional
        Length of every video in seconds; NaN where it is not known (the default).
    subsets : sequence of str, optional
        The part of the data set that every video belongs to; "" where it is not known (the default).
    ambiguous : Segments, optional
        Spans in seconds, of the same videos in the same order, in which detections do not count; None where the data
        set has no such list.

    Examples
    --------
    >>> truth = Annotations(Segments([[1, 2]], [1], unit="second", video_ids=["v"]), ["Diving", "LongJump"], [30.0])
    >>> truth.num_videos, truth.classes[truth.segments.labels[0]]
    (1, 'LongJump')
    """

    segments: Segments
    classes: tuple[str, ...]
    durations: Float = None  # type: ignore[assignment]
    subsets: tuple[str, ...] = ()
    ambiguous: Segments | None = None

    def __post_init__(self) -> None:
        self.segments.require_unit("second", "segments")
        count = self.num_videos
        if len(self.segments.video_ids) != count:
            raise ValueError(f"`segments` must name its {count} videos")
        classes = tuple(map(str, self.classes))
        if len(set(classes)) != len(classes):
            raise ValueError(f"`classes` must differ, got {len(classes)} names of which {len(set(classes))} differ")
        _checks.as_labels(self.segments.labels, len(self.segments), "segments.labels", num_classes=len(classes))
        durations = _checks.as_durations(np.full(count, np.nan) if self.durations is None else self.durations, count)
        subsets = tuple(map(str, self.subsets)) or ("",) * count
        if len(subsets) != count:
            raise ValueError(f"`subsets` must have one name per video ({count}), got {len(subsets)}")
        if self.ambiguous is not None:
            self.ambiguous.require_unit("second", "ambiguous")
            if self.ambiguous.video_ids != self.segments.video_ids:
                raise ValueError("`ambiguous` must name the videos of `segments`, in the same order")
        for name, value in (("classes", classes), ("durations", durations), ("subsets", subsets)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        sizes = f"{len(self.segments)} instances of {len(self.classes)} classes in {self.num_videos} videos"
        return f"<Annotations: {sizes}>"

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Name of every video."""
        return self.segments.video_ids

    @property
    def num_videos(self) -> int:
        """Number of videos V, those without instances included."""
        return self.segments.num_videos


@dataclass(frozen=True, slots=True, eq=False)
class Videos:
    """Videos that belong together, the names of their classes and, where it is known, their ground truth.

    Examples
    --------
    >>> both = Videos((Video("a", {"cas": np.zeros((2, 1))}), Video("b", {"cas": np.zeros((3, 1))})), ("Diving",))
    >>> len(both), both[1].id, both["a"].num_snippets, [video.id for video in both]
    (2, 'b', 2, ['a', 'b'])
    """

    videos: tuple[Video, ...]
    classes: tuple[str, ...] = ()
    annotations: Annotations | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)

    def __getitem__(self, which: int | str) -> Video:
        """One video, by position or by id."""
        if isinstance(which, str):
            for video in self.videos:
                if video.id == which:
                    return video
            raise KeyError(f"no video {which!r} among {len(self.videos)} videos")
        return self.videos[which]

    @property
    def ground_truth(self) -> Segments:
        """The annotated instances, in seconds."""
        if self.annotations is None:
            raise ValueError("`annotations` are not known for these videos")
        return self.annotations.segments

    def __repr__(self) -> str:
        return f"<Videos: {len(self)} videos, {len(self.classes)} classes>"


@dataclass(frozen=True, slots=True, eq=False)
class FusedSegments:
    """What fusion made of N segments: M clusters, best first, and who went where."""

    segments: Float  # (M, 2) fused boundaries
    scores: Float  # (M,) fused scores
    assignment: Int  # (N,) cluster of every input row; -1 where a row was left out
    picks: Int  # (M,) input row that opened the cluster
    sizes: Int  # (M,) members
    effective_size: Float  # (M,) 1 / sum g_k^2
    start_std: Float  # (M,) weighted standard deviation of the members' starts
    end_std: Float  # (M,) the same for their ends
    degenerate: NDArray[np.bool_]  # (M,) True where the estimate that was asked for does not exist; see fuse_segments

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class LinProLabels:
    """LinPro labels of one class, and what is proven of them.

    `status` is "empty" (no instances), "optimal" (all scores are met), "relaxed" (they cannot all be met; the violation
    is the least there is) or "uncertified" (no proof within 1e-8; the labels are the best that was found).
    """

    labels: Float  # (T,)
    objective: float  # sum of the labels
    violation: float  # sum over the instances of |W_j . g - q_j|
    gap: float  # how far, at most, the worst component is from its optimum; see `linpro_labels`
    status: str
    solved: Mapping[str, int]  # components by who solved them: "closed_form", "simplex", "highs"
    uncertified: int  # components without a proof


@dataclass(frozen=True, slots=True, eq=False)
class LinProLabelMap:
    """LinPro labels of one video, and what is proven of each class; the fields are those of `LinProLabels`."""

    labels: Float  # (T, K), with a column of zeros for the background where one was asked for
    objective: Float  # (K,) per class, the background left out here and below
    violation: Float  # (K,)
    gap: Float  # (K,)
    status: tuple[str, ...]  # (K,)
    solved: Mapping[str, int]
    uncertified: int


@dataclass(frozen=True, slots=True, eq=False)
class EnsembledSegments:
    """What weighted fusion made of the detections of several models: M clusters, best first, and who went where."""

    segments: Float  # (M, 2) fused boundaries
    scores: Float  # (M,) fused scores
    labels: Int  # (M,)
    assignment: Int  # (N,) cluster of every input row, the models' rows one after the other; -1 below the least score
    sizes: Int  # (M,) members

    def __len__(self) -> int:
        return len(self.segments)


# The usual ranges of tIoU thresholds, as decimal literals: 0.3, and not 0.1 + 2 * 0.1.
TIOU_RANGES: Mapping[str, tuple[float, ...]] = {
    "0.1:0.5": (0.1, 0.2, 0.3, 0.4, 0.5),
    "0.3:0.7": (0.3, 0.4, 0.5, 0.6, 0.7),
    "0.1:0.7": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "0.5:0.95": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
}


@dataclass(frozen=True, slots=True, eq=False)
class MeanAveragePrecision:
    """mAP of detections: per threshold, per class, and averaged.

    ``per_class[i, k]`` is the average precision of class ``classes[k]`` at ``tiou_thresholds[i]``, a fraction.
    ``matches[i, n]`` is the row of the ground truth that detection n took at ``tiou_thresholds[i]``, -1 for a false
    positive, -2 for a detection that was not counted.
    """

    tiou_thresholds: Float  # (I,)
    classes: Int  # (K,) class ids, rising
    per_class: Float  # (I, K)
    per_threshold: Float  # (I,) mean over classes
    protocol: str
    num_ground_truth: Int  # (K,) instances left after the protocol's clean-up
    num_detections: Int  # (K,) detections that were counted
    recall: Float | None = None  # (I, X, K) recall at top-kx, protocols "actionformer" and "opentad"
    top_kx: tuple[int, ...] = ()
    matches: Int | None = None  # (I, N)
    num_unknown_labels: int = 0  # detections of a class without ground truth: not counted
    num_ambiguous: int = 0  # detections on an ambiguous span: not counted
    num_unannotated: int = 0  # detections in videos without ground truth: counted as false positives

    @property
    def average(self) -> float:
        """Mean over the thresholds that were asked for."""
        return float(self.per_threshold.mean()) if len(self.per_threshold) else 0.0

    def average_over(self, name: str) -> float:
        """One of the usual averages by name: "0.1:0.5", "0.3:0.7", "0.1:0.7" or "0.5:0.95"."""
        wanted = np.array(TIOU_RANGES[_checks.as_choice(name, "name", tuple(TIOU_RANGES))])
        found = np.abs(self.tiou_thresholds[None, :] - wanted[:, None]) < 1e-9
        if not found.any(axis=1).all():
            missing = wanted[~found.any(axis=1)]
            raise ValueError(
                f"the average {name} needs tIoU {missing[0]:.2f}, which was not evaluated ({len(missing)} missing)"
            )
        return float(self.per_threshold[found.argmax(axis=1)].mean())


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapMAP:
    """mAP of detections, and of resamples of the videos.

    ``per_class[r, i, k]`` is the average precision of class ``classes[k]`` at ``tiou_thresholds[i]`` in resample r, NaN
    where no video of the resample has an instance of the class.
    """

    tiou_thresholds: Float  # (I,)
    classes: Int  # (K,) class ids, rising
    point: Float  # (I, K) average precision on the videos as they are
    per_class: Float  # (R, I, K)
    per_threshold: Float  # (R, I) mean over the classes that a resample has
    level: float  # of the intervals

    @property
    def value(self) -> float:
        """mAP on the videos as they are: the mean over classes and thresholds."""
        return float(self.point.mean()) if self.point.size else 0.0

    @property
    def averages(self) -> Float:
        """(R,) mAP of every resample."""
        return self.per_threshold.mean(axis=1)

    @property
    def std(self) -> float:
        """Standard error of `value`: the standard deviation of `averages`."""
        return float(self.averages.std(ddof=1))

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of `value`: percentiles of `averages`, all moved so that their mean is `value`, within [0, 1]."""
        low, high = _around(self.value, self.averages, self.level)
        return float(low), float(high)

    @property
    def per_threshold_interval(self) -> Float:
        """(2, I) interval of the mAP at every threshold."""
        means = self.point.mean(axis=1) if self.point.size else np.zeros(len(self.point))
        return _around(means, self.per_threshold, self.level)

    @property
    def per_class_interval(self) -> Float:
        """(2, K) interval of a class, averaged over thresholds, over the resamples that have it, or NaN."""
        result = np.full((2, len(self.classes)), np.nan)
        for k, column in enumerate(self.per_class.mean(axis=1).T):
            column = column[~np.isnan(column)]
            if len(column):
                result[:, k] = _around(self.point[:, k].mean(), column, self.level)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class PairedBootstrap:
    """The difference in mAP between two sets of detections, on the same resamples of the videos."""

    detections: BootstrapMAP
    baseline: BootstrapMAP

    @property
    def difference(self) -> float:
        """mAP of the detections minus mAP of the baseline, on the videos as they are."""
        return self.detections.value - self.baseline.value

    @property
    def differences(self) -> Float:
        """(R,) the difference in every resample."""
        return self.detections.averages - self.baseline.averages

    @property
    def std(self) -> float:
        """Standard error of `difference`."""
        return float(self.differences.std(ddof=1))

    @property
    def interval(self) -> tuple[float, float]:
        """Percentile interval of `difference`; one that holds 0 is a difference within noise."""
        low, high = _percentiles(self.differences, self.detections.level)
        return float(low), float(high)

    @property
    def share(self) -> float:
        """Part of the resamples in which the detections are not better than the baseline: difference <= 0."""
        return float((self.differences <= 0).mean())

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller of the shares of resamples with difference <= 0 and >= 0, at most 1.

        One is added to both counts, so that it never is 0: R resamples cannot tell less than 2 / (R + 1).
        """
        smaller = min(int((self.differences <= 0).sum()), int((self.differences >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(self.differences) + 1))


def _percentiles(values: Float, level: float) -> Float:
    """(2, ...) ends of the middle `level` of the values along the first axis."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _around(value: Float | float, values: Float, level: float) -> Float:
    """Their percentiles, moved so that the mean of the values is `value`; fractions."""
    return np.clip(_percentiles(values, level) + (value - values.mean(axis=0)), 0.0, 1.0)


# What a detection is, in the order of `ErrorBreakdown`; the first is no error.
ERROR_KINDS = ("true positive", "duplicate", "wrong label", "poor boundaries", "confusion", "background")


@dataclass(frozen=True, slots=True, eq=False)
class MissedInstances:
    """How many instances of each kind there are, and how many of them nothing found."""

    bins: tuple[str, ...]  # B names
    ends: tuple[float, ...]  # (B - 1,) upper ends, included, of all bins but the last: seconds, a share, a number
    total: Int  # (K, B)
    missed: Int  # (K, B)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorBreakdown:
    """What the detections of a test set are, what is missing, and what every kind of error costs.

    Kinds of errors are numbered as in `ERROR_KINDS`.  `counts` has one layer per rank: with G instances of a class, the
    G best detections of the class, the next G, and so on; the last layer is the rest.
    """

    tiou_threshold: float
    protocol: str
    classes: Int  # (K,) class ids, rising
    names: tuple[str, ...]  # (K,)
    kinds: Int  # (N,) kind of every detection, -1 where it was not counted
    counts: Int  # (M + 1, K, 6) detections by rank, class and kind
    num_ground_truth: Int  # (K,)
    per_class: Float  # (K,) average precision
    gains: Float  # (K, 5) average precision gained when the errors of one kind, from 1 on, are taken away
    missed: Mapping[str, MissedInstances]  # by "length", "coverage" (where durations are known) and "instances"

    @property
    def average(self) -> float:
        """The mAP at this threshold."""
        return float(self.per_class.mean()) if len(self.per_class) else 0.0

    @property
    def average_gains(self) -> Float:
        """(5,) mAP gained when the errors of one kind are taken away."""
        return self.gains.mean(axis=0) if len(self.gains) else np.zeros(5)

    def table(self) -> str:
        """One line per kind: share of the detections, and mAP gained without it, in percent; then what is missed."""
        counts = self.counts.sum(axis=(0, 1))
        shares = 100.0 * counts / max(int(counts.sum()), 1)
        gains = ["", *(f"{100 * gain:+.2f}" for gain in self.average_gains)]
        lines = [f"{'':<18}{'number':>8}{'share':>8}{'mAP without it':>18}"]
        lines += [
            f"{kind:<18}{count:>8}{share:>7.1f}%{gain:>18}".rstrip()
            for kind, count, share, gain in zip(ERROR_KINDS, counts, shares, gains)
        ]
        if aside := int((self.kinds < 0).sum()):
            lines.append(f"{'not counted':<18}{aside:>8}: on ambiguous spans, or of a class without instances")
        for name, one in self.missed.items():
            parts = zip(one.bins, one.missed.sum(axis=0), one.total.sum(axis=0))
            rates = "  ".join(f"{label} {100 * missed / total:.0f}%" for label, missed, total in parts if total)
            lines.append(f"missed by {name}: {rates}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationMAP:
    """Video-level classification: average precision of every class that some video shows."""

    classes: Int  # (K',) columns with at least one positive video, rising
    per_class: Float  # (K',) fractions
    num_positives: Int  # (K',) videos that show the class

    @property
    def average(self) -> float:
        """The mAP: mean over those classes."""
        return float(self.per_class.mean()) if len(self.per_class) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class AverageRecall:
    """Recall of class-agnostic proposals against their average number per video (AR@AN)."""

    tiou_thresholds: Float  # (I,)
    proposals_per_video: Float  # (P,) average number of proposals
    recall: Float  # (I, P)
    average_recall: Float  # (P,) mean over thresholds
    area: float  # area under average_recall in percent of the full rectangle


@dataclass(frozen=True, slots=True)
class LabelChurn:
    """How much the label maps of a refresh differ from those before, and why.

    Changes are sums of :math:`|G^t - G^{t-1}|` over the snippets and classes of the videos that had a map before.  With
    instances for both refreshes the change is split, exactly, by what covers a snippet (the first that applies):

    * `scores`: an old and a new instance that are matched with each other;
    * `boundaries`: another instance that has a match;
    * `appeared`: a new instance without a match;
    * `vanished`: an old instance without a match;
    * `elsewhere`: none.

    Without instances these parts, and the three counts, are None.
    """

    num_videos: int  # maps of this refresh
    num_compared: int  # of these, videos that had a map before
    num_kept: int  # videos of the bank that this refresh left out, and that stay as they were
    num_empty: int  # maps of this refresh without any label
    nonzero_share: float  # of the snippets of every class that has a label in its video; 0 without labels
    mass_before: float  # sum of |label| over the compared videos, before
    mass: float  # and after
    change: float
    relative_change: float  # change / (mass_before + mass), in [0, 1]; 1: old and new share nothing; 0 without labels
    scores: float | None = None
    boundaries: float | None = None
    appeared: float | None = None
    vanished: float | None = None
    elsewhere: float | None = None
    num_matched: int | None = None  # pairs of instances
    num_appeared: int | None = None  # new instances of the compared videos without a match
    num_vanished: int | None = None  # old ones


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh of pseudo labels did; ``str(report)`` is a line for a log, and one about LinPro."""

    epoch: int
    number: int  # 1 for the first refresh of the training
    churn: LabelChurn
    num_instances: int  # that the labels were made of
    solved: Mapping[str, int]  # LinPro's components by who solved them; empty for another label maker
    num_relaxed: int = 0  # classes of videos whose scores cannot all be met
    num_uncertified: int = 0  # components without a proof
    worst_gap: float = 0.0  # how far, at most, a component is from its optimum
    seconds: float = field(default=0.0, compare=False)  # this process, the videos' making included

    def __str__(self) -> str:
        churn = self.churn
        text = (
            f"refresh {self.number} at epoch {self.epoch}: {churn.num_videos} videos, {self.num_instances} instances, "
            f"{self.seconds:.1f} s, labels on {churn.nonzero_share:.3f} of the snippets of their classes"
        )
        if churn.num_compared:
            whole = churn.mass_before + churn.mass
            names = ("scores", "boundaries", "appeared", "vanished", "elsewhere")
            parts = [(name, getattr(churn, name)) for name in names]
            shown = [f"{name} {part / whole if whole else 0.0:.3f}" for name, part in parts if part is not None]
            text += f", relative change {churn.relative_change:.3f}" + (f" ({', '.join(shown)})" if shown else "")
        if self.solved:
            rungs = ", ".join(f"{name} {count}" for name, count in self.solved.items())
            text += (
                f"\nLinPro: {sum(self.solved.values())} components ({rungs}), {self.num_relaxed} classes relaxed, "
                f"{self.num_uncertified} components uncertified, worst gap {self.worst_gap:.1e}"
            )
        return text


class LabelState(IntEnum):
    """The codes of a tri-state label map, an array of int8.

    >>> [(state.name, state.value) for state in LabelState]
    [('IGNORE', -1), ('BACKGROUND', 0), ('ACTION', 1)]
    """

    IGNORE = -1
    BACKGROUND = 0
    ACTION = 1


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _shares(part: Int, whole: Int | int) -> Float:
    """Quotients, 0 where there is nothing to divide by."""
    return part / np.maximum(whole, 1)  # nothing is part of nothing


@dataclass(frozen=True, slots=True, eq=False)
class LabelQuality:
    """How good label maps are, from counts over all videos; see `pseudo_label_quality` for what is counted.

    Shares are fractions, and 0 where there is nothing to divide by: the counts tell whether there was.
    """

    labelled: Int  # (K,) snippets labelled as action of each class
    correct: Int  # (K,) those of them in which the class acts
    truth: Int  # (K,) snippets in which the class acts
    background: int  # snippets labelled as background
    correct_background: int  # those of them in which nothing acts
    correct_snippets: int  # snippets that are labelled, and by nothing that is wrong
    num_snippets: int  # all of them

    @property
    def precision(self) -> float:
        """Correct labels, of action or background, among all labels."""
        labels = int(self.labelled.sum()) + self.background
        return _share(int(self.correct.sum()) + self.correct_background, labels)

    @property
    def recall(self) -> float:
        """Correct action labels among what acts, over all classes."""
        return _share(int(self.correct.sum()), int(self.truth.sum()))

    @property
    def coverage(self) -> float:
        """Correctly labelled snippets among all snippets: the "recall" of the ILG paper."""
        return _share(self.correct_snippets, self.num_snippets)

    @property
    def precision_per_class(self) -> Float:
        """(K,) precision of the action labels of each class."""
        return _shares(self.correct, self.labelled)

    @property
    def recall_per_class(self) -> Float:
        """(K,) recall of each class."""
        return _shares(self.correct, self.truth)

    @property
    def coverage_per_class(self) -> Float:
        """(K,) snippets with a correct label of each class, among all snippets."""
        return _shares(self.correct, self.num_snippets)
