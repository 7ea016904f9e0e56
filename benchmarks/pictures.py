"""Growth on doubly logarithmic axes, drawn from the JSON of a report: nothing is measured for a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .common import LEAST, Panel, Picture, Row, exponent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by those who see no red or no green; the markers tell them apart without any colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#33373d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED = "#33373d", "#6b7178"
DOTS_PER_INCH = 100


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every picture of a report that was read from JSON, or of `Report.to_dict`; where they are."""
    rows = [Row.of(entry) for entry in report["rows"] if entry.get("size") is not None]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in report.get("pictures", ()):
        panels = [Panel(**panel) for panel in entry["panels"]]
        paths.append(_draw(Picture(entry["file"], entry["title"], tuple(panels)), rows, folder))
    return paths


def _draw(picture: Picture, rows: Sequence[Row], folder: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # which matplotlib brings along

    across = min(2, len(picture.panels))
    down = -(-len(picture.panels) // across)
    size = (9.0, 6.2) if across == 1 else (12.0, 0.6 + 5.0 * down)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    figure.suptitle(picture.title, fontsize=14, fontweight="bold", color=INK)
    for place, panel in enumerate(picture.panels, start=1):
        axes = figure.add_subplot(down, across, place)
        of_job = [row for row in rows if row.job == panel.job]
        if not of_job:
            raise ValueError(f"{picture.file}: there are no rows of the job {panel.job!r}")
        _panel(axes, panel, of_job)
        if len(picture.panels) > 1:
            axes.set_title(panel.job, fontsize=11, color=INK)
    path = folder / picture.file
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    temporary = path.with_suffix(".tmp")  # no metadata: the same bytes from the same JSON
    image.quantize(128, dither=Image.Dither.NONE).save(temporary, format="png", optimize=True)  # a quarter of the bytes
    temporary.replace(path)
    return path


def _panel(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    """One line with its spread per contender, its exponent in the legend, and a straight line to compare with."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for number, who in enumerate(dict.fromkeys(row.who for row in rows)):
        own = sorted((row for row in rows if row.who == who), key=_size)
        slope = exponent(own)
        seen = [row for row in own if row.median > LEAST.get(row.unit, 0.0)]
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        label = who if slope is None else f"{who}  ({slope:.2f})"
        axes.plot([_size(row) for row in seen], [row.median for row in seen], label=label, linewidth=1.8, **style)
        low, high = ([end(row.values) for row in seen] for end in (min, max))
        axes.fill_between([_size(row) for row in seen], low, high, color=style["color"], alpha=0.15, linewidth=0)
    _compare(axes, rows, panel.power)
    unit = rows[0].unit
    if unit in LEAST:
        axes.set_ylim(bottom=LEAST[unit] / 3)
        axes.axhspan(LEAST[unit] / 3, LEAST[unit], color="#eceef1", linewidth=0, zorder=0)
        place = {"xy": (0.015, LEAST[unit] / 3**0.5), "xycoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate(
            f"below {LEAST[unit]:g} {unit}: too little to be told from nothing", color=MUTED, fontsize=9, **place
        )
    axes.set_xlabel(panel.x, color=INK)
    axes.set_ylabel({"s": "seconds", "MB": "MB added by the call"}[unit], color=INK)
    axes.grid(True, which="major", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c8ccd1")
    axes.tick_params(which="both", length=0, colors=INK)
    _ticks(axes, sorted({_size(row) for row in rows}))
    legend = axes.legend(  # below, where it covers no line
        loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3, frameon=False, fontsize=9, labelcolor=INK
    )
    legend.set_title("in brackets: exponent", prop={"size": 9})
    legend.get_title().set_color(MUTED)


def _size(row: Row) -> int:
    return row.size or 0


def _compare(axes: Axes, rows: Sequence[Row], power: int) -> None:
    """A line of that slope: below all figures, no lower than half of the least; if it falls, from the best start."""
    seen = [(_size(row), row.median) for row in rows if row.median > LEAST.get(row.unit, 0.0)]
    if power < 0:
        first, last = min(n for n, _ in seen), max(n for n, _ in seen)
        best = min(value for n, value in seen if n == first)
        factor, low, high = best / first**power, best * (last / first) ** power, best
    else:
        factor = 0.5 * min(value / n**power for n, value in seen)
        low, high = 0.5 * min(value for _, value in seen), factor * max(n**power for n, _ in seen)
    if high > low:
        ends = [max(low, factor * min(n**power for n, _ in seen)), high]
        sizes = [(value / factor) ** (1 / power) for value in ends]
        axes.plot(sizes, ends, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=f"slope {power}", zorder=1)


def _ticks(axes: Axes, sizes: Sequence[int]) -> None:
    """The sizes that were measured, where they are few and no powers of ten."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    if sizes[-1] < 100 * sizes[0]:
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.set_xticklabels([f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    span = (sizes[-1] / sizes[0]) ** 0.04
    axes.set_xlim(sizes[0] / span, sizes[-1] * span)
