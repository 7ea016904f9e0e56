"""`detect` and `labels` over data sets larger than memory, in shards that outlive an interruption.

A job makes one output of all videos of its inputs, which are npz files of TCAMs.  A *shard* is a range of these videos,
counted through all inputs.  Its file is an output file of its own and appears by one rename: where it is, the shard is
finished.  The *manifest* says what all shards depend on: settings, version, and the inputs by name, size and time of
change (a hash would read everything twice).  In a folder with an equal manifest finished shards are not made again; one
with another manifest is refused.

    detections.json.shards/manifest.json
    detections.json.shards/summary-000000.json   counts of shard 0, written before ...
    detections.json.shards/shard-000000.json     ... the shard itself

The same shard has the same bytes whoever makes it, so that two who make it do no harm.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import warnings
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np

from . import _checks, _signals
from ._checks import Int
from ._files import atomic_write, is_pipe
from ._tcam_files import BLOCK, TcamReader, merge_tcams, open_tcams, write_tcams
from .config import LinPro, Pipeline
from .formats import merge_detections, read_annotations, write_detections
from .linpro import linpro_label_maps
from .pipeline import PostProcessor
from .types import Annotations, FormatError, LinProLabelMap, Segments, Video

MOST_VIDEOS = 10_000  # in one shard, which is what stays in memory
_FORMAT = 1
_OURS = ("manifest.json", "summary-*.json", "shard-*.json", "shard-*.npz", ".tal_postproc-*.tmp")

StrPath = str | os.PathLike[str]
Tick = Callable[[int], Any]  # told how many more videos are done


class Source(NamedTuple):
    """A file that a job reads, and what tells whether it is still the same."""

    path: str
    size: int
    changed: int  # ns
    videos: int = 0


class Shard(NamedTuple):
    """Videos `start` to `stop` of a job, counted through all its inputs."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Job:
    """All that a process, here or elsewhere, must know to make any of the shards; `plan` makes one."""

    kind: Literal["detect", "labels"]
    inputs: tuple[Source, ...]
    pipeline: Pipeline
    folder: str
    shard_videos: int
    classes: tuple[str, ...]
    maps: tuple[tuple[str, str], ...] = ()  # our name, name in the file
    seconds_per_snippet: float | None = None
    width: int = 0  # labels: columns of the maps
    truth: Source | None = None  # labels: whose classes are known from here, and not from the inputs
    subset: str | None = None
    all_classes: bool = False

    @property
    def num_videos(self) -> int:
        return sum(source.videos for source in self.inputs)

    @property
    def shards(self) -> list[Shard]:
        """At least one, which may be empty."""
        total, size = self.num_videos, self.shard_videos
        starts = range(0, max(total, 1), size)
        return [Shard(number, start, min(start + size, total)) for number, start in enumerate(starts)]

    def path(self, shard: Shard) -> Path:
        return Path(self.folder, f"shard-{shard.number:06d}{'.json' if self.kind == 'detect' else '.npz'}")

    def manifest(self) -> dict[str, Any]:
        """What the shards depend on, as JSON gives it back."""
        from . import __version__

        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "folder"}
        settings["inputs"] = [source._asdict() for source in self.inputs]
        settings["truth"] = None if self.truth is None else self.truth._asdict()
        settings["pipeline"] = self.pipeline.to_dict()
        shards = {self.path(shard).name: [shard.start, shard.stop] for shard in self.shards}
        made: dict[str, Any] = json.loads(
            json.dumps({"format": _FORMAT, "version": __version__, **settings, "shards": shards})
        )
        return made


@dataclass(frozen=True)
class Summary:
    """What a shard, or a whole job, came to."""

    videos: int = 0
    rows: int = 0  # detections, or instances that became labels
    closed_form: int = 0
    simplex: int = 0
    highs: int = 0
    relaxed: int = 0
    uncertified: int = 0
    nonzero: int = 0  # labels that are not 0 ...
    used: int = 0  # ... of so many in the classes that have any
    gap: float = 0.0
    violation: float = 0.0
    telling: tuple[int, int, int] = (1 << 60, 0, 0)  # the video for a picture: off ten instances, snippets, number

    @staticmethod
    def join(parts: Iterable[Summary]) -> Summary:
        parts = list(parts)
        whole: dict[str, Any] = {}
        for field in fields(Summary):
            values = [getattr(part, field.name) for part in parts]
            how = min if field.name == "telling" else max if field.name in ("gap", "violation") else sum
            whole[field.name] = how(values) if values else field.default
        return Summary(**whole)


# ---------------------------------------------------------------------------------------------------------------- plan


def find_inputs(paths: Sequence[StrPath]) -> list[str]:
    """The npz files that are meant: files as they are named, and those of a folder in the order of their names."""
    found = []
    for path in paths:
        inside = sorted(Path(path).glob("*.npz")) if Path(path).is_dir() else [Path(path)]
        if not inside:
            raise FileNotFoundError(f"no npz file in the folder {os.fspath(path)!r}")
        found += [os.path.abspath(one) for one in inside]
    return found


def plan(
    kind: Literal["detect", "labels"],
    inputs: Sequence[StrPath],
    pipeline: Pipeline,
    output: StrPath,
    *,
    shard_videos: int = 1000,
    maps: Sequence[tuple[str, str]] = (),
    seconds_per_snippet: float | None = None,
    annotations: StrPath | None = None,
    subset: str | None = None,
    all_classes: bool = False,
) -> Job:
    """Look at all inputs, without their maps, and refuse before the work what can be seen before the work."""
    shard_videos = _checks.as_count(shard_videos, "shard_videos", at_least=1)
    if shard_videos > MOST_VIDEOS:
        raise ValueError(f"`shard_videos` must be at most {MOST_VIDEOS}, got {shard_videos}")
    job = Job(
        kind,
        (),
        pipeline,
        os.path.abspath(f"{os.fspath(output)}.shards"),
        shard_videos,
        (),
        tuple(maps),
        seconds_per_snippet,
        truth=None if annotations is None else _source(annotations),
        subset=subset,
        all_classes=all_classes,
    )
    sources: list[Source] = []
    seen: set[str] = set()
    for path in find_inputs(inputs):
        with open_tcams(path, seconds_per_snippet=seconds_per_snippet) as reader:
            if not sources:
                job = replace(job, classes=reader.classes)
            elif reader.classes != job.classes:
                raise ValueError(f"{path}: other classes ({len(reader.classes)}) than in {sources[0].path}")
            if len(reader):
                _look(job, reader)
            if kind == "labels":
                job = _look_for_labels(job, reader)
            before = len(seen)
            seen.update(reader.names)
            if len(seen) != before + len(reader):
                raise ValueError(f"{path}: {before + len(reader) - len(seen)} of its videos are in other inputs, too")
            sources.append(_source(path, len(reader)))
    return replace(job, inputs=tuple(sources))


def _look(job: Job, reader: TcamReader) -> None:
    for _, theirs in job.maps:
        if theirs not in reader.map_names:
            raise ValueError(f"--map: the file has no map {theirs!r}, it has {', '.join(map(repr, reader.map_names))}")
    if job.kind == "detect":
        require_steps(reader)


def _look_for_labels(job: Job, reader: TcamReader) -> Job:
    """The width of the maps; and are the classes of all videos known?"""
    if not job.width:
        width = _width(job, next(_renamed(job, reader.read(0, 1)))) if len(reader) else 0
        job = replace(job, width=width)
    truth = known_classes(job, reader)
    if truth is None or not len(reader):
        return job
    place = _places(truth)
    missing = [name for name in reader.names if name not in place]
    if missing:
        raise ValueError(f"the annotations do not know video {missing[0]!r} ({len(missing)} of {len(reader)} videos)")
    count = job.pipeline.count_classes(job.width)
    highest = max(int(_labels_of(truth, name).max(initial=-1)) for name in reader.names)
    if highest >= count:
        raise ValueError(f"the annotations have label {highest}, but the maps have {count} classes: see --background")
    return job


def require_step(name: str, step: float | None) -> float:
    if step is None:
        raise ValueError(
            f"`seconds_per_snippet` of video {name!r} is not in the file: give --seconds-per-snippet "
            "(16 frames at 25 per second: 0.64)"
        )
    return step


def require_steps(reader: TcamReader) -> None:
    """Is the timing of all videos of a file known?"""
    late = np.flatnonzero(np.isnan(reader.seconds_per_snippet))
    if len(late):
        require_step(reader.names[int(late[0])], None)


def annotations_of(job: Job, reader: TcamReader) -> Annotations | None:
    """The ground truth that goes with a file, if any."""
    return reader.annotations if job.truth is None else _read_truth(job.truth, job.subset, job.classes)


def known_classes(job: Job, reader: TcamReader) -> Annotations | None:
    """The annotations that say which classes every video of a file shows, or None for all classes."""
    if job.all_classes:
        return None
    truth = annotations_of(job, reader)
    if truth is None:
        raise ValueError(
            "the file has no ground truth that names the labels of the videos: give --annotations, "
            "or --all-classes for every class that the preset searches"
        )
    return truth


@functools.lru_cache(maxsize=1)
def _places(truth: Annotations) -> dict[str, int]:
    return {name: place for place, name in enumerate(truth.video_ids)}


def _labels_of(truth: Annotations, name: str) -> Int:
    segments, place = truth.segments, _places(truth)[name]
    return segments.labels[segments.offsets[place] : segments.offsets[place + 1]]


@functools.lru_cache(maxsize=1)
def _read_truth(source: Source, subset: str | None, classes: tuple[str, ...]) -> Annotations:
    return read_annotations(source.path, subset=subset, classes=classes or None)


def _source(path: StrPath, videos: int = 0) -> Source:
    found = os.stat(path)
    return Source(os.path.abspath(path), found.st_size, found.st_mtime_ns, videos)


def _width(job: Job, video: Video) -> int:
    """Columns of the label map."""
    first = _signals.class_map(video, job.pipeline.map_names())
    return 1 if first is None else first.shape[1]


def _renamed(job: Job, videos: Iterable[Video]) -> Iterator[Video]:
    for video in videos:
        names = {ours: video.maps[theirs] for ours, theirs in job.maps}
        yield replace(video, maps={**video.maps, **names}) if names else video


# --------------------------------------------------------------------------------------------------------- the shards


def run_shard(job: Job, shard: Shard, num_threads: int | None = None) -> Summary:
    """Make one shard and leave it in the job's folder; in any process that sees the files."""
    with Worker(job, num_threads) as worker:
        return worker.run(shard)


class Worker:
    """Makes shards of one job; the input where the last one ended stays open, since the next one goes on there."""

    def __init__(self, job: Job, num_threads: int | None = None) -> None:
        self.job = job
        self.num_threads = num_threads
        self._bounds = [0, *accumulate(source.videos for source in job.inputs)]
        self._open: tuple[int, TcamReader] | None = None
        pipeline = job.pipeline if job.kind == "detect" or job.all_classes else replace(job.pipeline, classes=None)
        self.process = PostProcessor(pipeline)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def run(self, shard: Shard, path: StrPath | None = None, tick: Tick = lambda count: None) -> Summary:
        """Make a shard: in the job's folder, after its summary, or as the file `path`."""
        summary, write = (self._detect if self.job.kind == "detect" else self._labels)(shard, tick)
        if path is None:
            path = self.job.path(shard)
            with atomic_write(_summary_path(path)) as file:
                json.dump(asdict(summary), file)
        write(path)
        return summary

    def reader(self, number: int) -> TcamReader:
        """An input, which has not changed since the plan."""
        if self._open is None or self._open[0] != number:
            self.close()
            source = self.job.inputs[number]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # told when the job was planned
                reader = open_tcams(source.path, seconds_per_snippet=self.job.seconds_per_snippet)
            self._open = number, reader
            if _source(source.path, len(reader)) != source:
                raise ValueError(f"{source.path}: the file has changed since the job began")
        return self._open[1]

    def locate(self, number: int) -> tuple[TcamReader, int]:
        """The file of a video, and its place there."""
        which = bisect_right(self._bounds, number) - 1
        return self.reader(which), number - self._bounds[which]

    def find(self, name: str) -> int:
        """The number of the video of that name."""
        for number in range(len(self.job.inputs)):
            names = self.reader(number).names
            if name in names:
                return self._bounds[number] + names.index(name)
        raise ValueError(f"--video: no video {name!r} among the {self.job.num_videos} of the job")

    def videos(self, start: int, stop: int) -> Iterator[tuple[TcamReader, Video]]:
        """The videos of a range with the file that each is in; a few are in memory."""
        while start < stop:
            reader, at = self.locate(start)
            count = min(BLOCK, len(reader) - at, stop - start)
            for video in _renamed(self.job, reader.read(at, at + count)):
                yield reader, video
            start += count

    def _detect(self, shard: Shard, tick: Tick) -> tuple[Summary, Callable[[StrPath], None]]:
        steps: list[float] = []

        def seen() -> Iterator[Video]:
            for _, video in self.videos(shard.start, shard.stop):
                steps.append(require_step(video.id, video.seconds_per_snippet))
                yield video

        found = [Segments.empty("second", video_ids=())]
        for step_of, part in enumerate(self.process.process(seen(), self.num_threads)):
            found.append(part if part.unit == "second" else part.to_seconds(steps[step_of]))
            tick(1)
        detections = Segments.concatenate(found[1:] or found)
        highest = int(detections.labels.max(initial=-1)) + 1
        classes = list(self.job.classes) or [f"class{k}" for k in range(highest)]
        if highest > len(classes):
            raise ValueError(
                f"label {highest - 1} has no name among the {len(classes)} classes of the file; a background column? "
                "give --background first or --background last"
            )
        write = functools.partial(write_detections, detections=detections, classes=classes)
        return Summary(shard.stop - shard.start, len(detections)), write

    def _labels(self, shard: Shard, tick: Tick) -> tuple[Summary, Callable[[StrPath], None]]:
        made: list[Video] = []
        parts: list[Summary] = []
        for videos, instances, found in self.label_maps(shard.start, shard.stop):
            begin = shard.start + len(made)
            for number, (video, rows, one) in enumerate(zip(videos, instances, found), begin):
                parts.append(_count(number, rows, one))
                made.append(replace(video, maps={"labels": one.labels}, scores={}))
            tick(len(videos))
        write = functools.partial(write_tcams, videos=made, classes=self.job.classes or None, compressed=True)
        return Summary.join(parts), write

    def label_maps(self, start: int, stop: int) -> Iterator[tuple[list[Video], list[Segments], list[LinProLabelMap]]]:
        """A few videos, the instances in them, and the labels that LinPro makes of these."""
        job, seen, known = self.job, deque[Video](), deque[Int | None]()

        def watched() -> Iterator[Video]:
            for reader, video in self.videos(start, stop):
                if _width(job, video) != job.width:
                    raise ValueError(f"video {video.id!r} has maps of {_width(job, video)} columns, not {job.width}")
                truth = known_classes(job, reader)
                known.append(None if truth is None else _labels_of(truth, video.id))
                seen.append(video)
                yield video

        num_classes = job.pipeline.count_classes(job.width)
        background = "none" if num_classes == job.width else job.pipeline.background
        parts = self.process.process(watched(), self.num_threads)
        while chunk := list(islice(parts, BLOCK)):
            videos = [seen.popleft() for _ in chunk]
            rows = [_in_snippets(part, video) for part, video in zip(chunk, videos)]
            for i, labels in enumerate([known.popleft() for _ in chunk]):
                if labels is not None:
                    rows[i] = rows[i].select(np.isin(rows[i].labels, labels))
            yield (
                videos,
                rows,
                linpro_label_maps(
                    rows,
                    [video.num_snippets for video in videos],
                    num_classes,
                    background=background,
                    num_threads=self.num_threads,
                    **asdict(job.pipeline.labels or LinPro()),
                ),
            )


def _in_snippets(part: Segments, video: Video) -> Segments:
    if part.unit == "snippet":
        return part
    if video.warp is not None:
        raise ValueError(f"video {video.id!r} has a time warp, and the preset ends in seconds: no way back to snippets")
    return part.to_snippets(require_step(video.id, video.seconds_per_snippet))


def _count(number: int, instances: Segments, one: LinProLabelMap) -> Summary:
    """The summary of one video."""
    nonzero = one.labels != 0
    return Summary(
        1,
        len(instances),
        **one.solved,
        relaxed=one.status.count("relaxed"),
        uncertified=one.uncertified,
        nonzero=int(nonzero.sum()),
        used=int(nonzero.any(axis=0).sum()) * len(nonzero),
        gap=float(one.gap.max(initial=0.0)),
        violation=float(one.violation.max(initial=0.0)),
        telling=(abs(len(instances) - 10), len(nonzero), number),
    )


# ------------------------------------------------------------------------------------------------------ the work folder


def _summary_path(shard: Path) -> Path:
    return shard.with_name(f"summary-{shard.stem.removeprefix('shard-')}.json")


class Work:
    """The folder of a job that is under way; `opened` makes one."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job.folder)

    def finished(self) -> list[Shard]:
        return [shard for shard in self.job.shards if self.job.path(shard).exists()]

    def unfinished(self) -> list[Shard]:
        return [shard for shard in self.job.shards if not self.job.path(shard).exists()]

    def summary(self) -> Summary:
        """Of the whole job, all shards of which are finished."""
        parts = []
        for shard in self.job.shards:
            path = _summary_path(self.job.path(shard))
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                parts.append(Summary(**{**values, "telling": tuple(values["telling"])}))
            except (ValueError, TypeError, KeyError):
                raise FormatError(f"{path}: not a summary of a shard; begin anew with --restart") from None
        return Summary.join(parts)

    def merge(self, output: StrPath) -> None:
        """All shards as one file."""
        parts = [self.job.path(shard) for shard in self.job.shards]
        if self.job.kind == "detect":
            merge_detections(output, parts)
        else:
            merge_tcams(output, parts, compressed=True)

    def remove(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what is ours, and the folder if nothing else is in it."""
        self.remove(_OURS)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@contextlib.contextmanager
def opened(job: Job, *, restart: bool = False) -> Iterator[Work]:
    """The job's folder, locked for this process, with its manifest and the shards that are finished already.

    A folder with finished shards of another job is a ValueError, unless `restart` removes them.  When the block ends
    with an error, finished shards stay; without any, so does nothing.
    """
    work = Work(job)
    folder = work.folder
    folder.mkdir(exist_ok=True)
    with _locked(folder):
        work.remove(_OURS if restart else _OURS[-1:])  # what a process left that was killed
        manifest = folder / "manifest.json"
        wanted = job.manifest()
        if any(folder.glob("shard-*")):
            _require_equal(manifest, wanted)
        else:
            with atomic_write(manifest) as file:
                json.dump(wanted, file, indent=1)
        try:
            yield work
        except BaseException:
            if not work.finished():
                work.clear()
            raise


def _require_equal(path: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: not the manifest of a job: give --restart to make its shards anew, or another output"
        )
    differ = [name for name, value in wanted.items() if found.get(name) != value]
    if "pipeline" in differ and isinstance(found.get("pipeline"), dict):
        own, other = wanted["pipeline"], found["pipeline"]
        differ.remove("pipeline")
        differ += [f"pipeline.{name}" for name, value in own.items() if other.get(name) != value]
    if differ:
        raise ValueError(
            f"{path.parent}: holds finished shards of another job, which differs in {', '.join(differ)}: "
            "give --restart to make them anew, or another output"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else works in the folder; a lock ends with its process.  Where there are no locks, go on without."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is working there") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


# ----------------------------------------------------------------------------------------------------------- execution

Over = Callable[[Job, Sequence[Shard], Tick], Any]  # makes all these shards, wherever


def in_this_process(num_threads: int | None = None) -> Over:
    def over(job: Job, shards: Sequence[Shard], tick: Tick) -> None:
        with Worker(job, num_threads) as worker:
            for shard in shards:
                worker.run(shard, tick=tick)

    return over


def in_processes(count: int) -> Over:
    """Fresh processes of one thread each."""
    count = _checks.as_count(count, "processes", at_least=1)

    def over(job: Job, shards: Sequence[Shard], tick: Tick) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, context, _begin, (job,)) as pool:
            futures = {pool.submit(_work, shard): shard for shard in shards}
            try:
                for done in as_completed(futures):
                    done.result()
                    tick(futures[done].stop - futures[done].start)
            except BrokenProcessPool:
                raise OSError(
                    "a process ended before its shard was finished, for want of memory perhaps; finished shards are in "
                    f"{job.folder}: the same command goes on from there"
                ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    return over


_worker: Worker  # of a process of the pool


def _begin(job: Job) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    end_with_parent()
    _worker = Worker(job, 1)


def end_with_parent() -> None:
    """In a process of a pool: end when the parent is killed, of which nobody else would tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _work(shard: Shard) -> None:
    _worker.run(shard)


def execute(
    job: Job,
    output: StrPath,
    *,
    num_threads: int | None = None,
    over: Over | None = None,
    merge: bool = True,
    restart: bool = False,
    say: Callable[[str], Any] = lambda text: None,
) -> Summary:
    """Make what is missing of a job, and its output out of that.

    `over` says who makes the shards; by default this process with `num_threads`.  A job of one shard that was not begun
    before is then written to its place at once.  `merge` False leaves the folder of shards as the result.
    """
    from tqdm import tqdm

    target = Path(os.path.realpath(output))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not is_pipe(output) and not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    shards = job.shards
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=job.num_videos, unit="video", disable=None))
        if len(shards) == 1 and merge and over is None and not os.path.exists(job.folder):
            with Worker(job, num_threads) as worker:
                return worker.run(shards[0], output, bar.update)
        if merge and is_pipe(output):  # nothing can be resumed
            job = replace(job, folder=stack.enter_context(tempfile.TemporaryDirectory(prefix="tal_postproc-")))
        work = stack.enter_context(opened(job, restart=restart))
        done = work.finished()
        if done:
            say(f"{len(done)} of {len(shards)} shards were finished before")
            bar.update(sum(shard.stop - shard.start for shard in done))
        try:
            (over or in_this_process(num_threads))(job, work.unfinished(), bar.update)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{len(work.finished())} of {len(shards)} shards are finished in {job.folder}: "
                "the same command goes on from there"
            ) from None
        summary = work.summary()
        if merge:
            work.merge(output)
            work.clear()
        return summary
