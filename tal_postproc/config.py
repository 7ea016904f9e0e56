"""The settings that presets are made of: frozen, comparable, and readable as plain dictionaries.

A pipeline is data.  `Pipeline.to_dict` gives nested dictionaries of numbers, strings and lists that JSON can hold, and
`from_dict` gives the same value back and refuses keys it does not know, so that a spelling mistake never becomes a
silently ignored setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, TypeVar

from . import _checks

__all__ = [
    "Bank",
    "Classes",
    "Expand",
    "Fuse",
    "Keep",
    "LinPro",
    "Margin",
    "Nms",
    "Overlap",
    "Pipeline",
    "RefreshSchedule",
    "Round",
    "Score",
    "Seconds",
    "Signal",
    "SoftNms",
    "TopKMean",
    "Vote",
    "from_dict",
]

S = TypeVar("S", bound="Settings")
Mix = tuple[tuple[str, float], ...]


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_dict(value)
    return tuple(_made(item) for item in value) if isinstance(value, (list, tuple)) else value


class Settings:
    """Base of all settings: checks its choices when made, and goes to and from plain dictionaries."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, nested, with the kind of setting under ``"type"``."""
        return {"type": type(self).__name__, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """The value that `to_dict` wrote; an unknown key or another type is an error."""
        made = from_dict({"type": cls.__name__, **values})
        if not isinstance(made, cls):
            raise ValueError(f"`values` must describe {cls.__name__}, got {type(made).__name__}")
        return made

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(getattr(self, f.name), list):
                object.__setattr__(self, f.name, _made(getattr(self, f.name)))
            if isinstance(f.default, bool):
                _checks.as_flag(getattr(self, f.name), self._name(f.name))
        self._check()

    def _check(self) -> None:
        """Raise for a value that cannot work; called once, with lists made tuples."""

    def _name(self, name: str) -> str:
        return f"{type(self).__name__}.{name}"

    def _choose(self, name: str, *choices: str) -> None:
        _checks.as_choice(getattr(self, name), self._name(name), choices)

    def _number(self, name: str, optional: bool = False, **bounds: float | None) -> None:
        if getattr(self, name) is not None or not optional:
            object.__setattr__(self, name, _checks.as_number(getattr(self, name), self._name(name), **bounds))

    def _count(self, name: str, at_least: int = 0, optional: bool = False) -> None:
        if getattr(self, name) is not None or not optional:
            object.__setattr__(self, name, _checks.as_count(getattr(self, name), self._name(name), at_least=at_least))

    def _kind(self, name: str, *kinds: type) -> None:
        value = getattr(self, name)
        if not isinstance(value, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"`{self._name(name)}` must be one of {names}, got {value!r}")

    def _threshold(self, inclusive: bool) -> None:
        name = "threshold"
        value = _checks.as_tiou_threshold(getattr(self, name), self._name(name), inclusive=inclusive)
        object.__setattr__(self, name, value)


def from_dict(values: Mapping[str, Any]) -> Any:
    """Any setting from the dictionary that its ``to_dict`` wrote.

    >>> from_dict({"type": "Nms", "threshold": 0.5}).threshold
    0.5
    >>> from_dict({"type": "Nms", "treshold": 0.5})
    Traceback (most recent call last):
    ValueError: Nms does not know 'treshold'; it knows threshold, overlap, inclusive, ties, per_class
    """
    kinds = {kind.__name__: kind for kind in Settings.__subclasses__()}
    rest = dict(values)
    kind = kinds.get(str(rest.pop("type", None)))
    if kind is None:
        raise ValueError(f"`type` must be one of {', '.join(sorted(kinds))}, got {values.get('type')!r}")
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in rest:
        if key not in known:
            raise ValueError(f"{kind.__name__} does not know {key!r}; it knows {', '.join(known)}")
    return kind(**{key: _made(value) for key, value in rest.items()})


# ---------------------------------------------------------------------------------------------- from maps to proposals


@dataclass(frozen=True, kw_only=True)
class Signal(Settings):
    """A map made of the video's maps: a weighted sum, then a normalisation over time, per class.

    A name in `mix` is a map of the video, or a product such as ``"logits*attention"``.  ``"minmax"`` is
    (x - min) / (max - min); ``"minmax_relu"`` is BaS-Net's, with max(0, min) and max(0, max) and a zero range
    divided by 1; `clip` then limits the result to [0, 1].  Upsampled, it goes on beyond the last snippet, or, without
    `extrapolate`, ends there (CMCS).
    """

    mix: Mix = (("cas", 1.0),)
    normalize: Literal["none", "minmax", "minmax_relu"] = "none"
    clip: bool = False
    extrapolate: bool = True

    def _check(self) -> None:
        self._choose("normalize", "none", "minmax", "minmax_relu")
        pairs = self.mix if isinstance(self.mix, tuple) else ()
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"`Signal.mix` must hold at least one pair (map, weight), got {self.mix!r}")
        names = [name for name, _ in pairs]
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise ValueError(f"`Signal.mix` must name every map once, got {names!r}")
        weights = [_checks.as_number(weight, f"Signal.mix[{name!r}]") for name, weight in pairs]
        object.__setattr__(self, "mix", tuple(zip(names, weights)))


@dataclass(frozen=True, kw_only=True)
class Margin(Settings):
    """Outer margin of ``scale * length ** power`` on both sides, and how it is cut to snippets (docs/conventions.md).

    `layout`: ``"symmetric"`` integrates the exact margins; ``"oic_a"`` (STPN, BaS-Net), ``"oic_b"`` (RSKP, GauFuse) and
    ``"cmcs"`` truncate as published.  `denominator`: ``"pooled"`` divides by the margin that lies in the video,
    ``"fixed"`` always by twice the nominal margin (two-stream paper, Eq. 9).
    """

    scale: float = 0.25
    power: float = 1.0
    layout: Literal["symmetric", "oic_a", "oic_b", "cmcs"] = "symmetric"
    denominator: Literal["pooled", "fixed"] = "pooled"

    def _check(self) -> None:
        self._choose("layout", "symmetric", "oic_a", "oic_b", "cmcs")
        self._choose("denominator", "pooled", "fixed")
        self._number("scale", at_least=0.0)
        self._number("power", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class Score(Settings):
    """Score of a run: scale * (inner - outer_weight * outer + video_weight * video score + constant).

    `signal` None scores on the bank's own signal.  `zero_below` counts the bank's own signal as 0 wherever it does not
    reach the threshold of the run.
    """

    inner: Literal["mean", "max", "none"] = "mean"
    margin: Margin | None = Margin()
    outer_weight: float = 1.0
    signal: Signal | None = None
    zero_below: bool = False
    video_weight: float = 0.0
    constant: float = 0.0
    scale: float = 1.0

    def _check(self) -> None:
        self._choose("inner", "mean", "max", "none")
        self._kind("margin", Margin, type(None))
        self._kind("signal", Signal, type(None))
        for name in ("outer_weight", "video_weight", "constant", "scale"):
            self._number(name)


@dataclass(frozen=True, kw_only=True)
class Bank(Settings):
    """One list of thresholds on one signal, and how its runs become scored segments.

    `relative`: the numbers are values, or k of ``k * mean``, or k of ``max - k * (max - min)``, over time and per
    class.  `inclusive` compares with >=; `positive` asks for x > 0 as well.  `min_length` counts steps of the upsampled
    signal; `extend_end` is added to the reported end: 0 half-open, 1 RSKP and GauFuse, -1 the last snippet inside.
    `skip_lone_first` drops what a threshold finds when that is the first step alone, as the OIC-A family does.
    `dilate` steps around every step that passes, one more before than after it where that is even, count as passing
    (CMCS); `min_length` counts them.
    """

    thresholds: tuple[float, ...]
    relative: Literal["absolute", "times_mean", "below_max"] = "absolute"
    signal: Signal = Signal()
    upsample: int = 1
    score: Score = Score()
    inclusive: bool = False
    positive: bool = False
    min_length: int = 1
    extend_end: int = 0
    skip_lone_first: bool = False
    dilate: int = 0

    def _check(self) -> None:
        self._choose("relative", "absolute", "times_mean", "below_max")
        values = _checks.as_threshold_list(self.thresholds, "Bank.thresholds")
        object.__setattr__(self, "thresholds", tuple(values.tolist()))
        self._kind("signal", Signal)
        self._kind("score", Score)
        self._count("upsample", at_least=1)
        self._count("min_length", at_least=1)
        self._count("dilate")
        _checks.as_extension(self.extend_end, "Bank.extend_end")
        other = self.score.signal
        if other is not None and other.extrapolate != self.signal.extrapolate:
            raise ValueError(
                "`Score.signal` must go as far as the signal of its bank, got extrapolate "
                f"{other.extrapolate} and {self.signal.extrapolate}"
            )
        if self.score.zero_below and other is not None and other != self.signal:
            plain = all(signal.normalize == "none" and not signal.clip for signal in (self.signal, other))
            if len(self.signal.mix) != 1 or self.signal.mix[0][1] != 1.0 or not plain:
                raise ValueError(
                    "`Score.zero_below` with a signal of its own needs a bank on one map of weight 1, and both signals "
                    f"as they are, got {self.signal!r} and {other!r}"
                )


@dataclass(frozen=True, kw_only=True)
class TopKMean(Settings):
    """Video scores from a map: the mean of the ``max(1, T // ratio)`` largest per class, then softmax over classes."""

    map: str
    ratio: int
    softmax: bool = True

    def _check(self) -> None:
        self._count("ratio", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Classes(Settings):
    """Which classes a video is searched for: video score > (or >=) threshold; ``"argmax"`` when none is."""

    threshold: float
    inclusive: bool = True
    fallback: Literal["none", "argmax"] = "none"

    def _check(self) -> None:
        self._number("threshold")
        self._choose("fallback", "none", "argmax")


# --------------------------------------------------------------------------------- stages: from proposals to detections


@dataclass(frozen=True, kw_only=True)
class Overlap(Settings):
    """Intersection over union, or over the candidate's length; "+1" lengths and an area epsilon are independent."""

    kind: Literal["iou", "candidate"] = "iou"
    length_offset: float = 0.0
    area_eps: float = 0.0

    def _check(self) -> None:
        self._choose("kind", "iou", "candidate")
        self._number("length_offset", at_least=0.0)
        self._number("area_eps", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class Nms(Settings):
    """Greedy suppression (`tal_postproc.nms`); `ties` says which row goes first among equal scores."""

    threshold: float
    overlap: Overlap = Overlap()
    inclusive: bool = False
    ties: Literal["first", "last"] = "first"
    per_class: bool = True

    def _check(self) -> None:
        self._choose("ties", "first", "last")
        self._kind("overlap", Overlap)
        self._threshold(self.inclusive)


@dataclass(frozen=True, kw_only=True)
class SoftNms(Settings):
    """Decaying suppression (`tal_postproc.soft_nms`); `max_detections` keeps the best per video, after all picks."""

    method: Literal["linear", "gaussian", "gated", "improved"] = "gaussian"
    sigma: float = 0.5
    threshold: float | None = None
    gate: tuple[float, float] | None = None
    overlap: Overlap = Overlap()
    min_score: float | None = None
    keep_first: bool = False
    decay_negative: bool = False
    max_detections: int | None = None
    per_class: bool = True

    def _check(self) -> None:
        self._choose("method", "linear", "gaussian", "gated", "improved")
        self._kind("overlap", Overlap)
        self._number("sigma", above=0.0)
        self._number("min_score", optional=True)
        self._count("max_detections", optional=True)
        _checks.as_decay_start(self.method, self.threshold, self.gate)


@dataclass(frozen=True, kw_only=True)
class Fuse(Settings):
    """Weighted fusion of greedy clusters (`tal_postproc.fuse_segments`); `weights` is ``"scores"`` or a column."""

    threshold: float
    temperature: float
    distribution: Literal["gaussian", "exponential", "student_t", "uniform"] = "gaussian"
    weights: str = "scores"
    overlap: Overlap = Overlap()
    inclusive: bool = False
    dof: float = 4.0
    scale: Literal["std", "fit"] = "std"
    signed_denominator: bool = False
    ties: Literal["first", "last"] = "first"
    per_class: bool = True

    def _check(self) -> None:
        self._kind("overlap", Overlap)
        self._kind("weights", str)
        self._threshold(self.inclusive)
        self._number("temperature", above=0.0)
        self._choose("ties", "first", "last")
        self._choose("distribution", "gaussian", "exponential", "student_t", "uniform")
        self._choose("scale", "std", "fit")
        self._number("dof", at_least=1.0 if self.scale == "fit" else None, above=0.0)
        if self.signed_denominator and self.distribution != "gaussian":
            raise ValueError(
                "`Fuse.signed_denominator` is a habit of the gaussian fusion, set it to False; "
                f"got distribution {self.distribution!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Vote(Settings):
    """Segment voting (`tal_postproc.segment_voting`) among the rows that entered the last suppression."""

    threshold: float
    times_iou: bool = False
    per_class: bool = True

    def _check(self) -> None:
        self._threshold(True)


@dataclass(frozen=True, kw_only=True)
class Keep(Settings):
    """Rows with score > min_score and length > min_length; then the best `top`, or the best whose scores sum to at most
    the share `cumulative` of all scores; counted per video or per class."""

    min_score: float | None = None
    min_length: float | None = None
    top: int | None = None
    cumulative: float | None = None
    per: Literal["video", "class"] = "video"

    def _check(self) -> None:
        self._choose("per", "video", "class")
        self._number("min_score", optional=True)
        self._number("min_length", optional=True)
        self._count("top", optional=True)
        self._number("cumulative", optional=True, at_least=0.0, at_most=1.0)


@dataclass(frozen=True, kw_only=True)
class Seconds(Settings):
    """Snippets to seconds, through the video's time warp where it has one; `clamp` limits to [0, duration]."""

    clamp: bool = False


@dataclass(frozen=True, kw_only=True)
class Expand(Settings):
    """Every segment grows around its middle by the share `ratio` of its length, within the video."""

    ratio: float

    def _check(self) -> None:
        self._number("ratio", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class Round(Settings):
    """Decimals that are kept of boundaries and scores."""

    segments: int
    scores: int

    def _check(self) -> None:
        self._count("segments")
        self._count("scores")


Stage = Nms | SoftNms | Fuse | Vote | Keep | Seconds | Expand | Round
_STAGES = (Nms, SoftNms, Fuse, Vote, Keep, Seconds, Expand, Round)


@dataclass(frozen=True, kw_only=True)
class Pipeline(Settings):
    """A whole post-processing chain: banks of thresholds, class selection, stages in order.

    `background` says where the maps carry a background column.  With `num_classes` given it is there only when a map
    has ``num_classes + 1`` columns; without, always.  Labels count the columns that are left.  `video_scores` says how
    to compute video-level scores for videos that bring none.  `labels` says how the instances become pseudo labels,
    None: as `LinPro` does by default.  `protocol` is the evaluator that goes with it, run at the very numbers
    `tiou_thresholds`.
    """

    banks: tuple[Bank, ...] = ()
    classes: Classes | None = None
    stages: tuple[Stage, ...] = ()
    video_scores: TopKMean | None = None
    background: Literal["none", "first", "last"] = "none"
    num_classes: int | None = None
    labels: LinPro | None = None
    protocol: str = "activitynet"
    tiou_thresholds: tuple[float, ...] = ()
    provenance: str = ""

    def _check(self) -> None:
        self._choose("background", "none", "first", "last")
        self._kind("classes", Classes, type(None))
        self._kind("video_scores", TopKMean, type(None))
        self._kind("labels", LinPro, type(None))
        self._kind("protocol", str)
        self._count("num_classes", optional=True, at_least=1)
        tious = _checks.as_threshold_list(self.tiou_thresholds, "Pipeline.tiou_thresholds").tolist()
        object.__setattr__(
            self,
            "tiou_thresholds",
            tuple(_checks.as_tiou_threshold(t, "Pipeline.tiou_thresholds", inclusive=True) for t in tious),
        )
        for name, kinds in (("banks", (Bank,)), ("stages", _STAGES)):
            self._kind(name, tuple)
            for item in getattr(self, name):
                if not isinstance(item, kinds):
                    raise TypeError(f"`Pipeline.{name}` must hold {', '.join(k.__name__ for k in kinds)}, got {item!r}")
        if sum(isinstance(stage, Seconds) for stage in self.stages) > 1:
            raise ValueError("`Pipeline.stages` must convert to seconds at most once")

    def map_names(self) -> tuple[str, ...]:
        """The maps that a video must have, in the order in which the banks read them.

        >>> Pipeline(banks=(Bank(thresholds=(0.5,), signal=Signal(mix=(("logits*attention", 1.0),))),)).map_names()
        ('logits', 'attention')
        """
        signals = [signal for bank in self.banks for signal in (bank.signal, bank.score.signal) if signal]
        names = [part for signal in signals for name, _ in signal.mix for part in name.split("*")]
        return tuple(dict.fromkeys(names))

    def count_classes(self, width: int) -> int:
        """Action classes among `width` columns of a map: all of them, or all but the background.

        >>> tested = Pipeline(background="last", num_classes=20)
        >>> tested.count_classes(21), tested.count_classes(20)
        (20, 20)
        """
        if self.background == "none" or (self.num_classes is not None and width != self.num_classes + 1):
            return width
        return width - 1


# ------------------------------------------------------------------------------------------------------ pseudo labels


@dataclass(frozen=True, kw_only=True)
class LinPro(Settings):
    """How instances become snippet-wise labels; the fields are the options of `linpro_labels`."""

    normalization: Literal["mean", "sum"] = "mean"
    upper_bound: float | None = 1.0
    margin_scale: float = 0.25
    margin_power: float = 1.0
    layout: Literal["symmetric", "gaufuse"] = "symmetric"
    nonpositive: Literal["keep", "drop", "clip"] = "keep"
    selection: Literal["min_norm", "vertex"] = "min_norm"
    solver: Literal["auto", "highs"] = "auto"
    infeasible: Literal["relax", "raise"] = "relax"

    def _check(self) -> None:
        self._choose("normalization", "mean", "sum")
        self._number("upper_bound", optional=True, above=0.0)
        self._number("margin_scale", at_least=0.0)
        self._number("margin_power", at_least=0.0, at_most=10.0)
        self._choose("layout", "symmetric", "gaufuse")
        self._choose("nonpositive", "keep", "drop", "clip")
        self._choose("selection", "min_norm", "vertex")
        self._choose("solver", "auto", "highs")
        self._choose("infeasible", "relax", "raise")


@dataclass(frozen=True, kw_only=True)
class RefreshSchedule(Settings):
    """When pseudo labels are made anew, and by how much their change counts; GauFuse's by default, as in the paper.

    An epoch is the number of epochs that are done: a refresh at 200 comes before the first batch of the 201st.  With
    ``unit="fraction"`` times are fractions of the whole training, in [0, 1); with ``"epoch"`` they are epochs.

    `refreshes` rise.  `delta_scales` are pairs (from when, factor), rising, too: from then on the targets are factor
    times the difference of the last two label maps, before the first pair they are the labels themselves.
    """

    refreshes: tuple[float, ...] = (0.571, 0.614, 0.657, 0.700, 0.771, 0.829)
    delta_scales: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    unit: Literal["fraction", "epoch"] = "fraction"

    @classmethod
    def paper(cls) -> RefreshSchedule:
        """Epochs 200, 215, 230, 245, 270 and 290 of 350; differences as they are, from the second refresh on."""
        return cls()

    @classmethod
    def code(cls) -> RefreshSchedule:
        """Epochs 200, 230, 245, 260, 275 and 300 of 350; labels until 250, then 2 and from 300 on 2.15 differences."""
        return cls(refreshes=(0.571, 0.657, 0.700, 0.743, 0.786, 0.857), delta_scales=((0.714, 2.0), (0.857, 2.15)))

    def _check(self) -> None:
        self._choose("unit", "fraction", "epoch")
        pairs = self.delta_scales
        if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"`RefreshSchedule.delta_scales` must hold pairs (from when, factor), got {pairs!r}")
        starts = self._times("delta_scales", [pair[0] for pair in pairs])
        factors = [_checks.as_number(factor, "RefreshSchedule.delta_scales") for _, factor in pairs]
        object.__setattr__(self, "delta_scales", tuple(zip(starts, factors)))
        object.__setattr__(self, "refreshes", self._times("refreshes", self.refreshes))
        if not self.refreshes:
            raise ValueError("`RefreshSchedule.refreshes` must hold at least one time, got none")

    def _times(self, field: str, values: Sequence[float]) -> tuple[float, ...]:
        """Rising times of the unit that was chosen."""
        name = self._name(field)
        times = _checks.as_values(values, None, name, per="refresh").tolist()
        inside = [0 <= t < 1 if self.unit == "fraction" else t >= 0 and t == int(t) for t in times]
        if not all(inside) or any(b <= a for a, b in pairwise(times)):
            rule = "fractions in [0, 1)" if self.unit == "fraction" else "whole epochs >= 0"
            raise ValueError(f"`{name}` must be rising {rule}, got {times}")
        return tuple(times)

    def _epoch(self, time: float, total: int) -> int:
        """Halves go up; 1e-9 forgives that 0.7 * 45 is a little less than 31.5."""
        return int(time) if self.unit == "epoch" else math.floor(time * total + 0.5 + 1e-9)

    def epochs(self, total: int) -> tuple[int, ...]:
        """Epochs of the refreshes in a training of `total` epochs: rising, different, each below `total`.

        A fraction gives round(fraction * total), halves up, at most ``total - 1``.  In short trainings refreshes fall
        together and become one; as long as fewer than 3 are left, the next free epoch after the first one joins, then
        the one before it, down to epoch 1.  Explicit epochs stay as they are.

        >>> RefreshSchedule.paper().epochs(350)
        (200, 215, 230, 245, 270, 290)
        >>> RefreshSchedule.paper().epochs(6)
        (3, 4, 5)
        """
        total = _checks.as_count(total, "total", at_least=1)
        found = {self._epoch(time, total) for time in self.refreshes}
        if self.unit == "epoch":
            if max(found) >= total:
                raise ValueError(f"`total` must be above the last refresh, {max(found)}, got {total}")
            return tuple(sorted(found))
        found = {min(epoch, total - 1) for epoch in found}
        first, wanted = min(found), min(3, len(self.refreshes))
        free = [epoch for epoch in (*range(first, total), *range(first - 1, 0, -1)) if epoch not in found]
        if len(found) + len(free) < wanted:
            raise ValueError(f"`total` must leave room for {wanted} refreshes after epoch 0, got {total}")
        return tuple(sorted(found | set(free[: max(0, wanted - len(found))])))

    def delta_scale(self, epoch: int, total: int) -> float | None:
        """The factor of the differences at an epoch, or None where the targets are the labels themselves.

        `DeltaPseudoLabels.targets` takes it as `scale`.

        >>> [RefreshSchedule.code().delta_scale(epoch, 350) for epoch in (249, 250, 300)]
        [None, 2.0, 2.15]
        """
        total = _checks.as_count(total, "total", at_least=1)
        epoch = _checks.as_count(epoch, "epoch")
        factors = [factor for start, factor in self.delta_scales if self._epoch(start, total) <= epoch]
        return factors[-1] if factors else None
