"""The command line: ``tal-postproc demo | detect | labels | evaluate | presets | bench``.

A user's mistake ends with exit code 2 and one line; progress bars show on a terminal only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import numpy as np

from . import __version__, _jobs, _signals, distributed, presets
from ._checks import Float
from .config import Fuse, LinPro, Nms, Overlap, Pipeline, SoftNms, Stage
from .evaluation import PROTOCOLS, mean_average_precision
from .formats import read_annotations, read_detections, write_detections
from .pipeline import PostProcessor
from .suppression import nms
from .types import Annotations, MeanAveragePrecision, MissingExtraError, Segments, Video

DEMO_PRESET = "gaufuse"
_SHARED = Overlap(kind="candidate", length_offset=1.0)
# Table 3 of the GauFuse paper: the same proposals, another way to make detections of them; T as in its testing section.
DEMO_METHODS: dict[str, Stage] = {
    "NMS": Nms(threshold=0.25, overlap=_SHARED),
    "soft-NMS": SoftNms(sigma=0.3, min_score=0.001, max_detections=200),
    **{
        f"fusion, {distribution}": Fuse(threshold=0.25, temperature=0.03, overlap=_SHARED, distribution=distribution)
        for distribution in ("gaussian", "exponential", "student_t", "uniform")
    },
}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def _map_header(thresholds: Sequence[float]) -> list[str]:
    return [*(f"{threshold:g}" for threshold in thresholds), "avg"]


def _map_cells(result: MeanAveragePrecision) -> list[str]:
    return [f"{100 * value:.2f}" for value in (*result.per_threshold, result.average)]


def _tiou(text: str) -> str | list[float]:
    """``0.1:0.7``, a name, or numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def _read_truth(path: str, subset: str | None) -> Annotations:
    default = "test" if Path(path).is_dir() else None
    return read_annotations(path, subset=subset or default)


# ------------------------------------------------------------------------------------------------------------ commands


def demo(args: argparse.Namespace) -> None:
    """NMS, soft-NMS and the four fusions on the same proposals, side by side."""
    videos, truth, what = _demo_videos(args)
    if not len(videos):
        raise ValueError("the demo needs at least 1 video, got 0")
    pipeline = replace(presets.get(DEMO_PRESET), stages=(), num_classes=None, background="none")
    started = time.perf_counter()
    found = list(PostProcessor(pipeline).process(videos, args.threads, progress=True))
    count = sum(map(len, found))
    print(f"{what}: {len(videos)} videos, {len(truth.segments)} instances, {len(truth.classes)} classes")
    print(
        f"{count} proposals of preset {DEMO_PRESET!r} in {time.perf_counter() - started:.2f} s (compilation included)\n"
    )

    given = [replace(video, proposals=proposals) for video, proposals in zip(videos, found)]
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    detections: dict[str, Segments] = {}
    rows = []
    for name, stage in DEMO_METHODS.items():
        process = PostProcessor(Pipeline(stages=(stage,)))
        list(process.process(given[:2], 1))  # compile, or load what was compiled
        started = time.perf_counter()
        parts = list(process.process(given, args.threads))
        elapsed = time.perf_counter() - started
        detections[name] = Segments.concatenate(parts).to_seconds([_step(video) for video in videos])
        result = mean_average_precision(
            detections[name], truth.segments, ambiguous=truth.ambiguous, protocol=args.protocol
        )
        rows.append([name, *_map_cells(result), str(len(detections[name])), f"{1000 * elapsed:.0f}"])
        file = folder / f"detections_{name.replace(', ', '_')}.json"
        write_detections(file, detections[name], classes=truth.classes)
    header = ["mAP in %, tIoU", *_map_header(result.tiou_thresholds.tolist()), "detections", "ms"]
    print(_table(header, rows))
    print(f"\nprotocol {args.protocol!r}; wrote {len(rows)} files of detections to {folder}")
    _demo_picture(folder, videos, detections, truth)


def _demo_videos(args: argparse.Namespace) -> tuple[Sequence[Video], Annotations, str]:
    from . import synthetic

    if args.annotations is None:
        if args.subset is not None:
            raise ValueError(f"--subset {args.subset} needs --annotations")
        truth, what = synthetic.make_annotations(args.videos, args.seed), f"synthetic data, seed {args.seed}"
    else:
        truth = _read_truth(args.annotations, args.subset)
        what = f"annotations of {Path(args.annotations).name}, TCAMs simulated with seed {args.seed}"
    videos = synthetic.simulate_tcams(truth.segments, truth.durations, num_classes=len(truth.classes), seed=args.seed)
    return videos, truth, what


def _demo_picture(folder: Path, videos: Sequence[Video], detections: dict[str, Segments], truth: Annotations) -> None:
    from .plotting import timeline

    chosen = _most_telling(videos, np.diff(truth.segments.offsets).tolist())
    try:
        timeline(
            videos[chosen],
            detections,
            truth.segments,
            classes=truth.classes,
            max_detections=40,
            path=folder / "timeline.png",
        )
        print(f"picture of {videos[chosen].id}: {folder / 'timeline.png'}")
    except MissingExtraError as error:
        print(f"no picture: {error}")


def _most_telling(videos: Sequence[Video], sizes: Sequence[int]) -> int:
    """The video that shows most in one picture: nearest to ten instances, and short."""
    return min(range(len(videos)), key=lambda i: (abs(sizes[i] - 10), videos[i].num_snippets))


def detect(args: argparse.Namespace) -> None:
    """TCAMs of npz files through a preset, to ActivityNet JSON in seconds."""
    job = _plan("detect", args, presets.get(args.preset))
    started = time.perf_counter()
    summary = _execute(job, args)
    elapsed = time.perf_counter() - started
    print(f"{summary.rows} detections of {summary.videos} videos in {elapsed:.2f} s: {_made(job, args)}")


def _plan(kind: Literal["detect", "labels"], args: argparse.Namespace, pipeline: Pipeline, **known: Any) -> _jobs.Job:
    """The job, with the background where the user says."""
    if args.background is not None:
        pipeline = replace(pipeline, background=args.background, num_classes=None)
    return _jobs.plan(
        kind,
        args.tcams,
        pipeline,
        args.output,
        shard_videos=args.shard_videos,
        maps=[_pair(text) for text in args.map],
        seconds_per_snippet=args.seconds_per_snippet,
        **known,
    )


def _execute(job: _jobs.Job, args: argparse.Namespace) -> _jobs.Summary:
    return _jobs.execute(
        job,
        args.output,
        num_threads=args.threads,
        over=_over(args),
        merge=not args.no_merge,
        restart=args.restart,
        say=print,
    )


def _over(args: argparse.Namespace) -> _jobs.Over | None:
    """Who makes the shards; None for this process."""
    if args.engine == "ray":
        if args.threads is not None:
            raise ValueError("--threads is for one process: with --engine ray every worker has one thread")
        if args.address is not None and args.processes is not None:
            raise ValueError("--processes is for a cluster of this machine alone: that of --address has its own size")
        return distributed.on_ray(args.address, args.processes)
    if args.address is not None:
        raise ValueError("--address is for --engine ray")
    return None if args.processes is None else _jobs.in_processes(args.processes)


def _made(job: _jobs.Job, args: argparse.Namespace) -> str:
    return f"{len(job.shards)} shards in {job.folder}" if args.no_merge else str(args.output)


def _pair(text: str) -> tuple[str, str]:
    ours, found, theirs = text.partition("=")
    if not (ours and found and theirs):
        raise ValueError(f"--map must look like name=map_of_the_file, got {text!r}")
    return ours, theirs


def labels(args: argparse.Namespace) -> None:
    """TCAMs of npz files through a preset and LinPro, to an npz of label maps."""
    pipeline = presets.for_labels(args.preset)
    options = {name: getattr(args, name) for name in ("normalization", "selection", "solver")}
    rule = replace(cast(LinPro, pipeline.labels), **{name: value for name, value in options.items() if value})
    if args.picture is None and args.video is not None:
        raise ValueError("--video says what --picture shows: give a file for that")
    job = _plan(
        "labels",
        args,
        replace(pipeline, labels=rule),
        annotations=args.annotations,
        subset=args.subset,
        all_classes=args.all_classes,
    )
    shown = None if args.picture is None else _shown(job, args.video)
    started = time.perf_counter()
    summary = _execute(job, args)
    elapsed = time.perf_counter() - started
    print(_table([f"LinPro, {rule.normalization}, {rule.selection}", ""], _label_rows(summary)))
    print(f"\nlabel maps of {summary.videos} videos in {elapsed:.2f} s: {_made(job, args)}")
    if args.picture is not None:
        _label_picture(job, summary.telling[2] if shown is None else shown, args.picture)


def _label_rows(summary: _jobs.Summary) -> list[list[str]]:
    """What went in, who solved it, what is proven, and how much came out."""
    share = summary.nonzero / max(summary.used, 1)
    return [
        ["videos", str(summary.videos)],
        ["instances", str(summary.rows)],
        ["components", str(summary.closed_form + summary.simplex + summary.highs)],
        ["  by closed form", str(summary.closed_form)],
        ["  by simplex", str(summary.simplex)],
        ["  by HiGHS", str(summary.highs)],
        ["relaxed classes", str(summary.relaxed)],
        ["uncertified components", str(summary.uncertified)],
        ["worst gap", f"{summary.gap:.1e}"],
        ["worst violation", f"{summary.violation:.1e}"],
        ["snippets with a label, of classes that have any", f"{100 * share:.1f} %"],
    ]


def _shown(job: _jobs.Job, name: str | None) -> int | None:
    """The number of the video that the picture shows, None where the user leaves that to us."""
    if not job.num_videos:
        raise ValueError("--picture needs at least 1 video, got 0")
    with _jobs.Worker(job) as worker:
        number = None if name is None else worker.find(name)
        (_, video) = next(worker.videos(number or 0, (number or 0) + 1))
        _step(video)  # before the work
    return number


def _label_picture(job: _jobs.Job, number: int, picture: str) -> None:
    from .plotting import timeline

    with _jobs.Worker(job) as worker:
        ((reader, video),) = worker.videos(number, number + 1)
        truth = _jobs.annotations_of(job, reader)
        (_, (instances,), (found,)) = next(worker.label_maps(number, number + 1))
    num_classes = job.pipeline.count_classes(job.width)
    first = int(num_classes < job.width and job.pipeline.background == "first")

    def columns(values: Float) -> Float:
        return values[:, first : first + num_classes] if values.ndim == 2 else values

    names = job.pipeline.map_names()
    activation = _signals.class_map(video, names)
    if activation is None:
        activation = _signals.find_map(video, names[0])
    attention = {name: video.maps[name] for name in ("attention",) if name in video.maps}
    timeline(
        replace(video, maps={**attention, "cas": columns(activation)}),
        {"instances": instances.replace(video_ids=()).to_seconds(_step(video))},
        None if truth is None else truth.segments,
        label_maps={"LinPro": columns(found.labels)},
        classes=job.classes or None,
        spreads=True,
        path=picture,
    )
    print(f"picture of {video.id}: {picture}")


def _step(video: Video) -> float:
    return _jobs.require_step(video.id, video.seconds_per_snippet)


def evaluate(args: argparse.Namespace) -> None:
    """mAP of detections under one protocol or under all."""
    truth = _read_truth(args.annotations, args.subset)
    detections = read_detections(args.detections, classes=truth.classes, unknown_labels="drop")
    protocols = list(PROTOCOLS) if args.protocol == "all" else [args.protocol]
    rows = []
    for protocol in protocols:
        result = mean_average_precision(
            detections,
            truth.segments,
            tiou_thresholds=_tiou(args.tiou),
            protocol=protocol,
            ambiguous=None if args.keep_ambiguous else truth.ambiguous,
            snippets_per_second=args.snippets_per_second,
        )
        rows.append([protocol, *_map_cells(result)])
    print(_table(["mAP in %, tIoU", *_map_header(result.tiou_thresholds.tolist())], rows))
    spans = 0 if truth.ambiguous is None or args.keep_ambiguous else len(truth.ambiguous)
    print(
        f"\n{len(detections)} detections, {len(truth.segments)} instances of {truth.segments.num_videos} videos, "
        f"{spans} ambiguous spans left out"
    )


def list_presets(args: argparse.Namespace) -> None:
    """The presets, or one of them as JSON."""
    if args.name is not None:
        import json

        print(json.dumps(presets.get(args.name).to_dict(), indent=2))
        return
    short = {full: name for name, full in presets.aliases().items()}
    rows = []
    for name in presets.names():
        pipeline = presets.get(name)
        stages = ", ".join(type(stage).__name__ for stage in pipeline.stages)
        rows.append([name, short.get(name, ""), stages, pipeline.protocol, pipeline.provenance.split(",")[0]])
    print("\n".join(line.rstrip() for line in _left(["preset", "short", "stages", "protocol", "from"], rows)))


def _left(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [header, *rows])


def bench(args: argparse.Namespace) -> None:
    """Seconds of NMS, of two presets and of mAP on synthetic data: the same work wherever it runs."""
    if args.videos < 1 or args.repeats < 1:
        raise ValueError(f"bench needs at least 1 video and 1 repeat, got {args.videos} and {args.repeats}")
    from . import synthetic

    data = synthetic.make_videos(args.videos)
    calls: dict[str, Callable[[], object]] = {}
    for n in (1_000, 10_000, 100_000):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, n, n)  # any moment lies in about ten segments, however many there are
        segments, scores = np.column_stack((start, start + 10 * rng.lognormal(-0.5, 1.0, n))), rng.random(n)
        calls[f"NMS of {n:,} segments"] = partial(nms, segments, scores, tiou_threshold=0.5)
    for preset in ("rskp", "gaufuse"):
        for threads in dict.fromkeys((1, args.threads)):
            process = partial(PostProcessor.from_preset(preset).process, data.videos, threads)
            calls[f"{preset}, {args.videos} videos, threads: {threads or 'all'}"] = lambda process=process: list(
                process()
            )  # type: ignore[misc]
    found = Segments.concatenate(list(PostProcessor.from_preset("rskp").process(data.videos, args.threads)))
    seconds = found.to_seconds([_step(video) for video in data.videos])
    calls[f"mAP of {len(found):,} detections at 7 tIoU"] = partial(
        mean_average_precision, seconds, data.ground_truth, empty_class="zero_ap"
    )
    rows = []
    for name, call in calls.items():
        call()  # compile, or load what was compiled
        times = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - started))
        rows.append([name, *(f"{value:.3g}" for value in (np.median(times), min(times), max(times)))])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "numba"))
    print(f"tal_postproc {__version__}, {versions}, Python {platform.python_version()}, {platform.system()}")
    print(f"{os.cpu_count()} cores; milliseconds of {args.repeats} runs; nothing is compiled in them\n")
    print(_table(["", "median", "least", "most"], rows))


# -------------------------------------------------------------------------------------------------------------- parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tal-postproc",
        description="Post-processing for weakly supervised temporal action localization.",
    )
    parser.add_argument("--version", action="version", version=f"tal_postproc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, function: object, text: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(function=function)
        return command

    def threads(command: argparse.ArgumentParser) -> None:
        command.add_argument("--threads", type=int, help="number of threads (default: all cores)")

    def chain(command: argparse.ArgumentParser, output: str) -> None:
        command.add_argument("tcams", nargs="+", help="npz files with names, offsets and maps, or folders of them")
        command.add_argument("--preset", required=True, help="see tal-postproc presets")
        command.add_argument("-o", "--output", required=True, help=output)
        command.add_argument("--seconds-per-snippet", type=float, help="for videos of which the file does not know it")
        command.add_argument(
            "--background", choices=["none", "first", "last"], help="where the maps have a background column"
        )
        command.add_argument(
            "--map", action="append", default=[], metavar="NAME=MAP", help="use a map under another name"
        )
        command.add_argument(
            "--shard-videos",
            type=int,
            default=1000,
            metavar="N",
            help=f"videos that are made and kept at once, at most {_jobs.MOST_VIDEOS} (default 1000)",
        )
        command.add_argument("--processes", type=int, help="make shards in so many processes of one thread each")
        command.add_argument(
            "--engine",
            choices=["local", "ray"],
            default="local",
            help="make shards on a Ray cluster: one of --processes here (default: all cores), or that of --address",
        )
        command.add_argument("--address", help="of a Ray cluster: auto, host:port or ray://host:port")
        command.add_argument("--no-merge", action="store_true", help="leave the shards in OUTPUT.shards as the result")
        command.add_argument("--restart", action="store_true", help="make all shards in OUTPUT.shards anew")
        threads(command)

    command = add(
        "demo",
        demo,
        "NMS, soft-NMS and four fusions on the same proposals: mAP, time, detections and a picture.",
        "tal-postproc demo --annotations Thumos14reduced-Annotations",
    )
    command.add_argument(
        "--annotations", metavar="DIR", help="simulate TCAMs over these annotations (folder, JSON, npz)"
    )
    command.add_argument("--subset", help="part of the annotations (default: test for a folder, else all)")
    command.add_argument("--videos", type=int, default=200, help="number of synthetic videos (default 200)")
    command.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    command.add_argument("--protocol", default="activitynet", help="evaluator (default activitynet)")
    command.add_argument("-o", "--output", default="tal_postproc_demo", help="folder (default tal_postproc_demo)")
    threads(command)

    command = add(
        "detect",
        detect,
        "Detections of the TCAMs in npz files, as ActivityNet JSON in seconds.",
        "tal-postproc detect tcams.npz --preset gaufuse --seconds-per-snippet 0.64 -o detections.json",
    )
    chain(command, "JSON file to write")

    command = add(
        "labels",
        labels,
        "Pseudo labels of the TCAMs in npz files, by LinPro, as an npz of label maps.",
        "tal-postproc labels tcams.npz --preset gaufuse -o labels.npz --picture labels.png",
    )
    chain(command, "npz file to write: names, offsets, labels (sum of T, K)")
    command.add_argument(
        "--annotations",
        metavar="FILE",
        help="where the classes of every video are known from (default: the ground truth in the npz)",
    )
    command.add_argument("--subset", help="part of the annotations (default: all)")
    command.add_argument(
        "--all-classes", action="store_true", help="labels for every class that the preset searches, known or not"
    )
    for option, choices in (
        ("normalization", ["mean", "sum"]),
        ("selection", ["min_norm", "vertex"]),
        ("solver", ["auto", "highs"]),
    ):
        command.add_argument(f"--{option}", choices=choices, help="of LinPro (default: that of the preset)")
    command.add_argument("--picture", metavar="FILE", help="also draw a video (.png, .svg or .pdf)")
    command.add_argument("--video", help="the video of the picture (default: one with about ten instances)")

    command = add(
        "evaluate",
        evaluate,
        "mAP of detections, under one published protocol or under all of them.",
        "tal-postproc evaluate detections.json --annotations tcams.npz --protocol all",
    )
    command.add_argument("detections", help="ActivityNet JSON in seconds")
    command.add_argument(
        "--annotations", required=True, help="W-TALC folder, ActivityNet JSON, or npz with ground truth"
    )
    command.add_argument("--subset", help="part of the annotations (default: test for a folder, else all)")
    command.add_argument("--protocol", default="activitynet", help=f"all, or one of {', '.join(PROTOCOLS)}")
    command.add_argument("--tiou", default="0.1:0.7", help="0.1:0.7 (default), 0.5:0.95, or numbers such as 0.3,0.5")
    command.add_argument(
        "--snippets-per-second", type=float, default=25 / 16, help="of snippet protocols (default 25/16)"
    )
    command.add_argument("--keep-ambiguous", action="store_true", help="do not leave out detections on ambiguous spans")

    command = add(
        "presets",
        list_presets,
        "The published pipelines, or the settings of one of them as JSON.",
        "tal-postproc presets gaufuse",
    )
    command.add_argument("name", nargs="?", help="a preset")

    command = add(
        "bench",
        bench,
        "How fast this machine is: NMS, the chains of two presets and mAP, timed on synthetic data.",
        "tal-postproc bench --videos 1000",
    )
    command.add_argument("--videos", type=int, default=200, help="number of synthetic videos (default 200)")
    command.add_argument("--repeats", type=int, default=5, help="runs of everything (default 5)")
    threads(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 after a user's mistake."""
    args = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **more: print(
            f"tal-postproc: warning: {message}", file=sys.stderr
        )
        try:
            args.function(args)
            sys.stdout.flush()
        except KeyboardInterrupt as stopped:
            print(f"tal-postproc {args.command}: stopped {stopped}".rstrip(), file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader, head say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ValueError, OSError, MissingExtraError) as error:
            text = " ".join(str(error).split())
            print(f"tal-postproc {args.command}: error: {text}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
