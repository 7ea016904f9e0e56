"""Many machines: the chain over Arrow tables, for `ray.data.Dataset.map_batches` or for Parquet files without Ray.

A table of TCAMs has one row per video:

===========================  =====================================================================================
``video``                    text: the id
``maps``                     struct of maps: ``list<float>`` for (T,), ``list<fixed_size_list<float>[K]>`` for (T, K);
                             inner lists of any kind are taken as long as those of one video are equally long
``scores``                   struct of video-level scores, ``list<double>`` each; may be left out
``seconds_per_snippet``      double; null, NaN or left out where it is not known
``duration``                 the same
``warp``                     struct of ``knots`` and ``times``; may be left out
``known_labels``             ``list<int>`` of classes or ``list<bool>`` of K; read by `Labels` only
===========================  =====================================================================================

Numbers may have any real type.  A map that is null is one that the video does not have.  Other columns are left alone.

A table of detections has one row per video, too, so that rows may come in any order and be split anywhere: ``video``,
and the lists ``start``, ``end`` (seconds), ``label`` and ``score``, equally long, as the chain orders its detections.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import __version__, _checks, _jobs, _threads, presets
from ._signals import about
from .config import LinPro, Pipeline
from .linpro import linpro_label_map
from .pipeline import PostProcessor
from .types import FormatError, MissingExtraError, Segments, Video

if TYPE_CHECKING:
    import pyarrow

A = TypeVar("A")
B = TypeVar("B")

__all__ = ["Detect", "Labels", "detections_to_segments", "videos_from_arrow", "videos_to_arrow"]

_LISTS = ("start", "end", "label", "score")


def _arrow(what: str) -> Any:
    """The module pyarrow."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("pyarrow", "ray", what) from None
    return pyarrow


# -------------------------------------------------------------------------------------------------------------- tables


def videos_to_arrow(videos: Iterable[Video]) -> pyarrow.Table:
    """A table of TCAMs from videos, one row each; the layout is told at the head of `tal_postproc.distributed`.

    Parameters
    ----------
    videos : iterable of Video
        All with the same maps and scores, of one width and dtype each.  `Video.proposals` cannot be stored.

    Returns
    -------
    pyarrow.Table
        Maps keep their dtype; scores are float64.  ``maps``, ``scores`` and ``warp`` are left out where there
        are none.

    Raises
    ------
    ValueError
        If the videos differ in their maps or scores, or carry proposals; the message names the video.
    MissingExtraError
        If pyarrow is not installed.

    See Also
    --------
    videos_from_arrow : the way back.

    Examples
    --------
    >>> table = videos_to_arrow([Video("a", {"cas": np.eye(2)}), Video("b", {"cas": np.ones((3, 2))})])
    >>> table.schema.field("maps").type
    StructType(struct<cas: list<item: fixed_size_list<item: double>[2]>>)
    >>> [video.num_snippets for video in videos_from_arrow(table)]
    [2, 3]
    """
    pa = _arrow("videos_to_arrow")
    videos = list(videos)
    for video in videos:
        if video.proposals is not None:
            raise about(video, ValueError("`videos` must not carry proposals, which the table cannot hold"))

    def struct(of: str) -> Any:
        """The struct column of maps, or of scores; None without any."""
        first = getattr(videos[0], of) if videos else {}
        columns = []
        for video in videos:
            if getattr(video, of).keys() != first.keys():
                raise about(
                    video, ValueError(f"`{of}` must be {sorted(first)} as before, got {sorted(getattr(video, of))}")
                )
        for name in first:
            parts = [getattr(video, of)[name] for video in videos]
            for video, part in zip(videos, parts):
                if (part.shape[1:], part.dtype) != (parts[0].shape[1:], parts[0].dtype):
                    kinds = [f"{one.dtype} {('T', *one.shape[1:])}" for one in (parts[0], part)]
                    raise about(video, ValueError(f"`{of}[{name!r}]` must be {kinds[0]} as before, got {kinds[1]}"))
            columns.append(_lists(pa, parts))
        return pa.StructArray.from_arrays(columns, names=list(first)) if first else None

    columns = {
        "video": pa.array([video.id for video in videos], pa.string()),
        "maps": struct("maps"),
        "scores": struct("scores"),
        "seconds_per_snippet": pa.array([video.seconds_per_snippet for video in videos], pa.float64()),
        "duration": pa.array([video.duration for video in videos], pa.float64()),
    }
    warps = [None if video.warp is None else dict(zip(("knots", "times"), video.warp)) for video in videos]
    if any(warps):
        axis = pa.list_(pa.float64())
        columns["warp"] = pa.array(warps, pa.struct({"knots": axis, "times": axis}))
    return pa.table({name: column for name, column in columns.items() if column is not None})


def _lists(pa: Any, parts: Sequence[NDArray[Any]]) -> Any:
    """A column of lists: one (T,) or (T, K) array per row."""
    values = np.concatenate(parts)  # in the byte order of this machine
    inner = pa.array(values.reshape(-1))
    if values.ndim == 2:
        width = pa.list_(inner.type, values.shape[1])
        inner = pa.Array.from_buffers(width, len(values), [None], children=[inner])
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *map(len, parts)]), pa.int32()), inner)


def videos_from_arrow(table: pyarrow.Table, *, seconds_per_snippet: float | None = None) -> tuple[Video, ...]:
    """The videos of a table of TCAMs, one per row; the layout is told at the head of `tal_postproc.distributed`.

    Parameters
    ----------
    table : pyarrow.Table or pyarrow.RecordBatch
    seconds_per_snippet : float, optional
        Taken for the videos of which the table does not know it.

    Returns
    -------
    tuple of Video
        In the order of the rows.  Maps are read-only views into the table's buffers, in their own dtype; only bool is
        copied.

    Raises
    ------
    FormatError
        If a column is missing or holds something else; if a list has nulls or rows of different lengths.  The message
        names the video.
    MissingExtraError
        If pyarrow is not installed.

    See Also
    --------
    videos_to_arrow : the way back.

    Examples
    --------
    >>> import pyarrow
    >>> rows = {"video": ["a"], "maps": [{"cas": [[0.1, 0.9], [0.2, 0.8]], "attention": [0.5, 0.5]}]}
    >>> videos_from_arrow(pyarrow.table(rows))[0].maps["cas"].tolist()
    [[0.1, 0.9], [0.2, 0.8]]
    """
    if seconds_per_snippet is not None:
        seconds_per_snippet = _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
    table, names = _named(table, "videos_from_arrow")
    flat = table.flatten()  # a struct becomes one column per field; null structs have null fields

    def fields(of: str) -> list[tuple[str, Any]]:
        return [(name[len(of) + 1 :], flat[name]) for name in flat.column_names if name.startswith(f"{of}.")]

    maps, scores, warp = fields("maps"), fields("scores"), fields("warp")
    videos = []
    for row, name in enumerate(names):
        try:
            axes = _arrays(warp, row, "warp")
            warped: Any = tuple(axes[axis] for axis in ("knots", "times") if axis in axes) or None
            video = Video(
                name,
                _arrays(maps, row, "maps"),
                _arrays(scores, row, "scores"),
                _number(table, "seconds_per_snippet", row, seconds_per_snippet),
                _number(table, "duration", row, None),
                warped,
            )
        except (TypeError, ValueError) as error:
            raise FormatError(f"video {name!r}: {error}") from None
        videos.append(video)
    return tuple(videos)


def _named(table: Any, what: str) -> tuple[Any, list[str]]:
    """The argument as a table, and the ids of its videos."""
    pa = _arrow(what)
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        raise TypeError(f"`table` must be a pyarrow.Table or RecordBatch, got {type(table).__name__}")
    if table.column_names.count("video") != 1:
        raise FormatError(f"table: must have one column 'video', got {table.column_names}")
    kind = table.schema.field("video").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or table["video"].null_count:
        raise FormatError(
            f"table: 'video' must be text without nulls, got {kind} with {table['video'].null_count} nulls"
        )
    return table, table["video"].to_pylist()


def _arrays(columns: Sequence[tuple[str, Any]], row: int, of: str) -> dict[str, NDArray[Any]]:
    """The lists of a row as arrays, without those that are null."""
    found = {}
    for name, column in columns:
        values = getattr(column[row], "values", None)
        if values is not None:
            found[name] = _array(values, f"{of}[{name!r}]")
        elif column[row].is_valid:
            raise TypeError(f"`{of}[{name!r}]` must be a list of numbers, got {column.type}")
    return found


def _array(values: Any, name: str) -> NDArray[Any]:
    """What an Arrow array of numbers, or of equally long lists, holds; a view where Arrow allows it."""
    types = _arrow("videos_from_arrow").types
    kind = values.type
    if values.null_count:
        raise ValueError(f"`{name}` must not hold nulls, got {values.null_count} of {len(values)}")
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        inner = _array(values.flatten(), name)
        widths = [kind.list_size] if types.is_fixed_size_list(kind) else np.unique(values.value_lengths()).tolist()
        if len(widths) > 1:
            raise ValueError(f"`{name}` must have rows of one length, got {widths[0]} to {widths[-1]} numbers")
        return inner.reshape(len(values), *widths or [0], *inner.shape[1:])
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        raise TypeError(f"`{name}` must hold real numbers, got {kind}")
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found


def _number(table: Any, name: str, row: int, unknown: float | None) -> float | None:
    """The number of a row, or `unknown` where it is null, NaN or left out."""
    value = table[name][row].as_py() if name in table.column_names else None
    return unknown if value is None or value != value else value


def detections_to_segments(table: pyarrow.Table, *, order: Sequence[str] | None = None) -> Segments:
    """The rows of a table of detections as `Segments` in seconds.

    Parameters
    ----------
    table : pyarrow.Table
        What `Detect` gives, of any number of batches in any order.
    order : sequence of str, optional
        The ids in the order that the result has; every video of the table, each once.  Ray Data does not promise an
        order.  Default: that of the table.

    Returns
    -------
    Segments
        With `video_ids`, ready for `formats.write_detections` and `mean_average_precision`.

    Raises
    ------
    FormatError
        If a column is missing, holds nulls, or has lists of other lengths than the others.
    ValueError
        If `order` does not name the videos of the table.

    Examples
    --------
    >>> rows = {"video": ["a", "b"], "start": [[1.0], []], "end": [[2.5], []], "label": [[0], []], "score": [[0.9], []]}
    >>> import pyarrow
    >>> detections_to_segments(pyarrow.table(rows), order=["b", "a"]).offsets.tolist()
    [0, 0, 1]
    """
    table, names = _named(table, "detections_to_segments")
    missing = [name for name in _LISTS if name not in table.column_names]
    if missing:
        raise FormatError(f"table: must have the columns {', '.join(_LISTS)}, got {table.column_names}")
    if order is not None:
        order = list(order)
        position = {name: row for row, name in enumerate(names)}
        if len(order) != len(names) or position.keys() != set(order):
            strange = sorted(position.keys() ^ set(order))
            raise ValueError(
                f"`order` must name the {len(names)} videos of the table, each once, got {len(order)} names"
                + (f"; {strange[0]!r} stands on one side only ({len(strange)} such ids)" if strange else "")
            )
        table, names = table.take([position[name] for name in order]), order
    rows = [[_list(table, column, row, names[row]) for column in _LISTS] for row in range(len(names))]
    for name, lists in zip(names, rows):
        lengths = [len(one) for one in lists]
        if len(set(lengths)) > 1:
            raise FormatError(f"video {name!r}: {', '.join(_LISTS)} must be equally long, got {lengths}")
    start, end, label, score = (np.concatenate([np.empty(0), *(lists[i] for lists in rows)]) for i in range(4))
    offsets = np.cumsum([0, *(len(lists[0]) for lists in rows)])
    return Segments(np.stack([start, end], axis=1), label, score, offsets, "second", names)


def _list(table: Any, name: str, row: int, video: str) -> NDArray[Any]:
    """The list of a row that must be there."""
    try:
        found = _arrays([(name, table[name])], row, "table")
        if not found:
            raise ValueError(f"`table[{name!r}]` must not be null")
        return found[name]
    except (TypeError, ValueError) as error:
        raise FormatError(f"video {video!r}: {error}") from None


# ----------------------------------------------------------------------------------------------------------- callables


class Detect:
    """A table of TCAMs in, a table of detections in seconds out: for `ray.data.Dataset.map_batches`, or without Ray.

    It is pickled to the workers, where it computes in one thread: run as many workers as there are cores.  Batches may
    be cut anywhere; the detections of a video do not depend on the others.

    Parameters
    ----------
    pipeline : str or config.Pipeline
        The name of a preset, or your own.
    seconds_per_snippet : float, optional
        Taken for the videos of which the table does not know it.

    Raises
    ------
    ValueError
        When called: as `PostProcessor`, and where `seconds_per_snippet` is not known; the message names the video.

    Notes
    -----
    Kernels are compiled, or loaded from numba's cache, once per worker process; see `warm_up`.

    Examples
    --------
    >>> found = Detect("rskp")(videos_to_arrow([Video("a", {"cas": np.ones((4, 1))}, {"video": [0.9]}, 0.5)]))
    >>> found.select(["video", "start", "end", "label"]).to_pylist()
    [{'video': 'a', 'start': [0.0], 'end': [2.5], 'label': [0]}]

    On a cluster::

        ray.data.read_parquet("tcams/").map_batches(Detect("rskp"), batch_format="pyarrow").write_parquet("found/")
    """

    def __init__(self, pipeline: str | Pipeline, *, seconds_per_snippet: float | None = None) -> None:
        self._process = PostProcessor(presets.get(pipeline) if isinstance(pipeline, str) else pipeline)
        self._step = _as_step(seconds_per_snippet)

    def __repr__(self) -> str:
        return f"<Detect: {self._process!r}>"

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The detections of a batch of videos, one row per video in the order of the batch."""
        pa = _arrow("Detect")
        videos = videos_from_arrow(batch, seconds_per_snippet=self._step)
        for video in videos:
            if video.seconds_per_snippet is None:
                raise about(video, ValueError("`seconds_per_snippet` must be in the table or given, got neither"))
        parts = [
            part if part.unit == "second" else part.to_seconds(video.seconds_per_snippet or 0.0)
            for video, part in zip(videos, self._process.process(videos, num_threads=1))
        ]
        rows = Segments.concatenate(parts)
        offsets = pa.array(rows.offsets, pa.int32())
        values = (*rows.segments.T, rows.labels, rows.scores)
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(column)) for name, column in zip(_LISTS, values)}
        return pa.table({"video": pa.array([video.id for video in videos], pa.string()), **lists})


class Labels:
    """A table of TCAMs in, a table of LinPro label maps out: what `LabelRefresher` makes, for data sets of any size.

    Like `Detect` it is pickled to the workers, and computes in one thread.

    Parameters
    ----------
    pipeline : str or config.Pipeline
        Finds the instances: the name of a preset, whose partner for pseudo labels is taken where it has one (see
        `presets.for_labels`), or your own.  Its `labels` are the options of LinPro.
    num_classes : int
        K, the number of columns of a label map.
    all_classes : bool, default False
        False searches the classes that the column ``known_labels`` names, and no others; True leaves the choice to the
        pipeline.
    seconds_per_snippet : float, optional
        Taken for the videos of which the table does not know it; needed by presets that suppress in seconds.

    Raises
    ------
    ValueError
        When called: as `LabelRefresher.refresh`; the message names the video.

    Notes
    -----
    The result is a table of TCAMs itself, with the one map ``labels`` (T, K) in float64, which `videos_from_arrow`
    reads; ``uncertified`` counts the components without a proof (see `LinProLabels`).

    Examples
    --------
    >>> tcam = np.array([[0.0, 0.1], [0.9, 0.1], [0.8, 0.1], [0.0, 0.1], [0.0, 0.1]])
    >>> table = videos_to_arrow([Video("v", {"cas": tcam})]).append_column("known_labels", [[[0]]])
    >>> made = Labels("rskp", 2)(table)
    >>> videos_from_arrow(made)[0].maps["labels"].round(2).T.tolist()
    [[0.0, 0.57, 0.57, 0.57, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        pipeline: str | Pipeline,
        num_classes: int,
        *,
        all_classes: bool = False,
        seconds_per_snippet: float | None = None,
    ) -> None:
        self._num_classes = _checks.as_count(num_classes, "num_classes", at_least=1)
        self._all_classes = _checks.as_flag(all_classes, "all_classes")
        process = PostProcessor(presets.for_labels(pipeline) if isinstance(pipeline, str) else pipeline)
        self._rule = process.pipeline.labels or LinPro()
        self._process = process if all_classes else PostProcessor(replace(process.pipeline, classes=None))
        self._step = _as_step(seconds_per_snippet)

    def __repr__(self) -> str:
        return f"<Labels: {self._process!r}, {self._num_classes} classes>"

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The label maps of a batch of videos, one row per video in the order of the batch."""
        pa = _arrow("Labels")
        videos = videos_from_arrow(batch, seconds_per_snippet=self._step)
        if not self._all_classes and "known_labels" not in batch.schema.names:
            names = batch.schema.names
            raise FormatError(f"table: must have a column 'known_labels', or give all_classes=True; got {names}")
        made, uncertified = [], []
        for row, (video, found) in enumerate(zip(videos, self._process.process(videos, num_threads=1))):
            known = None if self._all_classes else _list(batch, "known_labels", row, video.id)
            try:
                instances = self._instances(video, found, known)
                one = linpro_label_map(instances, video.num_snippets, self._num_classes, **asdict(self._rule))
            except (TypeError, ValueError) as error:
                raise about(video, error) from None
            made.append(replace(video, maps={"labels": one.labels}, scores={}))
            uncertified.append(one.uncertified)
        spare = Video("", {"labels": np.empty((0, self._num_classes))})  # so that no videos have the same columns
        table = videos_to_arrow([*made, spare])[:-1]
        return table.append_column("uncertified", pa.array(uncertified, pa.int64()))

    def _instances(self, video: Video, found: Segments, known: NDArray[Any] | None) -> Segments:
        """The instances that labels are made of, in snippets."""
        if found.unit == "second":
            if video.warp is not None or video.seconds_per_snippet is None:
                raise ValueError("instances in seconds need `seconds_per_snippet`, and no `warp`, to become labels")
            found = found.to_snippets(video.seconds_per_snippet)
        if known is None:
            return found
        mask = _checks.as_known_labels(known, self._num_classes)
        return found.select(np.isin(found.labels, np.flatnonzero(mask)))


def _as_step(seconds_per_snippet: Any) -> float | None:
    if seconds_per_snippet is None:
        return None
    return _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)


# ---------------------------------------------------------------------------------------------------------- the cluster

RETRIES = 3  # of a task whose worker died: an input that kills every worker it meets must come to an end
WINDOW = 1000  # tasks handed over and not finished: enough for a cluster to grow by, and quick to look through
STORE = 100 << 20  # bytes of a local cluster's object store, in which next to nothing lies


def on_ray(address: str | None = None, processes: int | None = None) -> _jobs.Over:
    """Makes the shards of a job on a cluster, as `over_ray` runs anything there; for `_jobs.execute`.

    Plain tasks and not a Ray Data set: rows would be the numbers of shards, while the data go from file to file.
    docs/howto/fleet.md has the figures.
    """
    processes = None if processes is None else _checks.as_count(processes, "processes", at_least=1)

    def over(job: _jobs.Job, shards: Sequence[_jobs.Shard], tick: _jobs.Tick) -> None:
        make = functools.partial(_jobs.run_shard, job, num_threads=1)
        for shard, _ in over_ray(make, shards, address=address, processes=processes):
            tick(shard.stop - shard.start)
        missing = {job.path(shard).name for shard in shards}.difference(os.listdir(job.folder))
        if missing:
            raise FileNotFoundError(
                f"{job.folder}: {len(missing)} of {len(shards)} shards were made where this machine does not see them; "
                "the output must lie where all machines of the cluster see it under one name"
            )

    return over


def over_ray(
    function: Callable[[A], B], items: Iterable[A], *, address: str | None = None, processes: int | None = None
) -> Iterator[tuple[A, B]]:
    """Every item with its result, in the order in which they finish, from the machines of a Ray cluster.

    `function` is called with one item, in one of as many processes as the cluster has cores; it is sent out once, so
    items should be small: names of files that all machines see.  An item whose worker dies goes to another worker.
    Without an address it is the cluster that this process is connected to, else one of `processes` on this machine
    (default: its cores) that ends with the call.  What `function` raises is raised here; where no worker survives an
    item, OSError.
    """
    ray = _ray()
    joined = not ray.is_initialized()
    if joined:
        _join(ray, address, processes)
    try:
        shared, items = ray.put(function), iter(items)
        run = ray.remote(_in_worker).options(num_cpus=1, max_retries=RETRIES)
        waiting: dict[Any, A] = {}
        while True:
            for item in islice(items, WINDOW - len(waiting)):
                waiting[run.remote(shared, item, __version__)] = item
            if not waiting:
                return
            ray.wait(list(waiting))
            for task in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                item = waiting.pop(task)
                yield item, _result(ray, task, item)
    finally:
        if joined:
            ray.shutdown()


def _ray() -> Any:
    """The module ray."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--engine ray") from None
    return ray


def _join(ray: Any, address: str | None, processes: int | None) -> None:
    """Connect to a cluster, or start one for this process alone: no dashboard, no usage statistics, no chatter."""
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is not None:
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if port.isdecimal():
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()  # Ray tries for minutes
            except OSError as error:
                raise ConnectionError(f"no Ray cluster answers at {address!r}: {error}") from None
        ray.init(address, **quiet)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cores = processes or _threads.default_threads()
    ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=STORE, **quiet)


def _in_worker(function: Callable[[A], B], item: A, version: str) -> B:
    """One item, on a machine of the cluster."""
    if version != __version__:
        raise ValueError(f"{platform.node()} has tal_postproc {__version__}, this job was started with {version}")
    try:
        return function(item)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; machine {platform.node()} does not see it: files must lie where all machines of the cluster see "
            "them under one name"
        ) from None


def _result(ray: Any, task: Any, item: Any) -> Any:
    """What came of a task; its own error where it raised one."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        text = str(error).strip().partition("\n")[0]
        raise OSError(f"{item!s:.200}: given up after {RETRIES + 1} workers died of it: {text}") from error
