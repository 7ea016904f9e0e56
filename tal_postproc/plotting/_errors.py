"""What the detections of a test set are, what is missing, and what it costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .._checks import Float
from ..types import ERROR_KINDS, ErrorBreakdown, MissingExtraError
from ._common import DOTS_PER_INCH, INK, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2e7d4f", "#9fcfae", "#6f4fa0", "#f28e2b", "#c8443f", "#b8bec6")
PALE, MISSED = "#6b7178", "#39608f"
MOST_CLASSES = 20


def errors(
    breakdown: ErrorBreakdown,
    *,
    label: int | None = None,
    size: tuple[int, int] = (1200, 800),
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """A breakdown of errors in one picture, of all classes or of one.

    Above, to the left: what the best G detections of a class with G instances are, the next G, and so on; to the right
    the mAP that is gained when the errors of one kind are taken away.  Below, to the left: which part of the instances
    is missed, by their length, by the part of the video that they cover, and by how many there are.  Below, to the
    right: what the best G detections of every class are.

    Parameters
    ----------
    breakdown : ErrorBreakdown
        Of `diagnosis.error_breakdown`.
    label : int, optional
        The class to show.  Default: all; then below to the right the 20 classes with the lowest average precision.
    size : (int, int)
        In pixels, each at least 100.
    path : str or path, optional
        Where to write it: .png, .svg or .pdf.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ValueError
        If the breakdown has no class `label`.

    Examples
    --------
    >>> from tal_postproc import diagnosis
    >>> truth = {"video": ["a"], "labels": [0], "segments": [[0, 10]]}
    >>> figure = errors(diagnosis.error_breakdown({**truth, "scores": [1.0]}, truth))
    >>> [axes.get_title(loc="left") for axes in figure.axes][1]
    'mAP gained without them'
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "plotting.errors") from None

    if not isinstance(breakdown, ErrorBreakdown):
        raise TypeError(f"`breakdown` must be an ErrorBreakdown, got {type(breakdown).__name__}")
    width, height = (_checks.as_count(value, "size", at_least=100) for value in size)
    chosen = np.arange(len(breakdown.classes))
    if label is not None:
        chosen = np.flatnonzero(breakdown.classes == _checks.as_count(label, "label"))
        if not len(chosen):
            raise ValueError(f"`label` must be a class of the breakdown, got {label}")

    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    grid = figure.add_gridspec(
        2, 2, width_ratios=[3, 2], left=0.06, right=0.96, top=0.82, bottom=0.1, hspace=0.45, wspace=0.36
    )
    profile, gains = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    _draw_profile(profile, breakdown.counts[:-1, chosen].sum(axis=1))
    every = breakdown.gains[chosen].mean(axis=0) if len(chosen) else np.zeros(len(ERROR_KINDS) - 1)
    _draw_gains(gains, every, "AP" if label is not None else "mAP")
    _draw_missed(figure.add_subplot(grid[1, 0] if label is None else grid[1, :]), breakdown, chosen)
    if label is None:
        _draw_classes(figure.add_subplot(grid[1, 1]), breakdown)

    ap = breakdown.per_class[chosen].mean() if len(chosen) else 0.0
    title = "All classes" if label is None else breakdown.names[chosen[0]]
    detections, instances = int(breakdown.counts[:, chosen].sum()), int(breakdown.num_ground_truth[chosen].sum())
    figure.text(0.06, 0.955, title, fontsize=15, fontweight="bold", color=INK, va="center", parse_math=False)
    figure.text(
        0.06,
        0.918,
        f"{'mAP' if label is None else 'AP'} {100 * ap:.1f} % at tIoU {breakdown.tiou_threshold:g}, protocol "
        f"{breakdown.protocol}; {detections:,} detections, {instances:,} instances",
        fontsize=10,
        color=PALE,
        va="center",
        parse_math=False,
    )
    handles = [Patch(color=colour, label=kind) for kind, colour in zip(ERROR_KINDS, COLOURS)]
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(0.965, 0.955), ncols=3, frameon=False, labelcolor=INK
    )
    if path is not None:
        save(figure, path)
    return figure


def _head(axes: Axes, text: str, pad: int = 10) -> None:
    axes.set_title(text, loc="left", fontsize=11, color=INK, pad=pad)
    tidy(axes)


def _shares(counts: Any) -> Float:
    """In percent of each row; 0 where there is nothing."""
    return 100.0 * counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def _draw_profile(axes: Axes, counts: Any) -> None:
    """(M, 6) as stacked columns up to the last that holds any, the number of detections above each."""
    counts = counts[: max(np.flatnonzero(counts.sum(axis=1)).max(initial=0) + 1, 5)]
    shares = _shares(counts)
    at = np.arange(len(counts))
    for kind, colour in enumerate(COLOURS):
        axes.bar(at, shares[:, kind], bottom=shares[:, :kind].sum(axis=1), width=0.82, color=colour)
    for x, number in zip(at.tolist(), counts.sum(axis=1)):
        axes.text(x, 101.5, f"{number:,}", ha="center", va="bottom", fontsize=8, color=PALE)
    axes.set_xticks(at, ["G", *(f"{m}G" for m in at[1:] + 1)])
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
    _head(axes, "What the detections are, by rank (G: instances of their class)", pad=24)


def _draw_gains(axes: Axes, gains: Float, unit: str) -> None:
    """(5,) as bars, the first error on top."""
    at = np.arange(len(gains))
    points = 100.0 * gains
    axes.barh(at, points, color=COLOURS[1:], height=0.66)
    span = max(float(points.max(initial=0.0)), 1.0)
    for y, value in zip(at.tolist(), points):
        axes.text(
            max(value, 0.0) + 0.02 * span,
            y,
            f"+{value:.1f}" if value >= 0.05 else f"{value:.1f}",
            va="center",
            fontsize=10,
            color=INK,
        )
    axes.set_yticks(at, ERROR_KINDS[1:])
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.set_xlim(min(0.0, float(points.min(initial=0.0))), 1.18 * span)
    axes.set_xticks([])
    _head(axes, f"{unit} gained without them", pad=24)
    axes.spines["bottom"].set_visible(False)


def _draw_missed(axes: Axes, breakdown: ErrorBreakdown, chosen: Any) -> None:
    """Missed instances in percent, by all that they are sorted by."""
    titles = {"length": "length, s", "coverage": "part of the video, %", "instances": "number in the video"}
    start = 0
    ticks: list[tuple[float, str]] = []
    for name, one in breakdown.missed.items():
        total, missed = one.total[chosen].sum(axis=0), one.missed[chosen].sum(axis=0)
        for b, word in enumerate(one.bins):
            ticks.append((start + b, f"{word}\n{_range(one.ends, b, 100 if name == 'coverage' else 1)}"))
            if not total[b]:
                axes.text(start + b, 1, "–", ha="center", va="bottom", fontsize=9, color=PALE)
                continue
            share = 100.0 * missed[b] / total[b]
            axes.bar(start + b, share, width=0.82, color=MISSED, alpha=0.9)
            axes.text(start + b, share + 1.5, f"{share:.0f}", ha="center", va="bottom", fontsize=9, color=INK)
            axes.text(start + b, -23, f"{total[b]:,}", ha="center", va="top", fontsize=8, color=PALE)
        middle = start + (len(one.bins) - 1) / 2
        axes.text(middle, 116, f"by {titles[name]}", ha="center", va="top", fontsize=10, color=PALE)
        start += len(one.bins) + 1
    axes.set_xticks([x for x, _ in ticks], [word for _, word in ticks], fontsize=9)
    axes.set_xlim(-0.7, start - 1.3)
    axes.set_ylim(0, 118)
    axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
    _head(axes, "Missed instances (below: how many there are)")
    axes.tick_params(axis="x", labelsize=9)


def _range(ends: tuple[float, ...], b: int, factor: int) -> str:
    """What bin b holds."""
    return f">{factor * ends[-1]:g}" if b == len(ends) else f"≤{factor * ends[b]:g}"


def _draw_classes(axes: Axes, breakdown: ErrorBreakdown) -> None:
    """The best G detections of the classes with the lowest average precision, the lowest on top."""
    worst = np.argsort(breakdown.per_class, kind="stable")[:MOST_CLASSES]
    shares = _shares(breakdown.counts[0, worst])
    at = np.arange(len(worst))
    for kind, colour in enumerate(COLOURS):
        axes.barh(at, shares[:, kind], left=shares[:, :kind].sum(axis=1), height=0.82, color=colour)
    for y, value in zip(at.tolist(), breakdown.per_class[worst]):
        axes.text(102, y, f"{100 * value:.0f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(at, [breakdown.names[k] for k in worst], fontsize=8, parse_math=False)
    axes.set_ylim(max(len(worst), 1) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    more = "" if len(worst) == len(breakdown.classes) else f", the worst {len(worst)}"
    _head(axes, f"The best G of every class{more}; right: AP")
    axes.tick_params(axis="y", labelsize=8)
