"""Overlapping segments merged instead of dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import Float, Int
from ._kernels import centres as _centres
from ._kernels import segments as _kernels
from ._kernels import windows
from .types import EnsembledSegments, FusedSegments

__all__ = ["fuse_segments", "non_maximum_weighted", "weighted_segment_fusion"]

DISTRIBUTIONS = ("gaussian", "exponential", "student_t", "uniform")
CONFIDENCES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


def fuse_segments(
    segments: ArrayLike,
    scores: ArrayLike,
    *,
    tiou_threshold: float,
    temperature: float,
    distribution: Literal["gaussian", "exponential", "student_t", "uniform"] = "gaussian",
    weights: ArrayLike | None = None,
    idxs: ArrayLike | None = None,
    overlap: Literal["iou", "candidate"] = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
    inclusive: bool = False,
    dof: float = 4.0,
    scale: Literal["std", "fit"] = "std",
    signed_denominator: bool = False,
) -> FusedSegments:
    r"""Gaussian weighted fusion, and its relatives: each cluster of overlapping segments becomes one.

    The best segment left and all others that overlap it by more than the threshold form a cluster
    :math:`\mathcal{I}` ([1]_, Eq. 1), and so on until none is left: the clusters are what `nms` would keep, with what
    it would drop.  Members weigh ([1]_, Eq. 3)

    .. math::

        g_k = \frac{\exp(w_k / T)}{\sum_{i \in \mathcal{I}} \exp(w_i / T)} ,

    and each of start, end and score becomes the location that minimises the cross-entropy between :math:`g` and the
    density of the template:

    * gaussian: the weighted mean ([1]_, Eq. 4).
    * exponential (two-sided, also called Laplace): the midpoint of the lower and the upper weighted median.  A
      one-sided exponential whose origin is fixed has its scale, not its location, to fit, and that is the mean again.
    * student_t: the location of a Student t density with `dof` degrees of freedom.  With ``scale="std"`` its scale is
      the weighted standard deviation of that coordinate, and the location is the global minimum (the leftmost, where
      several are equally good).
    * uniform: the midrange; weights do not matter.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in one unit, start <= end; negative times are fine.
    scores : (N,) array_like of float
        Any finite numbers; they decide who opens a cluster, and they are fused like a coordinate.
    tiou_threshold : float
        In [0, 1].  A segment joins a cluster when its overlap with the pick's own boundaries is strictly greater.
    temperature : float
        :math:`T` > 0; the smaller, the more the heaviest member decides.  Published values go from 0.2 to 0.0016.
    distribution : {"gaussian", "exponential", "student_t", "uniform"}
        The template.
    weights : (N,) array_like of float, optional
        :math:`w`.  Default: `scores`.  Published code takes the mean activation inside each segment.
    idxs : (N,) array_like of int, optional
        Group of every row; only rows of one group are compared.  Default: one group.
    overlap, length_offset, area_eps
        How overlap is measured, see `tiou_matrix`; the candidate is the row that may join.
    inclusive : bool, default False
        Join at equality, too.
    dof : float, default 4
        Degrees of freedom of student_t, > 0; 4 is the customary robust choice [2]_.
    scale : {"std", "fit"}
        "fit" estimates location and scale of student_t together, and needs ``dof >= 1``: below it the optimum need not
        be unique.  The likelihood has no bound once equal values carry a weight of dof / (dof + 1); the location is
        then that value, and the cluster is marked in `degenerate`.
    signed_denominator : bool, default False
        Divide by :math:`\sum_k \mathrm{sign}(w_k) \exp(w_k / T)`, as the code of [1]_ does (gaussian only).  Where that
        sum is not positive, which published code turns into NaN or mirrored segments, the plain sum is used and the
        cluster is marked in `degenerate`.

    Returns
    -------
    FusedSegments
        Clusters by the score of the segment that opened them, best first over all groups, the earlier row first among
        equals.  `assignment` gives the cluster of every input row, `picks` the row that opened it, `effective_size`
        is :math:`1 / \sum_k g_k^2`, `start_std` and `end_std` are weighted standard deviations of the members'
        boundaries: a natural width for an ignore band around a pseudo label.

    Raises
    ------
    ValueError
        If something is not finite, a segment ends before it starts, shapes disagree, an option is out of range, or one
        is given that the distribution would ignore.

    See Also
    --------
    nms : returns `picks` for the same options.
    weighted_segment_fusion : for the detections of several models.

    Notes
    -----
    The softmax subtracts the largest weight, so no temperature overflows.  Medians count weights as equal within
    1e-12, and so does the global minimum of student_t.  With student_t, start and end are fitted apart; an end that
    would fall before its start is set to it.  Clusters take O((N + P) log N) for P pairs of a pick and a row left that
    overlap, and O(N) memory; small groups are a plain loop with the same bits.  The conventions are in
    docs/conventions.md.

    References
    ----------
    .. [1] J. Zhou et al., "Improving Weakly Supervised Temporal Action Localization by Bridging Train-Test Gap in
           Pseudo Labels", CVPR 2023.
    .. [2] K. Lange, R. Little and J. Taylor, "Robust Statistical Modeling Using the t Distribution", JASA 1989.

    Examples
    --------
    >>> fused = fuse_segments([[0, 10], [2, 10], [20, 30]], [0.5, 0.5, 0.4], tiou_threshold=0.5, temperature=0.1)
    >>> fused.segments
    array([[ 1., 10.],
           [20., 30.]])
    >>> fused.assignment, fused.sizes, fused.start_std
    (array([0, 0, 1]), array([2, 1]), array([1., 0.]))
    """
    segments = _checks.as_segments(segments)
    scores = _checks.as_values(scores, len(segments), "scores")
    weights = scores if weights is None else _checks.as_values(weights, len(segments), "weights")
    groups = None if idxs is None else _checks.as_integers(idxs, len(segments), "idxs")
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=inclusive)
    template = as_template(temperature, distribution, dof, scale, signed_denominator)
    how = _checks.as_overlap(overlap, length_offset, area_eps)

    order, offsets = _kernels.score_order(scores, groups, small=_kernels.SMALL)
    fused, _ = fuse_groups(
        segments,
        scores,
        weights,
        order,
        offsets,
        overlap=(threshold, _checks.as_flag(inclusive, "inclusive"), *how),
        **template,
    )
    return fused if len(offsets) == 2 else _best_first(fused, scores)


def as_template(temperature: Any, distribution: Any, dof: Any, scale: Any, signed_denominator: Any) -> dict[str, Any]:
    """The options of `fuse_groups` that say what a cluster becomes."""
    temperature = _checks.as_number(temperature, "temperature", above=0.0)
    _checks.as_choice(distribution, "distribution", DISTRIBUTIONS)
    dof = _checks.as_number(dof, "dof", above=0.0)
    fit = _checks.as_choice(scale, "scale", ("std", "fit")) == "fit"
    if fit and distribution != "student_t":
        raise ValueError(f"`scale` 'fit' is for distribution 'student_t' only, got distribution {distribution!r}")
    if fit and dof < 1:
        raise ValueError(f"`dof` must be at least 1 for scale 'fit', got {dof:g}")
    if signed_denominator and distribution != "gaussian":
        raise ValueError(f"`signed_denominator` is for distribution 'gaussian' only, got distribution {distribution!r}")
    return {
        "temperature": temperature,
        "distribution": distribution,
        "dof": dof,
        "fit": fit,
        "signed_denominator": signed_denominator,
    }


def fuse_groups(
    segments: Float,
    scores: Float,
    weights: Float,
    order: Int,
    offsets: Int,
    *,
    overlap: tuple[float, bool, bool, float, float],
    temperature: float,
    distribution: str = "gaussian",
    dof: float = 4.0,
    fit: bool = False,
    signed_denominator: bool = False,
    multiplicity: Int | None = None,
) -> tuple[FusedSegments, Int]:
    """`fuse_segments` on canonical arrays and CSR groups: clusters group after group, and the groups' offsets.

    `order` holds the rows of every group, those of small ones in any order; `overlap` is (threshold, inclusive,
    candidate, length_offset, area_eps).  A row stands for `multiplicity` equal ones, which overlap more than that.
    """
    members, bounds, group_bounds = windows.cluster_groups(segments, scores, order, offsets, *overlap)
    times = np.ones(len(segments), np.int64) if multiplicity is None else multiplicity
    shares, effective_size = _centres.softmax_shares(weights, times, members, bounds, temperature)
    rows = bounds[1:] - bounds[:-1]
    sizes = np.add.reduceat(times[members], bounds[:-1])
    cluster = np.repeat(np.arange(len(rows)), rows)
    assignment = np.full(len(segments), -1)
    assignment[members] = cluster
    degenerate = np.zeros(len(rows), np.bool_)

    columns = np.empty((3, len(members)))  # start, end and score of every member
    columns[0], columns[1] = segments[members, 0], segments[members, 1]
    columns[2] = scores[members]
    centres, std = _centres.weighted_moments(columns, bounds, shares)
    if signed_denominator:
        # shares sum up to 1: exactly 1 without negative weights, so that whole snippets stay whole
        signed = 1.0 - np.add.reduceat((1.0 - np.sign(weights[members])) * shares, bounds[:-1])
        degenerate = signed <= 1e-12
        centres /= np.where(degenerate, 1.0, signed)
    elif distribution != "gaussian":
        for column, centre, spread in zip(columns, centres, std):
            rising = np.lexsort((column, cluster))
            values, g = column[rising], shares[rising]
            if distribution == "student_t":
                centre[:], collapsed = _centres.student_locations(values, bounds, g, centre, spread, dof, fit)
                degenerate |= collapsed
            elif distribution == "exponential":
                centre[:] = _centres.weighted_medians(values, bounds, g)
            else:
                low, high = values[bounds[:-1]], values[bounds[1:] - 1]
                centre[:] = low + 0.5 * (high - low)
    boundaries = centres[:2].T.copy()
    np.maximum(boundaries[:, 0], boundaries[:, 1], out=boundaries[:, 1])
    fused = FusedSegments(
        segments=boundaries,
        scores=centres[2],
        assignment=assignment,
        picks=members[bounds[:-1]],
        sizes=sizes,
        effective_size=effective_size,
        start_std=std[0],
        end_std=std[1],
        degenerate=degenerate,
    )
    return fused, group_bounds


def _best_first(fused: FusedSegments, scores: Float) -> FusedSegments:
    """The clusters of all groups by the score of their pick, the earlier row first among equals."""
    rank = np.lexsort((fused.picks, -scores[fused.picks]))
    place = np.empty(len(rank), np.int64)
    place[rank] = np.arange(len(rank))
    return FusedSegments(
        segments=fused.segments[rank],
        scores=fused.scores[rank],
        assignment=place[fused.assignment],
        picks=fused.picks[rank],
        sizes=fused.sizes[rank],
        effective_size=fused.effective_size[rank],
        start_std=fused.start_std[rank],
        end_std=fused.end_std[rank],
        degenerate=fused.degenerate[rank],
    )


def non_maximum_weighted(
    segments: ArrayLike,
    scores: ArrayLike,
    *,
    tiou_threshold: float,
    idxs: ArrayLike | None = None,
) -> FusedSegments:
    r"""Non-maximum weighted (NMW) in one dimension: the best segment stays, at the mean of what it would suppress.

    The clusters are those of `fuse_segments`.  Members weigh their score times their overlap with the pick,
    :math:`w_k = q_k \, o(a_k, a_*)`, and the boundaries become :math:`\sum_k w_k [s_k, e_k] / \sum_k w_k` [1]_.  The
    score is the pick's.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in one unit, start <= end; negative times are fine.
    scores : (N,) array_like of float
        >= 0.
    tiou_threshold : float
        In [0, 1].  A segment joins a cluster when its tIoU with the pick's own boundaries is strictly greater.
    idxs : (N,) array_like of int, optional
        Group of every row; only rows of one group are compared.  Default: one group.

    Returns
    -------
    FusedSegments
        Best pick first, the earlier row first among equals.  With the shares :math:`g_k = w_k / \sum w`,
        `effective_size` is :math:`1 / \sum_k g_k^2`, and `start_std` and `end_std` are weighted standard deviations.
        Where all scores of a cluster are 0 the boundaries are the pick's, and it is marked in `degenerate`.

    Raises
    ------
    ValueError
        If something is not finite, a segment ends before it starts, a score is negative, shapes disagree, or the
        threshold is out of range.

    See Also
    --------
    fuse_segments : other weights, and fused scores.
    segment_voting : lets segments vote for several picks.

    Notes
    -----
    A segment joins the best pick that it overlaps enough; the package ``ensemble-boxes`` has the same picks, but a
    segment joins the one that it overlaps most.  The cost is that of `fuse_segments`.

    References
    ----------
    .. [1] H. Zhou et al., "CAD: Scale Invariant Framework for Real-Time Object Detection", ICCV Workshops 2017.

    Examples
    --------
    >>> fused = non_maximum_weighted([[0, 10], [0, 8], [20, 30]], [0.8, 0.5, 0.4], tiou_threshold=0.5)
    >>> fused.segments.round(3), fused.scores
    (array([[ 0.   ,  9.333],
           [20.   , 30.   ]]), array([0.8, 0.4]))
    """
    segments = _checks.as_segments(segments)
    scores = _as_weights(scores, len(segments), "scores")
    groups = None if idxs is None else _checks.as_integers(idxs, len(segments), "idxs")
    threshold = _checks.as_tiou_threshold(tiou_threshold)

    order, offsets = _kernels.score_order(scores, groups, small=_kernels.SMALL)
    members, bounds, _ = windows.cluster_groups(segments, scores, order, offsets, threshold, False, False, 0.0, 0.0)
    first, sizes = bounds[:-1], np.diff(bounds)
    picks, cluster = members[first], np.repeat(np.arange(len(sizes)), sizes)
    (start, end), (head_start, head_end) = segments[members].T, segments[picks[cluster]].T
    shared = np.minimum(end, head_end) - np.maximum(start, head_start)
    whole = (end - start) + (head_end - head_start) - shared
    shares = scores[members] * np.divide(shared, whole, out=np.ones(len(members)), where=whole > 0)
    degenerate = scores[picks] == 0
    shares[first[degenerate]] = 1.0
    shares /= np.add.reduceat(shares, first)[cluster]
    (start, end), std = _centres.weighted_moments(np.stack((start, end)), bounds, shares)
    assignment = np.empty(len(segments), np.int64)
    assignment[members] = cluster
    fused = FusedSegments(
        segments=np.stack((start, np.maximum(start, end)), axis=1),
        scores=scores[picks],
        assignment=assignment,
        picks=picks,
        sizes=sizes,
        effective_size=1.0 / np.add.reduceat(shares * shares, first),
        start_std=std[0],
        end_std=std[1],
        degenerate=degenerate,
    )
    return fused if len(offsets) == 2 else _best_first(fused, scores)


def weighted_segment_fusion(
    segments_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    *,
    model_weights: ArrayLike | None = None,
    tiou_threshold: float = 0.55,
    min_score: float = 0.0,
    conf_type: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"] = "avg",
    allows_overflow: bool = False,
) -> EnsembledSegments:
    r"""Weighted boxes fusion in one dimension: the detections of several models become one set.

    Per class, detections are visited by falling weighted score :math:`p = \omega_m s`.  Each joins the cluster whose
    running mean it overlaps most, if that is more than the threshold, and opens a cluster otherwise; the running mean
    :math:`\sum p_k [s_k, e_k] / \sum p_k` moves at once [1]_.  With n members, C their models and M all models, the
    fused score is

    * avg: :math:`\min(n, |M|) \, \bar p / \sum_M \omega`, with :math:`n` in place of the minimum if `allows_overflow`;
    * max: :math:`\max p / \max_M \omega`;
    * box_and_model_avg: :math:`(\sum p / \sum_k \omega_k) \, \sum_C \omega / \sum_M \omega`;
    * absent_model_aware_avg: :math:`\sum p / (\sum_k \omega_k + \sum_{M \setminus C} \omega)`.

    Parameters
    ----------
    segments_list : sequence of (N_m, 2) array_like of float
        One per model, in one common unit of any kind.  Nothing is clipped to [0, 1].
    scores_list : sequence of (N_m,) array_like of float
        >= 0.
    labels_list : sequence of (N_m,) array_like of int
        Class indices, >= 0.
    model_weights : (M,) array_like of float, optional
        :math:`\omega` > 0.  Default: all 1.
    tiou_threshold : float, default 0.55
        In [0, 1]; the overlap must be strictly greater.
    min_score : float, default 0
        Rows whose score, before the model's weight, is below it are left out.
    conf_type : {"avg", "max", "box_and_model_avg", "absent_model_aware_avg"}
    allows_overflow : bool, default False
        Let scores of "avg" exceed 1 when a model contributes several members; "avg" only.

    Returns
    -------
    EnsembledSegments
        Best fused score first; among equals the smaller label, then the cluster that was opened first.  `assignment`
        numbers the rows of all models one after the other.

    Raises
    ------
    ValueError
        If the lists differ in length, something is not finite, a segment ends before it starts, a score is negative, a
        weight is not positive, or an option is out of range.

    Notes
    -----
    The package ``ensemble-boxes`` rounds running means to float32, clips to [0, 1] and drops segments without length;
    here they stay in float64, as they are, and segments without length form clusters of their own.  Members whose
    scores are all 0 are fused to the first of them.  Rows with equal weighted scores are visited in the order given.
    O((N + P) log N) for P pairs of a row and a running mean that overlap when the row comes, as long as means stay near
    the rows that opened them; O(N) memory.
    The conventions are in docs/conventions.md.

    References
    ----------
    .. [1] R. Solovyev, W. Wang and T. Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object
           detection models", Image and Vision Computing 107, 2021.

    Examples
    --------
    >>> both = weighted_segment_fusion([[[0, 10]], [[2, 10], [20, 30]]], [[0.6], [0.6, 0.4]], [[0], [0, 3]])
    >>> both.segments
    array([[ 1., 10.],
           [20., 30.]])
    >>> both.scores, both.labels, both.assignment
    (array([0.6, 0.2]), array([0, 3]), array([0, 0, 1]))
    """
    models = len(segments_list)
    if len(scores_list) != models or len(labels_list) != models:
        raise ValueError(
            "`segments_list`, `scores_list` and `labels_list` must have one entry per model, "
            f"got {models}, {len(scores_list)} and {len(labels_list)}"
        )
    omega = (
        np.ones(models)
        if model_weights is None
        else _checks.as_values(model_weights, models, "model_weights", per="model")
    )
    if (omega <= 0).any():
        raise ValueError(f"`model_weights` must be above 0, got {omega.tolist()}; leave a model out instead")
    threshold = _checks.as_tiou_threshold(tiou_threshold)
    least = _checks.as_number(min_score, "min_score")
    _checks.as_choice(conf_type, "conf_type", CONFIDENCES)
    if allows_overflow and conf_type != "avg":
        raise ValueError(f"`allows_overflow` is for conf_type 'avg' only, got conf_type {conf_type!r}")
    parts = [
        _model_rows(m, *given) for m, given in enumerate(zip(segments_list, scores_list, labels_list, strict=True))
    ]
    segments = np.concatenate([np.empty((0, 2)), *(part[0] for part in parts)])
    scores = np.concatenate([np.empty(0), *(part[1] for part in parts)])
    labels = np.concatenate([np.empty(0, np.int64), *(part[2] for part in parts)])
    model = np.repeat(np.arange(models), [len(part[0]) for part in parts])

    weighted = scores * omega[model]
    chosen = np.flatnonzero(scores >= least)
    order, offsets = _kernels.score_order(weighted[chosen], labels[chosen])
    order = chosen[order]
    cluster, centres = windows.running_clusters(segments, weighted, order, offsets, threshold)
    return _ensemble(centres, cluster, order, weighted, labels, model, omega, conf_type, allows_overflow)


def _model_rows(m: int, segments: ArrayLike, scores: ArrayLike, labels: ArrayLike) -> tuple[Float, Float, Int]:
    """The checked detections of model m."""
    rows = _checks.as_segments(segments, f"segments_list[{m}]")
    values = _as_weights(scores, len(rows), f"scores_list[{m}]")
    return rows, values, _checks.as_labels(labels, len(rows), f"labels_list[{m}]")


def _as_weights(scores: ArrayLike, length: int, name: str) -> Float:
    """Scores that are not negative, since they weigh."""
    values = _checks.as_values(scores, length, name)
    if (values < 0).any():
        bad = np.flatnonzero(values < 0)
        count = f"{len(bad)} of {length} rows"
        raise ValueError(f"`{name}` must be >= 0; row {bad[0]} is {values[bad[0]]} ({count})")
    return values


def _ensemble(
    centres: Float,
    cluster: Int,
    order: Int,
    weighted: Float,
    labels: Int,
    model: Int,
    omega: Float,
    conf_type: str,
    allows_overflow: bool,
) -> EnsembledSegments:
    """Score the clusters and sort them; `cluster` and `order` say which row is in which."""
    count = len(centres)
    sizes = np.bincount(cluster, minlength=count)
    mass = np.bincount(cluster, weighted[order], minlength=count)
    if conf_type == "max":
        best = np.zeros(count)
        np.maximum.at(best, cluster, weighted[order])
        scores = best / omega.max(initial=0.0)
    elif conf_type == "avg":
        scores = mass / sizes * (sizes if allows_overflow else np.minimum(sizes, len(omega))) / omega.sum()
    else:
        member_weight = np.bincount(cluster, omega[model[order]], minlength=count)
        present = np.zeros((count, len(omega)), bool)
        present[cluster, model[order]] = True
        if conf_type == "box_and_model_avg":
            scores = mass / member_weight * (present @ omega) / omega.sum()
        else:
            scores = mass / (member_weight + ~present @ omega)
    label = np.empty(count, np.int64)
    label[cluster] = labels[order]
    rank = np.argsort(-scores, kind="stable")
    place = np.empty(count, np.int64)
    place[rank] = np.arange(count)
    assignment = np.full(len(weighted), -1)
    assignment[order] = place[cluster]
    return EnsembledSegments(centres[rank], scores[rank], label[rank], assignment, sizes[rank])
