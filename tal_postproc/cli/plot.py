"""``tal-postproc plot``: a picture of one video, or a page to zoom in."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import _jobs
from .._checks import as_choice
from .._tcam_files import open_tcams
from ..config import Pipeline
from ..formats import read_detections
from ..pipeline import PostProcessor
from ..types import Segments
from ._common import Commands, Parser, action_columns, columns_of, declare, pair, pipeline_of, with_background

FORMATS = (".png", ".svg", ".pdf", ".html")


def plot(args: argparse.Namespace) -> None:
    """A video from its activation to its detections, to a picture or a page."""
    suffix = as_choice(Path(args.output).suffix.lower(), "the suffix of --output", FORMATS)
    if suffix == ".html" and args.between is not None:
        raise ValueError("--between is for pictures: a page has the whole video")
    pipeline = Pipeline(stages=()) if args.preset is None else pipeline_of(args.preset)
    job = _jobs.plan(
        "detect",
        args.tcams,
        with_background(pipeline, args.background),
        args.output,
        maps=[pair(text) for text in args.map],
        seconds_per_snippet=args.seconds_per_snippet,
        annotations=args.annotations,
        subset=args.subset,
    )
    if not job.num_videos:
        raise ValueError("a picture needs at least 1 video, got 0")
    with _jobs.Worker(job) as worker:
        number = 0 if args.video is None else worker.find(args.video)
        ((reader, video),) = worker.videos(number, number + 1)
        truth = _jobs.annotations_of(job, reader)
    names = job.classes or (() if truth is None else truth.classes)
    shown, columns = action_columns(job.pipeline, video)
    options: dict[str, Any] = {
        "label_maps": {
            name: columns_of(values, columns) for name, values in _named(args.labels, _labels, video.id).items()
        },
        "labels": None if args.classes is None else [_label(text, names) for text in args.classes.split(",")],
        "top": args.top,
        "classes": names or None,
        "map_name": shown,
        "tiou_threshold": args.tiou,
        "path": args.output,
    }
    given = (
        replace(video, maps={**video.maps, shown: columns_of(video.maps[shown], columns)}),
        None if args.preset is None else PostProcessor(job.pipeline).trace(video),
        _named(args.detections, _detections, video.id, names),
        None if truth is None else truth.segments,
    )
    from .. import plotting

    if suffix == ".html":
        plotting.video_page(*given, **options)
    else:
        plotting.video_timeline(*given, between=args.between, **options)
    print(f"picture of {video.id}: {args.output}")


def _named(paths: Sequence[str], read: Any, *rest: Any) -> dict[str, Any]:
    """What is read from files, by the name of the file, or by its path where names are equal."""
    names = [Path(path).stem for path in paths]
    return {name if names.count(name) == 1 else path: read(path, *rest) for name, path in zip(names, paths)}


def _detections(path: str, video: str, classes: Sequence[str]) -> Segments:
    """The detections of a video; a file without the video has none."""
    found = read_detections(path, classes=classes or None)
    return found.video(video) if video in found.video_ids else Segments.empty("second")


def _labels(path: str, video: str) -> Any:
    """The label map of a video."""
    with open_tcams(path) as reader:
        if video not in reader.names:
            raise ValueError(f"{path}: no video {video!r} among {len(reader)}")
        if "labels" not in reader.map_names:
            raise ValueError(f"{path}: no map 'labels', it has {', '.join(map(repr, reader.map_names))}")
        at = reader.names.index(video)
        return reader.read(at, at + 1)[0].maps["labels"]


def _label(text: str, classes: Sequence[str]) -> int:
    """A class by its name or its number."""
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and (not classes or int(text) < len(classes)):
        return int(text)
    raise ValueError(f"--classes: no class {text!r} among {len(classes)}")


def _seconds(text: str) -> tuple[float, float]:
    try:
        first, last = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"two seconds with a comma between them, 20,60 say, got {text!r}") from None
    return first, last


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        plot,
        "plot",
        "A video over time: activation, thresholds, proposals, detections and what they are made of, labels.",
        "tal-postproc plot tcams.npz --video video_test_0000004 --preset gaufuse -o video.html",
    )
    command.add_argument("tcams", nargs="+", help="npz files with names, offsets and maps, or folders of them")
    command.add_argument("--video", help="its id (default: the first)")
    command.add_argument("--preset", help="show its thresholds, proposals and detections; see tal-postproc presets")
    command.add_argument(
        "--detections", nargs="+", default=[], metavar="JSON", help="detections to show, in ActivityNet's format"
    )
    command.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NPZ",
        help="pseudo labels to show, of tal-postproc labels",
    )
    command.add_argument(
        "--annotations", metavar="FILE", help="ground truth: folder, JSON or npz (default: that in the npz, if any)"
    )
    command.add_argument("--subset", help="part of the annotations (default: all)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--classes", metavar="A,B", help="classes to show, by name or number")
    which.add_argument("--top", type=int, default=3, help="or so many: annotated ones first, then detected (default 3)")
    command.add_argument("--tiou", type=float, default=0.5, help="at which a detection is matched (default 0.5)")
    command.add_argument("--between", type=_seconds, metavar="A,B", help="first and last second of a picture")
    command.add_argument("--seconds-per-snippet", type=float, help="for videos of which the file does not know it")
    command.add_argument(
        "--background", choices=["none", "first", "last"], help="where the maps have a background column"
    )
    command.add_argument("--map", action="append", default=[], metavar="NAME=MAP", help="use a map under another name")
    command.add_argument("-o", "--output", required=True, help="file to write: .png, .svg, .pdf, or .html to zoom in")
