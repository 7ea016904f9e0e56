"""The command line ``tal-postproc``, a file for each command.

A user's mistake ends with exit code 2 and one line; progress bars show on a terminal only.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..types import MissingExtraError
from . import ablate, bench, chain, demo, evaluate, list_presets, plot, report, train, tune
from ._common import Parser

COMMANDS = (demo, chain, evaluate, report, list_presets, plot, tune, train, ablate, bench)


def _parser() -> Parser:
    parser = Parser(
        prog="tal-postproc",
        description="Post-processing for weakly supervised temporal action localization.",
    )
    parser.add_argument("--version", action="version", version=f"tal_postproc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for room in COMMANDS:
        room.register(commands)
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
