"""Functions of `tal_postproc` for tensors: what the NumPy core does itself, and what is done on the device.

A function here has the body for a device.  What it does not understand it leaves to the core, which does it or says
what is wrong; tensors on the CPU go there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from inspect import Signature, signature
from types import ModuleType
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .. import evaluation as _evaluation
from .. import fusion as _fusion
from .. import overlap as _overlap
from .. import proposals as _proposals
from .. import suppression as _suppression
from . import _batched, _sequences
from ._bridge import DoubtError, Inputs, has_triton, require_tensors, result_kind, through_core, works_on
from ._ragged import group_offsets, score_order
from .types import EnsembledSegments, FusedSegments, Segments, as_array, as_tensors

__all__ = [
    "average_recall",
    "batched_nms",
    "classification_map",
    "extract_proposals",
    "filter_ambiguous",
    "fuse_segments",
    "mean_average_precision",
    "nms",
    "oic_scores",
    "pseudo_label_quality",
    "segment_voting",
    "segments_to_seconds",
    "soft_nms",
    "tiou_matrix",
    "upsample_tcam",
    "weighted_segment_fusion",
]

P = ParamSpec("P")
R = TypeVar("R")
Overlap = Literal["iou", "candidate"]


# ------------------------------------------------------------------------------------------------ core and device
def _in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A result with its floats in `dtype`."""
    if isinstance(value, tuple):
        return tuple(_in_dtype(one, dtype) for one in value)
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return value.to(dtype=dtype)


def twin_of(core: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make the body for a device the twin of a function of the core."""

    def decorate(on_device: Callable[P, R]) -> Callable[P, R]:
        @wraps(on_device)
        def call(*arguments: P.args, **options: P.kwargs) -> R:
            require_tensors(core, *arguments, **options)
            device, dtype = result_kind(arguments, options)
            if works_on(device) != "core":
                try:
                    with torch.no_grad():
                        return cast(R, _in_dtype(on_device(*arguments, **options), dtype))
                except DoubtError:
                    pass
            return cast(R, through_core(core, device, dtype, arguments, options))

        return call

    return decorate


def _hosted(core: Callable[P, Any], what: str) -> Callable[P, Any]:
    """The twin of a function that the core does for every device."""

    def call(*arguments: P.args, **options: P.kwargs) -> Any:
        require_tensors(core, *arguments, **options)
        return through_core(core, *result_kind(arguments, options), arguments, options)

    call.__name__ = call.__qualname__ = core.__name__
    call.__doc__ = f"As `tal_postproc.{core.__name__}`, for tensors. {what}"
    bare = [one.replace(annotation=one.empty) for one in signature(core).parameters.values()]  # those are for arrays
    call.__signature__ = Signature(bare)  # type: ignore[attr-defined]
    return call


def _kernel(name: str, device: torch.device) -> Any:
    """The function of that name that works on groups: a Triton kernel where there is one and it is wanted."""
    room: ModuleType = _batched
    if works_on(device) == "triton" and has_triton():
        from . import _triton

        room = _triton if hasattr(_triton, name) else _batched
    return getattr(room, name)


def _group_order(groups: Tensor | None, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows by group, in the order given within each, and the groups' offsets."""
    if groups is None:
        return torch.arange(count, device=device), torch.tensor([0, count], device=device)
    rising = torch.sort(groups, stable=True)
    return rising.indices, group_offsets(rising.values)


def _best_first(scores: Tensor, rows: Tensor) -> Tensor:
    """Places of the rows, best score first, the earlier row first among equals."""
    by_row = torch.sort(rows).indices
    return by_row[score_order(scores[by_row])[0]]


# ------------------------------------------------------------------------------------------------------- segments
@twin_of(_overlap.tiou_matrix)
def tiou_matrix(
    a: Tensor, b: Tensor, *, overlap: Overlap = "iou", length_offset: float = 0.0, area_eps: float = 0.0
) -> Tensor:
    """As `tal_postproc.tiou_matrix`, for tensors.

    >>> tiou_matrix(torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0, 6.0], [0.0, 8.0]]))
    tensor([[0.3333, 0.5000]])
    """
    candidate, offset, eps = _checks.as_overlap(overlap, length_offset, area_eps)
    given = Inputs(result_kind(a, b)[0])
    a, b = given.segments(a), given.segments(b)
    given.settle()
    heads, rows = ((*x.T, x[:, 1] - x[:, 0] + offset + eps) for x in (a, b))
    overlaps = _batched._overlap([x[:, None] for x in heads], [x[None, :] for x in rows], candidate, offset)
    return torch.where(overlaps > 0.0, overlaps, 0.0)


@twin_of(_suppression.nms)
def nms(
    segments: Tensor,
    scores: Tensor,
    *,
    tiou_threshold: float,
    idxs: Tensor | None = None,
    overlap: Overlap = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
    inclusive: bool = False,
    max_detections: int | None = None,
) -> Tensor:
    """As `tal_postproc.nms`, for tensors: the rows that stay, int64.

    >>> nms(torch.tensor([[0.0, 10.0], [1.0, 10.0], [20.0, 30.0]]), torch.tensor([0.8, 0.9, 0.5]), tiou_threshold=0.5)
    tensor([1, 2])
    """
    device, _ = result_kind(segments, scores, idxs)
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=inclusive)
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    limit = None if max_detections is None else _checks.as_count(max_detections, "max_detections")
    at_equality = _checks.as_flag(inclusive, "inclusive")
    given = Inputs(device)
    segments = given.segments(segments)
    scores = given.values(scores, len(segments))
    groups = None if idxs is None else given.integers(idxs, len(segments))
    given.settle()

    order, offsets = score_order(scores, groups)
    keep, _ = _kernel("nms_groups", device)(segments, scores, order, offsets, threshold, at_equality, *how)
    if len(offsets) > 2:
        keep = keep[_best_first(scores[keep], keep)]
    return keep[:limit]


def batched_nms(segments: Tensor, scores: Tensor, idxs: Tensor, tiou_threshold: float) -> Tensor:
    """As `tal_postproc.batched_nms`, for tensors: `nms` per group with torchvision's signature.

    >>> rows, scores = torch.tensor([[0.0, 10.0], [1.0, 10.0], [0.0, 9.0]]), torch.tensor([0.8, 0.9, 0.7])
    >>> batched_nms(rows, scores, torch.tensor([0, 1, 0]), 0.5)
    tensor([1, 0])
    """
    require_tensors(_suppression.batched_nms, segments, scores, idxs)
    return nms(segments, scores, tiou_threshold=tiou_threshold, idxs=idxs)


@twin_of(_suppression.soft_nms)
def soft_nms(
    segments: Tensor,
    scores: Tensor,
    *,
    method: Literal["linear", "gaussian", "gated", "improved"] = "gaussian",
    sigma: float = 0.5,
    tiou_threshold: float | None = None,
    gate: tuple[float, float] | None = None,
    min_score: float | None = None,
    keep_first: bool = False,
    decay_negative: bool = False,
    max_detections: int | None = None,
    idxs: Tensor | None = None,
    overlap: Overlap = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """As `tal_postproc.soft_nms`, for tensors: rows, and their new scores.

    Exponentials of a device differ from the core's in the last digit, and so may the order of scores that agree to it.

    >>> rows, scores = torch.tensor([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0]]), torch.tensor([0.9, 0.8, 0.5])
    >>> soft_nms(rows, scores, sigma=0.5)
    (tensor([0, 2, 1]), tensor([0.9000, 0.5000, 0.1083]))
    """
    device, _ = result_kind(segments, scores, idxs)
    code = _suppression.SOFT_METHODS[_checks.as_choice(method, "method", tuple(_suppression.SOFT_METHODS))]
    width = _checks.as_number(sigma, "sigma", above=0.0)
    threshold, slope = _checks.as_decay_start(method, tiou_threshold, gate)
    floor = -torch.inf if min_score is None else _checks.as_number(min_score, "min_score")
    exempt, raises = _checks.as_flag(keep_first, "keep_first"), _checks.as_flag(decay_negative, "decay_negative")
    limit = None if max_detections is None else _checks.as_count(max_detections, "max_detections")
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    given = Inputs(device)
    segments = given.segments(segments)
    scores = given.values(scores, len(segments))
    groups = None if idxs is None else given.integers(idxs, len(segments))
    given.settle()

    order, offsets = _group_order(groups, len(segments), device)
    most = len(segments) if limit is None else limit
    options = code, width, threshold, slope, floor, exempt, raises, most, *how
    keep, new_scores, _ = _kernel("soft_nms_groups", device)(segments, scores, order, offsets, *options)
    if len(offsets) > 2 or raises:  # else best new score first is the order of picking
        best = _best_first(new_scores, keep)[:limit]
        keep, new_scores = keep[best], new_scores[best]
    return keep, new_scores


@twin_of(_suppression.segment_voting)
def segment_voting(
    kept_segments: Tensor,
    segments: Tensor,
    scores: Tensor,
    *,
    tiou_threshold: float,
    times_iou: bool = False,
    kept_idxs: Tensor | None = None,
    idxs: Tensor | None = None,
    overlap: Overlap = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
) -> Tensor:
    """As `tal_postproc.segment_voting`, for tensors.

    >>> voters = torch.tensor([[0.0, 10.0], [1.0, 11.0], [30.0, 40.0]])
    >>> segment_voting(voters[:1], voters, torch.tensor([0.6, 0.2, 0.9]), tiou_threshold=0.7)
    tensor([[ 0.2500, 10.2500]])
    """
    device, _ = result_kind(kept_segments, segments, scores, kept_idxs, idxs)
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=True)
    by_overlap = _checks.as_flag(times_iou, "times_iou")
    how = _checks.as_overlap(overlap, length_offset, area_eps)
    if (kept_idxs is None) != (idxs is None):
        raise ValueError("`kept_idxs` and `idxs` must be given together, got only one of them")
    given = Inputs(device)
    kept, segments = given.segments(kept_segments), given.segments(segments)
    scores = given.values(scores, len(segments))
    groups = None if idxs is None else given.integers(idxs, len(segments))
    wanted = None if kept_idxs is None else given.integers(kept_idxs, len(kept))
    given.settle()

    order, offsets = _group_order(groups, len(segments), device)
    if groups is None or wanted is None:
        kept_order, kept_offsets = _group_order(None, len(kept), device)
    elif not len(segments):
        return kept.clone()
    else:
        names = groups[order[offsets[:-1]]]
        found = torch.searchsorted(names, wanted).clamp(max=len(names) - 1)
        found = torch.where(names[found] == wanted, found, -1)  # -1: nobody votes
        rising = torch.sort(found, stable=True)
        kept_offsets = torch.searchsorted(rising.values, torch.arange(len(offsets), device=device))
        kept_order, kept_offsets = rising.indices[kept_offsets[0] :], kept_offsets - kept_offsets[0]
    return _kernel("vote_groups", device)(
        kept, kept_order, kept_offsets, segments, scores, order, offsets, threshold, by_overlap, *how
    )


def fuse_segments(
    segments: Tensor,
    scores: Tensor,
    *,
    tiou_threshold: float,
    temperature: float,
    distribution: Literal["gaussian", "exponential", "student_t", "uniform"] = "gaussian",
    weights: Tensor | None = None,
    idxs: Tensor | None = None,
    overlap: Overlap = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
    inclusive: bool = False,
    dof: float = 4.0,
    scale: Literal["std", "fit"] = "std",
    signed_denominator: bool = False,
) -> FusedSegments:
    """As `tal_postproc.fuse_segments`, for tensors.

    Fused segments and scores can be differentiated in `segments`, `scores` and `weights`: who is in which cluster is
    taken as fixed, and for the exponential and uniform distributions also which members are the medians or the ends.
    The locations of student_t, the spreads and the effective size have no gradient.

    >>> rows = torch.tensor([[0.0, 10.0], [2.0, 10.0], [20.0, 30.0]])
    >>> fused = fuse_segments(rows, torch.tensor([0.5, 0.5, 0.4]), tiou_threshold=0.5, temperature=0.1)
    >>> fused.segments, fused.assignment
    (tensor([[ 1., 10.],
            [20., 30.]]), tensor([0, 0, 1]))
    """
    options = locals()
    options = {name: options[name] for name in signature(_fusion.fuse_segments).parameters}
    require_tensors(_fusion.fuse_segments, **options)
    device, dtype = result_kind(segments, scores, weights, idxs)
    differentiable = torch.is_grad_enabled() and any(
        isinstance(one, Tensor) and one.requires_grad for one in (segments, scores, weights)
    )
    values = None
    if works_on(device) == "core":
        if not differentiable:
            return cast(FusedSegments, through_core(_fusion.fuse_segments, device, dtype, (), options))
        values = through_core(_fusion.fuse_segments, device, torch.float64, (), options)
    try:
        fused = _fuse_on_device(device, **options)
    except DoubtError:
        return through_core(_fusion.fuse_segments, device, dtype, (), options)
    if values is not None:  # the core's numbers with the history of ours, which differ in the last digits
        graph = {name: getattr(fused, name) - getattr(fused, name).detach() for name in ("segments", "scores")}
        fused = replace(values, **{name: getattr(values, name) + zero for name, zero in graph.items()})
    spreads = {name: getattr(fused, name).detach() for name in ("effective_size", "start_std", "end_std")}
    return replace(fused, **spreads).to(dtype=dtype)


def _fuse_on_device(
    device: torch.device,
    segments: Any,
    scores: Any,
    weights: Any,
    idxs: Any,
    *,
    tiou_threshold: float,
    temperature: float,
    distribution: str,
    overlap: Overlap,
    length_offset: float,
    area_eps: float,
    inclusive: bool,
    dof: float,
    scale: str,
    signed_denominator: bool,
) -> FusedSegments:
    """`fuse_segments` in float64 on tensors of one device, with the history of its centres."""
    threshold = _checks.as_tiou_threshold(tiou_threshold, inclusive=inclusive)
    measure = _checks.as_overlap(overlap, length_offset, area_eps)
    template = _fusion.as_template(temperature, distribution, dof, scale, signed_denominator)
    at_equality = _checks.as_flag(inclusive, "inclusive")
    given = Inputs(device, history=True)
    rows = given.segments(segments)
    values = given.values(scores, len(rows))
    mass = values if weights is None else given.values(weights, len(rows))
    groups = None if idxs is None else given.integers(idxs, len(rows))
    given.settle()

    order, offsets = score_order(values.detach(), groups)
    finder, how = _kernel("cluster_groups", device), (threshold, at_equality, *measure)
    fused, _ = _batched.fuse_groups(rows, values, mass, order, offsets, overlap=how, cluster_with=finder, **template)
    if len(offsets) == 2:
        return fused
    rank = _best_first(values.detach()[fused.picks], fused.picks)
    place = torch.empty_like(rank)
    place[rank] = torch.arange(len(rank), device=device)
    sorted_fields = {one.name: getattr(fused, one.name)[rank] for one in fields(fused) if one.name != "assignment"}
    return FusedSegments(assignment=place[fused.assignment], **sorted_fields)


@twin_of(_fusion.weighted_segment_fusion)
def weighted_segment_fusion(
    segments_list: Sequence[Tensor],
    scores_list: Sequence[Tensor],
    labels_list: Sequence[Tensor],
    *,
    model_weights: Tensor | Sequence[float] | None = None,
    tiou_threshold: float = 0.55,
    min_score: float = 0.0,
    conf_type: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"] = "avg",
    allows_overflow: bool = False,
) -> EnsembledSegments:
    """As `tal_postproc.weighted_segment_fusion`, for lists of tensors.

    On a device the clusters are found there; their scores, a few numbers per row, are made by the core.

    >>> rows, scores, labels = torch.tensor([[0.0, 10.0]]), torch.tensor([0.6]), torch.tensor([3])
    >>> weighted_segment_fusion([rows, rows + 2], [scores, scores], [labels, labels]).segments
    tensor([[ 1., 11.]])
    """
    models = len(segments_list)
    if not models or len(scores_list) != models or len(labels_list) != models:
        raise DoubtError
    device, _ = result_kind(segments_list, scores_list, labels_list)
    omega = np.ones(models) if model_weights is None else np.array([float(one) for one in model_weights])
    threshold = _checks.as_tiou_threshold(tiou_threshold)
    least = _checks.as_number(min_score, "min_score")
    _checks.as_choice(conf_type, "conf_type", _fusion.CONFIDENCES)
    if (
        omega.shape != (models,)
        or not (np.isfinite(omega) & (omega > 0)).all()
        or (allows_overflow and conf_type != "avg")
    ):
        raise DoubtError
    given = Inputs(device)
    parts = [given.segments(one) for one in segments_list]
    sizes = [len(one) for one in parts]
    segments = torch.cat(parts)
    scores = torch.cat([given.values(one, size) for one, size in zip(scores_list, sizes)])
    labels = torch.cat([given.integers(one, size, below=_checks.MOST) for one, size in zip(labels_list, sizes)])
    given.require(scores >= 0)
    given.settle()

    model = np.repeat(np.arange(models), sizes)
    weighted = scores * torch.from_numpy(omega[model]).to(device)
    chosen = torch.nonzero(scores >= least)[:, 0]
    order, offsets = score_order(weighted[chosen], labels[chosen])
    order = chosen[order]
    cluster, centres = _kernel("running_clusters", device)(segments, weighted, order, offsets, threshold)
    made = _fusion._ensemble(
        as_array(centres),
        as_array(cluster),
        as_array(order),
        as_array(weighted),
        as_array(labels),
        model,
        omega,
        conf_type,
        allows_overflow,
    )
    return as_tensors(made, device, torch.float64)


# ---------------------------------------------------------------------------------------------------------- TCAMs
def _as_columns(given: Inputs, tcam: Any, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The columns of a (T, K) map one after the other, and their offsets."""
    array = tcam.T if chosen is None else tcam.T[chosen]
    columns = given.real(array)
    count, length = columns.shape
    return columns.reshape(-1), torch.arange(count + 1, device=columns.device) * length


def _on_host(value: Any, check: Callable[[Any], Any]) -> Any:
    """A small argument, tensor or list, as a checked array."""
    return check(as_array(value) if isinstance(value, Tensor) else value)


def _as_tcam(tcam: Any) -> Tensor:
    if not isinstance(tcam, Tensor) or tcam.ndim not in (1, 2) or tcam.is_complex():
        raise DoubtError
    return tcam[:, None] if tcam.ndim == 1 else tcam


@twin_of(_proposals.upsample_tcam)
def upsample_tcam(tcam: Tensor, factor: int, *, extrapolate: bool = True) -> Tensor:
    """As `tal_postproc.upsample_tcam`, for tensors.

    >>> upsample_tcam(torch.tensor([0.0, 1.0, 3.0]), 2)
    tensor([0.0000, 0.5000, 1.0000, 2.0000, 3.0000, 4.0000])
    """
    times = _checks.as_count(factor, "factor", at_least=1)
    array = _as_tcam(tcam)
    given = Inputs(array.device)
    values, offsets = _as_columns(given, array)
    given.settle()
    goes_on = _checks.as_flag(extrapolate, "extrapolate")
    fine = _sequences.upsampled(values, offsets, times, goes_on)[0] if times > 1 else values.clone()
    length = len(array) * times if goes_on else max(0, (len(array) - 1) * times + 1)
    return fine if tcam.ndim == 1 else fine.reshape(array.shape[1], length).T.contiguous()


@twin_of(_proposals.segments_to_seconds)
def segments_to_seconds(
    segments: Tensor,
    seconds_per_snippet: float,
    *,
    warp: tuple[Any, Any] | None = None,
    duration: float | None = None,
) -> Tensor:
    """As `tal_postproc.segments_to_seconds`, for tensors.

    >>> segments_to_seconds(torch.tensor([[2.0, 5.0]]), 0.5, duration=2.25)
    tensor([[1.0000, 2.2500]])
    """
    if warp is not None:
        raise DoubtError
    given = Inputs(segments.device)
    rows = given.segments(segments)
    seconds = rows * _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
    if duration is not None:
        seconds = seconds.clamp(0.0, _checks.as_number(duration, "duration", at_least=0.0))
    given.settle()
    return seconds


@twin_of(_proposals.extract_proposals)
def extract_proposals(
    tcam: Tensor,
    thresholds: Any,
    *,
    relative: Literal["absolute", "times_mean", "below_max"] = "absolute",
    inclusive: bool = False,
    positive: bool = False,
    normalize: Literal["none", "minmax", "minmax_relu"] = "none",
    clip: bool = False,
    upsample: int = 1,
    extrapolate: bool = True,
    min_length: int = 1,
    extend_end: int = 0,
    skip_lone_first: bool = False,
    dilate: int = 0,
    classes: Any = None,
) -> Segments:
    """As `tal_postproc.extract_proposals`, for tensors; `thresholds` and `classes` may be lists.

    >>> found = extract_proposals(torch.tensor([0.125, 0.5, 0.875, 0.625, 0.125]), [0.25, 0.75])
    >>> found.segments, found.columns["threshold"]
    (tensor([[1., 4.],
            [2., 3.]]), tensor([0.2500, 0.7500]))
    """
    array = _as_tcam(tcam)
    levels = _on_host(thresholds, _checks.as_threshold_list)
    _checks.as_choice(relative, "relative", ("absolute", "times_mean", "below_max"))
    _checks.as_choice(normalize, "normalize", ("none", "minmax", "minmax_relu"))
    factor = _checks.as_count(upsample, "upsample", at_least=1)
    shortest = _checks.as_count(min_length, "min_length", at_least=1)
    extension = _checks.as_extension(extend_end)
    wider = _checks.as_count(dilate, "dilate")
    limited, goes_on = _checks.as_flag(clip, "clip"), _checks.as_flag(extrapolate, "extrapolate")
    flags = [
        _checks.as_flag(value, name)
        for value, name in ((inclusive, "inclusive"), (positive, "positive"), (skip_lone_first, "skip_lone_first"))
    ]
    labels = torch.arange(array.shape[1], device=array.device)
    if classes is not None:
        chosen = _on_host(classes, lambda value: _checks.as_integers(value, None, "classes"))
        chosen = _checks.as_labels(chosen, len(chosen), "classes", num_classes=array.shape[1])
        labels = torch.from_numpy(chosen).to(array.device)
    given = Inputs(array.device)
    values, offsets = _as_columns(given, array, None if classes is None else labels)
    given.settle()

    values = _sequences.normalized(values, offsets, normalize, limited)
    values, offsets = _sequences.upsampled(values, offsets, factor, goes_on)
    wanted = torch.from_numpy(levels).to(values)[None, :]
    if relative != "absolute" and len(values):
        rows = values.reshape(len(labels), -1)
        if relative == "times_mean":
            wanted = (_sequences.row_sums(rows) / rows.shape[1])[:, None] * wanted
        else:  # "below_max"
            low, high = (one[:, None] for one in rows.aminmax(dim=1))
            wanted = high - (high - low) * wanted
    rising, slots = torch.sort(wanted, dim=1, stable=True)
    inclusive, positive, lone = flags
    row, slot, start, stop, _ = _sequences.find_runs(
        values, offsets, rising, slots, inclusive, positive, shortest, lone, 0, wider
    )
    level = wanted[0 if len(wanted) == 1 else row, slot]
    inner, _ = _score(values, offsets, row, start, stop, level, margin_scale=-1.0)
    segments = torch.stack((start, stop + extension), 1) / factor
    columns = {"inner": inner, "threshold": level}
    return Segments(segments, labels[row], inner, columns=columns)


@twin_of(_proposals.oic_scores)
def oic_scores(
    tcam: Tensor,
    segments: Tensor | Segments,
    labels: Tensor | None = None,
    *,
    margin_scale: float = 0.25,
    margin_power: float = 1.0,
    layout: Literal["symmetric", "oic_a", "oic_b", "cmcs"] = "symmetric",
    denominator: Literal["pooled", "fixed"] = "pooled",
    outer_weight: float = 1.0,
    inner: Literal["mean", "max", "none"] = "mean",
    zero_below: Tensor | None = None,
    inclusive: bool = False,
    extend_end: int = 0,
    video_scores: Tensor | None = None,
    video_weight: float = 0.0,
) -> Tensor:
    """As `tal_postproc.oic_scores`, for tensors.

    >>> oic_scores(torch.tensor([0.0, 0.0, 0.75, 0.75, 0.0, 0.0]), torch.tensor([[2.0, 4.0]]))
    tensor([0.7500])
    """
    array = _as_tcam(tcam)
    if isinstance(segments, Segments):
        segments.require_unit("snippet", "segments")
        labels = segments.labels if labels is None else labels
        segments = segments.segments
    length, count = array.shape
    extension = _checks.as_extension(extend_end)
    kinds = (layout, "layout", _proposals._LAYOUTS), (inner, "inner", _proposals._INNERS)
    layout_code, inner_code = (codes[_checks.as_choice(value, name, tuple(codes))] for value, name, codes in kinds)
    _checks.as_choice(denominator, "denominator", ("pooled", "fixed"))
    weight = _checks.as_number(video_weight, "video_weight")
    given = Inputs(array.device)
    rows = given.segments(segments)
    if labels is None and count != 1:
        raise DoubtError
    column = rows.new_zeros(len(rows), dtype=torch.int64)
    if labels is not None:
        column = given.integers(labels, len(rows), below=count)
    start, stop = rows[:, 0], rows[:, 1] - extension
    given.require((start >= 0.0) & (stop <= length) & (stop >= start))
    values, offsets = _as_columns(given, array)
    threshold = torch.zeros_like(start) if zero_below is None else given.values(zero_below, len(rows))
    if weight != 0.0 and video_scores is None:
        raise ValueError(f"`video_scores` is needed with video_weight={weight:g}")
    of_video = None if weight == 0.0 else given.values(video_scores, count)
    given.settle()
    _, scores = _score(
        values,
        offsets,
        column,
        start,
        stop,
        threshold,
        zeroed=zero_below is not None,
        inclusive=_checks.as_flag(inclusive, "inclusive"),
        inner=inner_code,
        layout=layout_code,
        margin_scale=_checks.as_number(margin_scale, "margin_scale", at_least=0.0),
        margin_power=_checks.as_number(margin_power, "margin_power", at_least=0.0),
        fixed=denominator == "fixed",
        outer_weight=_checks.as_number(outer_weight, "outer_weight"),
    )
    return scores if of_video is None else scores + weight * of_video[column]


def _score(
    values: Tensor,
    offsets: Tensor,
    row: Tensor,
    start: Tensor,
    stop: Tensor,
    threshold: Tensor,
    *,
    margin_scale: float,
    zeroed: bool = False,
    inclusive: bool = False,
    inner: int = _proposals._INNERS["mean"],
    layout: int = _proposals._LAYOUTS["symmetric"],
    margin_power: float = 1.0,
    fixed: bool = False,
    outer_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Inner and outer-inner contrast of runs on their rows; `zeroed`: what does not pass the threshold is 0 outside."""
    rest, own_weight = (torch.zeros_like(values), 1.0) if zeroed else (values, 0.0)
    how = inclusive, inner, layout, margin_scale, margin_power, fixed, outer_weight
    return _sequences.score_runs(
        values, rest, offsets, values, offsets, own_weight, row, row, start, stop, threshold, *how
    )


# ----------------------------------------------------------------------------------------------------- evaluation
_RESULT = "The result is that of the core, with NumPy arrays."
mean_average_precision = _hosted(_evaluation.mean_average_precision, _RESULT)
average_recall = _hosted(_evaluation.average_recall, _RESULT)
classification_map = _hosted(_evaluation.classification_map, _RESULT)
pseudo_label_quality = _hosted(_evaluation.pseudo_label_quality, _RESULT)
filter_ambiguous = _hosted(_evaluation.filter_ambiguous, "Rows and spans are `tal_postproc.torch.Segments`.")
