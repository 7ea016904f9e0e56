"""How good detections are: mAP under the published protocols, average recall, video-level mAP; and pseudo labels.

The protocol alone moves mAP@0.5 by several points, so it is an argument, and each one is a line of `PROTOCOLS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int
from ._kernels import matching
from ._regions import covered, paint_largest
from .types import (
    TIOU_RANGES,
    UNITS,
    AverageRecall,
    ClassificationMAP,
    LabelQuality,
    LabelState,
    MeanAveragePrecision,
    Segments,
    Unit,
    UnitError,
)

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "average_recall",
    "classification_map",
    "filter_ambiguous",
    "mean_average_precision",
    "pseudo_label_quality",
]

SNIPPETS_PER_SECOND = 25 / 16  # 16 frames at 25 frames per second, as in every published I3D feature of THUMOS14
_THRESHOLD_NAMES = {**TIOU_RANGES, "thumos": TIOU_RANGES["0.1:0.7"], "activitynet": TIOU_RANGES["0.5:0.95"]}
_EMPTY_CLASS = ("zero_ap", "zero_map")
_PRECISIONS = {"float64": matching.DOUBLE, "float32": matching.STORED_SINGLE}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What one published evaluator does; everything that it does not do has the default."""

    source: str
    unit: Literal["second", "snippet"] = "second"
    truncate_detections: bool = False  # int() of start and end, so that overlap counts whole snippets
    round_ground_truth: bool = False  # round() of start and end, half to even
    match: Literal["best", "first"] = "best"  # which free instance a detection takes
    interpolate: bool = True  # VOC 2011 AP; else the mean of the precisions at the true positives
    tiou_precision: Literal["float64", "float32"] = "float64"
    union_floor: float = 0.0  # the union is at least this
    min_length: float = 0.0  # shorter instances are dropped
    duplicate_tolerance: float = -1.0  # instances this near (both ends) to an earlier one are dropped; negative: none
    recall: bool = False  # top-kx recall comes with the mAP
    empty_class: Literal["zero_ap", "zero_map"] = "zero_ap"  # what a class without detections does


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "activitynet": Protocol(source="ActivityNet; copied by BaSNet, CoLA, UM, ASM-Loc, HAM-Net"),
        "activitynet_snippet": Protocol(source="CO2-Net, DELU, P-MIL", unit="snippet", round_ground_truth=True),
        "wtalc": Protocol(
            source="W-TALC",
            unit="snippet",
            truncate_detections=True,
            round_ground_truth=True,
            match="first",
            interpolate=False,
            empty_class="zero_map",
        ),
        "wtalc_interpolated": Protocol(
            source="RSKP, FAC-Net, GauFuse",
            unit="snippet",
            truncate_detections=True,
            round_ground_truth=True,
            empty_class="zero_map",
        ),
        "actionformer": Protocol(source="ActionFormer", min_length=1e-3, duplicate_tolerance=1e-3, recall=True),
        "opentad": Protocol(
            source="OpenTAD",
            union_floor=1e-8,
            min_length=5e-324,  # the smallest number above 0: only empty instances go
            duplicate_tolerance=1e-3,
            recall=True,
        ),
        "mmaction": Protocol(source="mmaction2 ActivityNetLocalization", tiou_precision="float32"),
    }
)


# ------------------------------------------------------------------ what came in
class _Rows(NamedTuple):
    """Detections or annotations in flat columns; `video` counts into `names`, or is a number of its own."""

    segments: Float
    labels: Int
    scores: Float
    video: Int
    names: tuple[str, ...] | None
    num_videos: int | None  # None where only the videos that have rows are known
    unit: Unit

    def __len__(self) -> int:
        return len(self.segments)


def _as_rows(value: Segments | Mapping[str, Any], name: str, required: Sequence[str]) -> _Rows:
    """Flat columns of `Segments`, or of a mapping with the required keys and perhaps others."""
    if isinstance(value, Segments):
        names = value.video_ids or None
        return _Rows(value.segments, value.labels, value.scores, value.video_index, names, value.num_videos, value.unit)
    if not isinstance(value, Mapping):
        _checks.refuse_tensors(value, name)
        raise TypeError(f"`{name}` must be Segments or a mapping of flat arrays, got {type(value).__name__}")
    missing = [key for key in required if key not in value]
    if missing:
        raise ValueError(f"`{name}` needs the keys {', '.join(map(repr, required))}, {missing[0]!r} is missing")
    segments = _checks.as_segments(value["segments"], f"{name}['segments']")
    n = len(segments)
    labels = _checks.as_labels(value["labels"], n, f"{name}['labels']") if "labels" in value else np.zeros(n, np.int64)
    scores = _checks.as_values(value["scores"], n, f"{name}['scores']") if "scores" in value else np.ones(n)
    video, names = _as_videos(value["video"], n, f"{name}['video']")
    unit: Any = _checks.as_choice(value.get("unit", "second"), f"{name}['unit']", UNITS)
    return _Rows(segments, labels, scores, video, names, None, unit)


def _as_videos(value: ArrayLike, length: int, name: str) -> tuple[Int, tuple[str, ...] | None]:
    """A number for every row, and the names that the numbers count into where videos have names."""
    _checks.refuse_tensors(value, name)
    array = np.asarray(value)
    if array.dtype.kind not in "USO" or array.size == 0:
        return _checks.as_integers(array if array.size else np.zeros(array.shape), length, name), None
    if array.shape != (length,):
        raise ValueError(f"`{name}` must have shape ({length},), one per segment, got shape {array.shape}")
    listed = array.astype(str).tolist() if array.dtype.kind == "S" else array.tolist()
    if array.dtype.kind == "O" and not all(isinstance(one, str) for one in listed):
        raise TypeError(f"`{name}` must hold names or whole numbers, got objects of other types")
    numbers = {one: i for i, one in enumerate(dict.fromkeys(listed))}
    return np.array([numbers[one] for one in listed], np.int64), tuple(numbers)


def _videos_of(rows: _Rows, name: str, truth: _Rows, truth_name: str) -> Int:
    """The video of every row in the numbers of `truth`: by name when both have names, else by position."""
    if not len(rows) or not len(truth):
        return np.full(len(rows), -1, np.int64)
    if rows.names is not None and truth.names is not None:
        numbers = {one: i for i, one in enumerate(truth.names)}
        return np.array([numbers.get(one, -1) for one in rows.names], np.int64)[rows.video]
    for one, one_name in ((rows, name), (truth, truth_name)):
        if one.names is not None and one.num_videos is None:
            raise ValueError(f"`{one_name}` names its videos, so both sides must; the other one numbers them")
    if rows.num_videos is not None and truth.num_videos is not None and rows.num_videos != truth.num_videos:
        raise ValueError(
            f"`{name}` must have the videos of `{truth_name}` when they are matched by position, "
            f"got {rows.num_videos} and {truth.num_videos}; give both sides video ids"
        )
    return rows.video


def _in_snippets(rows: _Rows, name: str, rate: float) -> Float:
    """Segments in snippets, whatever rows came in seconds.

    What a whole number of snippets became in seconds is that whole number again: int() of 28.999999999999996 and
    overlaps of exactly 1/2 would else change the mAP by a point.
    """
    if rows.unit == "relative":
        raise UnitError(f"`{name}` must be in snippets or seconds, got unit 'relative'")
    if rows.unit != "second":
        return rows.segments
    snippets = rows.segments * rate
    whole = np.rint(snippets)
    return np.where(np.abs(snippets - whole) < 1e-9, whole, snippets)


def _require_one_unit(rows: _Rows, name: str, truth: _Rows) -> None:
    if len(rows) and len(truth) and rows.unit != truth.unit:
        raise UnitError(
            f"`{name}` must be in the unit of `ground_truth`, got {rows.unit!r} and {truth.unit!r}; "
            "convert one of them first (Segments.to_seconds, to_snippets)"
        )


def _as_thresholds(value: ArrayLike | str) -> Float:
    """Finite thresholds above 0 and at most 1, in the order given; or one of the named ranges."""
    if isinstance(value, str):
        return np.array(_THRESHOLD_NAMES[_checks.as_choice(value, "tiou_thresholds", tuple(_THRESHOLD_NAMES))])
    thresholds = _checks.as_threshold_list(value, "tiou_thresholds").copy()
    bad = thresholds[(thresholds <= 0) | (thresholds > 1)]
    if len(thresholds) == 0:
        raise ValueError("`tiou_thresholds` must hold at least one threshold, got none")
    if len(bad):
        raise ValueError(f"`tiou_thresholds` must lie in (0, 1], got {bad[0]:g} ({len(bad)} of {len(thresholds)})")
    return thresholds


# ------------------------------------------------------------------ numbers for groups
def positions(values: Int, known: Int) -> Int:
    """Where every value stands in `known` (rising), -1 where it does not."""
    if not len(known):
        return np.full(len(values), -1, np.int64)
    span = int(known[-1]) - int(known[0]) + 1
    if span <= 4 * len(values):  # a table is 10 times faster than a search: 0.06 ms for 14,000 labels
        table = np.full(span + 1, -1, np.int64)  # the last entry is for what lies outside
        table[known - known[0]] = np.arange(len(known))
        return table[np.where((values < known[0]) | (values > known[-1]), span, values - known[0])]
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, at, -1)


def _bounds(values: Int, num: int) -> Int:
    """(num + 1,) offsets of the runs of 0, 1, ..., num - 1 in sorted values."""
    return np.searchsorted(values, np.arange(num + 1))


def _best_first(scores: Float, labels: Int, num_labels: int) -> Int:
    """Rows by label, then by falling score, the earlier row first among equal scores."""
    order = np.argsort(-scores)
    ranked = scores[order]
    if (ranked[1:] == ranked[:-1]).any():  # a stable sort takes 4 times as long, so only where there are ties
        order = np.argsort(-scores, kind="stable")
    small = labels[order].astype(np.min_scalar_type(num_labels))  # NumPy sorts 8 and 16 bits by radix
    return order[np.argsort(small, kind="stable")]


class _Truth(NamedTuple):
    """Ground truth in the order of the kernels: by class, by video, by start."""

    segments: Float
    rows: Int  # the row that each one had
    offsets: Int  # bounds of the groups
    classes: Int  # (K,) labels, rising
    videos: Int  # (V,) rising
    groups: Int  # (P,) class number * V + video number, rising
    counts: Int  # (K,) instances

    def groups_of(self, labels: Int, videos: Int) -> Int:
        """The group of every row, -1 where no instance has that label in that video."""
        label, video = positions(labels, self.classes), positions(videos, self.videos)
        return positions(np.where((label < 0) | (video < 0), -1, label * len(self.videos) + video), self.groups)


def _group_truth(segments: Float, labels: Int, videos: Int, rows: Int) -> _Truth:
    """Sort the chosen rows of the ground truth into groups."""
    classes, label = np.unique(labels[rows], return_inverse=True)
    known, video = np.unique(videos[rows], return_inverse=True)
    group = label * len(known) + video
    order = np.lexsort((segments[rows, 0], group))  # stable: equal starts stay in the order of their rows
    groups, starts = np.unique(group[order], return_index=True)
    counts = np.bincount(label, minlength=len(classes))
    chosen = rows[order]
    return _Truth(segments[chosen], chosen, np.append(starts, len(rows)), classes, known, groups, counts)


def distinct_rows(segments: Float, labels: Int, videos: Int, tolerance: float, min_length: float) -> Int:
    """The rows that an evaluator's clean-up leaves, rising."""
    order = np.lexsort((labels, videos))  # stable: the earlier of two near-duplicates stays
    changes = (np.diff(labels[order]) != 0) | (np.diff(videos[order]) != 0)
    offsets = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(order)]])
    keep = matching.distinct(segments[order], offsets, float(tolerance), float(min_length))
    return np.sort(order[keep])


# ------------------------------------------------------------------ ambiguous spans
def _on_ambiguous(rows: _Rows, name: str, ambiguous: _Rows, rate: float) -> NDArray[np.bool_]:
    """Which rows share at least one whole snippet with an ambiguous span of their video."""
    spans = np.rint(_in_snippets(ambiguous, "ambiguous", rate))
    order = np.argsort(ambiguous.video, kind="stable")
    spans, videos = spans[order], ambiguous.video[order]
    touched = np.zeros(len(rows), np.bool_)
    video = _videos_of(rows, name, ambiguous, "ambiguous")
    first, stop = np.searchsorted(videos, video), np.searchsorted(videos, video, side="right")
    near = np.flatnonzero(stop > first)  # rows whose video has spans; then one pair per row and span
    count = (stop - first)[near]
    pair = np.repeat(near, count)
    span = spans[np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count) + first[pair]]
    frames = np.trunc(_in_snippets(rows, name, rate)[pair])
    shared = np.minimum(frames[:, 1], span[:, 1]) - np.maximum(frames[:, 0], span[:, 0])
    touched[pair[shared > 0]] = True
    return touched


def filter_ambiguous(
    detections: Segments,
    ambiguous: Segments | Mapping[str, Any],
    *,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
) -> Segments:
    r"""Drop detections on ambiguous spans, as W-TALC, RSKP, GauFuse, CO2-Net and DELU do before they evaluate.

    A detection :math:`[s, e]` covers the snippets ``range(int(s), int(e))``; an ambiguous span :math:`[a, b]`, given in
    seconds, covers ``range(round(a * r), round(b * r))`` with r snippets per second (half rounds to even).  A detection
    goes when the two share a snippet in the same video, whatever its label.

    Parameters
    ----------
    detections : Segments
        In snippets, or in seconds (then multiplied by `snippets_per_second` first).
    ambiguous : Segments or mapping
        Spans in seconds or snippets; labels and scores do not matter.  A mapping holds ``video`` (N,), ``segments``
        (N, 2) and perhaps ``unit`` (default "second").  Videos are matched as in `mean_average_precision`.
    snippets_per_second : float, default 25/16
        r, above 0.

    Returns
    -------
    Segments
        The rows that stay, in their order and unit, with all videos and columns.

    Raises
    ------
    UnitError
        If either side is in relative units.

    Notes
    -----
    The THUMOS14 list has 99 spans in 37 test videos.  Where detection and span are both shorter than a snippet the
    published code divides by zero; here they share nothing, and the detection stays.  See docs/conventions.md.

    Examples
    --------
    >>> found = Segments([[0, 4], [10, 14]], scores=[0.9, 0.8])
    >>> filter_ambiguous(found, Segments([[2.0, 3.0]], unit="second")).segments.tolist()
    [[10.0, 14.0]]
    """
    if not isinstance(detections, Segments):
        _checks.refuse_tensors(detections, "detections")
        raise TypeError(f"`detections` must be Segments, got {type(detections).__name__}")
    rate = _checks.as_number(snippets_per_second, "snippets_per_second", above=0.0)
    rows = _as_rows(detections, "detections", ())
    return detections.select(
        ~_on_ambiguous(rows, "detections", _as_rows(ambiguous, "ambiguous", ("video", "segments")), rate)
    )


# ------------------------------------------------------------------ mAP
def mean_average_precision(
    detections: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    tiou_thresholds: ArrayLike | str = "0.1:0.7",
    protocol: str = "activitynet",
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    empty_class: Literal["zero_ap", "zero_map"] | None = None,
    top_kx: Sequence[int] = (1, 5),
) -> MeanAveragePrecision:
    r"""Mean average precision of temporal detections, under a published protocol.

    The detections of a class, best first over all videos, each take at most one instance of their video that nobody has
    taken and that overlaps by at least :math:`\tau`.  With :math:`h_i = 1` where detection i took one, :math:`p_i =
    \frac{1}{i} \sum_{j \le i} h_j` the precision after i detections and G the number of instances,

    .. math::

        \mathrm{AP}_\tau = \frac{1}{G} \sum_i h_i \max_{j \ge i} p_j
        \qquad\text{or}\qquad
        \mathrm{AP}_\tau = \frac{1}{G} \sum_i h_i \, p_i

    (interpolated as in VOC 2011 [1]_, or not), and the mAP is the mean over the classes of the ground truth.

    Parameters
    ----------
    detections, ground_truth : Segments or mapping
        A mapping holds flat arrays ``video`` (N,), names or whole numbers, ``labels`` (N,), ``segments`` (N, 2), for
        detections ``scores`` (N,), and perhaps ``unit`` (default "second"); other keys do not matter.  Videos are
        matched by name when both sides have names, else by number, which for `Segments` is the position of the video.
    tiou_thresholds : (I,) array_like or str, default "0.1:0.7"
        :math:`\tau`, in (0, 1], in any order; or "0.1:0.5", "0.3:0.7", "0.1:0.7" (also "thumos"), "0.5:0.95" (also
        "activitynet").  The names are decimal literals; several evaluators use `numpy.linspace`, whose values differ
        by an ulp, which matters where an overlap meets a threshold exactly.
    protocol : str, default "activitynet"
        A key of `PROTOCOLS`.  The protocols differ as follows.

        ===================== ======== ==================================== ======= ========================
        name                  unit     overlap                              takes   class without detections
        ===================== ======== ==================================== ======= ========================
        activitynet           second   continuous                           best    AP 0
        activitynet_snippet   snippet  ground truth rounded                 best    AP 0
        wtalc                 snippet  whole snippets, AP not interpolated  first   mAP 0, with a warning
        wtalc_interpolated    snippet  whole snippets                       best    mAP 0, with a warning
        actionformer          second   continuous, ground truth cleaned     best    AP 0
        opentad               second   union >= 1e-8, ground truth cleaned  best    AP 0
        mmaction              second   stored in float32                    best    AP 0
        ===================== ======== ==================================== ======= ========================

        Takes: the free instance with the best overlap, or the first one in the order of rows.
        Cleaned: instances of the same video and label whose starts and ends are within 1e-3 of an earlier one go, and
        those shorter than 1e-3 (actionformer) or empty (opentad).  Whole snippets: detections become ``int(t)``, the
        ground truth ``round(t)``, in snippets.
    ambiguous : Segments or mapping, optional
        Detections on these spans are not counted; see `filter_ambiguous`.  Of the originals, the W-TALC family and
        CO2-Net do that.
    snippets_per_second : float, default 25/16
        Converts whatever comes in seconds where a protocol wants snippets (and for the ambiguous spans).
    empty_class : {"zero_ap", "zero_map"}, optional
        What a class of the ground truth without any counted detection does: its own AP is 0, or the whole mAP is.
        Default: what the protocol's original does.
    top_kx : sequence of int, default (1, 5)
        Multiples x of the number of instances for the recall of "actionformer" and "opentad": which part of the
        instances of a class is overlapped by one of the best x times (instances of that class in that video)
        detections there.

    Returns
    -------
    MeanAveragePrecision
        ``.per_threshold`` (I,), ``.average``, ``.per_class`` (I, K), ``.average_over("0.3:0.7")``,
        fractions; ``.recall`` (I, X, K); ``.matches`` (I, N), which instance every detection took.

    Raises
    ------
    UnitError
        If a protocol in seconds gets two different units (equal units are compared as they are), or a protocol in
        snippets gets relative ones.
    ValueError
        If an argument is malformed, or the protocol or a threshold is unknown.

    Warns
    -----
    UserWarning
        If classes without detections make the mAP 0; if no detection lies in any video of the ground truth.

    Notes
    -----
    Classes are those of the ground truth (after clean-up).  Detections of other labels are not counted
    (``.num_unknown_labels``): ActivityNet's and mmaction2's code stops with a KeyError there, OpenTAD's and ASM-Loc's
    skip them.  Detections in videos without ground truth are false positives in every protocol (``.num_unannotated``).

    Ties: among equal scores the earlier row comes first, among equal overlaps the instance of the earlier row is taken;
    the originals leave both to an unstable sort, most of them reversed.  Two empty intervals overlap by 0; published
    code divides by zero there (the W-TALC lineage stops, ActivityNet's takes NaN for a match).  Cost: two sorts, and
    one visit per detection and overlapping instance of its class and video for all thresholds together.  See
    docs/conventions.md.

    References
    ----------
    .. [1] F. Caba Heilbron et al., "ActivityNet: A Large-Scale Video Benchmark for Human Activity Understanding",
           CVPR 2015, and its evaluation code.
    .. [2] S. Paul et al., "W-TALC: Weakly-supervised Temporal Activity Localization and Classification", ECCV 2018.

    Examples
    --------
    Two instances; the best detection hits one, the second hits nothing, the third hits the other one loosely:

    >>> truth = {"video": ["a", "a"], "labels": [0, 0], "segments": [[0, 10], [20, 30]]}
    >>> found = {
    ...     "video": ["a", "a", "a"],
    ...     "labels": [0, 0, 0],
    ...     "segments": [[0, 10], [40, 50], [20, 25]],
    ...     "scores": [0.9, 0.8, 0.7],
    ... }
    >>> result = mean_average_precision(found, truth, tiou_thresholds=[0.5, 0.7])
    >>> result.per_threshold.round(4).tolist(), round(result.average, 4)
    ([0.8333, 0.5], 0.6667)
    >>> result.matches.tolist()
    [[0, -1, 1], [0, -1, -1]]
    """
    multiples = tuple(_checks.as_count(one, "top_kx", at_least=1) for one in top_kx)
    if empty_class is not None:
        _checks.as_choice(empty_class, "empty_class", _EMPTY_CLASS)
    one = match_all(detections, ground_truth, tiou_thresholds, protocol, ambiguous, snippets_per_second)
    policy = one.rule.empty_class if empty_class is None else empty_class
    ap = matching.average_precision((one.matches >= 0)[one.order], one.offsets, one.truth.counts, one.rule.interpolate)
    num_detections = np.diff(one.offsets)
    return MeanAveragePrecision(
        tiou_thresholds=one.thresholds,
        classes=one.truth.classes,
        per_class=ap,
        per_threshold=_mean_over_classes(ap, num_detections, policy, protocol),
        protocol=protocol,
        num_ground_truth=one.truth.counts,
        num_detections=num_detections,
        recall=_top_kx_recall(one, multiples) if one.rule.recall else None,
        top_kx=multiples if one.rule.recall else (),
        matches=one.matches.T,
        num_unknown_labels=one.num_unknown_labels,
        num_ambiguous=one.num_ambiguous,
        num_unannotated=one.num_unannotated,
    )


class Matched(NamedTuple):
    """Detections and the instances that they take: what every number of an evaluation is counted from."""

    rule: Protocol
    thresholds: Float
    found: _Rows
    annotated: _Rows
    videos: Int  # (N,) the video of every detection in the numbers of `annotated`, -1 where there is none
    truth: _Truth
    order: Int  # counted detections by class, best first
    offsets: Int  # (K + 1,) bounds of the classes in `order`
    segments: Float  # of the ordered detections, in the numbers that the protocol compares
    groups: Int  # of the ordered detections, -1 without an instance of their class in their video
    matches: Int  # (N, I) as in `MeanAveragePrecision`
    num_unknown_labels: int
    num_ambiguous: int
    num_unannotated: int

    @property
    def how(self) -> tuple[int, float]:
        """The kernels' arguments that say how overlaps are rounded."""
        return _PRECISIONS[self.rule.tiou_precision], float(self.rule.union_floor)


def match_all(
    detections: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    tiou_thresholds: ArrayLike | str,
    protocol: str,
    ambiguous: Segments | Mapping[str, Any] | None,
    snippets_per_second: float,
) -> Matched:
    """Arguments of `mean_average_precision`, made canonical and matched; called by public functions only."""
    rule = PROTOCOLS[_checks.as_choice(protocol, "protocol", tuple(PROTOCOLS))]
    thresholds = _as_thresholds(tiou_thresholds)
    rate = _checks.as_number(snippets_per_second, "snippets_per_second", above=0.0)
    found = _as_rows(detections, "detections", ("video", "labels", "segments", "scores"))
    annotated = _as_rows(ground_truth, "ground_truth", ("video", "labels", "segments"))
    found_segments, true_segments = _coordinates(found, annotated, rule, rate)
    videos = _videos_of(found, "detections", annotated, "ground_truth")

    chosen = np.arange(len(annotated))
    if rule.duplicate_tolerance >= 0 or rule.min_length > 0:
        limits = rule.duplicate_tolerance, rule.min_length
        chosen = distinct_rows(true_segments, annotated.labels, annotated.video, *limits)
    truth = _group_truth(true_segments, annotated.labels, annotated.video, chosen)

    label = positions(found.labels, truth.classes)
    counted = label >= 0
    blurred = np.zeros(len(found), np.bool_)
    if ambiguous is not None:
        spans = _as_rows(ambiguous, "ambiguous", ("video", "segments"))
        blurred = counted & _on_ambiguous(found, "detections", spans, rate)
    rows = np.flatnonzero(counted & ~blurred)
    order = rows[_best_first(found.scores[rows], label[rows], len(truth.classes))]
    groups = truth.groups_of(found.labels[order], videos[order])
    unannotated = positions(videos[order], np.unique(annotated.video)) < 0
    if len(order) and unannotated.all():
        warnings.warn(
            f"none of the {len(order)} detections lies in a video that has ground truth; do the video ids agree?",
            stacklevel=3,
        )
    one = Matched(
        rule=rule,
        thresholds=thresholds,
        found=found,
        annotated=annotated,
        videos=videos,
        truth=truth,
        order=order,
        offsets=_bounds(label[order], len(truth.classes)),
        segments=found_segments[order],
        groups=groups,
        matches=np.empty((0, 0), np.int64),
        num_unknown_labels=int((~counted).sum()),
        num_ambiguous=int(blurred.sum()),
        num_unannotated=int(unannotated.sum()),
    )
    instances = truth.segments, truth.rows, truth.offsets
    matches = matching.match(
        one.segments, groups, order, len(found), *instances, thresholds, rule.match == "first", *one.how
    )
    return one._replace(matches=matches)


def largest_overlaps(one: Matched) -> tuple[Float, NDArray[np.bool_]]:
    """Of every ordered detection with any instance of its video, and whether that is of its class.

    Of equal overlaps that with the own class counts.
    """
    truth = one.truth
    labels, videos = one.annotated.labels[truth.rows], one.annotated.video[truth.rows]
    order = np.lexsort((truth.segments[:, 0], videos))
    offsets = _bounds(positions(videos[order], truth.videos), len(truth.videos))
    home, mine = positions(one.videos[one.order], truth.videos), one.found.labels[one.order]
    rows, overlap = matching.nearest(one.segments, home, mine, truth.segments[order], labels[order], offsets, *one.how)
    own = np.zeros(len(rows), np.bool_)
    near = rows >= 0
    own[near] = labels[order][rows[near]] == mine[near]
    return overlap, own


def _coordinates(found: _Rows, truth: _Rows, rule: Protocol, rate: float) -> tuple[Float, Float]:
    """Both sides in the numbers that the protocol compares."""
    if rule.unit == "second":
        _require_one_unit(found, "detections", truth)
        return found.segments, truth.segments
    found_segments, true_segments = _in_snippets(found, "detections", rate), _in_snippets(truth, "ground_truth", rate)
    return (
        np.trunc(found_segments) if rule.truncate_detections else found_segments,
        np.rint(true_segments) if rule.round_ground_truth else true_segments,
    )


def _mean_over_classes(ap: Float, num_detections: Int, policy: str, protocol: str) -> Float:
    """(I,) mAP; 0 without classes, and 0 with a warning where an empty class is to zero it."""
    empty = int((num_detections == 0).sum())
    if policy == "zero_map" and empty:
        warnings.warn(
            f"{empty} of {len(num_detections)} classes have no detections, which makes the mAP 0 under "
            f"protocol={protocol!r}; empty_class='zero_ap' gives only those classes AP 0",
            stacklevel=3,
        )
        return np.zeros(len(ap))
    return ap.mean(axis=1) if ap.shape[1] else np.zeros(len(ap))


def _top_kx_recall(one: Matched, multiples: tuple[int, ...]) -> Float:
    """(I, X, K) part of the instances of a class that the best x * (instances there) detections of a video overlap."""
    truth, groups, thresholds = one.truth, one.groups, one.thresholds
    order = np.argsort(groups, kind="stable")  # still best first within a group
    order = order[np.searchsorted(groups[order], 0) :]
    bounds = _bounds(groups[order], len(truth.groups))
    hits = matching.first_hits(one.segments[order], bounds, truth.segments, truth.offsets, thresholds, *one.how)
    sizes = np.diff(truth.offsets)
    label = np.repeat(truth.groups // max(len(truth.videos), 1), sizes)
    recall = np.zeros((len(thresholds), len(multiples), len(truth.classes)))
    for x, multiple in enumerate(multiples):
        within = hits < np.repeat(multiple * sizes, sizes)[:, None]
        for t in range(len(thresholds)):
            recall[t, x] = np.bincount(label[within[:, t]], minlength=len(truth.classes)) / truth.counts
    return recall


# ------------------------------------------------------------------ proposals without classes
def average_recall(
    proposals: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    max_average_proposals: float | None = None,
    tiou_thresholds: ArrayLike | str = "0.5:0.95",
) -> AverageRecall:
    r"""Recall of class-agnostic proposals against their average number per video (AR@AN), and its area.

    Every video keeps the same fraction of its proposals, best first, so that videos with more proposals keep more.  At
    one hundred average numbers :math:`a_j = \frac{j}{100} A` of proposals per video, the recall is the part of all
    instances that a kept proposal of their video overlaps by at least :math:`\tau`; AR is its mean over :math:`\tau`,
    and the area is :math:`\frac{100}{A} \int \mathrm{AR}` by the trapezoidal rule.

    Parameters
    ----------
    proposals, ground_truth : Segments or mapping
        As in `mean_average_precision`, in one unit; labels are not used and may be left out.  The videos counted
        are those of the ground truth, for `Segments` also those without instances.
    max_average_proposals : float, optional
        A, above 0.  Default: all proposals, A = proposals / videos.
    tiou_thresholds : (I,) array_like or str, default "0.5:0.95"
        :math:`\tau`, as in `mean_average_precision`.

    Returns
    -------
    AverageRecall
        ``.recall`` (I, 100), ``.average_recall`` (100,), ``.proposals_per_video`` (100,), ``.area`` in percent.

    Raises
    ------
    UnitError
        If the two sides have different units.

    Notes
    -----
    Equals mmaction2's ``average_recall_at_avg_proposals``, its float32 overlaps and its truncated counts included.
    Proposals in other videos count for A and are never kept, as there.  Ties: the earlier row first.  Nothing to find
    or nothing found gives recall 0.

    Examples
    --------
    >>> found = Segments([[0, 10], [20, 31]], scores=[0.9, 0.8])
    >>> result = average_recall(found, Segments([[0, 10], [20, 30]]))
    >>> result.average_recall[[49, 99]].tolist(), result.proposals_per_video[-1].item()
    ([0.5, 0.95], 2.0)
    """
    thresholds = _as_thresholds(tiou_thresholds)
    found = _as_rows(proposals, "proposals", ("video", "segments", "scores"))
    annotated = _as_rows(ground_truth, "ground_truth", ("video", "segments"))
    _require_one_unit(found, "proposals", annotated)
    videos = _videos_of(found, "proposals", annotated, "ground_truth")
    known = np.unique(annotated.video) if annotated.num_videos is None else np.arange(annotated.num_videos)
    num_videos = len(known)
    limit = float(len(found)) / max(num_videos, 1)
    if max_average_proposals is not None:
        limit = _checks.as_number(max_average_proposals, "max_average_proposals", above=0.0)

    video = positions(videos, known)
    order = np.lexsort((-found.scores, video))
    order = order[np.searchsorted(video[order], 0) :]
    available = np.bincount(video[order], minlength=num_videos)
    ratio = limit * float(num_videos) / max(len(found), 1)  # the order of these operations decides the truncation
    kept = np.minimum((available * ratio).astype(np.int64), available)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(available) - available, available)
    order = order[rank < np.repeat(kept, available)]
    retrieved = len(order)
    fractions = np.arange(1, 101) / 100.0 * (limit * float(num_videos) / max(retrieved, 1))

    home = positions(annotated.video, known)
    rows = np.lexsort((annotated.segments[:, 0], home))
    bounds, offsets = _bounds(video[order], num_videos), _bounds(home[rows], num_videos)
    hits = matching.first_hits(
        _single(found.segments[order]),
        bounds,
        _single(annotated.segments[rows]),
        offsets,
        thresholds,
        matching.SINGLE,
        0.0,
    )
    allowed = np.minimum((kept[:, None] * fractions).astype(np.int64), kept[:, None])[home[rows]]  # (G, 100)
    recall = np.zeros((len(thresholds), 100))
    for t in range(len(thresholds) if len(rows) else 0):
        recall[t] = (hits[:, t, None] < allowed).sum(axis=0) / len(rows)
    per_video = fractions * (float(retrieved) / max(num_videos, 1))
    average = recall.mean(axis=0)
    area = float((np.diff(per_video) * (average[1:] + average[:-1]) / 2).sum())
    return AverageRecall(thresholds, per_video, recall, average, 100.0 * area / per_video[-1] if retrieved else 0.0)


def _single(segments: Float) -> Float:
    """Rounded to float32, held in float64."""
    return segments.astype(np.float32).astype(np.float64)


# ------------------------------------------------------------------ whole videos
def classification_map(video_scores: ArrayLike, video_labels: ArrayLike) -> ClassificationMAP:
    r"""Mean average precision of video-level class scores.

    For each class the videos are ranked by score.  With :math:`h_i = 1` where the i-th one shows the class and
    :math:`p_i` the precision after i videos, :math:`\mathrm{AP} = \sum_i h_i p_i / \sum_i h_i`, not interpolated, as in
    W-TALC.

    Parameters
    ----------
    video_scores : (V, K) array_like of float
        Finite; leave out the background column.
    video_labels : (V, K) array_like of bool or 0 and 1
        Which video shows which class.

    Returns
    -------
    ClassificationMAP
        ``.average``, and ``.per_class`` of the ``.classes`` that at least one video shows; the others have no AP.

    Raises
    ------
    ValueError
        If a score is not finite, a label is neither 0 nor 1, or the shapes differ.

    Notes
    -----
    Ties: the earlier video first.

    Examples
    --------
    >>> result = classification_map([[0.9, 0.1], [0.8, 0.7], [0.1, 0.6]], [[1, 0], [0, 0], [1, 0]])
    >>> result.classes.tolist(), round(result.average, 4)
    ([0], 0.8333)
    """
    scores = _checks.as_columns(_as_matrix(video_scores, "video_scores"), None, "video_scores")
    labels = _as_matrix(video_labels, "video_labels").T
    if labels.shape != scores.shape:
        shapes = scores.shape[::-1], labels.shape[::-1]
        raise ValueError("`video_labels` must have shape {} like `video_scores`, got {}".format(*shapes))
    wrong = labels[(labels != 0) & (labels != 1)]
    if wrong.size:
        raise ValueError(f"`video_labels` must be 0 or 1, got {wrong[0]} ({wrong.size} of {labels.size})")
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(labels == 1, order, axis=1)
    positives = hits.sum(axis=1)
    num_classes, num_videos = hits.shape
    offsets = np.arange(num_classes + 1) * num_videos
    ap = matching.average_precision(hits.reshape(-1, 1), offsets, positives, False)[0]
    classes = np.flatnonzero(positives)
    return ClassificationMAP(classes, ap[classes], positives[classes])


def _as_matrix(value: ArrayLike, name: str, shape: str = "(V, K)") -> NDArray[Any]:
    array = _checks.as_real(value, name)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape {shape}, got shape {array.shape}")
    return array


# ------------------------------------------------------------------ pseudo labels
def pseudo_label_quality(
    labels: NDArray[Any] | Sequence[NDArray[Any]],
    ground_truth: Segments | NDArray[np.bool_] | Sequence[NDArray[np.bool_]],
    *,
    threshold: float = 0.0,
) -> LabelQuality:
    r"""Precision, recall and coverage of label maps.

    A snippet can be labelled as action of one or more classes, as background, or not at all:

    * In a map of real numbers (or bool), it is labelled as action of the classes whose label is above `threshold`, and
      not at all where there is none: 0 is no label.
    * In a tri-state map, of integers, it is labelled as action of the classes with code 1, as background when all of
      its codes are 0, and else not at all.

    An action label is correct where its class acts, a background label where no class does.  Then

    .. math::

        \text{precision} = \frac{\text{correct labels}}{\text{labels}} , \quad
        \text{recall} = \frac{\text{correct action labels}}{\text{pairs of a snippet and a class that acts there}} ,
        \quad
        \text{coverage} = \frac{\text{snippets with correct labels only}}{\text{all snippets}} ,

    with counts over all videos and classes.  Where a snippet has at most one label, as in ILG [1]_, precision is the
    paper's "correct over selected frames", and coverage is what the paper calls recall: "correct over all frames".
    Coverage includes background, recall does not.

    Parameters
    ----------
    labels : (T, K) ndarray, or list of those
        One label map, or a list of one per video; leave out a background column.
    ground_truth : Segments, (T, K) ndarray of bool, or list of those
        Instances in snippets, of as many videos, or maps of what acts where.  An instance covers the snippets whose
        middle it holds, or the one snippet that holds its middle.
    threshold : float, default 0
        Labels strictly above it are action, in maps of real numbers.

    Returns
    -------
    LabelQuality
        ``.precision``, ``.recall``, ``.coverage``, the same ``..._per_class`` (K,), and the counts.  Shares of nothing
        are 0.

    Raises
    ------
    UnitError
        If the instances are not in snippets.
    TypeError
        If a map of the ground truth is not of bool.
    ValueError
        If the sides have different videos, lengths or classes, a code is none of `LabelState`, or an instance lies
        wholly outside its video.

    Notes
    -----
    Precision and coverage of [1]_, Tables IV and VI: 0.805 and 0.374 for ILG's first labels, 0.745 and 0.631 after
    three stages.  By the paper's definition coverage cannot exceed precision, but one row has 0.697 and 0.703.

    References
    ----------
    .. [1] R. Su, D. Xu, L. Zhou and W. Ouyang, "Improving Weakly Supervised Temporal Action Localization by Exploiting
           Multi-resolution Information in Temporal Domain".

    Examples
    --------
    Snippets 1 to 3 act.  Of the labels, action at 1 and background at 0 are right, background at 3 is wrong:

    >>> result = pseudo_label_quality(np.array([[0], [1], [-1], [0]]), Segments([[1, 4]]))
    >>> round(result.precision, 3), round(result.recall, 3), result.coverage
    (0.667, 0.333, 0.5)
    """
    threshold = _checks.as_number(threshold, "threshold")
    several = isinstance(labels, (list, tuple))
    maps: Sequence[Any] = labels if isinstance(labels, (list, tuple)) else [labels]
    names = [f"labels[{v}]" for v in range(len(maps))] if several else ["labels"]
    found = [_as_label_map(one, name, threshold) for one, name in zip(maps, names)]
    num_classes = found[0][0].shape[1] if found else 0
    for (acts, _), name in zip(found, names):
        if acts.shape[1] != num_classes:
            raise ValueError(f"`{name}` must have {num_classes} classes like the other maps, got {acts.shape[1]}")
    truths = _true_maps(ground_truth, [acts.shape for acts, _ in found])

    labelled, correct, true = np.zeros((3, num_classes), np.int64)
    background = correct_background = correct_snippets = 0
    for (acts, idle), truth in zip(found, truths):
        labelled += acts.sum(axis=0)
        correct += (acts & truth).sum(axis=0)
        true += truth.sum(axis=0)
        right = idle & ~truth.any(axis=1)
        background += int(idle.sum())
        correct_background += int(right.sum())
        correct_snippets += int((right | (acts.any(axis=1) & ~(acts & ~truth).any(axis=1))).sum())
    num_snippets = sum(len(acts) for acts, _ in found)
    return LabelQuality(labelled, correct, true, background, correct_background, correct_snippets, num_snippets)


def _as_label_map(value: ArrayLike, name: str, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(T, K) where which class is labelled as action, and (T,) which snippets are labelled as background."""
    array = _as_matrix(value, name, "(T, K)")
    values = _checks.as_columns(array, None, name).T
    if array.dtype.kind not in "iu":
        return values > threshold, np.zeros(len(values), np.bool_)
    wrong = values[~np.isin(values, list(LabelState))]
    if wrong.size:
        raise ValueError(
            f"`{name}` holds integers, so codes -1, 0 and 1, got {wrong[0]:g} ({wrong.size} of {values.size})"
        )
    return values == LabelState.ACTION, (values == LabelState.BACKGROUND).all(axis=1)


def _true_maps(value: Any, shapes: list[tuple[int, ...]]) -> list[NDArray[np.bool_]]:
    """(T, K) for every video: which class acts where."""
    name = "ground_truth"
    if isinstance(value, Segments):
        value.require_unit("snippet", name)
        parts: Sequence[Any] = list(value.split())
    else:
        parts = value if isinstance(value, (list, tuple)) else [value]
    if len(parts) != len(shapes):
        raise ValueError(f"`{name}` must have one video per label map ({len(shapes)}), got {len(parts)}")
    truths = []
    for v, ((num_snippets, num_classes), part) in enumerate(zip(shapes, parts)):
        at = f"{name} of video {v}"
        if isinstance(part, Segments):
            classes = _checks.as_labels(part.labels, len(part), f"{at}: labels", num_classes=num_classes)
            regions = covered(part.segments, num_snippets, at)
            truth = paint_largest(*regions, classes, np.ones(len(part)), (num_snippets, num_classes)) > 0
        else:
            _checks.refuse_tensors(part, at)
            truth = np.asarray(part)
            if truth.dtype != np.bool_:
                raise TypeError(f"`{at}` must hold True and False, got dtype {truth.dtype}")
            if truth.shape != (num_snippets, num_classes):
                raise ValueError(f"`{at}` must have shape {(num_snippets, num_classes)}, got {truth.shape}")
        truths.append(truth)
    return truths
