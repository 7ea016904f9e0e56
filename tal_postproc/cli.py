"""The command line: ``tal-postproc demo | detect | evaluate | presets``.

A user's mistake ends with exit code 2 and one line; progress bars show on a terminal only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import __version__, presets
from .config import Fuse, Nms, Overlap, Pipeline, SoftNms, Stage
from .evaluation import PROTOCOLS, mean_average_precision
from .formats import read_annotations, read_detections, read_tcams, write_detections
from .pipeline import PostProcessor
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

    # the video that shows most in one picture: nearest to ten instances, and short
    sizes = np.diff(truth.segments.offsets)
    chosen = int(np.lexsort(([video.num_snippets for video in videos], np.abs(sizes - 10)))[0])
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


def detect(args: argparse.Namespace) -> None:
    """TCAMs of an npz file through a preset, to ActivityNet JSON in seconds."""
    data = read_tcams(args.tcams, seconds_per_snippet=args.seconds_per_snippet)
    renamed = dict(_pair(text) for text in args.map)
    changes = {} if args.background is None else {"background": args.background, "num_classes": None}
    process = PostProcessor.from_preset(args.preset, **changes)
    videos = [_prepared(video, renamed) for video in data]
    started = time.perf_counter()
    parts = list(process.process(videos, args.threads, progress=True))
    found = [part if part.unit == "second" else part.to_seconds(_step(video)) for video, part in zip(videos, parts)]
    detections = Segments.concatenate(found)
    highest = int(detections.labels.max(initial=-1)) + 1
    classes = list(data.classes) or [f"class{k}" for k in range(highest)]
    if highest > len(classes):
        raise ValueError(
            f"label {highest - 1} has no name among the {len(classes)} classes of the file; a background column? "
            "give --background first or --background last"
        )
    write_detections(args.output, detections, classes=classes)
    elapsed = time.perf_counter() - started
    print(f"{len(detections)} detections of {len(data)} videos in {elapsed:.2f} s: {args.output}")


def _step(video: Video) -> float:
    if video.seconds_per_snippet is None:
        raise ValueError(
            f"`seconds_per_snippet` of video {video.id!r} is not in the file: give --seconds-per-snippet "
            "(16 frames at 25 per second: 0.64)"
        )
    return video.seconds_per_snippet


def _prepared(video: Video, renamed: dict[str, str]) -> Video:
    """The video with the maps that the user renamed; its timing must be known."""
    _step(video)
    maps = dict(video.maps)
    for ours, theirs in renamed.items():
        if theirs not in video.maps:
            raise ValueError(f"--map: the file has no map {theirs!r}, it has {', '.join(map(repr, video.maps))}")
        maps[ours] = video.maps[theirs]
    return replace(video, maps=maps)


def _pair(text: str) -> tuple[str, str]:
    ours, found, theirs = text.partition("=")
    if not (ours and found and theirs):
        raise ValueError(f"--map must look like name=map_of_the_file, got {text!r}")
    return ours, theirs


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
        "Detections of the TCAMs in an npz file, as ActivityNet JSON in seconds.",
        "tal-postproc detect tcams.npz --preset gaufuse --seconds-per-snippet 0.64 -o detections.json",
    )
    command.add_argument("tcams", help="npz with names, offsets and maps")
    command.add_argument("--preset", required=True, help="see tal-postproc presets")
    command.add_argument("-o", "--output", required=True, help="JSON file to write")
    command.add_argument("--seconds-per-snippet", type=float, help="for videos of which the file does not know it")
    command.add_argument(
        "--background", choices=["none", "first", "last"], help="where the maps have a background column"
    )
    command.add_argument("--map", action="append", default=[], metavar="NAME=MAP", help="use a map under another name")
    threads(command)

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
        except KeyboardInterrupt:
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
