"""What a search found over one or two of its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .._checks import Float
from ..types import MissingExtraError
from ._common import ACTIVATION, DOTS_PER_INCH, INK, LABELS, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_VALUES = 24  # that stand on an axis one by one
MOST_CELLS = 150  # that have their numbers written in


def surface(
    result: Any,
    names: Sequence[str] | None = None,
    *,
    size: tuple[int, int] = (1000, 620),
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Gain in mAP over one or two of the settings that were searched.

    Shown is the gain over the starting pipeline on all videos, in points of mAP, of the best setting that has a value
    (or a pair of them), and its spread over resamples of the videos.  With one name: a line with a band of one standard
    deviation, and a dot for every setting; with two: a map, numbers with their spread in its cells.  Ranges without
    single values are drawn as dots.

    Parameters
    ----------
    result : TuningResult
        From `tune`.
    names : sequence of one or two str, optional
        Settings, as they are called in the space.  Default: the two over which the best mAP differs most.
    size : (int, int), default (1000, 620)
        Width and height in pixels.
    path : path, optional
        File to write; .png, .svg or .pdf.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a name was not searched, or the table is empty.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tal_postproc as tpp
    >>> data = tpp.synthetic.make_videos(10, seed=0)
    >>> space = {"margin.scale": [0.1, 0.25], "stages.0.threshold": [0.2, 0.4, 0.6]}
    >>> result = tpp.tune(data.videos, data.ground_truth, tpp.presets.get("rskp"), space, folds=2)
    >>> surface(result).axes[0].get_xlabel()
    'stages.0.threshold'
    """
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "the picture of a search") from None
    rows = [row for row in result.table if row.setting]
    known = list(dict.fromkeys(name for row in rows for name in row.setting))
    if not known:
        raise ValueError("`result` must have at least one setting in its table, got none")
    if names is None:
        names = sorted(known, key=lambda name: -_reach(rows, name))[:2]
    names = [names] if isinstance(names, str) else list(names)
    if not 1 <= len(names) <= 2 or len(set(names)) != len(names):
        raise ValueError(f"`names` must be one or two settings, got {names}")
    for name in names:
        _checks.as_choice(name, "names", known)
    rows = [row for row in rows if all(name in row.setting for name in names)]
    figure = NewFigure(
        figsize=(size[0] / DOTS_PER_INCH, size[1] / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained"
    )
    axes = figure.add_subplot()
    gains = np.array([100 * (row.score - result.baseline.score) for row in rows])
    spreads = np.array([100 * row.gain_std for row in rows])
    (_draw_line if len(names) == 1 else _draw_map)(figure, axes, names, rows, gains, spreads, result)
    axes.set_title(
        f"settings: {len(result.table)}, videos: {result.num_videos}, start at mAP {100 * result.baseline.score:.1f}\n"
        f"held out: {result.verdict}",
        loc="left",
        fontsize=11,
        color=INK,
    )
    if path is not None:
        save(figure, path)
    return figure


def _key(value: Any) -> str:
    return json.dumps(value)


def _best_of(rows: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, int]:
    """The row with the largest mAP for every key; the earlier one of equals."""
    best: dict[Any, int] = {}
    for number, row in enumerate(rows):
        if key(row) not in best or row.score > rows[best[key(row)]].score:
            best[key(row)] = number
    return best


def _reach(rows: Sequence[Any], name: str) -> float:
    """By how much the best mAP differs over the values of a setting."""
    mine = [row for row in rows if name in row.setting]
    scores = [mine[i].score for i in _best_of(mine, lambda row: _key(row.setting[name])).values()]
    return max(scores) - min(scores)


class _Axis:
    """The values of a setting and where they stand: numbers in their order, one by one where they are few."""

    def __init__(self, name: str, rows: Sequence[Any]) -> None:
        self.name = name
        listed = {_key(row.setting[name]): row.setting[name] for row in rows}
        self.numeric = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in listed.values())
        self.values = sorted(listed.values()) if self.numeric else list(listed.values())
        self.single = len(self.values) <= MOST_VALUES
        self._place = {_key(value): place for place, value in enumerate(self.values)}

    def at(self, row: Any) -> float:
        value = row.setting[self.name]
        return float(self._place[_key(value)] if self.single or not self.numeric else value)

    def label(self, axis: Any) -> None:
        axis.set_label_text(self.name, color=INK)
        if self.single:
            texts = [_short(value) for value in self.values]
            long = any(len(text) > 6 for text in texts) and len(texts) > 6
            axis.set_ticks(range(len(texts)), texts, rotation=40 if long and axis.axis_name == "x" else 0)
        elif self.numeric and self.values[0] > 0 and self.values[-1] / self.values[0] >= 50:
            axis._set_axes_scale("log")


def _short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = [
            f"{key} {_short(one)}" for key, one in value.items() if isinstance(one, (int, float, str)) and key != "type"
        ]
        return "\n".join([str(value.get("type", "")), *parts[:2]])
    if isinstance(value, list):
        return f"{_short(value[0])} … {_short(value[-1])}\n({len(value)})" if len(value) > 2 else str(value)
    return str(value)


def _draw_line(
    figure: Figure, axes: Axes, names: Sequence[str], rows: Sequence[Any], gains: Float, spreads: Float, result: Any
) -> None:
    axis = _Axis(names[0], rows)
    x = np.array([axis.at(row) for row in rows])
    axes.axhline(0.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="starting pipeline")
    if axis.single:
        best = _best_of(rows, axis.at)
        places = sorted(best)
        chosen = [best[place] for place in places]
        if len(rows) > len(chosen):
            axes.plot(x, gains, "o", color="#9aa0a6", markersize=3.5, alpha=0.5, label="every setting")
        if axis.numeric:
            low, high = gains[chosen] - spreads[chosen], gains[chosen] + spreads[chosen]
            axes.fill_between(places, low, high, color=ACTIVATION, alpha=0.25, linewidth=0, label="± one spread")
            axes.plot(places, gains[chosen], "-o", color=ACTIVATION, markersize=5, label="best with this value")
        else:
            axes.errorbar(
                places, gains[chosen], spreads[chosen], fmt="o", color=ACTIVATION, capsize=4, label="best, ± one spread"
            )
    else:
        axes.errorbar(
            x, gains, spreads, fmt="o", color=ACTIVATION, ecolor="#f2c79a", markersize=4, label="settings, ± one spread"
        )
    top = int(gains.argmax())
    axes.plot(x[top], gains[top], "*", color=LABELS, markersize=15, zorder=5, label="best of all")
    axis.label(axes.xaxis)
    axes.set_ylabel("gain in points of mAP", color=INK)
    tidy(axes)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)


def _draw_map(
    figure: Figure, axes: Axes, names: Sequence[str], rows: Sequence[Any], gains: Float, spreads: Float, result: Any
) -> None:
    across, up = (_Axis(name, rows) for name in names)
    limit = float(np.abs(gains).max(initial=0.0)) or 1.0
    colours: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    x, y = (np.array([axis.at(row) for row in rows]) for axis in (across, up))
    top = int(gains.argmax())
    if across.single and up.single:
        cells = np.full((len(up.values), len(across.values)), np.nan)
        best = _best_of(rows, lambda row: (up.at(row), across.at(row)))
        for (at_y, at_x), number in best.items():
            cells[int(at_y), int(at_x)] = gains[number]
        drawn: Any = axes.imshow(cells, origin="lower", aspect="auto", **colours)
        if len(best) <= MOST_CELLS:
            for (at_y, at_x), number in best.items():
                text = f"{gains[number]:+.1f}\n±{spreads[number]:.1f}".replace("-", "−")
                dark = float(np.dot(drawn.to_rgba(gains[number])[:3], (0.299, 0.587, 0.114))) < 0.5
                weight = "bold" if number == best[up.at(rows[top]), across.at(rows[top])] else "normal"
                colour = "white" if dark else INK
                axes.text(at_x, at_y, text, ha="center", va="center", fontsize=8.5, color=colour, fontweight=weight)
    else:
        drawn = axes.scatter(x, y, c=gains, s=36, edgecolors=INK, linewidths=0.4, **colours)
    axes.plot(
        x[top],
        y[top],
        "s" if across.single and up.single else "*",
        markersize=30 if across.single and up.single else 17,
        markerfacecolor="none",
        markeredgecolor=LABELS,
        markeredgewidth=2.0,
    )
    across.label(axes.xaxis)
    up.label(axes.yaxis)
    tidy(axes)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label("gain in points of mAP, of the best setting here; ± one spread over resamples", color=INK, fontsize=9)
    bar.outline.set_visible(False)
