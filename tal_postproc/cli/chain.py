"""``tal-postproc detect`` and ``labels``: files of TCAMs in, detections or label maps out."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any, Literal, cast

from .. import _jobs, distributed, presets
from ..config import LinPro, Pipeline
from ._common import (
    Commands,
    Parser,
    action_columns,
    add_threads,
    columns_of,
    declare,
    pair,
    pipeline_of,
    step_of,
    table,
    with_background,
)


def detect(args: argparse.Namespace) -> None:
    """TCAMs of npz files through a preset, to ActivityNet JSON in seconds."""
    job = _plan("detect", args, pipeline_of(args.preset))
    started = time.perf_counter()
    summary = _execute(job, args)
    elapsed = time.perf_counter() - started
    print(f"{summary.rows} detections of {summary.videos} videos in {elapsed:.2f} s: {_made(job, args)}")


def _plan(kind: Literal["detect", "labels"], args: argparse.Namespace, pipeline: Pipeline, **known: Any) -> _jobs.Job:
    """The job, with the background where the user says."""
    return _jobs.plan(
        kind,
        args.tcams,
        with_background(pipeline, args.background),
        args.output,
        shard_videos=args.shard_videos,
        maps=[pair(text) for text in args.map],
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


def labels(args: argparse.Namespace) -> None:
    """TCAMs of npz files through a preset and LinPro, to an npz of label maps."""
    if args.preset.endswith(".json"):
        pipeline = pipeline_of(args.preset)
        pipeline = replace(pipeline, labels=pipeline.labels or LinPro())
    else:
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
    print(table([f"LinPro, {rule.normalization}, {rule.selection}", ""], _label_rows(summary)))
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
        step_of(video)  # before the work
    return number


def _label_picture(job: _jobs.Job, number: int, picture: str) -> None:
    from ..plotting import timeline

    with _jobs.Worker(job) as worker:
        ((reader, video),) = worker.videos(number, number + 1)
        truth = _jobs.annotations_of(job, reader)
        (_, (instances,), (found,)) = next(worker.label_maps(number, number + 1))
    shown, columns = action_columns(job.pipeline, video)
    attention = {name: video.maps[name] for name in ("attention",) if name in video.maps}
    timeline(
        replace(video, maps={**attention, "cas": columns_of(video.maps[shown], columns)}),
        {"instances": instances.replace(video_ids=()).to_seconds(step_of(video))},
        None if truth is None else truth.segments,
        label_maps={"LinPro": columns_of(found.labels, columns)},
        classes=job.classes or None,
        spreads=True,
        path=picture,
    )
    print(f"picture of {video.id}: {picture}")


def register(commands: Commands[Parser]) -> None:
    """Add both commands to the parser."""
    command = declare(
        commands,
        detect,
        "detect",
        "Detections of the TCAMs in npz files, as ActivityNet JSON in seconds.",
        "tal-postproc detect tcams.npz --preset gaufuse --seconds-per-snippet 0.64 -o detections.json",
    )
    _add_chain(command, "JSON file to write")

    command = declare(
        commands,
        labels,
        "labels",
        "Pseudo labels of the TCAMs in npz files, by LinPro, as an npz of label maps.",
        "tal-postproc labels tcams.npz --preset gaufuse -o labels.npz --picture labels.png",
    )
    _add_chain(command, "npz file to write: names, offsets, labels (sum of T, K)")
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


def _add_chain(command: Parser, output: str) -> None:
    command.add_argument("tcams", nargs="+", help="npz files with names, offsets and maps, or folders of them")
    command.add_argument("--preset", required=True, help="see tal-postproc presets; or a JSON file of one")
    command.add_argument("-o", "--output", required=True, help=output)
    command.add_argument("--seconds-per-snippet", type=float, help="for videos of which the file does not know it")
    command.add_argument(
        "--background", choices=["none", "first", "last"], help="where the maps have a background column"
    )
    command.add_argument("--map", action="append", default=[], metavar="NAME=MAP", help="use a map under another name")
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
    add_threads(command)
