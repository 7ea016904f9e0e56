"""What may happen to proposals, detections and instances beyond suppression and fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int
from ._kernels import refinement as _kernels
from ._regions import covered
from .pseudo_labels import tri_state_label_map
from .suppression import nms
from .types import FusedSegments, LabelState, Segments, Unit, UnitError

__all__ = [
    "DurationPrior",
    "agreement_weights",
    "boundary_ignore_band",
    "compensate_missing",
    "filter_durations",
    "quality_weights",
    "snap_boundaries",
    "timeline_fusion",
]

# where a kernel alone is as wide as its segment; half for a box, which is that anywhere below its height
_LEVELS = {"ricker": 0.0, "gaussian": float(np.exp(-0.5)), "box": 0.5}
_REACH = 8.0  # half-lengths; a bell is below 1e-12 of its height beyond them


def _as_rows(value: Any, name: str) -> Segments:
    if not isinstance(value, Segments):
        _checks.refuse_tensors(value, name)
        raise TypeError(f"`{name}` must be Segments, got {type(value).__name__}")
    return value


def _one_video(value: Any) -> Segments:
    rows = _as_rows(value, "segments")
    rows.require_unit("snippet", "segments")
    if rows.num_videos != 1:
        raise ValueError(f"`segments` must be of one video, got {rows.num_videos}; use Segments.split()")
    return rows


def _same_videos(rows: Segments, other: Any, name: str, other_name: str) -> Segments:
    """`other`, of the videos and in the unit of `rows`."""
    other = _as_rows(other, other_name)
    if other.unit != rows.unit:
        raise UnitError(f"`{name}` and `{other_name}` must share one unit, got {rows.unit!r} and {other.unit!r}")
    if other.num_videos != rows.num_videos or (
        rows.video_ids and other.video_ids and rows.video_ids != other.video_ids
    ):
        raise ValueError(
            f"`{name}` and `{other_name}` must be of the same videos in the same order, "
            f"got {rows.num_videos} and {other.num_videos} videos"
        )
    return other


def _best_overlaps(rows: Segments, others: Segments) -> Float:
    """(N,) largest tIoU of every row with the rows of its video and class among `others`."""
    classes, label = np.unique(np.concatenate((rows.labels, others.labels)), return_inverse=True)
    group = np.concatenate((rows.video_index, others.video_index)) * len(classes) + label
    own, other = group[: len(rows)], group[len(rows) :]
    order = np.lexsort((others.segments[:, 0], other))
    return np.asarray(_kernels.best_overlaps(rows.segments, own, others.segments[order], other[order]))


def timeline_fusion(
    segments: Segments,
    num_snippets: int,
    *,
    kernel: Literal["ricker", "gaussian", "box"] = "ricker",
    thresholds: ArrayLike | None = None,
    factor: int = 4,
) -> Segments:
    r"""All proposals of a class are added up on one timeline, and new ones are read off it.

    A proposal [s, e) of score q adds :math:`q \, \kappa(x)`, where :math:`x = (t - (s + e) / 2) / h` is the distance
    from its middle in half-lengths, :math:`h = (e - s) / 2`:

    ==========  =====================================  =========================================
    kernel      :math:`\kappa(x)`                      a lone proposal is read back as itself at
    ==========  =====================================  =========================================
    "ricker"    :math:`(1 - x^2) \exp(-x^2 / 2)`       0, its zero crossings
    "gaussian"  :math:`\exp(-x^2 / 2)`                 :math:`\exp(-1/2)` of its height
    "box"       1 inside, 0 outside                    any share of its height below 1
    ==========  =====================================  =========================================

    The Ricker kernel (Mexican hat) is negative beyond the boundaries, so that a proposal speaks against what lies just
    outside of it, and neighbours stay apart.

    Parameters
    ----------
    segments : Segments
        Proposals of one video with their scores, in snippets.  A score below 0 takes away.
    num_snippets : int
        T, at least 0.
    kernel : {"ricker", "gaussian", "box"}
    thresholds : float or sequence of float, optional
        Shares of the largest value of the class's timeline, in [0, 1); a run is where the timeline is strictly above.
        Default: 0 for "ricker", :math:`\exp(-1/2)` for "gaussian", 0.5 for "box".
    factor : int, default 4
        Points of the timeline per snippet, >= 1.

    Returns
    -------
    Segments
        By class, then by threshold in the order given, then by time.  A boundary lies on the line between two
        neighbouring points where it crosses the threshold; with "box", half-way between them; at an end of the video,
        there.  The score is the largest value of the run, so a lone proposal has about its own, and proposals that
        agree have up to the sum of theirs.

    Raises
    ------
    UnitError
        If the proposals are not in snippets.
    ValueError
        If there is more than one video, a threshold is out of range, or a proposal lies wholly outside the video.

    See Also
    --------
    fuse_segments : merges clusters instead.

    Notes
    -----
    The idea, a space that all proposals share and Ricker kernels on it, is RickerFusion's [1]_.  The formula, the width
    of a kernel, and how proposals are read off are our reading, and not checked against the authors' code.

    A proposal shorter than two points of the timeline has kernels of that length.  A class whose timeline is nowhere
    above 0 yields nothing.  "box" takes O(N + F K T) for F points per snippet and K classes that occur; the others
    cut a kernel off where it is below 1e-12 of its height, 8 half-lengths from its middle, and take
    O(F (8 times the proposals' lengths, summed, but no more than N T) + F K T).

    References
    ----------
    .. [1] Z. Liu and Y. Liu, "Bridge the Gap: From Weak to Full Supervision for Temporal Action Localization with
           PseudoFormer", CVPR 2025.

    Examples
    --------
    >>> found = Segments([[2, 6], [2, 6], [4, 8], [14, 16]], scores=[0.5, 0.5, 0.5, 0.5])
    >>> fused = timeline_fusion(found, 20)
    >>> fused.segments.round(2), fused.scores.round(2)
    (array([[ 2.34,  6.85],
           [14.  , 16.01]]), array([1.07, 0.49]))
    """
    rows = _one_video(segments)
    length = _checks.as_count(num_snippets, "num_snippets")
    points = _checks.as_count(factor, "factor", at_least=1)
    _checks.as_choice(kernel, "kernel", tuple(_LEVELS))
    shares = _checks.as_threshold_list(_LEVELS[kernel] if thresholds is None else thresholds)
    if ((shares < 0) | (shares >= 1)).any():
        raise ValueError(f"`thresholds` must lie in [0, 1), got {shares.tolist()}")
    covered(rows.segments, length)  # refuses what lies outside the video

    classes, row = np.unique(rows.labels, return_inverse=True)
    line = np.zeros((len(classes), length * points))
    if kernel == "box":
        start, stop = covered(rows.segments * points, length * points)
        shape = len(classes), length * points + 1
        steps, boxes = np.zeros(shape), np.zeros(shape, np.int64)
        for at, sign in ((start, 1), (stop, -1)):
            np.add.at(steps, (row, at), sign * rows.scores)
            np.add.at(boxes, (row, at), sign)
        # what rounding leaves where all boxes have ended is no value
        line = np.where(boxes.cumsum(axis=1) > 0, steps.cumsum(axis=1), 0.0)[:, :-1]
    elif length:
        centre = rows.segments.mean(axis=1) * points
        half = np.maximum((rows.segments[:, 1] - rows.segments[:, 0]) * points, 2.0) / 2
        _kernels.add_bells(line, row, centre, half, rows.scores, kernel == "ricker", _REACH)
    which, found, peaks = _read_off(line, shares, kernel != "box")
    return Segments(found / points, classes[which], peaks, unit="snippet", video_ids=rows.video_ids)


def _read_off(line: Float, shares: Float, interpolate: bool) -> tuple[Int, Float, Float]:
    """Row, boundaries in points, and largest value of the runs above each share of every row's largest value."""
    top = line.max(axis=1, initial=0.0)
    rank, parts = [np.empty((0, 2), np.int64)], [np.empty((0, 3))]
    for place, share in enumerate(shares):
        level = share * top
        above = np.zeros((len(line), line.shape[1] + 2), np.bool_)
        above[:, 1:-1] = line > level[:, None]
        change = above[:, 1:] != above[:, :-1]
        row, edge = np.nonzero(change)
        row, first, stop = row[::2], edge[::2], edge[1::2]
        bounds = np.stack((row * line.shape[1] + first, row * line.shape[1] + stop), axis=1).ravel()
        peak = np.maximum.reduceat(np.append(line, -np.inf), bounds)[::2] if len(bounds) else np.empty(0)
        start, end = first.astype(np.float64), stop.astype(np.float64)
        if interpolate:
            r, t = row[first > 0], first[first > 0]
            low, high = line[r, t - 1], line[r, t]
            start[first > 0] += (level[r] - low) / (high - low) - 0.5
            inside = stop < line.shape[1]
            r, t = row[inside], stop[inside]
            high, low = line[r, t - 1], line[r, t]
            end[inside] += (high - level[r]) / (high - low) - 0.5
        rank.append(np.stack((row, np.full(len(row), place)), axis=1))
        parts.append(np.stack((start, np.maximum(start, end), peak), axis=1))
    order = np.lexsort(np.concatenate(rank).T[::-1])
    found = np.concatenate(parts)[order]
    return np.concatenate(rank)[order, 0], found[:, :2], found[:, 2].copy()


def compensate_missing(
    kept: Segments, teacher: Segments, *, tiou_threshold: float, min_score: float | None = None
) -> Segments:
    """Add what a teacher found where nothing was kept: instances that the pseudo labels miss.

    A segment of the teacher is added when its overlap with every kept segment of its video and class, and with every
    better one that was added, is at most `tiou_threshold`.  It is an `nms` in which what was kept comes first, whatever
    the scores, and never goes.

    Parameters
    ----------
    kept : Segments
        Of one or many videos, in any unit; all of them stay.
    teacher : Segments
        Of the same videos, in the same unit.
    tiou_threshold : float
        In [0, 1]; with 0, only segments that share nothing with a kept one are added.
    min_score : float, optional
        Segments of the teacher with a lower score are left out.

    Returns
    -------
    Segments
        Video by video: what was kept as it was, then what was added, in the teacher's order.  The column ``added``
        says which is which; other columns stay where both sides have them.

    Raises
    ------
    UnitError
        If the units differ.
    ValueError
        If the videos differ, or an option is out of range.

    Notes
    -----
    Missing instance compensation is a part of NoCo [1]_.  That added segments keep each other out, and that classes are
    compared as indices, are our reading, not checked against the authors' code.  Among equal scores the earlier row of
    the teacher comes first.  O((N + P) log N) for P pairs that overlap, unless kept segments contain many others.

    References
    ----------
    .. [1] Q. Zhang et al., "Rethinking Pseudo-Label Guided Learning for Weakly Supervised Temporal Action Localization
           from the Perspective of Noise Correction", AAAI 2025.

    Examples
    --------
    >>> both = compensate_missing(Segments([[0, 10]]), Segments([[1, 9], [20, 24]]), tiou_threshold=0.1)
    >>> both.segments.tolist(), both.columns["added"]
    ([[0.0, 10.0], [20.0, 24.0]], array([False,  True]))
    """
    kept = _as_rows(kept, "kept")
    teacher = _same_videos(kept, teacher, "kept", "teacher")
    threshold = _checks.as_tiou_threshold(tiou_threshold)
    least = -np.inf if min_score is None else _checks.as_number(min_score, "min_score")
    free = np.flatnonzero((teacher.scores >= least) & (_best_overlaps(teacher, kept) <= threshold))
    _, label = np.unique(teacher.labels[free], return_inverse=True)
    group = teacher.video_index[free] * len(free) + label
    survivors = nms(teacher.segments[free], teacher.scores[free], tiou_threshold=threshold, idxs=group)
    new = teacher.select(np.sort(free[survivors]))

    video = np.concatenate((kept.video_index, new.video_index))
    order = np.argsort(video, kind="stable")
    columns = {
        name: np.concatenate((kept.columns[name], new.columns[name]))[order]
        for name in kept.columns
        if name in new.columns
    }
    columns["added"] = np.repeat([False, True], [len(kept), len(new)])[order]
    return Segments(
        np.concatenate((kept.segments, new.segments))[order],
        np.concatenate((kept.labels, new.labels))[order],
        np.concatenate((kept.scores, new.scores))[order],
        kept.offsets + new.offsets,
        kept.unit,
        kept.video_ids or new.video_ids,
        columns,
    )


def snap_boundaries(segments: Segments, tcam: ArrayLike, *, radius: float) -> Segments:
    """Move every start to the steepest rise of its class nearby, and every end to the steepest fall.

    The change at the whole number b is the activation of snippet b less that of snippet b - 1; beyond the video the
    activation is 0.  Of the b within `radius` of a start, the one with the largest rise becomes the start; of those
    within `radius` of an end, the one with the largest fall becomes the end.

    Parameters
    ----------
    segments : Segments
        Of one video, in snippets; what `Segments.columns` holds stays as it is.
    tcam : (T, K) array_like of float
        Activations of the classes that `segments.labels` names.
    radius : float
        In snippets, >= 0.

    Returns
    -------
    Segments
        The same rows with other boundaries.  A boundary stays where it is when nothing rises (or falls) in reach, and
        both do when they would meet or change sides.

    Raises
    ------
    UnitError
        If the segments are not in snippets.
    ValueError
        If there is more than one video, the map is malformed, or a label has no column in it.

    Notes
    -----
    Among equal changes the nearest boundary wins, then the earlier one.  Salient snippets found by the difference
    between neighbours are the idea of [1]_, where they change the features of a network; to move boundaries of finished
    segments by it is our reading.  O(N radius + T K).

    References
    ----------
    .. [1] W. Yun et al., "Weakly-Supervised Temporal Action Localization by Inferring Salient Snippet-Feature",
           AAAI 2024.

    Examples
    --------
    >>> tcam = [[0.1], [0.2], [0.8], [0.9], [0.8], [0.3], [0.1]]
    >>> snap_boundaries(Segments([[1, 6]]), tcam, radius=1).segments
    array([[2., 5.]])
    """
    rows = _one_video(segments)
    array = _checks.as_map(tcam, "tcam")
    if array.ndim != 2:
        raise ValueError(f"`tcam` must have shape (T, K), got shape {array.shape}")
    reach = _checks.as_number(radius, "radius", at_least=0.0)
    length, classes = array.shape
    labels = _checks.as_labels(rows.labels, len(rows), "segments.labels", num_classes=classes)
    change = np.diff(_checks.as_columns(array, None, "tcam"), axis=1, prepend=0.0, append=0.0)
    moved = rows.segments.copy()
    for side, sign in ((0, 1.0), (1, -1.0)):
        boundary = rows.segments[:, side]
        best, nearest = np.zeros(len(rows)), np.full(len(rows), np.inf)
        first = np.ceil(np.clip(boundary - reach, 0, length + 1)).astype(np.int64)
        last = np.floor(np.clip(boundary + reach, -1, length)).astype(np.int64)
        for step in range(int((last - first).max(initial=-1)) + 1):
            at = first + step
            here = sign * change[labels, np.minimum(at, length)]
            distance = np.abs(at - boundary)
            wins = (at <= last) & ((here > best) | ((here == best) & (best > 0) & (distance < nearest)))
            best, nearest = np.where(wins, here, best), np.where(wins, distance, nearest)
            moved[:, side] = np.where(wins, at, moved[:, side])
    stays = moved[:, 0] >= moved[:, 1]
    moved[stays] = rows.segments[stays]
    return rows.replace(segments=moved)


@dataclass(frozen=True, eq=False)
class DurationPrior:
    """How long the instances of each class plausibly are; for `filter_durations`.

    Parameters
    ----------
    lower, upper : (K,) array_like of float
        Shortest and longest plausible duration of each class, 0 <= lower <= upper; `upper` may be infinite.
    unit : {"snippet", "second", "relative"}
        Of the durations.

    Raises
    ------
    ValueError
        If the bounds differ in number or are out of order.

    Examples
    --------
    >>> DurationPrior([1.0, 5.0], [10.0, np.inf], unit="second").upper
    array([10., inf])
    """

    lower: Float
    upper: Float
    unit: Unit = "second"

    def __post_init__(self) -> None:
        lower, upper = (
            np.array(_checks.as_real(v, n), np.float64) for v, n in ((self.lower, "lower"), (self.upper, "upper"))
        )
        if lower.ndim != 1 or lower.shape != upper.shape:
            raise ValueError(f"`lower` and `upper` must have shape (K,), got shapes {lower.shape} and {upper.shape}")
        bad = ~((lower >= 0) & (lower <= upper))
        if bad.any():
            first = int(bad.argmax())
            raise ValueError(
                f"`lower` and `upper` need 0 <= lower <= upper; class {first} has {lower[first]:g} and "
                f"{upper[first]:g} ({int(bad.sum())} of {len(bad)} classes)"
            )
        _checks.as_choice(self.unit, "unit", ("snippet", "second", "relative"))
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @classmethod
    def fit(
        cls,
        segments: Segments,
        num_classes: int,
        *,
        coverage: float = 0.95,
        distribution: Literal["quantiles", "lognormal"] = "quantiles",
        min_instances: int = 5,
    ) -> DurationPrior:
        r"""Bounds that hold the middle share of the durations of each class.

        Parameters
        ----------
        segments : Segments
            Annotated instances, such as ``annotations.segments``, in the unit that the prior shall have.
        num_classes : int
            K, at least 0.
        coverage : float, default 0.95
            Share of the durations between the bounds, in (0, 1].
        distribution : {"quantiles", "lognormal"}
            "quantiles" are those of the durations themselves, linear between them.  "lognormal" takes
            :math:`\exp(\mu \pm z \sigma)` with the mean and the standard deviation of the logarithms, where z is the
            quantile (1 + coverage) / 2 of the normal distribution.
        min_instances : int, default 5
            A class with fewer instances takes the bounds of all instances together, at least 1.  Without any instance
            the bounds are 0 and infinity.

        Returns
        -------
        DurationPrior

        Raises
        ------
        ValueError
            If a label is not below `num_classes`, an option is out of range, or, for "lognormal", coverage is 1 or an
            instance has no length.

        Examples
        --------
        >>> known = Segments([[0, 2], [0, 4], [5, 11], [0, 8], [20, 30]], unit="second")
        >>> prior = DurationPrior.fit(known, 1, coverage=0.5)
        >>> prior.lower, prior.upper
        (array([4.]), array([8.]))
        """
        rows = _as_rows(segments, "segments")
        classes = _checks.as_count(num_classes, "num_classes")
        labels = _checks.as_labels(rows.labels, len(rows), "segments.labels", num_classes=classes)
        share = _checks.as_number(coverage, "coverage", above=0.0, at_most=1.0)
        few = _checks.as_count(min_instances, "min_instances", at_least=1)
        lognormal = _checks.as_choice(distribution, "distribution", ("quantiles", "lognormal")) == "lognormal"
        durations = rows.segments[:, 1] - rows.segments[:, 0]
        if lognormal:
            if share == 1:
                raise ValueError("`coverage` must be below 1 for distribution 'lognormal', got 1")
            if (durations == 0).any():
                count = f"{int((durations == 0).sum())} of {len(rows)} rows"
                raise ValueError(f"`segments` must have a length for distribution 'lognormal' ({count} have none)")
            durations = np.log(durations)

        def bounds(values: Float) -> Float:
            if not len(values):
                return np.array([-np.inf if lognormal else 0.0, np.inf])
            if lognormal:
                z = NormalDist().inv_cdf((1 + share) / 2)
                return values.mean() + np.array([-z, z]) * values.std()
            return np.quantile(values, [(1 - share) / 2, (1 + share) / 2])

        per_class = [durations[labels == c] for c in range(classes)]
        table = np.array([bounds(own if len(own) >= few else durations) for own in per_class]).reshape(classes, 2)
        lower, upper = (np.exp(table) if lognormal else table).T
        return cls(lower, upper, rows.unit)


def filter_durations(
    segments: Segments,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    prior: DurationPrior | None = None,
) -> Segments:
    """Leave out what is too short or too long, for all classes alike or for each its own.

    Parameters
    ----------
    segments : Segments
        Of one or many videos.
    at_least, at_most : float, optional
        Shortest and longest duration that stays, in the unit of `segments`, both included, >= 0.
    prior : DurationPrior, optional
        Bounds of each class, both included, in the unit of `segments`.  What is given holds together.

    Returns
    -------
    Segments
        The rows that stay, in their order, with their columns.

    Raises
    ------
    UnitError
        If the prior is in another unit.
    ValueError
        If nothing is given, an option is out of range, or the prior does not know a label.

    Notes
    -----
    Filters by a prior on the duration are part of FuSTAL [1]_; the bounds, and how `DurationPrior.fit` finds them, are
    our reading.  A duration is end less start in float64, as it comes.  O(N).

    References
    ----------
    .. [1] Q. Feng et al., "Full-Stage Pseudo Label Quality Enhancement for Weakly-supervised Temporal Action
           Localization", arXiv:2407.08971.

    Examples
    --------
    >>> found = Segments([[0, 1], [0, 4], [0, 50]], labels=[0, 0, 1])
    >>> filter_durations(found, at_least=2).segments.tolist()
    [[0.0, 4.0], [0.0, 50.0]]
    >>> prior = DurationPrior([0, 2], [3, 20], unit="snippet")
    >>> filter_durations(found, prior=prior).segments.tolist()
    [[0.0, 1.0]]
    """
    rows = _as_rows(segments, "segments")
    if at_least is None and at_most is None and prior is None:
        raise ValueError("one of `at_least`, `at_most` and `prior` must be given")
    durations = rows.segments[:, 1] - rows.segments[:, 0]
    stays = np.ones(len(rows), np.bool_)
    if at_least is not None:
        stays &= durations >= _checks.as_number(at_least, "at_least", at_least=0.0)
    if at_most is not None:
        stays &= durations <= _checks.as_number(at_most, "at_most", at_least=0.0)
    if prior is not None:
        if not isinstance(prior, DurationPrior):
            raise TypeError(f"`prior` must be a DurationPrior, got {type(prior).__name__}")
        rows.require_unit(prior.unit, "segments")
        labels = _checks.as_labels(rows.labels, len(rows), "segments.labels", num_classes=len(prior.lower))
        stays &= (durations >= prior.lower[labels]) & (durations <= prior.upper[labels])
    return rows.select(stays)


def quality_weights(fused: FusedSegments | Segments, *, by: Literal["spread", "size", "both"] = "spread") -> Float:
    r"""How much the members of each cluster agree, in [0, 1]: a weight of the fused segment in a loss.

    * spread: :math:`\ell / (\ell + \sigma_s + \sigma_e)` for a fused segment of length :math:`\ell`, its tIoU with one
      that reaches a standard deviation further at both ends; 1 where all members have the same boundaries.
    * size: :math:`1 - 1 / n` for the effective size n, the chance that two members drawn by weight differ; 0 where one
      member has all the weight, so that a proposal without company counts nothing.
    * both: their product.

    Parameters
    ----------
    fused : FusedSegments or Segments
        What a fusion returns, or segments with the columns ``start_std``, ``end_std`` and ``effective_size`` that a
        pipeline with `config.Fuse` leaves.
    by : {"spread", "size", "both"}

    Returns
    -------
    (M,) ndarray of float64
        One weight per fused segment.

    Raises
    ------
    ValueError
        If a column is not there or out of range.

    See Also
    --------
    agreement_weights : agreement across thresholds or models, without a fusion.
    boundary_ignore_band : snippets instead of segments.

    Notes
    -----
    Both formulas are ours.  Weights for noisy instances are part of NoCo (AAAI 2025), where a network gives them.  A
    segment without length has spread weight 1 where nothing spreads, and 0 elsewhere.  O(M).

    Examples
    --------
    >>> found = Segments([[0, 8]], columns={"start_std": [1.0], "end_std": [1.0], "effective_size": [4.0]})
    >>> quality_weights(found), quality_weights(found, by="both")
    (array([0.8]), array([0.6]))
    """
    _checks.as_choice(by, "by", ("spread", "size", "both"))
    if not isinstance(fused, (FusedSegments, Segments)):
        _checks.refuse_tensors(fused, "fused")
        raise TypeError(f"`fused` must be FusedSegments or Segments, got {type(fused).__name__}")

    def column(name: str, least: float) -> Float:
        if isinstance(fused, Segments) and name not in fused.columns:
            raise ValueError(f"`fused` must have the column {name!r}, got {[*fused.columns]}")
        value = fused.columns[name] if isinstance(fused, Segments) else getattr(fused, name)
        values = _checks.as_values(value, len(fused), name)
        if (values < least).any():
            first = int((values < least).argmax())
            count = int((values < least).sum())
            raise ValueError(
                f"`{name}` must be at least {least:g}; row {first} is {values[first]:g} ({count} of {len(values)} rows)"
            )
        return values

    weights = np.ones(len(fused))
    if by != "size":
        spread = column("start_std", 0.0) + column("end_std", 0.0)
        length = fused.segments[:, 1] - fused.segments[:, 0]
        weights *= np.divide(length, length + spread, out=np.ones(len(fused)), where=length + spread > 0)
    if by != "spread":
        weights *= 1 - 1 / column("effective_size", 1.0)
    return weights


def agreement_weights(segments: Segments, others: Sequence[Segments]) -> Float:
    """How well other sets of segments agree with each one, in [0, 1]: the mean of its best overlaps.

    The sets are what the same chain finds at other thresholds, or what other models find.  Each contributes the largest
    tIoU with a segment of the same video and class, 0 where it has none.

    Parameters
    ----------
    segments : Segments
        Of one or many videos, in any unit.
    others : sequence of Segments
        At least one, of the same videos and in the same unit; their scores do not matter.

    Returns
    -------
    (N,) ndarray of float64

    Raises
    ------
    UnitError
        If the units differ.
    ValueError
        If the videos differ, or there is no other set.

    Notes
    -----
    Ours; that disagreement tells which pseudo labels to trust is behind the uncertainty masks of PseudoFormer
    (CVPR 2025).  O((N + P) log N) for P pairs that overlap, unless the other sets' segments contain many others.

    Examples
    --------
    >>> found = Segments([[0, 10], [20, 30]])
    >>> agreement_weights(found, [Segments([[0, 10]]), Segments([[5, 10], [20, 30]])])
    array([0.75, 0.5 ])
    """
    rows = _as_rows(segments, "segments")
    if isinstance(others, Segments) or not len(others):
        raise ValueError("`others` must be a sequence of at least one Segments")
    sets = [_same_videos(rows, other, "segments", f"others[{i}]") for i, other in enumerate(others)]
    return np.mean([_best_overlaps(rows, other) for other in sets], axis=0)


def boundary_ignore_band(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    spread: float = 1.0,
    start_std: ArrayLike | None = None,
    end_std: ArrayLike | None = None,
    known_labels: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    r"""The snippets around uncertain boundaries, for a loss on any label map to leave out.

    Parameters
    ----------
    segments : Segments
        Instances of one video, in snippets; those that a fusion leaves have the columns ``start_std`` and ``end_std``.
    num_snippets, num_classes : int
        T and K, at least 0.
    spread : float, default 1
        Standard deviations on either side of a boundary, >= 0.
    start_std, end_std : (N,) array_like of float, optional
        How uncertain starts and ends are, in snippets, >= 0.  Default: the columns of these names.  Without a fusion, a
        share of the length will do.
    known_labels : (K,) array_like of bool or sequence of int, optional
        As in `tri_state_label_map`.

    Returns
    -------
    (T, K) ndarray of bool
        True where `tri_state_label_map` says ignore: near a boundary, and not inside of another instance of the class.

    Raises
    ------
    UnitError, ValueError
        As `tri_state_label_map` does.

    Notes
    -----
    Uncertainty masks are part of PseudoFormer (CVPR 2025); the band is ours, see docs/conventions.md, section Labels.
    The cost is that of `hard_label_map`.

    Examples
    --------
    >>> found = Segments([[2, 6]], columns={"start_std": [1.0], "end_std": [0.0]})
    >>> boundary_ignore_band(found, 8, 1).ravel().astype(int)
    array([0, 1, 1, 0, 0, 0, 0, 0])
    """
    states = tri_state_label_map(
        segments,
        num_snippets,
        num_classes,
        spread=spread,
        start_std=start_std,
        end_std=end_std,
        known_labels=known_labels,
    )
    return states == LabelState.IGNORE
