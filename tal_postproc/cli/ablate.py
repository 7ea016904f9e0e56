"""``tal-postproc ablate``: the papers' ablation tables."""

from __future__ import annotations

import argparse

from ..examples._tables import TABLES
from ._common import Commands, Parser, declare


def ablate(args: argparse.Namespace) -> None:
    """Runs that are not there yet, then the tables."""
    from ..examples.ablation import Plan, ablate

    plan = Plan(
        folder=args.output,
        profile=args.profile,
        seeds=tuple(args.seeds),
        jobs=args.jobs,
        device=args.device,
        wtalc=args.wtalc,
        activitynet=args.activitynet,
        resamples=args.resamples,
    )
    print(ablate(args.tables, plan, lambda line: print(line, flush=True), only=args.only), end="")


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        ablate,
        "ablate",
        "Train what an ablation table of a paper needs, and print the table. What is in the folder is not made again.",
        "tal-postproc ablate gaufuse-3 --seeds 0 1 2 -o ablations",
    )
    command.add_argument("tables", nargs="+", metavar="TABLE", help=", ".join(TABLES))
    command.add_argument("--profile", default="default", help="sizes and length: smoke, default, paper")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default 0 1 2)")
    command.add_argument("--jobs", type=int, default=1, help="processes of one thread (default 1)")
    command.add_argument("--only", default="", metavar="TEXT", help="groups of columns with this in their name")
    command.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    command.add_argument("--wtalc", metavar="DIR", help="THUMOS14 I3D features and annotations in the layout of W-TALC")
    command.add_argument(
        "--activitynet", nargs=2, metavar=("DIR", "JSON"), help="one npy of features per video, and annotations"
    )
    command.add_argument("--resamples", type=int, default=1000, help="of the videos, for intervals (default 1000)")
    command.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for runs and tables")
