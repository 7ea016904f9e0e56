"""What all pictures share: colours, quiet axes, and files that appear whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _checks
from .._files import atomic_write

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
    suffix = Path(path).suffix.lower().lstrip(".")
    _checks.as_choice(suffix, "path", ("png", "svg", "pdf"))
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format=suffix)
