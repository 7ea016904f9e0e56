"""Everything about one video over time, in one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import Float
from ..types import LabelState, MissingExtraError, Segments, Video
from ._common import ACTIVATION, ATTENTION, DOTS_PER_INCH, IGNORED, INK, LABELS, TRUTH, lanes, rows_of, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANES = 3  # overlapping detections of one row are drawn side by side, up to this many


def _choose_label(
    video: Video, truth: Segments | None, found: Mapping[str, Segments], maps: Mapping[str, NDArray[Any]]
) -> int:
    """The class with most annotations; without any, that of the best detection, or with most labels; else class 0."""
    if truth is not None and len(truth):
        return int(np.bincount(truth.labels).argmax())
    best = [(rows.scores.max(), -i, rows) for i, rows in enumerate(found.values()) if len(rows)]
    if best:
        rows = max(best, key=lambda item: item[:2])[2]
        return int(rows.labels[rows.scores.argmax()])
    sums = [np.abs(values).sum(axis=0) for values in maps.values() if values.ndim == 2 and values.size]
    return int(sums[0].argmax()) if sums else 0


def _column(values: NDArray[Any], label: int, name: str) -> Float:
    """The column of the class, or the whole of a map that tells no classes apart."""
    if values.ndim == 2 and label >= values.shape[1]:
        raise ValueError(f"`label` must be below {values.shape[1]}, the columns of {name}, got {label}")
    return _checks.as_values(values if values.ndim == 1 else values[:, label], None, name, per="snippet")


def _draw_activation(axes: Axes, video: Video, label: int, map_name: str) -> None:
    """The class's column of the map as an area, and the attention as a line."""
    column = _column(np.asarray(video.maps[map_name]), label, f"maps[{map_name!r}]")
    edges = np.arange(len(column) + 1) * float(video.seconds_per_snippet or 1.0)
    axes.stairs(column, edges, fill=True, color=ACTIVATION, alpha=0.85, linewidth=0, label=f"{map_name} of this class")
    attention = video.maps.get("attention")
    if map_name != "attention" and attention is not None and attention.ndim == 1:
        axes.stairs(attention, edges, baseline=None, color=ATTENTION, linewidth=0.9, label="attention")
    axes.set_ylim(min(0.0, float(column.min(initial=0.0))), max(1.0, float(column.max(initial=0.0))) * 1.02)
    axes.set_yticks([0.0, 0.5, 1.0])
    tidy(axes)
    axes.tick_params(labelbottom=False)


def _draw_labels(axes: Axes, name: str, column: Float, tri_state: bool, step: float) -> bool:
    """One label map as an area with its largest value at the right, a tri-state one as bands; was anything ignored?"""
    edges = np.arange(len(column) + 1) * step
    ignored = tri_state & (column == LabelState.IGNORE)
    axes.stairs(ignored, edges, fill=True, color=IGNORED, linewidth=0)
    axes.stairs(np.where(ignored, 0.0, column), edges, fill=True, color=LABELS, linewidth=0)
    least, most = float(column.min(initial=0.0)), float(column.max(initial=0.0))
    low, high = (0.0, 1.0) if tri_state or least == most else (least, most)
    axes.set_ylim(low, high + 0.08 * (high - low))
    axes.set_yticks([(low + high) / 2], [name])
    if not tri_state:
        axes.annotate(
            f"{most:.3g}",
            xy=(1.0, high),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
        )
    tidy(axes)
    return bool(ignored.any())


def timeline(
    video: Video,
    detections: Mapping[str, Segments],
    ground_truth: Segments | None = None,
    *,
    label_maps: Mapping[str, ArrayLike] | None = None,
    label: int | None = None,
    classes: Sequence[str] | None = None,
    map_name: str = "cas",
    max_detections: int | None = None,
    spreads: bool = False,
    between: tuple[float, float] | None = None,
    size: tuple[int, int] = (1200, 600),
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """One class of one video over time: its activation, the truth, what several methods found, and pseudo labels.

    The upper part shows the class's column of the map and the attention; below, one row holds the annotated instances
    (their extent is shaded through the whole picture) and one row per method its detections, darker for a higher
    score.  Detections that overlap each other are drawn in up to three lanes.  Label maps follow, one row each.

    Parameters
    ----------
    video : Video
        With the map `map_name` and ``seconds_per_snippet``.
    detections : mapping of str to Segments
        Name of a method to what it found, in seconds: of many videos, from which `video` is picked by its id, or of
        one unnamed video.  Drawn from top to bottom; may be empty.
    ground_truth : Segments, optional
        In seconds, of this or of many videos.
    label_maps : mapping of str to (T, K) or (T,) array_like, optional
        Name of a way to make labels to what it made.  A map of real numbers is an area on a scale of its own, whose
        largest value stands at the right (differences of labels may be negative); one of integers is tri-state, the
        codes of `LabelState`: snippets to ignore are pale.
    label : int, optional
        The class to show.  Default: the one with most annotations in this video, else that of the best
        detection, else the one with most labels, else 0.
    classes : sequence of str, optional
        Names of the classes, for the title.
    map_name : str
        The map in the upper part, (T, K) or (T,).
    max_detections : int, optional
        Draw only the best of each method.
    spreads : bool, default False
        Whether detections with the columns ``start_std`` and ``end_std``, which a fusion leaves, get a line over each
        end that reaches one standard deviation to both sides.
    between : pair of float, optional
        First and last second to show.  Default: the whole video.
    size : pair of int
        Width and height in pixels.
    path : path-like, optional
        Where to save it; the suffix (``.png``, ``.svg``, ``.pdf``) says the format.  The file appears whole or not
        at all.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot: nothing global is touched, no display is needed.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    UnitError
        If detections or ground truth are not in seconds.
    ValueError
        If the video lacks the map or its timing, if a label map has another length or is not finite, or if `label` or
        `between` is out of range.

    Examples
    --------
    >>> from tal_postproc import synthetic
    >>> data = synthetic.make_videos(1, seed=0)
    >>> figure = timeline(data.videos[0], {}, data.ground_truth, classes=data.classes)
    >>> [int(v) for v in figure.get_size_inches() * figure.dpi]
    [1200, 600]
    """
    try:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "plotting.timeline") from None

    if map_name not in video.maps:
        raise ValueError(f"`video` has no map {map_name!r}, got {', '.join(map(repr, video.maps))}")
    if video.seconds_per_snippet is None:
        raise ValueError(f"`video` {video.id!r} needs seconds_per_snippet")
    step = video.seconds_per_snippet
    length = video.duration or video.num_snippets * step
    first, last = (0.0, length) if between is None else map(float, between)
    if not 0.0 <= first < last:
        raise ValueError(f"`between` must rise from 0 or more, got {between}")
    if max_detections is not None:
        max_detections = _checks.as_count(max_detections, "max_detections", at_least=1)
    spreads = _checks.as_flag(spreads, "spreads")
    width, height = (_checks.as_count(value, "size", at_least=100) for value in size)

    found = {name: rows_of(rows, video, f"detections[{name!r}]") for name, rows in detections.items()}
    truth = None if ground_truth is None else rows_of(ground_truth, video, "ground_truth")
    maps = {
        name: _checks.as_map(values, f"label_maps[{name!r}]", length=video.num_snippets)
        for name, values in (label_maps or {}).items()
    }
    label = _choose_label(video, truth, found, maps) if label is None else _checks.as_count(label, "label")
    if classes is not None and label >= len(classes):
        raise ValueError(f"`classes` must name class {label}, got {len(classes)} names")
    shown = {}
    for name, rows in found.items():
        of_class = rows.select(rows.labels == label)
        order = np.argsort(-of_class.scores, kind="stable")[:max_detections]
        shown[name] = of_class.select(order)
    instances = np.empty((0, 2)) if truth is None else truth.segments[truth.labels == label]

    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    name_space = min(0.3, 0.02 + 0.0075 * max(map(len, [*shown, *maps, "ground truth"])) * 1200 / width)
    grid = figure.add_gridspec(
        2 + len(maps),
        1,
        height_ratios=[2, 0.6 + len(shown), *[0.8] * len(maps)],
        left=name_space,
        right=0.93,
        top=0.86,
        bottom=60 / height,
        hspace=0.06 + 0.04 * len(maps),
    )
    above = figure.add_subplot(grid[0])
    below, *rest = (figure.add_subplot(grid[row], sharex=above) for row in range(1, 2 + len(maps)))
    for axes in (above, below, *rest):
        for start, end in instances:
            axes.axvspan(start, end, color=TRUTH, alpha=0.12, linewidth=0)
    _draw_activation(above, video, label, map_name)
    ignored = [
        _draw_labels(axes, name, _column(values, label, f"label_maps[{name!r}]"), values.dtype.kind in "iu", step)
        for axes, (name, values) in zip(rest, maps.items())
    ]

    values = np.concatenate([np.zeros(1), *(rows.scores for rows in shown.values())])
    norm = Normalize(float(values.min()), float(values.max()) if values.max() > values.min() else 1.0)
    colours = LinearSegmentedColormap.from_list("scores", ["#d3e0f0", "#6d9dcf", "#08306b"])
    below.barh(
        np.zeros(len(instances)), instances[:, 1] - instances[:, 0], left=instances[:, 0], height=0.45, color=TRUTH
    )
    for y, rows in enumerate(shown.values(), start=1):
        at_lane = lanes(rows.segments, np.argsort(-rows.scores, kind="stable"), LANES)
        bar = 0.72 / LANES
        worst_first = slice(None, None, -1)  # so that the best is drawn last, on top
        below.barh(
            (y - 0.36 + (at_lane + 0.5) * bar)[worst_first],
            (rows.segments[:, 1] - rows.segments[:, 0])[worst_first],
            left=rows.segments[worst_first, 0],
            height=0.85 * bar,
            color=colours(norm(rows.scores))[worst_first],
        )
        for at, std in zip(rows.segments.T, ("start_std", "end_std")):
            if spreads and std in rows.columns:
                around = rows.columns[std]
                below.hlines(y - 0.36 + (at_lane + 0.5) * bar, at - around, at + around, color=INK, linewidth=0.9)
        below.axhline(y - 0.5, color="#e3e6ea", linewidth=0.8, zorder=0)
    below.set_ylim(len(shown) + 0.5, -0.5)
    below.set_yticks(range(len(shown) + 1), ["ground truth", *shown])
    tidy(below)
    for axes in (below, *rest)[:-1]:
        axes.tick_params(labelbottom=False)
    lowest = (below, *rest)[-1]
    lowest.set_xlim(first, last)
    lowest.set_xlabel("seconds", color=INK)

    title = f"class {label}" if classes is None else str(classes[label])
    figure.text(name_space, 0.94, title, fontsize=15, fontweight="bold", color=INK, va="center", parse_math=False)
    figure.text(name_space, 0.89, video.id, fontsize=10, color="#6b7178", va="center", parse_math=False)
    handles, _ = above.get_legend_handles_labels()
    if len(instances):
        handles.append(Patch(color=TRUTH, label="ground truth"))
    if maps:
        handles.append(Patch(color=LABELS, label="pseudo labels"))
    if any(ignored):
        handles.append(Patch(color=IGNORED, label="ignored"))
    figure.legend(
        handles=handles,
        loc="center right",
        bbox_to_anchor=(0.935, 0.92),
        ncols=len(handles),
        frameon=False,
        labelcolor=INK,
    )
    if len(values) > 1:
        box = below.get_position()
        bar_axes = figure.add_axes((0.945, box.y0, 0.01, box.height))
        scale = figure.colorbar(ScalarMappable(norm, colours), cax=bar_axes)
        scale.set_label("score", color=INK)
        scale.outline.set_visible(False)
        scale.ax.tick_params(length=0, colors=INK, labelsize=9)
    if path is not None:
        save(figure, path)
    return figure
