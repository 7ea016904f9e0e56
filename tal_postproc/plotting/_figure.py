"""The scene of a video as a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from ..tracing import Trace
from ..types import MissingExtraError, Segments, Video
from ._common import DOTS_PER_INCH, INK, save, tidy
from ._strips import AREA_COLOURS, HEAT, STYLES, Scene, Strip, columns_of, scene_of, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, BELOW = 158, 84, 46  # pixels around what is drawn
ENTRY = 134  # pixels of an entry of the legend, on average
MOST_VECTORS = 3000  # rectangles; more are drawn as pixels, for the size of an SVG or a PDF


def video_timeline(
    video: Video,
    trace: Trace | None = None,
    detections: Mapping[str, Segments] | None = None,
    ground_truth: Segments | None = None,
    *,
    label_maps: Mapping[str, ArrayLike] | None = None,
    labels: Sequence[int] | None = None,
    top: int = 3,
    classes: Sequence[str] | None = None,
    map_name: str = "cas",
    tiou_threshold: float = 0.5,
    between: tuple[float, float] | None = None,
    width: int = 1200,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """What a pipeline made of a video, class by class: from the activation to detections and labels.

    Every class has its activation as a strip of colours (one scale for all classes), what the thresholds are compared
    with, as an area with a line per threshold, the annotated instances, all proposals, darker for a higher score, and
    the detections, with the proposals that each is made of below it and the spread of its ends on it.  Detections of
    others and label maps follow, one row each.

    Parameters
    ----------
    video : Video
        With the map `map_name` and ``seconds_per_snippet``; a time warp is followed.
    trace : Trace, optional
        Of this video: `PostProcessor.trace`, or `Trace.of_fusion`.  Without it there are neither proposals nor
        thresholds.
    detections : mapping of str to Segments, optional
        Name of a method to what it found, in seconds: of many videos, from which `video` is picked by its id, or of
        one unnamed video.
    ground_truth : Segments, optional
        In seconds, of this or of many videos.  An instance that no method finds is drawn as missed.
    label_maps : mapping of str to (T, K) or (T,) array_like, optional
        Name of a way to make labels to what it made; integers are tri-state (`LabelState`).
    labels : sequence of int, optional
        The classes to draw, in this order.
    top : int, default 3
        Without `labels`, draw at most so many classes: annotated ones, the most frequent first, then detected ones by
        their best score; where there is neither, the class with the highest activation.
    classes : sequence of str, optional
        Names of the classes.
    map_name : str
        The map of the strips, (T, K) or (T,).
    tiou_threshold : float, default 0.5
        In (0, 1].  Detections are matched as the ActivityNet evaluator does: within a class, the best first, each
        takes the free instance that it overlaps most, if that is at least the threshold.
    between : pair of float, optional
        First and last second to show.  Default: the whole video.
    width : int, default 1200
        In pixels; the height follows from what there is to show.
    path : path-like, optional
        Where to save it; the suffix (``.png``, ``.svg``, ``.pdf``) says the format.  The file appears whole or not
        at all, and its bytes depend on what is drawn only.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot: no display is needed.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    UnitError
        If detections or ground truth are not in seconds.
    ValueError
        If the video lacks the map or its timing, a label map has another length, or an option is out of range.

    See Also
    --------
    video_page : the same as a page to zoom in.

    Examples
    --------
    >>> from tal_postproc import PostProcessor, synthetic
    >>> data = synthetic.make_videos(1, seed=0)
    >>> trace = PostProcessor.from_preset("gaufuse").trace(data.videos[0])
    >>> figure = video_timeline(data.videos[0], trace, ground_truth=data.ground_truth, classes=data.classes)
    >>> int(figure.get_size_inches()[0] * figure.dpi)
    1200
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "plotting.video_timeline") from None

    width = _checks.as_count(width, "width", at_least=400)
    scene = scene_of(
        video,
        trace,
        detections,
        ground_truth,
        label_maps=label_maps,
        labels=labels,
        top=top,
        classes=classes,
        map_name=map_name,
        tiou_threshold=tiou_threshold,
    )
    first, last = (0.0, scene.length or 1.0) if between is None else map(float, between)
    if not 0.0 <= first < last:
        raise ValueError(f"`between` must rise from 0 or more, got {between}")
    per_row = max(1, (width - 32) // ENTRY)
    above = 68 + 18 * -(-len(scene.legend()) // per_row)
    height = above + scene.height + BELOW
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes(
        (LEFT / width, BELOW / height, (width - LEFT - RIGHT) / width, max(scene.height, 1.0) / height)
    )
    for strip in scene.strips:
        _draw_strip(axes, strip, first, last, 2 * (width - LEFT - RIGHT))
    _draw_rects(axes, scene, first, last)
    axes.set_xlim(first, last)
    axes.set_ylim(max(scene.height, 1.0), 0.0)
    axes.set_yticks([])
    tidy(axes)
    axes.set_xlabel("seconds", color=INK)
    _write(figure, scene, width, height, above, per_row)
    if path is not None:
        save(figure, path)
    return figure


def _draw_strip(axes: Axes, strip: Strip, first: float, last: float, count: int) -> None:
    """Largest values per half pixel, so that no peak is lost; as colours, or as an area."""
    from matplotlib.colors import LinearSegmentedColormap

    values = columns_of(strip, first, last, count)
    if strip.kind == "heat":
        axes.imshow(
            values[None],
            cmap=LinearSegmentedColormap.from_list("heat", HEAT),
            vmin=strip.low,
            vmax=strip.high,
            extent=(first, last, strip.y + strip.height, strip.y),
            aspect="auto",
            interpolation="nearest",
        )
        return
    span = strip.high - strip.low
    bottom = strip.y + strip.height * (1.0 + strip.low / span)
    edges = np.linspace(first, last, count + 1)
    changes = np.flatnonzero(np.append(True, np.diff(np.nan_to_num(values)) != 0.0))  # one step per value
    axes.stairs(
        bottom - strip.height * np.nan_to_num(values[changes]) / span,
        np.append(edges[changes], last),
        baseline=bottom,
        fill=True,
        color=AREA_COLOURS[strip.kind],
        linewidth=0,
        alpha=0.8,
    )
    axes.hlines([bottom], first, last, color="#c8ccd1", linewidth=0.5)


def _draw_rects(axes: Axes, scene: Scene, first: float, last: float) -> None:
    """Rectangles of one style together; whatever lies outside of what is shown is left out."""
    from matplotlib.collections import PolyCollection

    groups: dict[str, list[Any]] = {}
    least = (last - first) / 1500  # a segment without length is seen, too
    for x0, x1, y, height, style, _ in scene.rects:
        if x1 >= first and x0 <= last:
            right = max(x1, x0 + least)
            corners = [(x0, y), (right, y), (right, y + height), (x0, y + height)]
            groups.setdefault(style, []).append(corners)
    many = sum(map(len, groups.values())) > MOST_VECTORS
    for number, (style, corners) in enumerate(sorted(groups.items(), key=lambda group: list(STYLES).index(group[0]))):
        fill, outline, dashed, _ = STYLES[style]
        axes.add_collection(
            PolyCollection(
                corners,
                facecolors=fill or "none",
                edgecolors=outline or "none",
                linewidths=0.8 if outline else 0.0,
                linestyles="dashed" if dashed else "solid",
                zorder=-1.0 if style == "shade" else 2.0 + 0.01 * number,
                rasterized=many and style != "shade",
                snap=False if style in ("threshold", "member", "spread") else None,  # what is thin must not vanish
            ),
            autolim=False,
        )


def _write(figure: Figure, scene: Scene, width: float, height: float, above: float, per_row: int) -> None:
    """Title, legend, and the names at the sides."""
    from matplotlib.patches import Patch

    def text(x: float, y: float, words: str, size: float, room: float, **style: Any) -> float:
        """Write so much of the words as there is room for; the pixels that they take."""
        style = {"color": INK, "va": "center", **style}
        made = figure.text(x / width, 1.0 - y / height, words, fontsize=size, parse_math=False, **style)
        while (taken := made.get_window_extent().width) > room and len(words) > 1:
            words = shortened(words, max(1, min(len(words) - 1, int(len(words) * room / taken))))
            made.set_text(words)
        return taken

    text(16, 22, scene.title, 14, width - 32, fontweight="bold")
    text(16, 44, scene.subtitle, 9, width - 32, color="#555b63")
    for y, words, kind in scene.texts:
        at = above + y
        if kind == "class":
            name, counts = words.split("\n")
            taken = text(width - 16, at, counts, 8.5, 0.6 * width, color="#555b63", ha="right")
            text(16, at, name, 11, width - taken - 52, fontweight="bold")
        elif kind == "row":
            text(LEFT - 10, at, words, 8.5, LEFT - 14, ha="right")
        else:
            text(width - RIGHT + 6, at, words, 7.5, RIGHT - 8)
    handles = []
    for style in scene.legend():
        fill, outline, dashed, words = STYLES[style]
        handles.append(Patch(facecolor=fill, edgecolor=outline or fill, linewidth=0.8, label=words))
        handles[-1].set_linestyle("dashed" if dashed else "solid")
    if handles:
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(8 / width, 1.0 - 50 / height),
            ncols=min(per_row, len(handles)),
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            handlelength=1.4,
            columnspacing=1.2,
        )
