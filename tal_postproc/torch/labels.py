"""Label maps of instances and of activations, painted on the device, in the manner of `tal_postproc.pseudo_labels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .. import pseudo_labels as _core
from ..types import LabelState
from . import _sequences
from ._bridge import DoubtError, Inputs
from .functions import twin_of
from .types import Segments

__all__ = [
    "gaussian_label_map",
    "hard_label_map",
    "score_label_map",
    "smooth_label_map",
    "tri_state_label_map",
    "two_threshold_label_map",
]


class _Instances(NamedTuple):
    """The checked instances of a video; those of classes that it is not known to show have no part in the map."""

    segments: Tensor
    labels: Tensor
    scores: Tensor
    known: Tensor  # (N,) float64, 1 or 0
    start: Tensor  # (N,) first snippet that each covers
    stop: Tensor  # (N,) the one after its last
    shape: tuple[int, int]


def _to_snippets(boundaries: Tensor, num_snippets: int) -> Tensor:
    """As `_regions.to_snippets`."""
    return (boundaries - 0.5).ceil().clamp(0, num_snippets).long()


def _inputs(segments: Any) -> Inputs:
    if not isinstance(segments, Segments) or segments.num_videos != 1:
        raise DoubtError
    return Inputs(segments.segments.device)


def _instances(given: Inputs, segments: Segments, num_snippets: Any, num_classes: Any, known_labels: Any) -> _Instances:
    segments.require_unit("snippet", "segments")
    shape = _checks.as_count(num_snippets, "num_snippets"), _checks.as_count(num_classes, "num_classes")
    rows = given.segments(segments.segments)
    labels = given.integers(segments.labels, len(rows), below=shape[1])
    scores = given.values(segments.scores, len(rows))
    given.require((rows[:, 0] <= shape[0]) & (rows[:, 1] >= 0))
    given.settle()
    known = _known(known_labels, shape[1], rows.device).double()[labels]
    start, stop = (_to_snippets(rows[:, side], shape[0]) for side in (0, 1))
    if shape[0]:  # who covers no middle has the snippet of its own
        own = rows.mean(1).floor().clamp(0, shape[0] - 1).long()
        start, stop = torch.where(start < stop, start, own), torch.where(start < stop, stop, own + 1)
    return _Instances(rows, labels, scores, known, start, stop, shape)


def _known(known_labels: Any, num_classes: int, device: torch.device) -> Tensor:
    """(K,) bool: the classes that a video shows."""
    value = known_labels.tolist() if isinstance(known_labels, Tensor) else known_labels
    return torch.from_numpy(_checks.as_known_labels(value, num_classes)).to(device)


def _paint_largest(start: Tensor, stop: Tensor, labels: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """As `_regions.paint_largest`: blocks of a power of 2, halved from the longest down."""
    num_snippets, num_classes = shape
    flat = values.new_zeros(num_classes * num_snippets)
    length = (stop - start).clamp(min=0)
    first = labels * num_snippets + start
    for power in reversed(range(num_snippets.bit_length())):
        size = 1 << power
        here = (length >= size) & (length < 2 * size)
        for at in (first, first + length - size):
            flat.scatter_reduce_(0, torch.where(here, at, 0), torch.where(here, values, 0.0), "amax")
        half = size // 2
        if half:
            flat = torch.cat((flat[:half], torch.maximum(flat[half:], flat[:-half])))
    return flat.reshape(num_classes, num_snippets).T.contiguous()


@twin_of(_core.hard_label_map)
def hard_label_map(segments: Segments, num_snippets: int, num_classes: int, *, known_labels: Any = None) -> Tensor:
    """As `tal_postproc.hard_label_map`, for `tal_postproc.torch.Segments`.

    >>> hard_label_map(Segments(torch.tensor([[0.4, 2.6], [1.0, 2.0]]), torch.tensor([0, 1])), 4, 2).T
    tensor([[1., 1., 1., 0.],
            [0., 1., 0., 0.]])
    """
    rows = _instances(_inputs(segments), segments, num_snippets, num_classes, known_labels)
    return _paint_largest(rows.start, rows.stop, rows.labels, rows.known, rows.shape)


@twin_of(_core.score_label_map)
def score_label_map(segments: Segments, num_snippets: int, num_classes: int, *, known_labels: Any = None) -> Tensor:
    """As `tal_postproc.score_label_map`, for `tal_postproc.torch.Segments`.

    >>> found = Segments(torch.tensor([[0.0, 3.0], [2.0, 4.0]]), scores=torch.tensor([0.5, 0.75]))
    >>> score_label_map(found, 5, 1)[:, 0]
    tensor([0.5000, 0.5000, 0.7500, 0.7500, 0.0000])
    """
    rows = _instances(_inputs(segments), segments, num_snippets, num_classes, known_labels)
    return _paint_largest(rows.start, rows.stop, rows.labels, rows.scores * rows.known, rows.shape)


@twin_of(_core.gaussian_label_map)
def gaussian_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    width: float = 0.25,
    weighted: bool = True,
    known_labels: Any = None,
) -> Tensor:
    """As `tal_postproc.gaussian_label_map`, for `tal_postproc.torch.Segments`.

    >>> gaussian_label_map(Segments(torch.tensor([[1.0, 4.0]]), scores=torch.tensor([0.8])), 5, 1)[:, 0]
    tensor([0.0000, 0.3289, 0.8000, 0.3289, 0.0000])
    """
    width = _checks.as_number(width, "width", above=0.0)
    weighted = _checks.as_flag(weighted, "weighted")
    rows = _instances(_inputs(segments), segments, num_snippets, num_classes, known_labels)
    size = rows.stop - rows.start
    row = torch.repeat_interleave(size)  # one entry per instance and snippet that it covers
    snippet = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size)[row] + rows.start[row]
    sigma = width * (rows.segments[:, 1] - rows.segments[:, 0]).clamp(min=1.0)
    bell = torch.exp(-0.5 * ((snippet + 0.5 - rows.segments.mean(1)[row]) / sigma[row]) ** 2)
    peak = rows.scores * rows.known if weighted else rows.known
    labels = bell.new_zeros(rows.shape[0] * rows.shape[1])
    labels.scatter_reduce_(0, snippet * rows.shape[1] + rows.labels[row], peak[row] * bell, "amax")
    return labels.reshape(rows.shape)


@twin_of(_core.tri_state_label_map)
def tri_state_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    spread: float = 1.0,
    start_std: Tensor | None = None,
    end_std: Tensor | None = None,
    min_score: float | None = None,
    known_labels: Any = None,
) -> Tensor:
    """As `tal_postproc.tri_state_label_map`, for `tal_postproc.torch.Segments`: int8.

    >>> spreads = {"start_std": torch.tensor([1.0]), "end_std": torch.tensor([0.0])}
    >>> tri_state_label_map(Segments(torch.tensor([[2.0, 6.0]]), columns=spreads), 8, 1)[:, 0]
    tensor([ 0, -1, -1,  1,  1,  1,  0,  0], dtype=torch.int8)
    """
    distance = _checks.as_number(spread, "spread", at_least=0.0)
    least = -torch.inf if min_score is None else _checks.as_number(min_score, "min_score")
    given = _inputs(segments)
    spreads = []
    for name, value in (("start_std", start_std), ("end_std", end_std)):
        if value is None and name not in segments.columns:
            raise DoubtError
        std = given.values(segments.columns[name] if value is None else value, len(segments))
        given.require(std >= 0)
        spreads.append(std)
    rows = _instances(given, segments, num_snippets, num_classes, known_labels)
    start, stop, length = rows.start, rows.stop, rows.shape[0]
    (left, left_stop), (right, right_stop) = (
        (_to_snippets(middle - distance * std, length), _to_snippets(middle + distance * std, length))
        for middle, std in zip(rows.segments.T, spreads)
    )
    core = torch.where((left <= start) & (start < left_stop), left_stop, start)
    core_stop = torch.where((right < stop) & (stop <= right_stop), right, stop)
    core_stop = torch.where(rows.scores < least, core, torch.maximum(core, core_stop))
    rank = _paint_largest(
        torch.cat((start, left, right, core)),
        torch.cat((stop, left_stop, right_stop, core_stop)),
        rows.labels.repeat(4),
        torch.cat((rows.known, rows.known, rows.known, 2.0 * rows.known)),
        rows.shape,
    )
    return torch.from_numpy(_core._CODES).to(rank.device)[rank.long()]


@twin_of(_core.smooth_label_map)
def smooth_label_map(labels: Tensor, *, kernel: Sequence[float] = (0.075, 0.85, 0.075)) -> Tensor:
    """As `tal_postproc.smooth_label_map`, for tensors.

    >>> smooth_label_map(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    tensor([0.0000, 0.0750, 0.9250, 1.0000])
    """
    if labels.ndim not in (1, 2) or not (labels.is_floating_point() or labels.dtype == torch.bool):
        raise DoubtError
    weights = _checks.as_values([float(weight) for weight in kernel], None, "kernel", per="tap").tolist()
    half = len(weights) // 2
    if len(weights) % 2 == 0 or min(weights) < 0 or weights[half] == 0:
        raise DoubtError
    given = Inputs(labels.device)
    values = given.real(labels)
    given.settle()
    change, total = torch.zeros_like(values), torch.full_like(values, weights[half])
    for tap, weight in enumerate(weights):
        to, of = (half - tap, 0) if tap < half else (0, tap - half)  # where the snippets and their neighbours begin
        size = max(len(values) - to - of, 0)
        if tap != half and size:
            change[to : to + size] += weight * (values[of : of + size] - values[to : to + size])
            total[to : to + size] += weight
    return values + change / total


@twin_of(_core.two_threshold_label_map)
def two_threshold_label_map(
    tcam: Tensor,
    *,
    action_threshold: float = 0.7,
    background_threshold: float = 0.1,
    background_rule: Literal["sum", "own"] = "sum",
    background: Literal["none", "first", "last"] = "none",
    known_labels: Any = None,
) -> Tensor:
    """As `tal_postproc.two_threshold_label_map`, for tensors: int8.

    >>> two_threshold_label_map(torch.tensor([[0.75, 0.1], [0.05, 0.0], [0.5, 0.4]]))
    tensor([[ 1,  0],
            [ 0,  0],
            [-1, -1]], dtype=torch.int8)
    """
    if tcam.ndim != 2:
        raise DoubtError
    upper = _checks.as_number(action_threshold, "action_threshold")
    lower = _checks.as_number(background_threshold, "background_threshold")
    own = _checks.as_choice(background_rule, "background_rule", ("sum", "own")) == "own"
    where = _checks.as_choice(background, "background", ("none", "first", "last"))
    if (own and where == "none") or (where != "none" and tcam.shape[1] == 0):
        raise DoubtError
    given = Inputs(tcam.device)
    scores = given.real(tcam)
    given.settle()
    idle = scores[:, :0]
    if where == "first":
        idle, scores = scores[:, 0], scores[:, 1:]
    elif where == "last":
        idle, scores = scores[:, -1], scores[:, :-1]
    acts = (scores >= upper) & _known(known_labels, scores.shape[1], scores.device)
    padded = torch.nn.functional.pad(scores, (0, 1))  # a sum of no classes is 0, too
    idles = idle >= lower if own else _sequences.row_sums(padded) < lower
    used = acts.any(1) | idles
    return torch.where(used[:, None], acts.to(torch.int8), LabelState.IGNORE).to(torch.int8)


__test__ = {
    name: globals()[name].__doc__ for name in __all__
}  # examples that doctest would not find: twins are wrapped
