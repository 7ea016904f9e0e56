"""A video class by class, laid out once for a figure and for a page: time in seconds across, pixels down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import Float, Int
from ..evaluation import mean_average_precision
from ..proposals import segments_to_seconds
from ..tracing import ThresholdedSignal, Trace
from ..types import LabelState, Segments, Video
from ._common import ACTIVATION, IGNORED, LABELS, TRUTH, lanes, rows_of

MATCHED, FALSE, PLAIN = "#0072b2", "#c04a00", "#56606b"
HEAT = ("#fff8ef", "#fdc48a", "#e8711a", "#7a2c02")  # of activations, low to high
BLUES = ("#cfdff1", "#6d9dcf", "#08306b")  # of scores
LEVELS = 16  # shades of the scores
SHADES = np.round(
    [[np.interp(at, np.linspace(0, 1, len(BLUES)), [int(one[i : i + 2], 16) for one in BLUES]) for i in (1, 3, 5)]
     for at in np.linspace(0, 1, LEVELS)]
).astype(int)  # fmt: skip
# name: fill, outline, is the outline dashed?, words of the legend
STYLES: dict[str, tuple[str | None, str | None, bool, str]] = {
    "shade": ("#e6f1ea", None, False, ""),
    "threshold": ("#1f232866", None, False, "threshold"),
    "truth": (TRUTH, TRUTH, False, "ground truth"),
    "missed": ("#ffffff", TRUTH, True, "missed"),
    "matched": (MATCHED, MATCHED, False, "matched"),
    "false": ("#fbe3d3", FALSE, False, "false"),
    "plain": (PLAIN, PLAIN, False, "detection"),
    "member": ("#7c8794", None, False, "its proposals"),
    "spread": ("#1f2328", None, False, "spread of an end"),
    **{f"score{i}": ("#{:02x}{:02x}{:02x}".format(*rgb), None, False, "") for i, rgb in enumerate(SHADES)},
    "score": (BLUES[1], None, False, "proposal, darker: higher score"),
}
MOST_LANES = {"truth": 6, "proposals": 48, "detections": 16}
LONGEST_NAME, LONGEST_CLASS = 22, 90  # characters that are shown


class Strip(NamedTuple):
    """Values over time between two heights: as colours, or as an area."""

    kind: str  # "heat", "activation", "labels", "ignored"
    name: str
    y: float
    height: float
    edges: Float  # (T + 1,) seconds
    values: Float  # (T,)
    low: float
    high: float


@dataclass
class Scene:
    """All that there is to draw."""

    title: str
    subtitle: str
    length: float
    height: float = 0.0
    classes: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    rects: list[tuple[float, float, float, float, str, int]] = field(default_factory=list)  # x0, x1, y, h, style, item
    texts: list[tuple[float, str, str]] = field(default_factory=list)  # y, words, "class" | "row" | "value"
    items: list[dict[str, Any]] = field(default_factory=list)  # what can be pointed at

    def legend(self) -> list[str]:
        """Styles in use that have words, in the order of `STYLES`."""
        used = {rect[4].rstrip("0123456789") for rect in self.rects}
        return [style for style, (_, _, _, words) in STYLES.items() if words and style in used]


class _Method(NamedTuple):
    """One method's detections of the video, in seconds, and for each the instance that it takes, -1 for none."""

    name: str
    rows: Segments
    taken: Int
    trace: Trace | None = None


def shortened(text: str, most: int) -> str:
    """Text of one line, with an ellipsis where it is longer than that."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def scene_of(
    video: Video,
    trace: Trace | None,
    detections: Mapping[str, Segments] | None,
    ground_truth: Segments | None,
    *,
    label_maps: Mapping[str, ArrayLike] | None,
    labels: Sequence[int] | None,
    top: int,
    classes: Sequence[str] | None,
    map_name: str,
    tiou_threshold: float,
) -> Scene:
    """Arguments of `video_timeline`, checked and laid out."""
    if map_name not in video.maps:
        raise ValueError(f"`video` has no map {map_name!r}, got {', '.join(map(repr, video.maps))}")
    if video.seconds_per_snippet is None:
        raise ValueError(f"`video` {video.id!r} needs seconds_per_snippet")
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"`trace` must be a Trace (see PostProcessor.trace), got {type(trace).__name__}")
    tiou = _checks.as_tiou_threshold(tiou_threshold, inclusive=True)
    top = _checks.as_count(top, "top", at_least=1)
    values = np.asarray(video.maps[map_name])
    activation = _checks.as_columns(values[:, None] if values.ndim == 1 else values, None, f"maps[{map_name!r}]")
    maps = {
        name: _checks.as_map(one, f"label_maps[{name!r}]", length=video.num_snippets)
        for name, one in (label_maps or {}).items()
    }
    truth = None if ground_truth is None else rows_of(ground_truth, video, "ground_truth")
    methods = []
    if trace is not None:
        methods.append(_matched("detections", _in_seconds(trace.detections, video), truth, tiou, trace))
    for name, rows in (detections or {}).items():
        methods.append(_matched(name, rows_of(rows, video, f"detections[{name!r}]"), truth, tiou, None))
    if labels is None:
        telling = _telling_classes(truth, methods, activation)
        shown = telling[:top]
    else:
        shown = [_checks.as_count(label, "labels") for label in labels]
    for label in shown:
        if classes is not None and label >= len(classes):
            raise ValueError(f"`classes` must name class {label}, got {len(classes)} names")
        if values.ndim == 2 and label >= values.shape[1]:
            raise ValueError(f"`labels` must be below {values.shape[1]}, the columns of {map_name!r}, got {label}")

    edges, step = _edges(video, video.num_snippets), video.seconds_per_snippet
    length = max(float(video.duration or 0.0), float(edges[-1]))
    words = f"{length:.4g} s, {video.num_snippets} snippet{'' if video.num_snippets == 1 else 's'} of {step:.4g} s"
    if truth is not None and methods:
        words += f"; matched: tIoU of at least {tiou:g}"
    if labels is None and len(telling) > len(shown):
        words += f"; {len(shown)} of {len(telling)} classes"
    scene = Scene(shortened(video.id, LONGEST_CLASS) or "video", words, length)
    drawn = activation if values.ndim == 1 else activation[shown]
    scale = min(0.0, float(drawn.min(initial=0.0))), float(drawn.max(initial=0.0)) or 1.0
    proposals = None if trace is None else _in_seconds(trace.proposals, video)
    y = 0.0
    for label in shown:
        name = f"class {label}" if classes is None else str(classes[label])
        block = _Block(scene, video, label, truth, y)
        scene.classes.append(shortened(name, LONGEST_CLASS))
        block.head(methods, proposals)
        block.heat(map_name, edges, activation[0 if values.ndim == 1 else label], *scale)
        block.thresholds(trace, edges, activation[0 if values.ndim == 1 else label])
        block.instances(methods)
        first_item = block.proposals(trace, proposals)
        for method in methods:
            block.detections(method, proposals, first_item)
        block.labels(maps, edges)
        block.close()
        y = block.y + 14.0
    scene.height = y
    return scene


def _edges(video: Video, steps: int) -> Float:
    """(steps + 1,) seconds at which equal parts of the video begin and end."""
    snippets = np.arange(steps + 1) * (video.num_snippets / max(steps, 1))
    both = np.column_stack([snippets, snippets])
    return segments_to_seconds(both, video.seconds_per_snippet or 1.0, warp=video.warp)[:, 0]


def _in_seconds(rows: Segments, video: Video) -> Segments:
    """Rows of a trace in seconds, their spreads too, which go through no warp."""
    step = video.seconds_per_snippet or 1.0
    if rows.unit == "relative":
        return rows.replace(segments=rows.segments * (video.duration or video.num_snippets * step), unit="second")
    if rows.unit == "second":
        return rows
    return rows.to_seconds(step).replace(segments=segments_to_seconds(rows.segments, step, warp=video.warp))


def _matched(name: str, rows: Segments, truth: Segments | None, tiou: float, trace: Trace | None) -> _Method:
    """As the ActivityNet evaluator matches: best first, each takes the free instance that it overlaps most."""
    taken = np.full(len(rows), -1)
    if truth is not None and len(truth) and len(rows):
        one = mean_average_precision(
            rows.replace(video_ids=(), columns={}), truth.replace(video_ids=(), columns={}), tiou_thresholds=[tiou]
        )
        taken = np.maximum(cast(Int, one.matches)[0], -1)
    return _Method(name, rows, taken, trace)


def _telling_classes(truth: Segments | None, methods: Sequence[_Method], activation: Float) -> list[int]:
    """Annotated classes, the most frequent first, then detected ones by their best score; else that of the peak."""
    ranks: dict[int, tuple[int, float]] = {}
    for method in methods:
        for label, score in zip(method.rows.labels.tolist(), method.rows.scores.tolist()):
            ranks[label] = max(ranks.get(label, (1, score)), (1, score))
    if truth is not None:
        for label, count in zip(*(column.tolist() for column in np.unique(truth.labels, return_counts=True))):
            ranks[label] = (2, float(count))
    if not ranks and activation.size:
        return [int(activation.max(axis=1).argmax())]
    return sorted(ranks, key=lambda label: (-ranks[label][0], -ranks[label][1], label))


def _shades(scores: Float, low: float, high: float) -> Int:
    """The shade of every score, 0 to LEVELS - 1."""
    return np.clip((scores - low) / ((high - low) or 1.0) * LEVELS, 0, LEVELS - 1).astype(np.int64)


class _Block:
    """The rows of one class, from top to bottom; `y` is where the next one begins."""

    def __init__(self, scene: Scene, video: Video, label: int, truth: Segments | None, y: float) -> None:
        self.scene, self.video, self.label, self.truth, self.y = scene, video, label, truth, y
        self.first = len(scene.rects)
        self.top = y + 22.0
        self.spans: list[tuple[float, float, int]] = []

    def _row(self, name: str, height: float) -> float:
        """Room for a row, with its name; where it begins."""
        y = self.y
        self.scene.texts.append((y + height / 2, shortened(name, LONGEST_NAME), "row"))
        self.y += height + 5.0
        return y

    def head(self, methods: Sequence[_Method], proposals: Segments | None) -> None:
        name, truth, counts = self.scene.classes[-1], self.truth, []
        own = np.zeros(0, bool) if truth is None else truth.labels == self.label
        if truth is not None:
            counts.append(f"{own.sum()} instance{'' if own.sum() == 1 else 's'}")
        for method in methods:
            mine = method.rows.labels == self.label
            words = f"{mine.sum()} {method.name if method.name == 'detections' else 'of ' + method.name}"
            hits = int((method.taken[mine] >= 0).sum())
            counts.append(words if truth is None else f"{words}, {hits} matched")
        if proposals is not None:
            counts.append(f"{(proposals.labels == self.label).sum()} proposals")
        self.scene.texts.append((self.y + 9.0, "\n".join([name, shortened("; ".join(counts), 160)]), "class"))
        self.y = self.top

    def heat(self, name: str, edges: Float, values: Float, low: float, high: float) -> None:
        y = self._row(name, 14.0)
        self.scene.strips.append(Strip("heat", name, y, 14.0, edges, values, low, high))
        self.scene.texts.append((y + 7.0, f"{low:.3g}–{high:.3g}", "value"))

    def thresholds(self, trace: Trace | None, edges: Float, values: Float) -> None:
        """The signal of every bank as an area, with a line for every threshold; without a trace the map itself."""
        signals = [] if trace is None else [one for one in trace.signals if one.label == self.label]
        many = len({one.bank for one in signals}) > 1
        for bank, _, own, levels in signals or [ThresholdedSignal(0, self.label, values, np.empty(0))]:
            height = 46.0
            name = ("thresholds" + f", bank {bank + 1}" * many) if len(levels) else "activation"
            y = self._row(name, height)
            low = min(0.0, float(own.min(initial=0.0)), float(np.min(levels, initial=0.0)))
            high = max(float(own.max(initial=0.0)), float(np.max(levels, initial=0.0))) or 1.0
            at = edges if len(own) == len(values) else _edges(self.video, len(own))
            self.scene.strips.append(Strip("activation", name, y, height, at, own, low, high))
            places = y + height * (1.0 - (levels - low) / (high - low))
            thick = min(0.7, 15.0 / max(len(levels), 1))
            for place, level in zip(places.tolist(), levels.tolist()):
                item = self._item("threshold", 0.0, self.scene.length, level)
                self.scene.rects.append((0.0, self.scene.length, place - thick / 2, thick, "threshold", item))
            if len(levels):
                lowest, highest = float(np.min(levels)), float(np.max(levels))
                if len(levels) > 1 and np.ptp(places) < 12.0:
                    ends = {f"{lowest:.3g}–{highest:.3g}": float(places.mean())}
                else:
                    ends = {f"{lowest:.3g}": float(places.max()), f"{highest:.3g}": float(places.min())}
                self.scene.texts += [(place, text, "value") for text, place in ends.items()]

    def instances(self, methods: Sequence[_Method]) -> None:
        """The annotations, and their extent behind the rest of the class; an instance that nobody takes is missed."""
        truth = self.truth
        if truth is None:
            return
        own = np.flatnonzero(truth.labels == self.label)
        if not len(own):
            return
        taken = set(np.concatenate([np.empty(0, np.int64), *(method.taken for method in methods)]).tolist())
        for row, y in zip(own.tolist(), self._packed("ground truth", "truth", truth.segments[own], 11.0, own)):
            start, end = truth.segments[row].tolist()
            missed = bool(methods) and row not in taken
            item = self._item("instance", start, end, None, state="missed" if missed else "found" if methods else None)
            self.scene.rects.append((start, end, y, 9.0, "missed" if missed else "truth", item))
            self.spans.append((start, end, item))

    def _packed(self, name: str, kind: str, segments: Float, lane: float, order: NDArray[Any]) -> list[float]:
        """Where each of these begins in a row with as many lanes as they need."""
        order = np.argsort(order, kind="stable")
        at = lanes(segments, order, MOST_LANES[kind])
        y = self._row(name, max(11.0, lane * (int(at.max(initial=0)) + 1)))
        return (y + lane * at).tolist()

    def _item(self, kind: str, start: float, end: float, score: float | None, **more: Any) -> int:
        self.scene.items.append(
            {"kind": kind, "class": len(self.scene.classes) - 1, "start": start, "end": end, "score": score, **more}
        )
        return len(self.scene.items) - 1

    def proposals(self, trace: Trace | None, proposals: Segments | None) -> dict[int, int]:
        """All proposals, darker for a higher score; the item of every row."""
        if trace is None or proposals is None:
            return {}
        own = np.flatnonzero(proposals.labels == self.label)
        if not len(own):
            return {}
        segments, scores = proposals.segments[own], proposals.scores[own]
        order = np.lexsort((-segments[:, 1], segments[:, 0]))
        place = np.empty(len(own), np.int64)
        place[order] = np.arange(len(own))
        deep = int(lanes(segments, order, MOST_LANES["proposals"]).max(initial=0)) + 1
        lane = float(np.clip(150.0 / deep, 3.0, 9.0))
        low, high = float(proposals.scores.min(initial=0.0)), float(proposals.scores.max(initial=0.0))
        shades = _shades(scores, low, high)
        items = {}
        tops = self._packed("proposals", "proposals", segments, lane, place)
        for row, (start, end), score, y, shade in zip(
            own.tolist(), segments.tolist(), scores.tolist(), tops, shades.tolist()
        ):
            more = {"times": int(proposals.columns["times"][row])} if "times" in proposals.columns else {}
            items[row] = self._item("proposal", start, end, score, **more)
            self.scene.rects.append((start, end, y, lane * 0.8, f"score{shade}", items[row]))
        return items

    def detections(self, method: _Method, proposals: Segments | None, items: Mapping[int, int]) -> None:
        """A bar for each, with the spread of its ends; below it the proposals that it is made of."""
        own = np.flatnonzero(method.rows.labels == self.label)
        if not len(own):
            return
        segments, scores = method.rows.segments[own], method.rows.scores[own]
        members = [] if method.trace is None else [method.trace.members(row) for row in own.tolist()]
        hulls, order = segments.copy(), np.argsort(-scores, kind="stable")
        for hull, rows in zip(hulls, members):
            if len(rows) and proposals is not None:
                inside = proposals.segments[rows]
                hull[:] = min(hull[0], inside[:, 0].min()), max(hull[1], inside[:, 1].max())
        place = np.empty(len(own), np.int64)
        place[order] = np.arange(len(own))
        tops = self._packed(method.name, "detections", hulls, 26.0 if method.trace is not None else 11.0, place)
        for i, (row, y) in enumerate(zip(own.tolist(), tops)):
            start, end = segments[i].tolist()
            style = "plain" if self.truth is None else "matched" if method.taken[row] >= 0 else "false"
            mine = [] if not members else [items[member] for member in members[i].tolist() if member in items]
            state = None if style == "plain" else style
            item = self._item(method.name, start, end, float(scores[i]), detection=1, state=state, members=mine)
            for member in mine:
                self.scene.items[member]["of"] = item
            self.scene.rects.append((start, end, y, 8.0, style, item))
            for at, std in ((start, "start_std"), (end, "end_std")):
                if std in method.rows.columns:
                    spread = float(method.rows.columns[std][row])
                    if spread > 0.0:
                        self.scene.rects.append((at - spread, at + spread, y + 3.4, 1.2, "spread", item))
            band = 13.0 / max(len(mine), 1)
            for number, member in enumerate(sorted(mine, key=lambda one: self.scene.items[one]["start"])):
                one, at = self.scene.items[member], y + 10.0 + band * number
                self.scene.rects.append((one["start"], one["end"], at, min(1.6, 0.7 * band), "member", member))

    def labels(self, maps: Mapping[str, NDArray[Any]], edges: Float) -> None:
        """One row per label map on a scale of its own; codes of a tri-state one as bands."""
        for name, values in maps.items():
            if values.ndim == 2 and self.label >= values.shape[1]:
                raise ValueError(
                    f"`label_maps[{name!r}]` must have a column for class {self.label}, got shape {values.shape}"
                )
            column = _checks.as_values(values if values.ndim == 1 else values[:, self.label], None, name, per="snippet")
            y, height = self._row(name, 26.0), 26.0
            if values.dtype.kind in "iu":
                ignored = column == LabelState.IGNORE
                self.scene.strips.append(Strip("ignored", name, y, height, edges, ignored.astype(float), 0.0, 1.0))
                column, low, high = np.where(ignored, 0.0, column), 0.0, 1.0
            else:
                low, high = min(0.0, float(column.min(initial=0.0))), float(column.max(initial=0.0))
                self.scene.texts.append((y + 5.0, f"{high:.3g}", "value"))
            self.scene.strips.append(Strip("labels", name, y, height, edges, column, low, high if high > low else 1.0))

    def close(self) -> None:
        """The extent of every instance behind all rows."""
        shades = [(start, end, self.top, self.y - self.top, "shade", item) for start, end, item in self.spans]
        self.scene.rects[self.first : self.first] = shades


def columns_of(strip: Strip, first: float, last: float, count: int) -> Float:
    """(count,) largest value in each of so many equal parts of [first, last]; NaN where the video has no snippet."""
    bounds = np.linspace(first, last, count + 1)
    filled = np.full(count, np.nan)
    if not len(strip.values):
        return filled
    start = np.searchsorted(strip.edges, bounds[:-1], side="right") - 1
    stop = np.searchsorted(strip.edges, bounds[1:], side="left")
    inside = np.flatnonzero((stop > 0) & (start < len(strip.values)))
    start, stop = np.maximum(start[inside], 0), np.minimum(stop[inside], len(strip.values))
    # the last part reaches to the end of what reduceat sees, so that an entry more stands there
    padded = np.append(strip.values, -np.inf)
    pairs = np.column_stack([start, np.maximum(stop, start + 1)]).reshape(-1)
    filled[inside] = np.maximum.reduceat(padded, pairs)[::2]
    return filled


AREA_COLOURS = {"activation": ACTIVATION, "labels": LABELS, "ignored": IGNORED}
