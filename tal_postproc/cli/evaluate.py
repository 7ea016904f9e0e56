"""``tal-postproc evaluate``: mAP under any protocol."""

from __future__ import annotations

import argparse

from ..evaluation import PROTOCOLS, mean_average_precision
from ..formats import read_detections
from ._common import Commands, Parser, declare, map_cells, map_header, read_truth, table, tiou


def evaluate(args: argparse.Namespace) -> None:
    """mAP of detections under one protocol or under all."""
    truth = read_truth(args.annotations, args.subset)
    detections = read_detections(args.detections, classes=truth.classes, unknown_labels="drop")
    protocols = list(PROTOCOLS) if args.protocol == "all" else [args.protocol]
    rows = []
    for protocol in protocols:
        result = mean_average_precision(
            detections,
            truth.segments,
            tiou_thresholds=tiou(args.tiou),
            protocol=protocol,
            ambiguous=None if args.keep_ambiguous else truth.ambiguous,
            snippets_per_second=args.snippets_per_second,
        )
        rows.append([protocol, *map_cells(result)])
    print(table(["mAP in %, tIoU", *map_header(result.tiou_thresholds.tolist())], rows))
    spans = 0 if truth.ambiguous is None or args.keep_ambiguous else len(truth.ambiguous)
    print(
        f"\n{len(detections)} detections, {len(truth.segments)} instances of {truth.segments.num_videos} videos, "
        f"{spans} ambiguous spans left out"
    )


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        evaluate,
        "evaluate",
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
