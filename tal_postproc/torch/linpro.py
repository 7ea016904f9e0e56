"""LinPro for tensors: regions, components, small programs, labels and reports of a batch of videos on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .. import linpro as _core
from .._kernels import simplex as _kernels
from ..config import LinPro
from ..types import Segments as CoreSegments
from . import _simplex
from ._bridge import DoubtError, Inputs, require_tensors, result_kind, through_core, works_on
from ._ragged import offsets_of
from .types import LinProLabelMap, LinProLabels, Segments, as_array

__all__ = ["LabelReport", "label_maps", "linpro_label_map", "linpro_label_maps", "linpro_labels"]

Background = Literal["none", "first", "last"]
STATES = _core._STATES


class LabelReport(NamedTuple):
    """What is proven of the LinPro labels of B videos of K classes; the fields of `LinProLabelMap`, one row per video.

    `state` counts in the order of `STATES`: "empty", "optimal", "relaxed", "uncertified".
    """

    objective: Tensor  # (B, K)
    violation: Tensor  # (B, K)
    gap: Tensor  # (B, K)
    state: Tensor  # (B, K) int64
    solved: Tensor  # (B, 3) int64: components solved in closed form, by simplex, by HiGHS
    uncertified: Tensor  # (B,) int64


def linpro_labels(segments: Tensor, scores: Tensor, num_snippets: int, **options: Any) -> LinProLabels:
    """As `tal_postproc.linpro_labels`, for tensors.

    On a device, components of more than 16 instances and those without certificate go to the core.

    >>> linpro_labels(torch.tensor([[2.0, 4.0]]), torch.tensor([0.5]), 6).labels
    tensor([0.0000, 0.0000, 0.5000, 0.5000, 0.0000, 0.0000])
    """

    def on_device(device: torch.device) -> Any:
        length = _checks.as_count(num_snippets, "num_snippets")
        rows = torch.zeros(len(scores), dtype=torch.int64, device=device)
        offsets, lengths = torch.tensor([0, len(scores)], device=device), torch.tensor([length], device=device)
        rule = LinPro(**options)
        labels, report = _on_device(segments, rows, scores, offsets, lengths, 1, rule, None, "none", False)
        made = _maps(labels, report, [length])[0]
        return LinProLabels(
            labels=made.labels[:, 0],
            **{name: getattr(made, name).item() for name in ("objective", "violation", "gap")},
            status=made.status[0],
            solved=made.solved,
            uncertified=made.uncertified,
        )

    return _run(_core.linpro_labels, on_device, (segments, scores, num_snippets), options)


def linpro_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    known_labels: Any = None,
    background: Background = "none",
    **options: Any,
) -> LinProLabelMap:
    """As `tal_postproc.linpro_label_map`, for tensors.

    >>> found = Segments(torch.tensor([[0.0, 2.0], [3.0, 5.0]]), torch.tensor([1, 0]), torch.tensor([0.5, 0.75]))
    >>> linpro_label_map(found, 6, 2).labels.T
    tensor([[0.0000, 0.0000, 0.0000, 0.7500, 0.7500, 0.0000],
            [0.5000, 0.5000, 0.0000, 0.0000, 0.0000, 0.0000]])
    """

    def on_device(device: torch.device) -> Any:
        return _of_videos(device, [segments], [num_snippets], num_classes, [known_labels], background, options)[0]

    more = {"known_labels": known_labels, "background": background, **options}
    return _run(_core.linpro_label_map, on_device, (segments, num_snippets, num_classes), more)


def linpro_label_maps(
    segments: Segments | Iterable[Segments],
    num_snippets: Any,
    num_classes: int,
    *,
    known_labels: Any = None,
    background: Background = "none",
    num_threads: int | None = None,
    **options: Any,
) -> list[LinProLabelMap]:
    """As `tal_postproc.linpro_label_maps`, for tensors; on a device all videos are solved together.

    `num_threads` is that of the core, for tensors on the CPU.

    >>> videos = Segments(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), scores=torch.tensor([0.5, 0.75]),
    ...                   offsets=torch.tensor([0, 1, 2]))
    >>> [made.labels[:, 0].tolist() for made in linpro_label_maps(videos, [3, 4], 1)]
    [[0.5, 0.5, 0.0], [0.0, 0.75, 0.75, 0.0]]
    """
    videos = segments if isinstance(segments, Segments) else list(segments)
    if isinstance(known_labels, Iterable) and not isinstance(known_labels, Tensor):
        known_labels = list(known_labels)

    def on_device(device: torch.device) -> Any:
        parts = [videos] if isinstance(videos, Segments) else videos
        lengths = num_snippets.tolist() if isinstance(num_snippets, Tensor) else list(num_snippets)
        return _of_videos(device, parts, lengths, num_classes, known_labels, background, options)

    more = {"known_labels": known_labels, "background": background, "num_threads": num_threads, **options}
    return _run(_core.linpro_label_maps, on_device, (videos, num_snippets, num_classes), more)


def label_maps(
    segments: Tensor,
    labels: Tensor,
    scores: Tensor,
    offsets: Tensor,
    lengths: Tensor,
    num_classes: int,
    *,
    rule: LinPro,
    known_labels: Any = None,
    background: Background = "none",
) -> tuple[Tensor, LabelReport]:
    """LinPro labels of B videos as one tensor.

    Parameters
    ----------
    segments : (N, 2) tensor of float
        In snippets, video after video.
    labels : (N,) tensor of int
    scores : (N,) tensor of float
    offsets : (B + 1,) tensor of int
        The rows of video b are ``offsets[b] .. offsets[b + 1]``.
    lengths : (B,) tensor of int
        Snippets of every video.
    num_classes : int
        K.
    rule : config.LinPro
    known_labels : (B, K) tensor of bool, or sequence of B entries, optional
        As for `linpro_label_maps`.
    background : {"none", "first", "last"}
        Where to put a column of zeros for the background.

    Returns
    -------
    (B, T, K) or (B, T, K + 1) tensor of float64, T the largest length, and a LabelReport
        Labels beyond the length of a video are 0.

    Raises
    ------
    ValueError
        As `linpro_label_maps`.

    Examples
    --------
    >>> rows, scores = torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.tensor([0.5, 0.75])
    >>> offsets, lengths = torch.tensor([0, 1, 2]), torch.tensor([3, 4])
    >>> labels, report = label_maps(rows, torch.tensor([0, 0]), scores, offsets, lengths, 1, rule=LinPro())
    >>> labels[:, :, 0].tolist(), report.objective.tolist()
    ([[0.5, 0.5, 0.0, 0.0], [0.0, 0.75, 0.75, 0.0]], [[1.0], [1.5]])
    """
    if works_on(segments.device) != "core":
        try:
            return _on_device(
                segments, labels, scores, offsets, lengths, num_classes, rule, known_labels, background, True
            )
        except DoubtError:
            pass
    videos = CoreSegments(as_array(segments), as_array(labels), as_array(scores), as_array(offsets))
    known = None if known_labels is None else list(map(_known, known_labels))
    made = _core.linpro_label_maps(
        videos, as_array(lengths), num_classes, known_labels=known, background=background, **asdict(rule)
    )
    device, count = segments.device, len(made)
    longest = max((len(one.labels) for one in made), default=0)
    whole = np.zeros((count, longest, num_classes + (background != "none")))
    for padded, one in zip(whole, made):
        padded[: len(one.labels)] = one.labels
    columns: dict[str, Any] = {
        name: [getattr(one, name) for one in made] for name in ("objective", "violation", "gap", "uncertified")
    }
    columns["state"] = [[STATES.index(status) for status in one.status] for one in made]
    columns["solved"] = [list(one.solved.values()) for one in made]
    shapes = {"solved": (count, 3), "uncertified": (count,)}
    report = {
        name: torch.from_numpy(np.array(values).reshape(shapes.get(name, (count, num_classes))))
        for name, values in columns.items()
    }
    for name in ("state", "solved", "uncertified"):
        report[name] = report[name].long()
    return torch.from_numpy(whole).to(device), LabelReport(**{name: one.to(device) for name, one in report.items()})


# ------------------------------------------------------------------------------------------------------ what runs where


def _run(core: Callable[..., Any], on_device: Callable[[torch.device], Any], arguments: Any, options: Any) -> Any:
    """The twin of a function of the core: on the device of its tensors, or by the core."""
    require_tensors(core, *arguments, **options)
    device, dtype = result_kind(arguments, options)
    if works_on(device) != "core":
        try:
            with torch.no_grad():
                made = on_device(device)
                return [one.to(dtype=dtype) for one in made] if isinstance(made, list) else made.to(dtype=dtype)
        except DoubtError:
            pass
    return through_core(core, device, dtype, arguments, options)


def _known(value: Any) -> Any:
    return as_array(value) if isinstance(value, Tensor) else value


def _of_videos(
    device: torch.device,
    parts: Sequence[Segments],
    lengths: Sequence[int],
    num_classes: int,
    known_labels: Any,
    background: Background,
    options: Any,
) -> list[LinProLabelMap]:
    """The label maps of videos; more than one video in a part only where there is one part."""
    rule = LinPro(**options)
    if not all(isinstance(one, Segments) and one.unit == "snippet" for one in parts):
        raise DoubtError
    if len(parts) == 1:
        offsets = parts[0].offsets
    elif all(one.num_videos == 1 for one in parts):
        offsets = offsets_of(torch.tensor(list(map(len, parts)), dtype=torch.int64, device=device))
    else:
        raise DoubtError
    if len(offsets) != len(lengths) + 1:
        raise DoubtError
    lengths = [_checks.as_count(one, "num_snippets") for one in lengths]
    empty = torch.empty(0, dtype=torch.float64, device=device)
    made = _on_device(
        torch.cat([empty.reshape(0, 2), *(one.segments for one in parts)]),
        torch.cat([empty.long(), *(one.labels for one in parts)]),
        torch.cat([empty, *(one.scores for one in parts)]),
        offsets,
        torch.tensor(lengths, dtype=torch.int64, device=device),
        num_classes,
        rule,
        known_labels,
        background,
        False,
    )
    return _maps(*made, lengths)


def _maps(labels: Tensor, report: LabelReport, lengths: Sequence[int]) -> list[LinProLabelMap]:
    """One object per video, from the labels of all videos one after the other; the labels are views of those."""
    state, solved, uncertified = (one.tolist() for one in (report.state, report.solved, report.uncertified))
    return [
        LinProLabelMap(
            labels=own,
            objective=report.objective[video],
            violation=report.violation[video],
            gap=report.gap[video],
            status=tuple(STATES[one] for one in state[video]),
            solved=dict(zip(_core._SOLVERS, solved[video])),
            uncertified=uncertified[video],
        )
        for video, own in enumerate(labels.split(list(lengths)))
    ]


# -------------------------------------------------------------------------------------------------------- on the device


def _to_snippets(boundaries: Tensor, lengths: Tensor) -> Tensor:
    """As `tal_postproc._regions.to_snippets`."""
    return torch.minimum(torch.ceil(boundaries - 0.5).clamp(min=0.0), lengths.double()).long()


def _regions(segments: Tensor, lengths: Tensor, rule: LinPro) -> Tensor:
    """(N, 4) snippets [left, start, stop, right], as the core's; `lengths` (N,) are those of the rows' videos."""
    first, last = segments.unbind(1)
    start, stop = _to_snippets(first, lengths), _to_snippets(last, lengths)
    without = (start >= stop) & (lengths > 0)
    middle = torch.minimum(torch.floor((first + last) / 2.0).clamp(min=0.0), lengths.double() - 1.0).long()
    start, stop = torch.where(without, middle, start), torch.where(without, middle + 1, stop)
    if rule.layout == "gaufuse":
        cut = segments.trunc()
        margin = rule.margin_scale * (cut[:, 1] - cut[:, 0]).clamp(max=_core._FAR) ** rule.margin_power
        start, stop = (torch.minimum(cut[:, side].clamp(min=0.0), lengths.double()).long() for side in range(2))
        left = torch.trunc(cut[:, 0] - margin).clamp(min=0.0)
        left = torch.minimum(left, start.double()).long()
        right = torch.minimum(torch.trunc(cut[:, 1] + margin + 1.0), lengths.double() - 1.0)
        right = torch.maximum(right, stop.double()).long()
    else:
        margin = rule.margin_scale * (last - first).clamp(max=_core._FAR) ** rule.margin_power
        left = torch.minimum(_to_snippets(first - margin, lengths), start)
        right = torch.maximum(_to_snippets(last + margin, lengths), stop)
    return torch.stack((left, start, stop, right), 1)


def _in_order(bounds: Tensor, scores: Tensor, group: Tensor, longest: int) -> Tensor:
    """Rows by group, region and score: the same order for any order of the instances."""
    span = longest + 1
    order = torch.sort(scores, stable=True).indices
    for key in (bounds[:, 2] * span + bounds[:, 3], bounds[:, 0] * span + bounds[:, 1], group):
        order = order[torch.sort(key[order], stable=True).indices]
    return order


def _known_mask(known_labels: Any, count: int, classes: int, device: torch.device) -> Tensor:
    """(B, K) bool, from such a tensor or from an entry per video."""
    if isinstance(known_labels, Tensor) and known_labels.dtype == torch.bool:
        if known_labels.shape != (count, classes):
            raise DoubtError
        return known_labels
    entries = known_labels if isinstance(known_labels, (Tensor, Sequence)) else ()
    if len(entries) != count:
        raise DoubtError
    masks = [_checks.as_known_labels(_known(one), classes) for one in entries]
    return torch.from_numpy(np.array(masks).reshape(count, classes)).to(device)


def _on_device(
    segments: Tensor,
    labels: Tensor,
    scores: Tensor,
    offsets: Tensor,
    lengths: Tensor,
    num_classes: int,
    rule: LinPro,
    known_labels: Any,
    background: Background,
    padded: bool,
) -> tuple[Tensor, LabelReport]:
    """`label_maps` by batched operations; DoubtError where the core has something to say.

    The labels are those of the videos one after the other, (snippets, columns), or `padded` as there.
    """
    classes = _checks.as_count(num_classes, "num_classes")
    before, after = _core._padding(background)
    device, count = scores.device, len(lengths)
    given = Inputs(device)
    segments = given.segments(segments)
    scores = given.values(scores, len(segments))
    labels = given.integers(labels, len(segments), classes)
    lengths = given.integers(lengths, count)
    offsets = given.integers(offsets, count + 1)
    given.require((lengths >= 0) & (lengths <= _checks.MOST) & (offsets[1:] >= offsets[:-1]))
    given.require((offsets[0] == 0) & (offsets[-1] == len(segments)))
    given.settle()
    longest = int(lengths.max()) if count else 0
    video = torch.searchsorted(offsets, torch.arange(len(segments), device=device), right=True) - 1
    own = lengths[video]
    given.require((segments[:, 0] <= own) & (segments[:, 1] >= 0.0))
    given.settle()

    bounds = _regions(segments, own, rule)
    group = video * classes + labels
    kept = torch.ones_like(scores, dtype=torch.bool)
    if known_labels is not None:
        kept = _known_mask(known_labels, count, classes, device)[video, labels]
    if rule.nonpositive == "drop":
        kept = kept & (scores > 0.0)
    elif rule.nonpositive == "clip":
        scores = scores.clamp(min=0.0)
    order = _in_order(bounds, scores, group, longest)
    order = order[kept[order]]
    bounds, scores, group = bounds[order], scores[order], group[order]
    starts = _simplex.find_components(group, bounds)
    home = group[starts[:-1]]

    upper = float("inf") if rule.upper_bound is None else rule.upper_bound
    limit = _simplex.MOST_ROWS if rule.solver == "auto" else 0
    how = rule.normalization == "mean", upper, rule.selection == "min_norm"
    solver, numbers, sure, *places = _simplex.solve_components(bounds, scores, starts, *how, limit)
    left = (solver == _kernels.OPEN).nonzero().squeeze(1)
    if len(left):
        places = _by_core(bounds, scores, starts, home, left, rule, (solver, numbers, sure), places)

    asked = _largest(scores.abs(), starts)
    met = numbers[:, 0] <= _kernels.FEASIBLE * asked
    if rule.infeasible == "raise" and not met.all():
        raise DoubtError  # the core raises
    state = torch.where(sure, torch.where(met, 1, 2), 3)
    sums = _per_group(home, numbers[:, :2], count * classes, torch.add)
    worst = _per_group(home, torch.stack((numbers[:, 2], state.double()), 1), count * classes, torch.maximum)
    shape = count, classes
    of_video = home // max(classes, 1)
    report = LabelReport(
        objective=sums[:, 1].reshape(shape),
        violation=sums[:, 0].reshape(shape),
        gap=worst[:, 0].reshape(shape),
        state=worst[:, 1].long().reshape(shape),
        solved=torch.bincount(of_video * 3 + solver, minlength=count * 3).reshape(count, 3),
        uncertified=torch.bincount(of_video[~sure], minlength=count),
    )
    width = before + classes + after
    first = torch.arange(count, device=device) * longest if padded else offsets_of(lengths)
    size = [count, longest, width] if padded else [int(first[-1]), width]
    painted = torch.zeros(size, dtype=torch.float64, device=device)
    owner, pieces, levels = places
    sizes = pieces[:, 1] - pieces[:, 0]
    piece = torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
    snippet = torch.arange(len(piece), device=device) - offsets_of(sizes)[piece] + pieces[piece, 0]
    system = home[owner[piece]]
    at = (first[system // max(classes, 1)] + snippet) * width + system % max(classes, 1) + before
    painted.view(-1)[at] = levels[piece]
    return painted, report


def _by_core(
    bounds: Tensor,
    scores: Tensor,
    starts: Tensor,
    home: Tensor,
    left: Tensor,
    rule: LinPro,
    found: tuple[Tensor, Tensor, Tensor],
    places: Sequence[Tensor],
) -> list[Tensor]:
    """Let the core solve the components that are `left`; their pieces join those that are there already."""
    sizes = starts[left + 1] - starts[left]
    own = offsets_of(sizes)
    piece = torch.repeat_interleave(torch.arange(len(left), device=left.device), sizes)
    chosen = torch.arange(len(piece), device=left.device) + (starts[left] - own[:-1])[piece]
    rows, asked, offsets, system = (as_array(one) for one in (bounds[chosen], scores[chosen], own, home[left]))
    made = _core._settle(rows, asked, offsets, system, rule)
    solver, numbers, sure, owner, pieces, levels = (torch.from_numpy(one).to(left.device) for one in made)
    for whole, part in zip(found, (solver, numbers, sure)):
        whole[left] = part
    return [torch.cat(pair) for pair in zip(places, (left[owner], pieces, levels))]


def _largest(values: Tensor, offsets: Tensor) -> Tensor:
    """The largest value of every group; no group is empty."""
    group = torch.searchsorted(offsets, torch.arange(len(values), device=values.device), right=True) - 1
    return _per_group(group, values[:, None], len(offsets) - 1, torch.maximum)[:, 0]


def _per_group(group: Tensor, values: Tensor, count: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(count, C) sums or maxima of the (N, C) values of each group, 0 without any; groups rise.

    By doubling: the partners of a row depend on its place within its group alone.
    """
    found = values.new_zeros(count, values.shape[1])
    if not len(group) or not count:
        return found
    step = 1
    while step < len(group):
        joined = combine(values[:-step], values[step:])
        same = (group[step:] == group[:-step])[:, None]
        values = torch.cat((torch.where(same, joined, values[:-step]), values[-step:]))
        step *= 2
    numbers = torch.arange(count, device=group.device)
    at = torch.searchsorted(group, numbers).clamp(max=len(group) - 1)
    return torch.where((group[at] == numbers)[:, None], values[at], found)
