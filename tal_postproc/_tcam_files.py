"""Videos with their maps in npz files, read whole or in parts, written whole or not at all."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _npy
from ._checks import Int
from ._fields import StrPath, as_limit, as_text, class_names, refuse, repeated
from ._files import atomic_write
from .types import Annotations, FormatError, Segments, Video, Videos

MAX_NPZ_BYTES = 16 << 30
BLOCK = 64  # videos that are read at once where all of a file streams by

Arrays = dict[str, NDArray[Any] | _npy.Stacked]

_MAP_NAMES = {"tcam": "cas"}  # name in the file -> name that presets look for
_KNOWN_MAPS = frozenset({"tcam", "cas", "attention", "actionness", "logits"})  # never left alone where they do not fit
_RESERVED = frozenset(
    "names offsets duration seconds_per_snippet classes subset map_names score_names gt_offsets gt_segments "  # noqa: SIM905
    "gt_labels gt_duration amb_offsets amb_segments warp_offsets warp_knots warp_times".split()
)
_REAL = "fiub"  # kinds of dtype
_ARRAY_NAME = re.compile(r"[\w.-]{1,100}")


def read_tcams(path: StrPath, *, seconds_per_snippet: float | None = None, max_bytes: int = MAX_NPZ_BYTES) -> Videos:
    """Videos with their maps from one npz file.

    ``names`` (N,) are the video ids and ``offsets`` (N+1,) the rows of every map that belong to each of them.  A map is
    an array with as many rows as all videos have snippets; ``(N, K)`` arrays are video-level scores.  A file of ours
    lists both in ``map_names`` and ``score_names`` and is taken at its word.  In other files

    * ``tcam``, ``cas``, ``attention``, ``actionness`` and ``logits`` must be maps, ``video_scores`` must be scores, and
      every other name that ends in ``_scores`` must be one of both: what does not fit is refused;
    * any other floating-point array is taken if it has such a shape.  One number per video, scalars, and an array
      ``X_...`` beside ``X_offsets`` (rows of its own per video) are left alone; other shapes are left alone with a
      warning.  What is not floating-point is not looked at;
    * there must be a map; ``video_scores`` may have one column more or less than ``tcam``, and ``classes`` as many
      names as ``tcam`` has columns or one less (a background).

    The map ``tcam`` is called ``"cas"`` and scores ``video_scores`` are called ``"video"``
    (``rgb_scores``: ``"rgb"``), the names that presets look for.

    Optional arrays: ``duration`` and ``seconds_per_snippet`` (N,), NaN where not known; ``classes``; ground truth
    ``gt_offsets``, ``gt_segments`` (seconds), ``gt_labels``, ``gt_duration`` (default ``duration``), ``subset``;
    ambiguous spans ``amb_offsets``, ``amb_segments``; ``warp_offsets``, ``warp_knots``, ``warp_times``.

    Parameters
    ----------
    path : str or path
        The file.
    seconds_per_snippet : float, optional
        Taken for the videos of which the file does not know it.
    max_bytes : int, default 16 GiB
        Largest size of all arrays together after unpacking; compared before anything is allocated.

    Returns
    -------
    Videos
        In the order of the file.  The maps of a video are views into the arrays that were read, in their own dtype, so
        the memory is that of the file's arrays.

    Raises
    ------
    FormatError
        If the file is not a zip of ``.npy`` arrays, holds pickles, or announces other sizes than it has, if a shape
        fits both kinds, if an array of a known name fits none, or if names, offsets or numbers are not what they
        should be.

    Warns
    -----
    UserWarning
        If a file that does not list its maps has floating-point arrays of other shapes.

    See Also
    --------
    write_tcams : the way back.

    Examples
    --------
    >>> import os, tempfile
    >>> video = Video("v", {"cas": np.eye(3)}, {"video": [0.1, 0.8, 0.1]}, seconds_per_snippet=0.64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tcams(os.path.join(folder, "t.npz"), [video], classes=["Diving", "LongJump", "Shotput"])
    ...     videos = read_tcams(os.path.join(folder, "t.npz"))
    >>> videos, videos["v"].maps["cas"].shape, videos[0].scores["video"].tolist()
    (<Videos: 1 videos, 3 classes>, (3, 3), [0.1, 0.8, 0.1])
    """
    with open_tcams(path, seconds_per_snippet=seconds_per_snippet, max_bytes=max_bytes) as reader:
        return Videos(reader.read(0, len(reader)), reader.classes, reader.annotations)


def open_tcams(
    path: StrPath, *, seconds_per_snippet: float | None = None, max_bytes: int = MAX_NPZ_BYTES
) -> TcamReader:
    """An npz file of videos with their maps, to be read in parts; a file may then be larger than memory.

    Parameters
    ----------
    path, seconds_per_snippet, max_bytes
        As in `read_tcams`, which also tells the layout.

    Returns
    -------
    TcamReader
        A context manager.  Names, classes, timing and ground truth are read now, maps when they are asked for.

    Raises
    ------
    FormatError
        Now for what `read_tcams` refuses in everything but the values of the maps, and for these when they are read.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tcams(os.path.join(folder, "t.npz"), [Video(name, {"cas": np.eye(3)}) for name in "abcd"])
    ...     with open_tcams(os.path.join(folder, "t.npz")) as reader:
    ...         part = reader.read(1, 3)
    >>> len(reader), [video.id for video in part], part[1].maps["cas"].shape
    (4, ['b', 'c'], (3, 3))
    """
    return TcamReader(path, seconds_per_snippet=seconds_per_snippet, max_bytes=max_bytes)


class TcamReader:
    """An open npz file of TCAMs; `open_tcams` makes one.

    Attributes
    ----------
    names : tuple of str
        Ids of the N videos.
    classes : tuple of str
        Names of the classes; empty where the file has none.
    annotations : Annotations or None
        Ground truth of all videos, where the file has it.
    map_names : tuple of str
        Names of the maps, as `Video.maps` has them.
    lengths : (N,) int64
        Snippets of every video.
    seconds_per_snippet : (N,) float64
        NaN where it is not known.
    """

    def __init__(self, path: StrPath, *, seconds_per_snippet: float | None, max_bytes: int) -> None:
        if seconds_per_snippet is not None:
            seconds_per_snippet = _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
        self._npz = npz = _npy.NpzReader(path, as_limit(max_bytes))
        try:
            _npz_require(npz, "names", "offsets")
            self.names = _npz_text(npz, "names")
            count = len(self.names)
            self._offsets = _npz_offsets(npz, "offsets", count, None)
            rows = int(self._offsets[-1])
            maps, scores = _npz_roles(npz, rows, count)
            self._maps = {_MAP_NAMES.get(name, name): _npz_rows(npz, name, rows, (1, 2)) for name in maps}
            self._scores = {name.removesuffix("_scores"): _npz_rows(npz, name, count, (2,)) for name in scores}
            if len(self._maps) != len(maps) or len(self._scores) != len(scores):
                refuse(f"{npz.path}: the file", "must have one array per map and score", [*maps, *scores])
            self._durations = _npz_numbers(npz, "duration", count)
            self.seconds_per_snippet = _npz_numbers(npz, "seconds_per_snippet", count)
            if seconds_per_snippet is not None:
                self.seconds_per_snippet[np.isnan(self.seconds_per_snippet)] = seconds_per_snippet
            self._warps = _npz_warps(npz, count)
            self.classes = _npz_text(npz, "classes") if "classes" in npz else ()
            has_truth = any(name in npz for name in _RESERVED if name.startswith(("gt_", "amb_")))
            self.annotations = npz_annotations(npz) if has_truth else None
        except BaseException:
            npz.close()
            raise
        self.map_names = tuple(self._maps)
        self.lengths: Int = np.diff(self._offsets)

    def __len__(self) -> int:
        return len(self.names)

    def __enter__(self) -> TcamReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._npz.close()

    def read(self, start: int, stop: int) -> tuple[Video, ...]:
        """The videos from `start` up to but not including `stop`; nothing else of the maps is kept in memory.

        Going forward is fast.  In a deflated file, going back unpacks it from the beginning; an array in Fortran's
        order is read whole and kept.  The checksum of an array is compared when it has been read from end to end.
        One thread may read at a time.
        """
        start = _checks.as_count(start, "start")
        stop = _checks.as_count(stop, "stop", at_least=start)
        if stop > len(self):
            raise ValueError(f"`stop` must be at most {len(self)}, the number of videos, got {stop}")
        first, last = int(self._offsets[start]), int(self._offsets[stop])
        maps = {name: rows.read(first, last) for name, rows in self._maps.items()}
        scores = {name: rows.read(start, stop) for name, rows in self._scores.items()}
        return tuple(self._video(row, first, maps, start, scores) for row in range(start, stop))

    def _video(
        self, row: int, first: int, maps: Mapping[str, NDArray[Any]], start: int, scores: Mapping[str, NDArray[Any]]
    ) -> Video:
        """One video out of arrays that begin at snippet `first` and video `start`."""
        span = slice(int(self._offsets[row]) - first, int(self._offsets[row + 1]) - first)
        step, duration = float(self.seconds_per_snippet[row]), float(self._durations[row])
        try:
            return Video(
                self.names[row],
                {name: value[span] for name, value in maps.items()},
                {name: value[row - start] for name, value in scores.items()},
                None if math.isnan(step) else step,
                None if math.isnan(duration) else duration,
                self._warps[row],
            )
        except (TypeError, ValueError) as error:
            raise FormatError(f"{self._npz.path}: video {self.names[row]!r}: {error}") from None


def _refuse_array(npz: _npy.NpzReader, name: str, rule: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NoReturn:
    refuse(f"{npz.path}: `{name:.80}`", rule, f"{dtype} of shape {shape}")


def _npz_text(npz: _npy.NpzReader, name: str) -> tuple[str, ...]:
    """A one-dimensional array of text."""
    where = f"{npz.path}: `{name}`"
    array = npz.read(name)
    if array.ndim != 1 or (array.dtype.kind not in "SU" and array.size):
        refuse(where, "must be a list of names", f"{array.dtype} of shape {array.shape}")
    names = tuple(as_text(item, where) for item in array.tolist())
    if name != "subset" and (twice := repeated(names)) is not None:
        raise FormatError(f"{where} must differ, {twice!r} stands {names.count(twice)} times")
    return names


def _npz_numbers(npz: _npy.NpzReader, name: str, count: int) -> NDArray[np.float64]:
    """(N,) numbers per video, above 0 or NaN (not known); all NaN where the file has no such array."""
    if name not in npz:
        return np.full(count, np.nan)
    array = npz.read(name)
    if array.shape != (count,) or array.dtype.kind not in "fiu":
        refuse(f"{npz.path}: `{name}`", f"must be {count} numbers", f"{array.dtype} of shape {array.shape}")
    numbers = array.astype(np.float64)
    bad = np.isinf(numbers) | (numbers <= 0)
    if bad.any():
        refuse(f"{npz.path}: `{name}`", "must be finite and above 0 (or NaN: not known)", float(numbers[bad][0]))
    return numbers


def _npz_offsets(npz: _npy.NpzReader, name: str, count: int, rows: int | None) -> NDArray[np.int64]:
    """(N+1,) row bounds of the videos; `rows` is the number they end in, where that is known."""
    array = npz.read(name)
    if array.shape != (count + 1,) or array.dtype.kind not in "iu":
        refuse(f"{npz.path}: `{name}`", f"must be {count + 1} whole numbers", f"{array.dtype} of shape {array.shape}")
    try:
        return _checks.as_offsets(array, int(array[-1]) if rows is None else rows, name)
    except ValueError as error:
        raise FormatError(f"{npz.path}: {error}") from None


def _npz_spans(npz: _npy.NpzReader, prefix: str, names: tuple[str, ...], labels: NDArray[Any] | None) -> Segments:
    """``<prefix>_segments`` and ``<prefix>_offsets`` as segments in seconds."""
    rows = npz.read(f"{prefix}_segments")
    try:
        return Segments(
            rows, labels, None, _npz_offsets(npz, f"{prefix}_offsets", len(names), len(rows)), "second", names
        )
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        raise FormatError(f"{npz.path}: `{prefix}_segments`: {error}") from None


def _npz_require(npz: _npy.NpzReader, *names: str) -> None:
    for name in names:
        if name not in npz:
            refuse(f"{npz.path}: the file", f"must have an array {name!r}", sorted(npz.names))


def npz_annotations(npz: _npy.NpzReader) -> Annotations:
    """Ground truth of an npz of TCAMs; the maps are not touched."""
    _npz_require(npz, "names", "gt_offsets", "gt_segments", "gt_labels")
    if "amb_segments" in npz or "amb_offsets" in npz:
        _npz_require(npz, "amb_segments", "amb_offsets")
    names = _npz_text(npz, "names")
    truth = _npz_spans(npz, "gt", names, npz.read("gt_labels"))
    own = (
        _npz_text(npz, "classes") if "classes" in npz else tuple(map(str, range(int(truth.labels.max(initial=-1)) + 1)))
    )
    if len(truth) and truth.labels.max() >= len(own):
        refuse(f"{npz.path}: `gt_labels`", f"must lie below {len(own)}, the number of classes", int(truth.labels.max()))
    subsets = _npz_text(npz, "subset") if "subset" in npz else ("",) * len(names)
    if len(subsets) != len(names):
        refuse(f"{npz.path}: `subset`", f"must have {len(names)} names", len(subsets))
    durations = _npz_numbers(npz, "gt_duration" if "gt_duration" in npz else "duration", len(names))
    spare = _npz_spans(npz, "amb", names, None) if "amb_segments" in npz else None
    return Annotations(truth, own, durations, subsets, spare)


def _npz_roles(npz: _npy.NpzReader, rows: int, count: int) -> tuple[list[str], list[str]]:
    """Which arrays are maps and which are video-level scores: as the file says, else by their shapes."""
    if "map_names" in npz or "score_names" in npz:
        _npz_require(npz, "map_names", "score_names")
        maps, scores = list(_npz_text(npz, "map_names")), list(_npz_text(npz, "score_names"))
        _npz_require(npz, *maps, *scores)
        return maps, scores
    maps, scores, left = [], [], []
    for name in npz.names:
        shape, _, dtype = npz.header(name)
        only_map, only_scores = name in _KNOWN_MAPS, name == "video_scores"
        known = only_map or name.endswith("_scores")
        if name in _RESERVED or (not known and (dtype.kind != "f" or not shape or _is_ragged(npz, name))):
            continue
        fits = len(shape) in (1, 2) and dtype.kind in _REAL
        if fits and rows == count == shape[0]:
            raise FormatError(
                f"{npz.path}: array {name!r} of shape {shape} may be a map or hold video-level scores, since there"
                f" are as many videos as snippets ({rows}); add arrays 'map_names' and 'score_names' to the file"
            )
        if fits and shape[0] == rows and not only_scores:
            maps.append(name)
        elif fits and shape[0] == count and len(shape) == 2 and not only_map:
            scores.append(name)
        elif known:
            wanted = [] if only_scores else [f"({rows},) or ({rows}, K), one row per snippet"]
            wanted += [] if only_map else [f"({count}, K), one row per video"]
            _refuse_array(npz, name, f"must be real numbers of shape {', or '.join(wanted)}", shape, dtype)
        elif shape != (count,):
            left.append(f"{name!r:.80} {shape}")
    if rows and not maps:
        refuse(f"{npz.path}: the file", f"must have a map, a floating-point array of {rows} rows", sorted(npz.names))
    if left:
        warnings.warn(
            f"{npz.path}: left alone, neither maps of {rows} rows (snippets) nor scores of {count} rows (videos): "
            f"{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}",
            stacklevel=5,
        )
    _npz_widths(npz, maps, scores)
    return maps, scores


def _is_ragged(npz: _npy.NpzReader, name: str) -> bool:
    """Has the array row bounds of its own, as ``amb_segments`` has ``amb_offsets``?"""
    return any(f"{name[:end]}_offsets" in npz for end in range(1, len(name)) if name[end] == "_")


def _npz_widths(npz: _npy.NpzReader, maps: list[str], scores: list[str]) -> None:
    """Are video-level scores and class names as many as the class map has columns, give or take a background?"""
    class_map = next((name for name in maps if name in ("tcam", "cas") and len(npz.header(name)[0]) == 2), None)
    if class_map is None:
        return
    width = npz.header(class_map)[0][1]
    if "video_scores" in scores:
        shape, _, dtype = npz.header("video_scores")
        if abs(shape[1] - width) > 1:
            rule = f"must have as many columns as {class_map!r} ({width}), or one more or less"
            _refuse_array(npz, "video_scores", rule, shape, dtype)
    if "classes" in npz and (names := len(_npz_text(npz, "classes"))) not in (width - 1, width):
        refuse(
            f"{npz.path}: `classes`", f"must name the {width} columns of {class_map!r}, or all but a background", names
        )


def _npz_rows(npz: _npy.NpzReader, name: str, rows: int, ndim: tuple[int, ...]) -> _npy.Rows:
    """An array of real numbers with so many rows; what does not fit is not read."""
    shape, _, dtype = npz.header(name)
    if len(shape) not in ndim or shape[0] != rows or dtype.kind not in _REAL:
        _refuse_array(npz, name, f"must be real numbers in {rows} rows", shape, dtype)
    return npz.rows(name)


def _npz_warps(npz: _npy.NpzReader, count: int) -> list[tuple[NDArray[Any], NDArray[Any]] | None]:
    """The time warp of every video, None where it has none."""
    if not any(name in npz for name in ("warp_offsets", "warp_knots", "warp_times")):
        return [None] * count
    _npz_require(npz, "warp_offsets", "warp_knots", "warp_times")
    bounds = _npz_offsets(npz, "warp_offsets", count, None)
    knots, times = (
        _npz_rows(npz, name, int(bounds[-1]), (1,)).read(0, int(bounds[-1])) for name in ("warp_knots", "warp_times")
    )
    pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist())
    return [(knots[start:stop], times[start:stop]) if stop > start else None for start, stop in pairs]


def write_tcams(
    path: StrPath,
    videos: Iterable[Video],
    *,
    classes: Sequence[str] | None = None,
    annotations: Annotations | None = None,
    compressed: bool = False,
) -> None:
    """Write videos with their maps as one npz file, whole or not at all.

    `read_tcams` describes the layout and gives the same videos back.  The same videos give the same bytes.

    Parameters
    ----------
    path : str or path
        The file.
    videos : iterable of Video
        All with the same maps and scores, of one width and dtype each; ids differ.  `Video.proposals` cannot be stored.
    classes : sequence of str, optional
        Names of the classes; default those of `annotations` or of `videos`, if it is a `Videos`.
    annotations : Annotations, optional
        Ground truth of the same videos, in any order; default that of `videos`, if it is a `Videos`.
    compressed : bool, default False
        Deflate the arrays: smaller, and several times slower to write and read.

    Raises
    ------
    ValueError
        If the videos differ in their maps or scores, carry proposals, or share an id; if a map has a name that the
        layout needs; or if `annotations` are of other videos or classes.
    """
    if isinstance(videos, Videos):
        annotations = videos.annotations if annotations is None else annotations
        classes = (videos.classes or None) if classes is None else classes
    if classes is None and annotations is not None:
        classes = annotations.classes
    videos = tuple(videos)
    arrays = _tcam_arrays(videos)
    if classes is not None:
        arrays["classes"] = text_array(class_names(classes), "classes")
    if annotations is not None:
        arrays |= _truth_arrays(annotations, [video.id for video in videos], tuple(classes or ()))
    with atomic_write(path, "wb") as file:
        _npy.write_npz(file, arrays, compressed=compressed)


def text_array(names: Sequence[str], argument: str) -> NDArray[np.str_]:
    """Names as an array of text, which cannot hold a NUL at the end."""
    for name in names:
        if "\0" in name:
            raise ValueError(f"`{argument}` must not contain a NUL, got {name!r:.80}")
    return np.array(names, dtype=np.str_).reshape(len(names))


def _tcam_arrays(videos: tuple[Video, ...]) -> Arrays:
    """Everything but class names and ground truth."""
    ids = [video.id for video in videos]
    if (twice := repeated(ids)) is not None:
        raise ValueError(f"`videos` must have different ids, {twice!r} stands {ids.count(twice)} times")
    first = videos[0] if videos else Video("", {})
    for video in videos:
        if video.maps.keys() != first.maps.keys() or video.scores.keys() != first.scores.keys():
            raise ValueError(
                f"`videos` must share their maps and scores; {video.id!r} has {sorted(video.maps)} and"
                f" {sorted(video.scores)}, {first.id!r} has {sorted(first.maps)} and {sorted(first.scores)}"
            )
        if video.proposals is not None:
            raise ValueError(f"`videos` must not carry proposals, which the format cannot hold; {video.id!r} does")
    stored = {value: key for key, value in _MAP_NAMES.items()}
    maps = {name: stored.get(name, name) for name in first.maps}
    scores = {name: f"{name}_scores" for name in first.scores}
    used = [*maps.values(), *scores.values()]
    for name in used:
        if name in _RESERVED or used.count(name) > 1 or not _ARRAY_NAME.fullmatch(name):
            raise ValueError(f"`videos` has a map or score whose array {name!r:.120} the layout cannot have; rename it")
    for name in _MAP_NAMES:
        if name in maps:
            raise ValueError(
                f"`videos` has a map {name!r}, which would be read back as {_MAP_NAMES[name]!r}; rename it"
            )
    unknown = math.nan
    arrays = _head_arrays(
        ids,
        [video.num_snippets for video in videos],
        [unknown if v.duration is None else v.duration for v in videos],
        [unknown if v.seconds_per_snippet is None else v.seconds_per_snippet for v in videos],
        list(maps.values()),
        list(scores.values()),
    )
    for name, array_name in maps.items():
        parts = [video.maps[name] for video in videos]
        if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
            raise ValueError(f"`videos` must share the width and dtype of map {name!r}, got {_kinds(parts)}")
        rows = (sum(map(len, parts)), *parts[0].shape[1:])
        arrays[array_name] = _npy.Stacked(rows, parts[0].dtype, parts)
    for name, array_name in scores.items():
        parts = [video.scores[name] for video in videos]
        if len({part.shape for part in parts}) > 1:
            raise ValueError(f"`videos` must share the width of scores {name!r}, got {_kinds(parts)}")
        arrays[array_name] = np.stack(parts)
    arrays |= _warp_arrays([video.warp for video in videos])
    return arrays


def _head_arrays(
    ids: Sequence[str],
    lengths: ArrayLike,
    durations: ArrayLike,
    steps: ArrayLike,
    map_names: Sequence[str],
    score_names: Sequence[str],
) -> Arrays:
    """What stands before the maps."""
    return {
        "names": text_array(ids, "videos"),
        "offsets": np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64),
        "duration": np.asarray(durations, np.float64),
        "seconds_per_snippet": np.asarray(steps, np.float64),
        "map_names": text_array(map_names, "videos"),
        "score_names": text_array(score_names, "videos"),
    }


def _warp_arrays(warps: Sequence[tuple[NDArray[Any], NDArray[Any]] | None]) -> Arrays:
    if not any(warp is not None for warp in warps):
        return {}
    filled = [warp or (np.empty(0), np.empty(0)) for warp in warps]
    return {
        "warp_offsets": np.cumsum([0, *(len(knots) for knots, _ in filled)], dtype=np.int64),
        "warp_knots": np.concatenate([knots for knots, _ in filled]),
        "warp_times": np.concatenate([times for _, times in filled]),
    }


def merge_tcams(path: StrPath, parts: Sequence[StrPath], *, compressed: bool = False) -> None:
    """Files of `write_tcams` with maps alone as one file: what it writes for all their videos, held in memory in parts.

    The parts, at least one, share their maps and classes.
    """
    heads = []
    for part in parts:
        with open_tcams(part) as reader:
            heads.append(reader)
    first = heads[0]
    stored = {value: key for key, value in _MAP_NAMES.items()}
    maps = {name: stored.get(name, name) for name in first.map_names}
    arrays = _head_arrays(
        [name for head in heads for name in head.names],
        np.concatenate([head.lengths for head in heads]),
        np.concatenate([head._durations for head in heads]),
        np.concatenate([head.seconds_per_snippet for head in heads]),
        list(maps.values()),
        [],
    )
    for name, array_name in maps.items():
        rows = first._maps[name]
        shape = (sum(int(head.lengths.sum()) for head in heads), *rows.shape[1:])
        arrays[array_name] = _npy.Stacked(shape, rows.dtype, _map_parts(parts, name))
    arrays |= _warp_arrays([warp for head in heads for warp in head._warps])
    if first.classes:
        arrays["classes"] = text_array(first.classes, "classes")
    with atomic_write(path, "wb") as file:
        _npy.write_npz(file, arrays, compressed=compressed)


def _map_parts(paths: Sequence[StrPath], name: str) -> Iterator[NDArray[Any]]:
    for path in paths:
        with open_tcams(path) as reader:
            for start in range(0, len(reader), BLOCK):
                for video in reader.read(start, min(start + BLOCK, len(reader))):
                    yield video.maps[name]


def _kinds(parts: list[NDArray[Any]]) -> str:
    return ", ".join(sorted({f"{part.dtype} (..., {part.shape[-1]})" for part in parts})[:4])


def _truth_arrays(annotations: Annotations, ids: list[str], classes: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Ground truth in the order of the videos."""
    if tuple(classes) != annotations.classes:
        raise ValueError(
            f"`annotations` must have the classes of the file ({len(classes)}), got {len(annotations.classes)}"
        )
    if set(ids) != set(annotations.video_ids):
        other = sorted(set(ids) ^ set(annotations.video_ids))
        raise ValueError(
            f"`annotations` must be of the same videos; {other[0]!r} is in one of both ({len(other)} such)"
        )
    where = {name: row for row, name in enumerate(annotations.video_ids)}
    order = [where[name] for name in ids]
    arrays: dict[str, NDArray[Any]] = {
        "subset": text_array([annotations.subsets[row] for row in order], "subsets"),
        "gt_duration": annotations.durations[order],
    }
    for prefix, segments in (("gt", annotations.segments), ("amb", annotations.ambiguous)):
        if segments is not None:
            parts = [segments.video(row) for row in order]
            arrays[f"{prefix}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            arrays[f"{prefix}_segments"] = np.concatenate([np.empty((0, 2)), *(part.segments for part in parts)])
    labels = [annotations.segments.video(row).labels for row in order]
    arrays["gt_labels"] = np.concatenate([np.empty(0, np.int64), *labels])
    return arrays
