"""The scene of a video as one page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._files import atomic_write
from ..tracing import Trace
from ..types import Segments, Video
from ._strips import AREA_COLOURS, HEAT, STYLES, Scene, Strip, columns_of, scene_of

MOST_VALUES = 4096  # of a strip: the pixels of a wide screen
_TEMPLATE = Path(__file__).with_name("page.html")


def video_page(
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
    path: str | os.PathLike[str] | None = None,
) -> str:
    """The picture of `video_timeline` as a page that zooms, moves, and tells what is pointed at.

    It is one HTML file with its script inside: it opens without a server or a network, and its content security
    policy forbids it to load anything.  Pointing at a detection marks the proposals that it is made of, pointing at a
    proposal marks its detection.  This needs no matplotlib.

    Parameters
    ----------
    video, trace, detections, ground_truth, label_maps, labels, top, classes, map_name, tiou_threshold
        As for `video_timeline`.  Names may hold any characters: they are text, never markup.
    path : path-like, optional
        Where to save it; the suffix is ``.html``.  The file appears whole or not at all.

    Returns
    -------
    str
        The page.  Activations are kept in 256 steps and times in milliseconds; the same input gives the
        same text.

    Raises
    ------
    UnitError, ValueError
        As for `video_timeline`.

    Examples
    --------
    >>> from tal_postproc import PostProcessor, synthetic
    >>> data = synthetic.make_videos(1, seed=0)
    >>> trace = PostProcessor.from_preset("gaufuse").trace(data.videos[0])
    >>> page = video_page(data.videos[0], trace, ground_truth=data.ground_truth, classes=data.classes)
    >>> page.startswith("<!DOCTYPE html>")
    True
    """
    if path is not None:
        _checks.as_choice(Path(path).suffix.lower(), "path", (".html",))
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
    data = json.dumps(_content(scene), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    before, between, after = _TEMPLATE.read_text(encoding="utf-8").replace("@TITLE@", "@SCENE@").split("@SCENE@")
    title = html.escape(scene.title.encode("utf-8", "replace").decode())
    page = before + title + between + data.replace("<", "\\u003c") + after
    if path is not None:
        with atomic_write(path) as file:
            file.write(page)
    return page


def _content(scene: Scene) -> dict[str, Any]:
    """What the script draws; the rectangles in columns, the extents of instances first."""
    rects = sorted(scene.rects, key=lambda rect: rect[4] != "shade")
    names = list(dict.fromkeys(rect[4] for rect in rects))
    places = {name: place for place, name in enumerate(names)}
    columns = list(zip(*rects)) or [()] * 6
    return {
        "title": scene.title,
        "subtitle": scene.subtitle,
        "length": _rounded(scene.length),
        "height": _rounded(scene.height),
        "classes": scene.classes,
        "styles": STYLES,
        "legend": scene.legend(),
        "heat": [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in HEAT],
        "areas": AREA_COLOURS,
        "strips": [_packed(strip) for strip in scene.strips],
        "texts": [[_rounded(y), *rest] for y, *rest in scene.texts],
        "rects": {
            **{name: list(map(_rounded, column)) for name, column in zip(("x0", "x1", "y", "h"), columns)},
            "style": [places[style] for style in columns[4]],
            "item": list(columns[5]),
            "names": names,
            "shades": sum(style == "shade" for style in columns[4]),
        },
        "items": [
            {name: _rounded(value) for name, value in item.items() if value not in (None, [])} for item in scene.items
        ],
    }


def _rounded(value: Any) -> Any:
    """Three decimals, of what is below 1 five digits."""
    if not isinstance(value, float):
        return value
    value = float(f"{value:.3f}") if abs(value) >= 1.0 else float(f"{value:.5g}")
    return int(value) if value.is_integer() else value


def _packed(strip: Strip) -> dict[str, Any]:
    """A strip with its values in 256 steps from the lowest to the highest; of very many, the largest of neighbours."""
    edges, values = strip.edges, strip.values
    if len(values) > MOST_VALUES:
        edges = np.linspace(edges[0], edges[-1], MOST_VALUES + 1)
        values = columns_of(strip, edges[0], edges[-1], MOST_VALUES)
    even = np.linspace(edges[0], edges[-1], len(edges))
    steps = np.clip((values - strip.low) / (strip.high - strip.low) * 255.0, 0.0, 255.0).round().astype(np.uint8)
    return {
        "kind": strip.kind,
        "name": strip.name,
        "y": _rounded(strip.y),
        "height": strip.height,
        "low": _rounded(strip.low),
        "high": _rounded(strip.high),
        "edges": [_rounded(edge) for edge in (edges[[0, -1]] if np.allclose(edges, even) else edges).tolist()],
        "values": base64.b64encode(steps.tobytes()).decode("ascii"),
    }
