"""Means over seeds along a setting, with their spread."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .._checks import Float
from ..types import MissingExtraError
from ._common import ACTIVATION, DOTS_PER_INCH, INK, LABELS, TRUTH, save, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(
    x: Sequence[float],
    lines: Mapping[str, Float],
    *,
    x_label: str,
    y_label: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """A line for every name: (n, seeds) values over the n values of x, a bar of one standard deviation at each.

    The axis of x is logarithmic.  MissingExtraError if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "the picture of a setting") from None
    figure = NewFigure(figsize=(7, 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(lines.items(), (ACTIVATION, LABELS, TRUTH)):
        spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
        axes.errorbar(x, values.mean(axis=1), yerr=spread, color=colour, marker="o", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    tidy(axes)
    if path is not None:
        save(figure, path)
    return figure
