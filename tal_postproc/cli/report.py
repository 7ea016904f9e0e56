"""``tal-postproc report``: what a paper prints about detections, and what is wrong with them."""

from __future__ import annotations

import argparse

from ..diagnosis import BINS, error_breakdown, paper_report
from ..evaluation import PROTOCOLS
from ..formats import read_detections
from ..types import Annotations, Segments
from ._common import Commands, Parser, add_threads, declare, read_truth, tiou


def report(args: argparse.Namespace) -> None:
    """Every protocol with its standard error, a comparison with a baseline, a LaTeX row, and a breakdown of errors."""
    truth = read_truth(args.annotations, args.subset)
    detections = _read(args.detections, truth)
    protocols = list(PROTOCOLS) if args.protocol == "all" else args.protocol.split(",")
    ambiguous = None if args.keep_ambiguous else truth.ambiguous
    result = paper_report(
        detections,
        truth.segments,
        baseline=None if args.baseline is None else _read(args.baseline, truth),
        protocols=protocols,
        name=args.name,
        tiou_thresholds=tiou(args.tiou),
        ambiguous=ambiguous,
        snippets_per_second=args.snippets_per_second,
        num_resamples=args.resamples,
        seed=args.seed,
        num_threads=args.threads,
    )
    if args.latex:
        print(result.latex())
        return
    print(result.table())
    if args.errors is not None:
        from ..plotting import errors

        breakdown = error_breakdown(
            detections,
            truth.segments,
            protocol=protocols[0],
            ambiguous=ambiguous,
            snippets_per_second=args.snippets_per_second,
            bins=args.bins,
            durations=truth.durations,
            names=truth.classes,
        )
        errors(breakdown, path=args.errors)
        print(f"\nErrors at tIoU 0.5, {protocols[0]}; {args.errors} shows them\n{breakdown.table()}")


def _read(path: str, truth: Annotations) -> Segments:
    return read_detections(path, classes=truth.classes, unknown_labels="drop")


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        report,
        "report",
        "What a paper prints about detections: mAP under every protocol with its standard error over videos.",
        "tal-postproc report detections.json --annotations tcams.npz --baseline other.json --errors errors.png",
    )
    command.add_argument("detections", help="ActivityNet JSON in seconds")
    command.add_argument(
        "--annotations", required=True, help="W-TALC folder, ActivityNet JSON, or npz with ground truth"
    )
    command.add_argument("--subset", help="part of the annotations (default: test for a folder, else all)")
    command.add_argument("--baseline", help="other detections to compare with, on the same resamples of the videos")
    command.add_argument("--protocol", default="all", help=f"all (default), or of {','.join(PROTOCOLS)}")
    command.add_argument("--tiou", default="0.1:0.7", help="0.1:0.7 (default), 0.5:0.95, or numbers such as 0.3,0.5")
    command.add_argument("--latex", action="store_true", help="print a LaTeX row of the first protocol, nothing else")
    command.add_argument("--name", default="ours", help="of the method, in the LaTeX row")
    command.add_argument("--errors", help="draw what is wrong with the detections: .png, .svg or .pdf")
    command.add_argument(
        "--bins", default="thumos14", choices=tuple(BINS), help="of missed instances (default thumos14)"
    )
    command.add_argument("--resamples", type=int, default=1000, help="of the videos (default 1000)")
    command.add_argument("--seed", type=int, default=0, help="of the resamples (default 0)")
    command.add_argument(
        "--snippets-per-second", type=float, default=25 / 16, help="of snippet protocols (default 25/16)"
    )
    command.add_argument("--keep-ambiguous", action="store_true", help="do not leave out detections on ambiguous spans")
    add_threads(command)
