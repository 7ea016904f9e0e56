"""``tal-postproc train``: reference training loops."""

from __future__ import annotations

import argparse

from ..examples import _command
from ._common import Commands, Parser, declare


def train(args: argparse.Namespace) -> None:
    """A training loop, from data to a table."""
    _command.run(args.name, args)


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        train,
        "train",
        "Train a published method on synthetic features or on your own, and print its mAP.",
        "tal-postproc train mil --profile smoke -o run",
    )
    command.add_argument("name", choices=list(_command.NAMES), help=", ".join(_command.NAMES))
    _command.add_arguments(command)
