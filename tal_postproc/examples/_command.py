"""Arguments of a training: those of ``tal-postproc train NAME`` and of ``python -m tal_postproc.examples.NAME``."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from ..types import MissingExtraError
from .data import TrainTest, read_activitynet, read_wtalc

NAMES = {
    "gaufuse": "Gaufuse",
    "ilg_ptlr": "IlgPtlr",
    "mil": "Mil",
    "plain": "Plain",
    "rskp": "Rskp",
    "two_stream": "TwoStreamRecipe",
}  # module -> its recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything but the name."""
    parser.add_argument("--profile", default="default", help="sizes and length: smoke (under a minute), default, paper")
    parser.add_argument("--wtalc", metavar="DIR", help="THUMOS14 I3D features and annotations in the layout of W-TALC")
    parser.add_argument(
        "--activitynet", nargs=2, metavar=("DIR", "JSON"), help="one npy of features per video, and annotations"
    )
    parser.add_argument("--epochs", type=int, help="in place of the profile's")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="in place of the profile's")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights, order and Dropout (default 0)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--amp", action="store_true", help="forward passes in bfloat16 where that is safe")
    parser.add_argument("--threads", type=int, help="of torch (default: 1; paper: all)")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for log, CSV, checkpoint and detections")
    parser.add_argument("--resume", action="store_true", help="go on with the checkpoint in --output")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the method; see its page"
    )


def run(name: str, args: argparse.Namespace) -> None:
    """Train a method; every line of its log is printed."""
    from .engine import Run, train

    settings = Run(
        profile=args.profile,
        seed=args.seed,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        device=args.device,
        amp=args.amp,
        output=args.output,
        resume=args.resume,
        progress=True,
        threads=args.threads,
        options=dict(_option(text) for text in args.set),
    )
    train(recipe(name), read_data(args.wtalc, args.activitynet), settings, print)


def recipe(name: str) -> Any:
    """The class of a recipe; the others need not be there."""
    return getattr(importlib.import_module(f".{name}", __package__), NAMES[name])


def read_data(wtalc: Any, activitynet: Any) -> TrainTest | None:
    """The data set of the user, if there is one."""
    if wtalc is not None and activitynet is not None:
        raise ValueError("--wtalc and --activitynet are two data sets: give one")
    if wtalc is not None:
        return read_wtalc(wtalc)
    return None if activitynet is None else read_activitynet(*activitynet)


def _option(text: str) -> tuple[str, Any]:
    """``name=value``, the value as a number, true, false, or text."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise ValueError(f"--set must look like name=value, got {text!r}")
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, float(value)
    except ValueError:
        return name, value


def main(name: str) -> int:
    """The command of one example."""
    parser = argparse.ArgumentParser(prog=f"python -m tal_postproc.examples.{name}")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        run(name, args)
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
