"""The last two label maps of every video: targets that are differences, and how much changed and why."""

from __future__ import annotations

import base64
import binascii
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _npy, _regions
from ._checks import Float, Int
from ._files import atomic_write
from ._kernels import segments as _kernels
from .types import FormatError, LabelChurn, LabelCollapseWarning, Segments

__all__ = ["DeltaPseudoLabels"]

FULL_SHARE = 0.95  # labels above this share of the snippets of their classes are labels everywhere
MAX_BYTES = 16 << 30  # of a saved bank
_FORMAT = "tal_postproc.DeltaPseudoLabels 1"


class _Runs(NamedTuple):
    """The nonzero stretches of a label map, read class after class: snippet t of class c is cell c * T + t.

    No run goes on into the next class.
    """

    starts: NDArray[np.int32]  # (R,)
    stops: NDArray[np.int32]
    values: Float


class _Instances(NamedTuple):
    labels: Int  # (N,)
    segments: Float  # (N, 2) snippets


class Entry(NamedTuple):
    """What the bank knows of one video."""

    shape: tuple[int, int]  # T, K
    current: _Runs
    previous: _Runs | None = None
    instances: _Instances | None = None  # those that `current` was made of


class DeltaPseudoLabels:
    r"""A bank of the last two label maps :math:`G^t` and :math:`G^{t-1}` of every video.

    From the second refresh on, the targets of a training are differences ([1]_, Eq. 8)

    .. math::

        \Delta G^t = G^t - G^{t-1} ,

    times a factor, so that the model is pushed where its own labels are heading.  `update` takes the maps of a refresh,
    all of them or, if anything goes wrong, none; `targets` gives what to train on.

    The bank starts empty.  It can be pickled, and any number of threads and DataLoader workers may read it, also during
    an `update`, which they do not see before its end; two updates at a time are one too many.  A worker process has the
    copy that it was started with: start the workers anew after a refresh.

    Notes
    -----
    A map is stored as runs of equal bits other than +0.0, 16 bytes each, so that it comes back bit for bit (as float64,
    whatever it came as).  Labels that are constant over stretches, as `linpro_label_map` makes them, take some 100
    bytes per instance; where every value differs, a run costs as much as two values.  T * K is at most 2**31 - 1.
    The conventions are in docs/conventions.md, and docs/theory.md says what a loss does with negative targets.

    See Also
    --------
    config.RefreshSchedule : when to refresh, and the factor of the differences.

    References
    ----------
    .. [1] J. Zhou et al., "Improving Weakly Supervised Temporal Action Localization by Bridging Train-Test Gap in
           Pseudo Labels", CVPR 2023.

    Examples
    --------
    >>> bank = DeltaPseudoLabels()
    >>> _ = bank.update({"v": [[0.0], [0.5], [0.5]]}, {"v": Segments([[1, 3]])})
    >>> bank.targets("v").T.tolist()
    [[0.0, 0.5, 0.5]]
    >>> churn = bank.update({"v": [[0.0], [0.0], [0.75]]}, {"v": Segments([[2, 3]])})
    >>> bank.targets("v", scale=2.0).T.tolist()
    [[0.0, -1.0, 0.5]]
    >>> churn.change, churn.scores, churn.boundaries
    (0.75, 0.25, 0.5)
    """

    def __init__(self) -> None:
        self._videos: dict[str, Entry] = {}  # replaced as a whole, by rising id

    def __len__(self) -> int:
        return len(self._videos)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._videos

    def __repr__(self) -> str:
        return f"<DeltaPseudoLabels: {len(self)} videos, {self.num_classes} classes, {self.nbytes} bytes>"

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos of the bank, by rising id."""
        return tuple(self._videos)

    @property
    def num_classes(self) -> int:
        """K, the width of all maps; 0 while the bank is empty."""
        return next((entry.shape[1] for entry in self._videos.values()), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored of maps and instances, without Python's own some 1,000 per video."""
        parts = [part for entry in self._videos.values() for part in entry[1:] if part is not None]
        return sum(array.nbytes for part in parts for array in part)

    def labels(self, video_id: str) -> Float:
        """The map :math:`G^t` of the last refresh, (T, K) float64, a new array; KeyError for an unknown video."""
        entry = self._entry(video_id)
        return _dense(entry.current, entry.shape)

    def previous(self, video_id: str) -> Float | None:
        """The map :math:`G^{t-1}` of the refresh before, a new array, or None while there was only one refresh."""
        entry = self._entry(video_id)
        return None if entry.previous is None else _dense(entry.previous, entry.shape)

    def targets(
        self, video_id: str, *, scale: float | None = 1.0, before: Literal["labels", "zeros"] = "labels"
    ) -> Float:
        """What to train on: ``scale`` times the difference of the last two maps.

        Parameters
        ----------
        video_id : str
            A video of the bank.
        scale : float or None, default 1
            Factor of the difference, any finite number; None asks for the labels themselves.
            `RefreshSchedule.delta_scale` gives it for an epoch.
        before : {"labels", "zeros"}
            What takes the place of the difference while a video has only one map: the map itself, not scaled, or
            zeros.

        Returns
        -------
        targets : (T, K) ndarray of float64
            A new array; differences are negative where a label became smaller.

        Raises
        ------
        KeyError
            If the bank does not know the video.
        """
        entry = self._entry(video_id)
        factor = None if scale is None else _checks.as_number(scale, "scale")
        empty = _checks.as_choice(before, "before", ("labels", "zeros")) == "zeros"
        if factor is None:
            return _dense(entry.current, entry.shape)
        if entry.previous is None:
            return np.zeros(entry.shape) if empty else _dense(entry.current, entry.shape)
        return factor * (_dense(entry.current, entry.shape) - _dense(entry.previous, entry.shape))

    def _entry(self, video_id: str) -> Entry:
        videos = self._videos
        if video_id not in videos:
            raise KeyError(f"no video {video_id!r} among the {len(videos)} of the bank")
        return videos[video_id]

    # ------------------------------------------------------------------------------------------------------- a refresh
    def update(
        self,
        maps: Mapping[str, ArrayLike] | Iterable[tuple[str, ArrayLike]],
        instances: Mapping[str, Segments] | Iterable[Segments] | Segments | None = None,
        *,
        missing: Literal["error", "keep"] = "error",
        tiou_threshold: float = 0.5,
    ) -> LabelChurn:
        """Take the label maps of a refresh: every video's :math:`G^t` becomes its :math:`G^{t-1}`.

        All of it happens or nothing: after an error, of `maps` itself too, the bank is what it was.

        Parameters
        ----------
        maps : mapping or iterable of (video_id, (T, K) array_like of float)
            The new maps, finite, of one K, and of the T that the video had before.  An iterable is read once, and no
            more than one dense map is held.
        instances : mapping, iterable or Segments, optional
            What each map was made of, in snippets: a mapping from video ids, which may know more videos; one single
            `Segments` per map, in the order of `maps`; or a `Segments` of all videos, found by id if it has ids, else
            in the order of `maps`.  They are stored, so that the next refresh can say why labels changed.
        missing : {"error", "keep"}
            What to do about videos of the bank that `maps` leaves out: "keep" leaves both their maps as they are, and
            the report counts them.
        tiou_threshold : float, default 0.5
            In (0, 1]; an old and a new instance of a class are matched, one to one, when their tIoU reaches it, the
            largest tIoU first, the earlier old row and then the earlier new row first among equals.

        Returns
        -------
        LabelChurn
            How much the labels changed, and where.  It is the same for every order of the videos.

        Raises
        ------
        ValueError
            If a video stands twice or is missing, a map or an instance does not fit, or something is not finite.
        UnitError
            If instances are not in snippets.

        Warns
        -----
        LabelCollapseWarning
            If all labels of the refresh are 0, or more than 95 % of the snippets are labelled, counted over the classes
            that each video has labels of.

        Notes
        -----
        O(T K) to read a map, O(r log r) to compare, with r runs and instances, and all pairs of a class's instances to
        match.  Which snippets an instance covers is in docs/conventions.md.
        """
        keep = _checks.as_choice(missing, "missing", ("error", "keep")) == "keep"
        threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=True)
        found: dict[str, Entry] = {}
        before = self._videos
        width = self.num_classes if before else None
        for video_id, label_map, rows in _paired(maps, instances):
            if video_id in found:
                raise ValueError(f"`maps` must have every video once, {video_id!r} stands twice")
            shape = before[video_id].shape if video_id in before else None
            names = f"maps[{video_id!r:.80}]", f"instances[{video_id!r:.80}]"
            found[video_id] = encoded(label_map, rows, names, shape, width)
            width = found[video_id].shape[1]
            del label_map  # before the next one is made
        return self._take(found, keep, threshold)

    def _take(self, found: dict[str, Entry], keep: bool, threshold: float, stacklevel: int = 4) -> LabelChurn:
        """The checked maps of a refresh become the current ones, all or none; `stacklevel` of its warning."""
        before = self._videos
        left = [video_id for video_id in before if video_id not in found]
        if left and not keep:
            raise ValueError(
                f"`maps` must have every video of the bank, {left[0]!r} is missing ({len(left)} of {len(before)} "
                "videos); `missing` 'keep' leaves their maps as they are"
            )
        churn = _churn(before, found, len(left), threshold)
        _warn_of_collapse(churn, sum(entry.shape[0] * entry.shape[1] for entry in found.values()), stacklevel)
        aged = {
            video_id: entry._replace(previous=before[video_id].current if video_id in before else None)
            for video_id, entry in found.items()
        }
        self._videos = dict(sorted({**before, **aged}.items()))
        return churn

    # ----------------------------------------------------------------------------------------------------- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """The whole bank as a dictionary of text and lists of text, for any checkpoint.

        ``torch.save`` writes it and ``torch.load(..., weights_only=True)`` reads it, and so does JSON; arrays are
        base64 of their little-endian bytes.  The same content gives the same state.

        >>> bank = DeltaPseudoLabels()
        >>> _ = bank.update({"v": [[0.5], [0.0]]})
        >>> other = DeltaPseudoLabels()
        >>> other.load_state_dict(bank.state_dict())
        >>> other.labels("v").tolist()
        [[0.5], [0.0]]
        """
        arrays = {name: base64.b64encode(array.tobytes()).decode() for name, array in _arrays(self._videos).items()}
        return {"format": _FORMAT, "video_ids": list(self._videos), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the bank that `state_dict` described; a state that is not whole is a FormatError and changes nothing.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.
        """
        if not isinstance(state, Mapping) or set(state) != {"format", "video_ids", *_LAYOUT}:
            shown = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise FormatError(f"state: must have format, video_ids, {', '.join(_LAYOUT)}; got {shown!s:.300}")
        ids = state["video_ids"]
        if not isinstance(ids, list):
            raise FormatError(f"state: `video_ids` must be a list, got {type(ids).__name__}")
        arrays = {}
        for name, dtype in _LAYOUT.items():
            try:
                data = base64.b64decode(state[name], validate=True)
                arrays[name] = np.frombuffer(data, dtype)
            except (TypeError, ValueError, binascii.Error) as error:
                raise FormatError(f"state: `{name}` must be base64 of {dtype} numbers: {error!s:.200}") from None
        self._videos = _entries(state["format"], ids, arrays, "state")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank as an npz file, whole or not at all; the same content gives the same bytes.

        Parameters
        ----------
        path : str or path
            The file.
        """
        write_file(path, self._videos)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DeltaPseudoLabels:
        """The bank that `save` wrote; a file that is not whole is a FormatError.  Nothing is unpickled.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        DeltaPseudoLabels
            With the same content.
        """
        bank = cls()
        bank._videos = read_file(path)[0]
        return bank


# ---------------------------------------------------------------------------------------------------- what comes in
def _paired(maps: Any, instances: Any) -> Iterator[tuple[Any, Any, Segments | None]]:
    """Id, map and instances of every video, one at a time."""
    if isinstance(instances, Segments):
        parts = list(instances.split())
        instances = dict(zip(instances.video_ids, parts)) if instances.video_ids else parts
    aligned = None if instances is None or isinstance(instances, Mapping) else iter(instances)
    done = object()
    count = 0
    for pair in maps.items() if isinstance(maps, Mapping) else maps:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"`maps` must hold pairs (video_id, map), got {type(pair).__name__}")
        if not isinstance(pair[0], str):
            raise TypeError(f"`maps` must have ids that are text, got {pair[0]!r:.80}")
        if "\0" in pair[0]:
            raise ValueError(f"`maps` must have ids without NUL, got {pair[0]!r:.80}")
        rows: Any = None
        if aligned is not None:
            rows = next(aligned, done)
            if rows is done:
                raise ValueError(f"`instances` must have one Segments per map, got {count} for more maps")
        elif instances is not None:
            if pair[0] not in instances:
                raise ValueError(f"`instances` must know every video of `maps`, {pair[0]!r:.80} is missing")
            rows = instances[pair[0]]
        yield str(pair[0]), pair[1], rows  # str: NumPy's own text would not survive a restricted unpickler
        del pair
        count += 1
    if aligned is not None and next(aligned, done) is not done:
        raise ValueError(f"`instances` must have one Segments per map, got more than {count}")


def encoded(
    label_map: Any, rows: Any, names: tuple[str, str], shape: tuple[int, int] | None, width: int | None
) -> Entry:
    """A checked map as runs, with checked instances; of the `shape` that the video had, of the bank's `width`."""
    name = names[0]
    array = _checks.as_real(label_map, name)
    if array.ndim != 2 or array.size > _checks.MOST:
        raise ValueError(f"`{name}` must have shape (T, K) and at most {_checks.MOST} values, got shape {array.shape}")
    length, num_classes = array.shape
    if shape not in (None, array.shape):
        raise ValueError(f"`{name}` must have the shape it had before, {shape}, got {array.shape}")
    if width not in (None, num_classes):
        raise ValueError(f"`{name}` must have {width} classes like the other maps, got shape {array.shape}")
    shape = (length, num_classes)
    cells = _checks.as_columns(array, None, name).reshape(-1)
    bits = cells.view(np.int64)  # -0.0 is a value of its own, and nothing else has two sets of bits
    edge = np.ones(len(cells), np.bool_)
    np.not_equal(bits[1:], bits[:-1], out=edge[1:])
    edge[:: max(length, 1)] = True
    bounds = np.append(np.flatnonzero(edge), len(cells)).astype(np.int32)
    shown = bits[bounds[:-1]] != 0
    starts, stops = bounds[:-1][shown], bounds[1:][shown]
    runs = _Runs(starts, stops, cells[starts])
    return Entry(shape, runs, None, None if rows is None else _checked_instances(rows, shape, names[1]))


def _checked_instances(rows: Any, shape: tuple[int, int], name: str) -> _Instances:
    if not isinstance(rows, Segments) or rows.num_videos != 1:
        got = f"{rows.num_videos} videos" if isinstance(rows, Segments) else type(rows).__name__
        raise TypeError(f"`{name}` must be Segments of one video, got {got}")
    rows.require_unit("snippet", name)
    labels = _checks.as_labels(rows.labels, len(rows), f"{name}.labels", num_classes=shape[1])
    _regions.covered(rows.segments, shape[0], name)  # refuses what lies beyond the video
    return _Instances(labels.copy(), rows.segments.copy())


def _dense(runs: _Runs, shape: tuple[int, int]) -> Float:
    """The (T, K) map, C-contiguous."""
    bounds = np.empty(2 * len(runs.starts) + 2, np.int64)  # gap, run, gap, run, ..., gap
    bounds[0], bounds[-1] = 0, shape[0] * shape[1]
    bounds[1:-1:2], bounds[2:-1:2] = runs.starts, runs.stops
    values = np.zeros(len(bounds) - 1)
    values[1::2] = runs.values
    return np.repeat(values, np.diff(bounds)).reshape(shape[1], shape[0]).T.copy()


# --------------------------------------------------------------------------------------------------- what changed, why
def _churn(before: Mapping[str, Entry], found: Mapping[str, Entry], num_kept: int, threshold: float) -> LabelChurn:
    both = [video for video in found if video in before]
    explained = all(entry.instances is not None for entry in (*found.values(), *(before[video] for video in both)))
    changes = [_change(before[video], found[video], threshold) for video in both]
    sums = [math.fsum(column) for column in zip(*(row for row, _ in changes))] or [0.0] * 8  # exact in any order
    counts = [sum(column) for column in zip(*(row for _, row in changes))] or [0] * 3
    extents = [_extent(entry) for entry in found.values()]
    shown, room = sum(part for part, _ in extents), sum(whole for _, whole in extents)
    mass_before, mass, change, *parts = sums
    return LabelChurn(
        len(found),
        len(both),
        num_kept,
        sum(part == 0 for part, _ in extents),
        shown / room if room else 0.0,
        mass_before,
        mass,
        change,
        change / (mass_before + mass) if change else 0.0,
        *((*parts, *counts) if explained else ()),
    )


def _extent(entry: Entry) -> tuple[int, int]:
    """Cells with a label, and all cells of the classes that have one."""
    runs, length = entry.current, entry.shape[0]
    real = runs.values != 0  # not -0.0
    starts = runs.starts[real]
    return int((runs.stops[real] - starts).sum()), len(np.unique(starts // max(length, 1))) * length


def _change(old: Entry, new: Entry, threshold: float) -> tuple[list[float], tuple[int, int, int]]:
    """Mass before, mass, change and its five parts; the three counts.  All on the pieces between any two boundaries."""
    rows = old.instances or _NO_INSTANCES, new.instances or _NO_INSTANCES
    i, j = _matched(*rows, threshold)
    was, now = (_cells(part, new.shape[0]) for part in rows)
    lone_was, lone_now = np.ones(len(was), np.bool_), np.ones(len(now), np.bool_)
    lone_was[i] = lone_now[j] = False
    common = np.stack((np.maximum(was[i, 0], now[j, 0]), np.minimum(was[i, 1], now[j, 1])), axis=1)
    causes = (
        common,  # never reversed: the intervals overlap, and `covered` keeps order
        np.concatenate((was[i], now[j])),
        now[lone_now],
        was[lone_was],
    )
    runs = old.current, new.current
    points = np.unique(np.concatenate([np.ravel(x) for x in (*causes, *(side for r in runs for side in r[:2]))]))
    if not len(points):
        return [0.0] * 8, (0, 0, 0)
    size = np.diff(points)
    before, after = (_values_at(part, points[:-1]) for part in runs)
    moved = np.abs(after - before) * size
    cause = np.select([_inside(spans, points) for spans in causes], range(4), 4)
    masses = (np.abs(before) @ size, np.abs(after) @ size, moved.sum())
    counts = len(i), int(lone_now.sum()), int(lone_was.sum())
    return [*map(float, masses), *np.bincount(cause, moved, minlength=5).tolist()], counts


def _cells(instances: _Instances, length: int) -> Int:
    """(N, 2) first cell that each instance covers, and the one after its last."""
    return np.stack(_regions.covered(instances.segments, length), axis=1) + instances.labels[:, None] * length


def _matched(old: _Instances, new: _Instances, threshold: float) -> tuple[Int, Int]:
    """Rows of the pairs of one class whose tIoU reaches the threshold, the largest first, one to one."""
    pairs = []
    for label in np.intersect1d(old.labels, new.labels):
        rows = np.flatnonzero(old.labels == label), np.flatnonzero(new.labels == label)
        tiou = _kernels.overlap_matrix(old.segments[rows[0]], new.segments[rows[1]], False, 0.0, 0.0)
        i, j = np.nonzero(tiou >= threshold)
        order = np.argsort(-tiou[i, j], kind="stable")  # rows of `old`, then of `new`, rise among equals
        free = np.ones(tiou.shape[0], np.bool_), np.ones(tiou.shape[1], np.bool_)
        for a, b in zip(i[order], j[order]):
            if free[0][a] and free[1][b]:
                free[0][a] = free[1][b] = False
                pairs.append((rows[0][a], rows[1][b]))
    i, j = np.array(pairs, np.int64).reshape(-1, 2).T
    return i, j


def _values_at(runs: _Runs, cells: Int) -> Float:
    """The map at some cells."""
    at = np.searchsorted(runs.starts, cells, "right") - 1  # -1, before the first run, finds the empty one at the end
    return np.where(cells < np.append(runs.stops, 0)[at], np.append(runs.values, 0.0)[at], 0.0)


def _inside(spans: Int, points: Int) -> NDArray[np.bool_]:
    """Which pieces from one point to the next some span covers; spans begin and end at points."""
    opened, closed = (np.bincount(np.searchsorted(points, side), minlength=len(points)) for side in spans.T)
    return np.cumsum(opened - closed)[:-1] > 0


def _warn_of_collapse(churn: LabelChurn, num_cells: int, stacklevel: int) -> None:
    if num_cells and churn.num_empty == churn.num_videos:
        what = f"the labels of all {churn.num_videos} videos are 0"
    elif churn.nonzero_share > FULL_SHARE:
        what = (
            f"{churn.nonzero_share:.1%} of the snippets are labelled, more than {FULL_SHARE:.0%}, counted over the "
            f"classes with labels in {churn.num_videos - churn.num_empty} of {churn.num_videos} videos"
        )
    else:
        return
    warnings.warn(f"pseudo labels collapsed: {what}", LabelCollapseWarning, stacklevel=stacklevel)


# ------------------------------------------------------------------------------------------- to and from plain arrays
# Videos by rising id.  Runs and instances come video after video, the runs of all current maps before those of all
# previous ones; `run_offsets` (2V+1,) and `instance_offsets` (V+1,) bound them.
_LAYOUT = {
    "shapes": "<i8",  # (2V,) T, K, T, K, ...
    "has_previous": "|u1",  # (V,)
    "has_instances": "|u1",  # (V,)
    "run_offsets": "<i8",
    "starts": "<i4",
    "stops": "<i4",
    "values": "<f8",
    "instance_offsets": "<i8",
    "instance_labels": "<i8",
    "instance_bounds": "<f8",  # (2N,) start, end, start, end, ...
}
_NO_RUNS = _Runs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))
_NO_INSTANCES = _Instances(np.empty(0, np.int64), np.empty((0, 2)))


def _arrays(videos: Mapping[str, Entry]) -> dict[str, NDArray[Any]]:
    """The bank as flat arrays, see `_LAYOUT`."""
    entries = list(videos.values())
    runs = [*(entry.current for entry in entries), *(entry.previous or _NO_RUNS for entry in entries), _NO_RUNS]
    rows = [*(entry.instances or _NO_INSTANCES for entry in entries), _NO_INSTANCES]
    arrays: dict[str, ArrayLike] = {
        "shapes": [side for entry in entries for side in entry.shape],
        "has_previous": [entry.previous is not None for entry in entries],
        "has_instances": [entry.instances is not None for entry in entries],
        "run_offsets": np.cumsum([0, *(len(part.starts) for part in runs[:-1])]),
        "starts": np.concatenate([part.starts for part in runs]),
        "stops": np.concatenate([part.stops for part in runs]),
        "values": np.concatenate([part.values for part in runs]),
        "instance_offsets": np.cumsum([0, *(len(part.labels) for part in rows[:-1])]),
        "instance_labels": np.concatenate([part.labels for part in rows]),
        "instance_bounds": np.concatenate([part.segments for part in rows]).reshape(-1),
    }
    return {name: np.asarray(array, _LAYOUT[name]) for name, array in arrays.items()}


def _entries(kind: Any, ids: list[Any], arrays: Mapping[str, NDArray[Any]], where: str) -> dict[str, Entry]:
    """The bank that flat arrays of the right dtypes describe; FormatError unless `update` could have made it."""

    def require(holds: Any, name: str, rule: str) -> None:
        if not holds:
            raise FormatError(f"{where}: `{name}` {rule}")

    require(kind == _FORMAT, "format", f"must be {_FORMAT!r}, got {kind!r:.80}")
    count = len(ids)
    require(all(isinstance(video, str) and "\0" not in video for video in ids), "video_ids", "must be text")
    require(all(a < b for a, b in pairwise(ids)), "video_ids", "must rise")
    for name, size in (("shapes", 2 * count), ("has_previous", count), ("has_instances", count)):
        require(len(arrays[name]) == size, name, f"must have {size} entries, got {len(arrays[name])}")
    shapes = arrays["shapes"].reshape(-1, 2)
    # in two steps, so that the product cannot overflow
    require(((shapes >= 0) & (shapes <= _checks.MOST)).all(), "shapes", f"must lie in [0, {_checks.MOST}]")
    cells = shapes.prod(axis=1)
    require((cells <= _checks.MOST).all(), "shapes", f"must have at most {_checks.MOST} values per map")
    require((shapes[:, 1] == shapes[:1, 1]).all(), "shapes", "must have one number of classes")
    offsets = {}
    for name, rows, maps in (("run_offsets", "starts", 2 * count), ("instance_offsets", "instance_labels", count)):
        require(len(arrays[name]) == maps + 1, name, f"must have {maps + 1} entries, got {len(arrays[name])}")
        try:
            offsets[name] = _checks.as_offsets(arrays[name], len(arrays[rows]), name)
        except ValueError as error:
            raise FormatError(f"{where}: {error}") from None
    for name, first in (("has_previous", "run_offsets"), ("has_instances", "instance_offsets")):
        stored = np.diff(offsets[first])[-count:] if count else np.empty(0)
        require((arrays[name] <= 1).all(), name, "must be 0 or 1")
        require((stored[arrays[name] == 0] == 0).all(), first, f"must be empty where `{name}` is 0")

    starts, stops, values = (arrays[name] for name in ("starts", "stops", "values"))
    require(len(stops) == len(values) == len(starts), "starts", "must have one entry per stop and value")
    which = np.repeat(np.arange(2 * count), np.diff(offsets["run_offsets"]))
    owner = which % max(count, 1)
    length = shapes[owner, 0]
    inside = (starts >= 0) & (starts < stops) & (stops <= cells[owner])
    require(inside.all(), "starts", "must lie before `stops`, within the map")
    require((starts // length == (stops - 1) // length).all(), "stops", "must not lie in another class than `starts`")
    rises = (which[1:] > which[:-1]) | (starts[1:] >= stops[:-1])
    require(rises.all(), "starts", "must rise within a map, without overlap")
    require((np.abs(values) <= _checks.LARGEST).all(), "values", "must be finite")
    require((values.view(np.int64) != 0).all(), "values", "must not be 0")
    labels, bounds = arrays["instance_labels"], arrays["instance_bounds"]
    require(len(bounds) == 2 * len(labels), "instance_bounds", "must have two entries per label")

    videos = {}
    for v, video in enumerate(ids):
        own = [slice(*offsets["run_offsets"][k : k + 2]) for k in (v, v + count)]
        current, previous = (_Runs(starts[part].copy(), stops[part].copy(), values[part].copy()) for part in own)
        span = slice(*offsets["instance_offsets"][v : v + 2])
        shape = (int(shapes[v, 0]), int(shapes[v, 1]))
        instances = None
        if arrays["has_instances"][v]:
            try:
                made = Segments(bounds.reshape(-1, 2)[span], labels[span])
                instances = _checked_instances(made, shape, f"instances[{video!r:.80}]")
            except ValueError as error:
                raise FormatError(f"{where}: {error}") from None
        videos[video] = Entry(shape, current, previous if arrays["has_previous"][v] else None, instances)
    return videos


def write_file(path: str | os.PathLike[str], videos: Mapping[str, Entry], note: str | None = None) -> None:
    """The bank as an npz file, whole or not at all, with a note where one is given."""
    text = {"format": np.array([_FORMAT]), "video_ids": np.array(list(videos), np.str_).reshape(len(videos))}
    if note is not None:
        text["note"] = np.array([note])
    with atomic_write(path, "wb") as file:
        _npy.write_npz(file, {**text, **_arrays(videos)}, compressed=False)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Entry], str]:
    """What `write_file` wrote; the note is empty where there is none."""
    with _npy.NpzReader(path, MAX_BYTES) as npz:
        if set(npz.names) - {"note"} != {"format", "video_ids", *_LAYOUT}:
            raise FormatError(f"{npz.path}: not a saved bank, it has the arrays {sorted(npz.names)!s:.300}")
        arrays = {name: npz.read(name) for name in npz.names}
        for name, array in arrays.items():
            wanted = _LAYOUT.get(name)
            if array.ndim != 1 or (array.dtype.kind != "U" if wanted is None else array.dtype != np.dtype(wanted)):
                raise FormatError(f"{npz.path}: `{name}` must not be {array.dtype} of shape {array.shape}")
        names = arrays.pop("video_ids").tolist()
        note = "".join(arrays.pop("note", np.empty(0, np.str_)).tolist())
        return _entries("".join(arrays.pop("format").tolist()), names, arrays, npz.path), note
