"""What all pictures share: colours, quiet axes, and files that appear whole."""

from __future__ import annotations

import os
from bisect import bisect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .._checks import Float, Int
from .._files import atomic_write
from ..types import Segments, Video

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACTIVATION, ATTENTION, TRUTH, LABELS, IGNORED, INK = "#f28e2b", "#9aa0a6", "#2e7d4f", "#6f4fa0", "#d9d2e6", "#33373d"
DOTS_PER_INCH = 100


def tidy(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c8ccd1")
    axes.tick_params(length=0, colors=INK, labelsize=10)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """The format is that of the suffix; text of an SVG stays text, and the same figure has the same bytes."""
    from matplotlib import rc_context

    suffix = Path(path).suffix.lower().lstrip(".")
    _checks.as_choice(suffix, "path", ("png", "svg", "pdf"))
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[suffix]
    with (
        atomic_write(path, "wb") as file,
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "tal_postproc"}),
    ):
        figure.savefig(file, format=suffix, metadata=undated)


def rows_of(segments: Segments, video: Video, name: str) -> Segments:
    """The rows of this video, in seconds; a `Segments` of a single unnamed video is taken as it is."""
    segments.require_unit("second", name)
    if video.id in segments.video_ids:
        return segments.video(video.id)
    if segments.num_videos == 1 and segments.video_ids in ((), ("",)):
        return segments
    raise ValueError(f"`{name}` has no video {video.id!r} ({segments.num_videos} videos)")


def lanes(segments: Float, order: Int, most: int) -> Int:
    """Lane of every row: taken in that order, each in the first where it overlaps nothing, the rest in the last."""
    found = np.full(len(segments), most - 1)
    placed: list[list[tuple[float, float]]] = [[] for _ in range(most - 1)]
    rows = [(start, end) for start, end in segments.tolist()]
    for row in order.tolist():
        start, end = rows[row]
        for number, lane in enumerate(placed):
            at = bisect(lane, (start, end))
            if (not at or lane[at - 1][1] <= start) and (at == len(lane) or end <= lane[at][0]):
                lane.insert(at, (start, end))
                found[row] = number
                break
    return found
