"""``tal-postproc presets``: what there is, as a list, a table, or one of them as JSON."""

from __future__ import annotations

import argparse
from itertools import zip_longest

from .. import presets
from ._common import Commands, Parser, declare, left_table


def list_presets(args: argparse.Namespace) -> None:
    """The presets, or one of them as JSON."""
    if args.name is not None:
        import json

        print(json.dumps(presets.get(args.name).to_dict(), indent=2))
        return
    if args.table:
        header, *table = presets.table()
        rows = [line for row in table for line in zip_longest(*(cell.split("; ") for cell in row), fillvalue="")]
        print("\n".join(line.rstrip() for line in left_table(header, rows)))
        return
    short = {full: name for name, full in presets.aliases().items()}
    listed = []
    for name in presets.names():
        pipeline = presets.get(name)
        stages = ", ".join(type(stage).__name__ for stage in pipeline.stages)
        listed.append([name, short.get(name, ""), stages, pipeline.protocol, pipeline.provenance.split(",")[0]])
    print("\n".join(line.rstrip() for line in left_table(["preset", "short", "stages", "protocol", "from"], listed)))


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        list_presets,
        "presets",
        "The published pipelines, or the settings of one of them as JSON.",
        "tal-postproc presets gaufuse",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("name", nargs="?", help="a preset")
    what.add_argument(
        "--table",
        action="store_true",
        help="all settings in a wide table, with the published chains that are functions; less -S scrolls it",
    )
