"""``tal-postproc presets``: what there is."""

from __future__ import annotations

import argparse

from .. import presets
from ._common import Commands, Parser, declare, left_table


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
    print("\n".join(line.rstrip() for line in left_table(["preset", "short", "stages", "protocol", "from"], rows)))


def register(commands: Commands[Parser]) -> None:
    command = declare(
        commands,
        list_presets,
        "presets",
        "The published pipelines, or the settings of one of them as JSON.",
        "tal-postproc presets gaufuse",
    )
    command.add_argument("name", nargs="?", help="a preset")
