"""The settings that presets are made of: frozen, comparable, and readable as plain dictionaries.

A pipeline is data.  `Pipeline.to_dict` gives nested dictionaries of numbers, strings and lists that JSON can hold, and
`from_dict` gives the same value back and refuses keys it does not know, so that a spelling mistake never becomes a
silently ignored setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from . import _checks

__all__ = [
    "Bank",
    "Classes",
    "Expand",
    "Fuse",
    "Keep",
    "Margin",
    "Nms",
    "Overlap",
    "Pipeline",
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

    def _choose(self, name: str, *choices: str) -> None:
        _checks.as_choice(getattr(self, name), f"{type(self).__name__}.{name}", choices)

    def _number(self, name: str, **bounds: float) -> None:
        value = _checks.as_number(getattr(self, name), f"{type(self).__name__}.{name}", **bounds)
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
    divided by 1; `clip` then limits the result to [0, 1].
    """

    mix: Mix = (("cas", 1.0),)
    normalize: Literal["none", "minmax", "minmax_relu"] = "none"
    clip: bool = False

    def __post_init__(self) -> None:
        self._choose("normalize", "none", "minmax", "minmax_relu")
        if not self.mix:
            raise ValueError("Signal.mix must name at least one map")


@dataclass(frozen=True, kw_only=True)
class Margin(Settings):
    """Outer margin of ``scale * length ** power`` on both sides, and how it is cut to snippets (docs/conventions.md).

    `layout`: ``"symmetric"`` integrates the exact margins; ``"oic_a"`` (STPN, BaS-Net) and ``"oic_b"`` (RSKP, GauFuse)
    truncate as published.  `denominator`: ``"pooled"`` divides by the margin that lies in the video, ``"fixed"`` always
    by twice the nominal margin (two-stream paper, Eq. 9).
    """

    scale: float = 0.25
    power: float = 1.0
    layout: Literal["symmetric", "oic_a", "oic_b"] = "symmetric"
    denominator: Literal["pooled", "fixed"] = "pooled"

    def __post_init__(self) -> None:
        self._choose("layout", "symmetric", "oic_a", "oic_b")
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

    def __post_init__(self) -> None:
        self._choose("inner", "mean", "max", "none")
        for name in ("outer_weight", "video_weight", "constant", "scale"):
            self._number(name)


@dataclass(frozen=True, kw_only=True)
class Bank(Settings):
    """One list of thresholds on one signal, and how its runs become scored segments.

    `relative`: the numbers are values, or k of ``k * mean``, or k of ``max - k * (max - min)``, over time and per
    class.  `inclusive` compares with >=; `positive` asks for x > 0 as well.  `min_length` counts steps of the upsampled
    signal; `extend_end` is added to the reported end: 0 half-open, 1 RSKP and GauFuse, -1 the last snippet inside.
    `skip_lone_first` drops what a threshold finds when that is the first step alone, as the OIC-A family does.
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

    def __post_init__(self) -> None:
        self._choose("relative", "absolute", "times_mean", "below_max")
        values = _checks.as_threshold_list(self.thresholds, "Bank.thresholds")
        object.__setattr__(self, "thresholds", tuple(values.tolist()))
        _checks.as_count(self.upsample, "Bank.upsample", at_least=1)
        _checks.as_count(self.min_length, "Bank.min_length", at_least=1)
        if self.extend_end not in (-1, 0, 1):
            raise ValueError(f"`Bank.extend_end` must be -1, 0 or 1, got {self.extend_end!r}")


@dataclass(frozen=True, kw_only=True)
class TopKMean(Settings):
    """Video scores from a map: the mean of the ``max(1, T // ratio)`` largest per class, then softmax over classes."""

    map: str
    ratio: int
    softmax: bool = True

    def __post_init__(self) -> None:
        _checks.as_count(self.ratio, "TopKMean.ratio", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Classes(Settings):
    """Which classes a video is searched for: video score > (or >=) threshold; ``"argmax"`` when none is."""

    threshold: float
    inclusive: bool = True
    fallback: Literal["none", "argmax"] = "none"

    def __post_init__(self) -> None:
        self._number("threshold")
        self._choose("fallback", "none", "argmax")


# --------------------------------------------------------------------------------- stages: from proposals to detections


@dataclass(frozen=True, kw_only=True)
class Overlap(Settings):
    """Intersection over union, or over the candidate's length; "+1" lengths and an area epsilon are independent."""

    kind: Literal["iou", "candidate"] = "iou"
    length_offset: float = 0.0
    area_eps: float = 0.0

    def __post_init__(self) -> None:
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

    def __post_init__(self) -> None:
        self._choose("ties", "first", "last")
        self._number("threshold", at_least=0.0)
        if self.inclusive and self.threshold == 0.0:
            raise ValueError("`Nms.threshold` must be above 0 with inclusive=True, or everything is suppressed; got 0")


@dataclass(frozen=True, kw_only=True)
class SoftNms(Settings):
    """Decaying suppression (`tal_postproc.soft_nms`)."""

    method: Literal["linear", "gaussian", "gated", "improved"] = "gaussian"
    sigma: float = 0.5
    threshold: float | None = None
    gate: tuple[float, float] | None = None
    overlap: Overlap = Overlap()
    min_score: float | None = None
    decay_negative: bool = False
    max_detections: int | None = None
    per_class: bool = True

    def __post_init__(self) -> None:
        self._choose("method", "linear", "gaussian", "gated", "improved")
        self._number("sigma", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Fuse(Settings):
    """Weighted fusion of greedy clusters (`tal_postproc.fuse_segments`); `weights` is ``"scores"`` or a column."""

    threshold: float
    temperature: float
    distribution: Literal["gaussian", "exponential", "student_t", "uniform"] = "gaussian"
    weights: str = "scores"
    overlap: Overlap = Overlap()
    signed_denominator: bool = False
    ties: Literal["first", "last"] = "first"
    per_class: bool = True

    def __post_init__(self) -> None:
        self._number("threshold", at_least=0.0)
        self._number("temperature", above=0.0)
        self._choose("ties", "first", "last")
        self._choose("distribution", "gaussian", "exponential", "student_t", "uniform")


@dataclass(frozen=True, kw_only=True)
class Vote(Settings):
    """Segment voting (`tal_postproc.segment_voting`) among the rows that entered the last suppression."""

    threshold: float
    times_iou: bool = False
    per_class: bool = True

    def __post_init__(self) -> None:
        self._number("threshold", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Keep(Settings):
    """Rows with score > min_score and length > min_length; then the best `top`, or the best whose scores sum to at most
    the share `cumulative` of all scores; counted per video or per class."""

    min_score: float | None = None
    min_length: float | None = None
    top: int | None = None
    cumulative: float | None = None
    per: Literal["video", "class"] = "video"

    def __post_init__(self) -> None:
        self._choose("per", "video", "class")


@dataclass(frozen=True, kw_only=True)
class Seconds(Settings):
    """Snippets to seconds, through the video's time warp where it has one; `clamp` limits to [0, duration]."""

    clamp: bool = False


@dataclass(frozen=True, kw_only=True)
class Expand(Settings):
    """Every segment grows around its middle by the share `ratio` of its length, within the video."""

    ratio: float

    def __post_init__(self) -> None:
        self._number("ratio", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class Round(Settings):
    """Decimals that are kept of boundaries and scores."""

    segments: int
    scores: int


Stage = Nms | SoftNms | Fuse | Vote | Keep | Seconds | Expand | Round
_STAGES = (Nms, SoftNms, Fuse, Vote, Keep, Seconds, Expand, Round)


@dataclass(frozen=True, kw_only=True)
class Pipeline(Settings):
    """A whole post-processing chain: banks of thresholds, class selection, stages in order.

    `background` says where the maps carry a background column.  With `num_classes` given it is there only when a map
    has ``num_classes + 1`` columns; without, always.  Labels count the columns that are left.  `video_scores` says how
    to compute video-level scores for videos that bring none.  `protocol` is the evaluator that goes with it.
    """

    banks: tuple[Bank, ...] = ()
    classes: Classes | None = None
    stages: tuple[Stage, ...] = ()
    video_scores: TopKMean | None = None
    background: Literal["none", "first", "last"] = "none"
    num_classes: int | None = None
    protocol: str = "activitynet"
    provenance: str = ""

    def __post_init__(self) -> None:
        self._choose("background", "none", "first", "last")
        for name, kinds in (("banks", (Bank,)), ("stages", _STAGES)):
            for item in getattr(self, name):
                if not isinstance(item, kinds):
                    raise TypeError(f"`Pipeline.{name}` must hold {', '.join(k.__name__ for k in kinds)}, got {item!r}")
        if self.num_classes is not None:
            _checks.as_count(self.num_classes, "Pipeline.num_classes", at_least=1)
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
