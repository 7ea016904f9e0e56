"""What several commands share: how a command is declared, its tables, and what text arguments mean."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

from numpy.typing import NDArray

from .. import _jobs, _signals, presets
from ..config import Pipeline
from ..formats import read_annotations
from ..types import Annotations, MeanAveragePrecision, Video


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


Commands = argparse._SubParsersAction  # the public way to it is only its maker


def declare(
    commands: Commands[Parser], function: Callable[[argparse.Namespace], None], name: str, text: str, example: str
) -> Parser:
    """A command with its help and an example."""
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(function=function)
    return command


def add_threads(command: Parser) -> None:
    command.add_argument("--threads", type=int, help="number of threads (default: all cores)")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [header, *rows])


def map_header(thresholds: Sequence[float]) -> list[str]:
    return [*(f"{threshold:g}" for threshold in thresholds), "avg"]


def map_cells(result: MeanAveragePrecision) -> list[str]:
    return [f"{100 * value:.2f}" for value in (*result.per_threshold, result.average)]


def tiou(text: str) -> str | list[float]:
    """``0.1:0.7``, a name, or numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def pipeline_of(name: str) -> Pipeline:
    """The preset of that name, or the pipeline of a JSON file: of settings, or of a result of ``tune``."""
    if not name.endswith(".json"):
        return presets.get(name)
    with open(name, encoding="utf-8") as file:
        values = json.load(file)
    try:
        return Pipeline.from_dict(values.get("best", values))
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} holds no pipeline: {error}") from None


def read_truth(path: str, subset: str | None) -> Annotations:
    default = "test" if Path(path).is_dir() else None
    return read_annotations(path, subset=subset or default)


def step_of(video: Video) -> float:
    return _jobs.require_step(video.id, video.seconds_per_snippet)


def pair(text: str) -> tuple[str, str]:
    """``name=map``."""
    ours, found, theirs = text.partition("=")
    if not (ours and found and theirs):
        raise ValueError(f"--map must look like name=map_of_the_file, got {text!r}")
    return ours, theirs


def with_background(pipeline: Pipeline, background: str | None) -> Pipeline:
    """The pipeline, with the background where the user says."""
    return pipeline if background is None else replace(pipeline, background=cast(Any, background), num_classes=None)


def action_columns(pipeline: Pipeline, video: Video) -> tuple[str, slice]:
    """The map that a picture of the video shows, and which columns of maps like it are classes of actions."""
    names = pipeline.map_names() or ("cas",)
    found = [_signals.map_name(video.maps, name) for name in names]
    shown = next((name for name in found if video.maps[name].ndim == 2), found[0])
    width = video.maps[shown].shape[1] if video.maps[shown].ndim == 2 else 1
    count = pipeline.count_classes(width)
    first = int(count < width and pipeline.background == "first")
    return shown, slice(first, first + count)


def columns_of(values: NDArray[Any], columns: slice) -> NDArray[Any]:
    return values[:, columns] if values.ndim == 2 else values
