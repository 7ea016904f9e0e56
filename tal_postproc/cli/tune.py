"""``tal-postproc tune``: better settings, and whether their gain is more than noise."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import _jobs
from .._checks import as_choice
from .._files import atomic_write, is_pipe
from ..config import Pipeline
from ..evaluation import PROTOCOLS
from ..tuning import Range, TuningResult
from ..tuning import tune as search
from ..types import MissingExtraError, Segments, Video
from ._common import Commands, Parser, add_threads, declare, pair, pipeline_of, table, tiou, with_background

SHOWN = 10  # settings in the table


def tune(args: argparse.Namespace) -> None:
    """Settings tried on annotated TCAMs; the best goes to a file that --preset takes."""
    _require_places(args)
    pipeline = with_background(pipeline_of(args.preset), args.background)
    videos, truth, ambiguous = _read(args, pipeline)
    started = time.perf_counter()
    result = search(
        videos,
        truth,
        pipeline,
        _space(args),
        method=args.method,
        evaluations=args.evaluations,
        folds=args.folds,
        tiou_thresholds=None if args.tiou is None else tiou(args.tiou),
        protocol=args.protocol,
        ambiguous=ambiguous,
        seed=args.seed,
        num_threads=args.threads,
        progress=True,
    )
    elapsed = time.perf_counter() - started
    print(_table(result))
    tious = ", ".join(map("{:g}".format, result.tiou_thresholds))
    print(f"\n{len(result.table)} settings on {len(videos)} videos in {elapsed:.1f} s")
    print(f"protocol {result.protocol!r}, mean over tIoU {tious}")
    print(f"{result.verdict} (points of mAP, on held-out folds)")
    reasons = [reason for _, reason in result.refused]
    for reason in dict.fromkeys(reasons):
        first = _text(result.refused[reasons.index(reason)][0])
        print(f"refused: {reasons.count(reason)} settings, such as {first}: {reason}")
    with atomic_write(args.output, "w") as file:
        json.dump(result.to_dict(), file, indent=1)
    print(f"wrote {args.output}; tal-postproc detect --preset {args.output} takes its best")
    if args.picture is not None:
        from ..plotting import surface

        surface(result, args.show or None, path=args.picture)
        print(f"picture: {args.picture}")


def _require_places(args: argparse.Namespace) -> None:
    """What could not be written is said before the search, not after it."""
    if args.picture is not None:
        as_choice(Path(args.picture).suffix.lower(), "the suffix of --picture", (".png", ".svg", ".pdf"))
        if find_spec("matplotlib") is None:
            raise MissingExtraError("matplotlib", "plot", "--picture")
    for path in (args.output, args.picture or args.output):
        if not is_pipe(path) and not Path(path).resolve().parent.is_dir():
            raise ValueError(f"there is no folder for {path}")


def _read(args: argparse.Namespace, pipeline: Pipeline) -> tuple[list[Video], Segments, Segments | None]:
    """The videos of all files, and their ground truth in the classes of the files."""
    job = _jobs.plan(
        "detect",
        args.tcams,
        pipeline,
        args.output,
        maps=[pair(text) for text in args.map],
        seconds_per_snippet=args.seconds_per_snippet,
        annotations=args.annotations,
        subset=args.subset,
    )
    with _jobs.Worker(job) as worker:
        found = list(worker.videos(0, job.num_videos))
        truths = list({id(truth): truth for truth in (_jobs.annotations_of(job, one) for one, _ in found)}.values())
    known = [truth for truth in truths if truth is not None]
    if len(known) < len(truths):
        raise ValueError("the npz has no ground truth: give --annotations")
    spans = [] if args.keep_ambiguous else [truth.ambiguous for truth in known if truth.ambiguous is not None]
    return (
        [video for _, video in found],
        Segments.concatenate(truth.segments for truth in known),
        Segments.concatenate(spans) if spans else None,
    )


def _space(args: argparse.Namespace) -> dict[str, Any]:
    space: dict[str, Any] = {}
    if args.space is not None:
        with open(args.space, encoding="utf-8") as file:
            space = json.load(file)
        if not isinstance(space, dict):
            raise ValueError(f"--space {args.space} must hold a JSON object of names and values")
    for text in args.set:
        name, found, values = text.partition("=")
        if not (name and found and values):
            raise ValueError(f"--set must look like name=values, got {text!r}")
        if name in space:
            raise ValueError(f"--set {name} is there twice, or in --space as well")
        space[name] = _values(text, values)
    if not space:
        raise ValueError("nothing to search: give --set name=values or --space FILE")
    return space


def _values(text: str, values: str) -> Any:
    """JSON, numbers and words with commas between them, or first:last:step and first:last."""
    try:
        if values[0] in "[{":
            return json.loads(values)
        if ":" in values:
            first, last, *step = (json.loads(part) for part in values.split(":"))
            return Range(first, last, *step)
    except (ValueError, TypeError) as error:
        raise ValueError(f"--set {text}: {error}") from None
    return [_word(part) for part in values.split(",")]


def _word(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _table(result: TuningResult) -> str:
    rows = [["starting pipeline", f"{100 * result.baseline.score:.2f}", f"{100 * result.baseline.std:.2f}", "", ""]]
    for row in result.ranked()[:SHOWN]:
        numbers = row.score, row.std, row.score - result.baseline.score, row.gain_std
        rows.append([_text(row.setting), *(f"{100 * number:.2f}" for number in numbers)])
    return table(["best on all videos", "mAP in %", "±", "gain", "±"], rows)


def _text(setting: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in setting.items())


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        tune,
        "tune",
        "Search settings of a preset on annotated TCAMs, and say whether the gain is more than noise.",
        "tal-postproc tune tcams.npz --preset rskp --set margin.scale=0.1:0.5:0.1 -o tuned.json",
    )
    command.add_argument("tcams", nargs="+", help="npz files with names, offsets and maps, or folders of them")
    command.add_argument("--preset", required=True, help="where the search starts: a preset, or a JSON file of one")
    command.add_argument("--annotations", metavar="FILE", help="ground truth (default: that in the npz)")
    command.add_argument("--subset", help="part of the annotations (default: all)")
    command.add_argument(
        "--space", metavar="FILE", help="JSON: names of settings, and for each its values or its range"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a setting and its values: a,b,c or first:last:step or JSON",
    )
    command.add_argument("--method", choices=["grid", "random", "optuna"], default="grid", help="default grid")
    command.add_argument("--evaluations", type=int, help="settings that random and optuna try")
    command.add_argument("--folds", type=int, default=5, help="parts that the videos are held out in (default 5)")
    command.add_argument("--seed", type=int, default=0, help="of folds, resamples and methods (default 0)")
    command.add_argument("--protocol", help=f"default: that of the preset; one of {', '.join(PROTOCOLS)}")
    command.add_argument("--tiou", help="default: those of the preset; 0.1:0.7, 0.5:0.95, or numbers such as 0.3,0.5")
    command.add_argument("--keep-ambiguous", action="store_true", help="do not leave out detections on ambiguous spans")
    command.add_argument("--seconds-per-snippet", type=float, help="for videos of which the file does not know it")
    command.add_argument(
        "--background", choices=["none", "first", "last"], help="where the maps have a background column"
    )
    command.add_argument("--map", action="append", default=[], metavar="NAME=MAP", help="use a map under another name")
    command.add_argument("-o", "--output", required=True, help="JSON file to write: the result, which --preset takes")
    command.add_argument("--picture", metavar="FILE", help="also draw the gain over the settings (.png, .svg or .pdf)")
    command.add_argument("--show", nargs="+", metavar="NAME", help="one or two settings for the picture")
    add_threads(command)
