"""TCAM columns on any device: upsampling, normalisation, threshold runs, scores of runs, in plain torch operations.

The functions are those of `_kernels.sequences` and have their arguments: columns are rows of snippets of any lengths,
one after the other, row r is ``values[offsets[r]:offsets[r + 1]]``.  Runs and thresholds are those of the core, bit for
bit.  On the CPU sums are added up in the order of the core; elsewhere by doubling, which is the same for every company.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from .._kernels.sequences import CMCS, MAX, MEAN, OIC_A, SYMMETRIC
from ._ragged import LINEAR, buckets, chunks, padded, room, running_sum, tree_sum

_KNOWN = 512  # powers of shorter lengths are those of the core


# ------------------------------------------------------------------------------------------------------- ragged helpers


def rows_of(offsets: Tensor, total: int) -> Tensor:
    """The row of every value."""
    numbers = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(numbers, offsets.diff(), output_size=total)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _blocks(first: Tensor, stop: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Ranges of about one length: (their numbers, their positions in a padded block, and which of these are real)."""
    # a GPU waits for launches rather than for memory: fewer and wider blocks
    for width, ranges in buckets(stop - first, LINEAR if _on_cpu(first) else LINEAR[::3]):
        for some in chunks(ranges, width):
            yield some, *padded(first[some], stop[some], width)


def _parts(ends: Tensor, total: int, most: int) -> list[tuple[int, int, int, int]]:
    """Stretches of rows, (first row, last + 1, where they begin, where they end), of at most `most` entries or one row.

    Row r owns the entries ends[r] : ends[r + 1] of `total`.  Waits only where there are more than one.
    """
    if total <= most:
        return [(0, len(ends) - 1, 0, total)]
    bounds, cuts = ends.tolist(), [0]
    for row in range(1, len(bounds) - 1):
        if bounds[row + 1] - bounds[cuts[-1]] > most:
            cuts.append(row)
    return [(low, high, bounds[low], bounds[high]) for low, high in pairwise([*cuts, len(bounds) - 1])]


def _running(block: Tensor, place: Tensor) -> Tensor:
    """Sums of the values 0 ... place of every row of a (C, W) block; on the CPU one by one, as the core adds up."""
    return block.cumsum(1) if _on_cpu(block) else running_sum(block).gather(1, place)


def row_sums(block: Tensor) -> Tensor:
    """Sums of the rows of a (C, W) block, whatever C is; on the CPU one by one, as the core adds up."""
    return block.cumsum(1)[:, -1] if _on_cpu(block) else tree_sum(block)


def prefix(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums of the first t values of every row, t = 0 ... T; row r starts at ``offsets[r] + r``."""
    out = values.new_zeros(len(values) + len(offsets) - 1)
    for rows, at, real in _blocks(offsets[:-1], offsets[1:]):
        block = values[at].masked_fill_(~real, 0.0)  # so that what repeats the last position has its sum, too
        out[at + (rows[:, None] + 1)] = _running(block, at - at[:, :1])
    return out


def extremes(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of every row; no row is empty."""
    row = rows_of(offsets, len(values))
    low = values.new_empty(len(offsets) - 1)
    return (
        low.scatter_reduce(0, row, values, "amin", include_self=False),
        low.scatter_reduce(0, row, values, "amax", include_self=False),
    )


# --------------------------------------------------------------------------------------------------- columns to columns


def normalized(values: Tensor, offsets: Tensor, kind: str, clip: bool) -> Tensor:
    """Columns normalised over time, row by row, as `proposals.normalized` does it."""
    if kind != "none" and len(values):
        low, high = extremes(values, offsets)
        if kind == "minmax_relu":
            low, high = low.clamp(min=0.0), high.clamp(min=0.0)
        span = high - low
        span = torch.where(span <= 0.0, 1.0, span)
        row = rows_of(offsets, len(values))
        values = (values - low[row]) / span[row]
    return values.clamp(0.0, 1.0) if clip else values


def upsampled(values: Tensor, offsets: Tensor, factor: int, extrapolate: bool) -> tuple[Tensor, Tensor]:
    """What `proposals.upsampled` gives: values and offsets."""
    if factor == 1:
        return values, offsets
    fine, ends = upsample(values, offsets, factor), offsets * factor
    if extrapolate or not len(fine):
        return fine, ends
    row = rows_of(ends, len(fine))
    place = torch.arange(len(fine), device=fine.device)
    inside = ends[row + 1] - place >= factor
    return fine[inside], ends - (factor - 1) * torch.arange(len(ends), device=ends.device)


def upsample(values: Tensor, offsets: Tensor, factor: int) -> Tensor:
    """Linear interpolation at i / factor for i < factor * T; the last steps go on along the last slope."""
    out = values.new_empty(len(values) * factor)
    for low_row, high_row, begin, end in _parts(offsets, len(values), max(1, room(values) // factor)):
        own = offsets[low_row : high_row + 1]
        row = rows_of(own * factor, (end - begin) * factor)
        first = own[row]
        last = own[row + 1] - 1
        at = (torch.arange(begin * factor, end * factor, device=values.device) - first * factor).double()
        at *= 1.0 / factor
        low = torch.minimum(at.ceil().long(), last - first).sub_(1).clamp_(min=0)
        at -= low
        low += first
        left = values[low]
        right = values[torch.minimum(low.add_(1), last)]
        torch.add((right - left).mul_(at), left, out=out[begin * factor : end * factor])
    return out


# ----------------------------------------------------------------------------------------------------------------- runs


def _levels(
    values: Tensor, offsets: Tensor, thresholds: Tensor, inclusive: bool, positive: bool, skip_lone_first: bool
) -> Tensor:
    """How many of the rising thresholds every value passes."""
    count = thresholds.shape[1]
    if len(thresholds) == 1:
        level = torch.searchsorted(thresholds[0].contiguous(), values, right=inclusive, out_int32=True)
    else:
        row = rows_of(offsets, len(values))
        level = torch.zeros_like(row)
        for bit in reversed(range(count.bit_length())):
            more = level + (1 << bit)
            reached = thresholds[row, more.clamp(max=count) - 1]
            passing = (values >= reached) if inclusive else (values > reached)
            level = torch.where((more <= count) & passing, more, level)
    if positive:
        level = level * (values > 0.0)
    if skip_lone_first and len(values):  # a threshold that only the first step passes
        starts = offsets[:-1][offsets[1:] > offsets[:-1]]
        others = level.index_fill(0, starts, 0)
        highest = torch.zeros(len(offsets) - 1, dtype=level.dtype, device=level.device)
        row = rows_of(offsets, len(values))
        highest = highest.scatter_reduce(0, row, others, "amax")[row[starts]]
        level = level.index_copy(0, starts, torch.minimum(level[starts], highest))
    return level


def _order(keys: Tensor, size: int) -> Tensor:
    """The permutation that sorts different keys below `size`."""
    place = torch.full((size,), -1, dtype=torch.int32, device=keys.device)
    place[keys] = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
    return place[place >= 0].long()


def find_runs(
    values: Tensor,
    offsets: Tensor,
    thresholds: Tensor,
    slots: Tensor,
    inclusive: bool,
    positive: bool,
    min_length: int,
    skip_lone_first: bool,
    once: int,
    dilate: int = 0,
) -> tuple[Tensor, ...]:
    """Runs above every threshold: row, slot, start, stop, multiplicity, as `proposals.runs_above` lists them.

    `thresholds` (R, M) rises along each row, or is one row (1, M) for all; `slots` is of the same shape.  O(M C) for C
    steps at which the number of thresholds that are passed changes; memory is bounded by chunks of rows, but for what a
    single row needs.
    """
    parts = []
    once, shortest = (0, 1) if dilate else (once, min_length)
    for low, high, begin, end in _parts(offsets, len(values), room(values)):
        own = slice(None) if len(thresholds) == 1 else slice(low, high)
        part = values[begin:end], offsets[low : high + 1] - begin
        level = _levels(*part, thresholds[own], inclusive, positive, skip_lone_first)
        for row, *others in _nested_runs(level, part[1], slots[own], shortest, once):
            parts.append((row + low, *others))
    row, slot, start, stop, multiplicity = (torch.cat(part) for part in zip(*parts))
    if not dilate:
        return row, slot, start, stop, multiplicity
    start = (start - dilate // 2).clamp(min=0.0)
    stop = torch.minimum(stop + (dilate - 1) // 2, offsets.diff()[row].double())
    begins = torch.ones_like(row, dtype=torch.bool)
    begins[1:] = (row[1:] != row[:-1]) | (slot[1:] != slot[:-1]) | (start[1:] > stop[:-1])
    stop = stop[begins.roll(-1)]
    kept = row[begins], slot[begins], start[begins], stop, multiplicity[begins]
    long = torch.nonzero(stop - start[begins] >= min_length)[:, 0]
    return tuple(column[long] for column in kept)


def _nested_runs(
    level: Tensor, offsets: Tensor, slots: Tensor, min_length: int, once: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """What `find_runs` returns, of some rows after the other, given how many thresholds every value passes."""
    count, total = slots.shape[1], len(level)
    rows = torch.arange(len(offsets), device=level.device)
    starts = offsets + rows  # every row is followed by a step of level 0
    steps = level.new_zeros(total + len(rows), dtype=torch.int32)
    steps[torch.arange(1, total + 1, device=level.device) + rows_of(offsets, total)] = level.int()
    change = torch.nonzero(steps[1:] != steps[:-1])[:, 0]
    ends = torch.searchsorted(change, starts)  # the changes of row r are ends[r] : ends[r + 1]
    # a table of levels has an entry for every change and threshold
    for low, high, begin, end in _parts(ends, len(change), max(1, room(level) // max(1, count))):
        at, mine = change[begin:end], slots if len(slots) == 1 else slots[low:high]
        row, slot, start, stop, multiplicity = _matched(steps[at + 1], ends[low : high + 1] - begin, mine, once)
        row = row + low
        start, stop = (at[place] - starts[row] for place in (start, stop))
        long = torch.nonzero(stop - start >= min_length)[:, 0]
        yield row[long], slot[long], start[long].double(), stop[long].double(), multiplicity[long]


def _matched(level: Tensor, ends: Tensor, slots: Tensor, once: int) -> tuple[Tensor, ...]:
    """Row, slot, first and last change and multiplicity of the runs of some rows.

    `level` is that from every change on, the last of a row is 0.  One line per threshold: the k-th rise to it and the
    k-th fall below it belong together.  A run of threshold m is that of m - 1, too, unless m is passed just outside
    it and no more: so the longest stretch of equal ones begins where that is.
    """
    count, size = slots.shape[1], len(level)
    above = torch.zeros((count, size + 1), dtype=torch.bool, device=level.device)
    torch.gt(level, torch.arange(count, device=level.device)[:, None], out=above[:, 1:])
    before, above = above[:, :-1], above[:, 1:]
    rises = torch.nonzero((above & ~before).flatten())[:, 0]
    start, stop = rises % max(size, 1), torch.nonzero((before & ~above).flatten())[:, 0] % max(size, 1)
    which = rises // max(size, 1)
    row = torch.searchsorted(ends, start, right=True) - 1
    slot = slots[0 if len(slots) == 1 else row, which]
    multiplicity = torch.ones_like(row)
    if once != 0:
        order = _order(start * count + which, count * size)
        start, stop, which, row, slot = (one[order] for one in (start, stop, which, row, slot))
        outside = torch.nn.functional.pad(level, (1, 0))[start]
        first = torch.maximum(outside, level[stop]) == which
        chain = first.cumsum(0) - 1
        begin = torch.nonzero(first)[:, 0]
        multiplicity = torch.diff(begin, append=begin.new_full((1,), len(first)))
        slot = slot.new_zeros(len(begin)).scatter_reduce(
            0, chain, slot, "amin" if once > 0 else "amax", include_self=False
        )
        start, stop, row = start[begin], stop[begin], row[begin]
    low, high = ends[row], ends[row + 1]
    order = _order(low * count + slot * (high - low) + start - low, count * size)
    return row[order], slot[order], start[order], stop[order], multiplicity[order]


# --------------------------------------------------------------------------------------------------------------- scores


def _area(sums_to: Tensor, values: Tensor, first: Tensor, row: Tensor, x: Tensor) -> Tensor:
    """Integral from 0 to the real numbers x of the step functions of the rows, which begin at `first`."""
    whole = x.long()
    area = sums_to[first + row + whole]
    rest = (x - whole) * values[(first + whole).clamp(max=len(values) - 1)]
    return area + torch.where(x > whole, rest, 0.0)


def _largest(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The largest of ``values[low:high]``, windows that are not empty: two stretches of a power of two cover one."""
    best = torch.full_like(low, -torch.inf, dtype=values.dtype)
    if not len(low):
        return best
    size, table = high - low, values
    width = 1
    longest = int(size.max())
    while True:
        mine = (size >= width) & (size < 2 * width)
        last = len(table) - 1
        both = torch.maximum(table[low.clamp(max=last)], table[(high - width).clamp(0, last)])
        best = torch.where(mine, both, best)
        if 2 * width > longest:
            return best
        table = torch.maximum(table[:-width], table[width:])
        width *= 2


def _passing(values: Tensor, first: Tensor, start: Tensor, stop: Tensor, threshold: Tensor, inclusive: bool) -> Tensor:
    """Integrals over [start, stop) of the values, from position `first` on, that pass the threshold."""
    low = start.long()
    total = torch.zeros_like(start)
    for rows, at, real in _blocks(low, torch.where(stop > start, stop.ceil().long(), low)):
        begin, end, level = start[rows, None], stop[rows, None], threshold[rows, None]
        value = values[first[rows, None] + at]
        counts = ((value >= level) if inclusive else (value > level)) & real
        share = torch.minimum(at + 1.0, end) - torch.maximum(at.double(), begin)
        total[rows] = row_sums(torch.where(counts, value * share, 0.0))
    return total


@cache
def _powers(power: float) -> list[float]:
    """Whole numbers to a power, as the C library computes it: a margin that is whole stays whole."""
    return [float(n) ** power for n in range(_KNOWN)]


def _margins(length: Tensor, scale: float, power: float) -> Tensor:
    """Margins of runs of these lengths."""
    if scale <= 0.0:
        return torch.zeros_like(length)
    if power != 1.0:
        known = torch.tensor(_powers(power), dtype=torch.float64, device=length.device)
        whole = (length == length.floor()) & (length < _KNOWN)
        length = torch.where(whole, known[length.long().clamp(max=_KNOWN - 1)], length**power)
    return length * scale


def score_runs(
    full: Tensor,
    rest: Tensor | None,
    offsets: Tensor,
    own: Tensor,
    own_offsets: Tensor,
    own_weight: float,
    row: Tensor,
    own_row: Tensor,
    start: Tensor,
    stop: Tensor,
    threshold: Tensor,
    inclusive: bool,
    inner_kind: int,
    layout: int,
    scale: float,
    power: float,
    fixed: bool,
    outer_weight: float,
) -> tuple[Tensor, Tensor]:
    """Inner and outer-inner-contrast scores of runs, as `_kernels.sequences.score_runs` gives them.

    `rest` is None where nothing but `own` lies outside.
    """
    if not len(row):
        return torch.zeros_like(start), torch.zeros_like(start)
    inside = prefix(full, offsets)
    outside = inside if rest is full else None if rest is None else prefix(rest, offsets)
    first, length = offsets[row], offsets[row + 1] - offsets[row]
    margin = _margins(stop - start, scale, power)
    if layout == SYMMETRIC:
        s, e = start, stop
        last, begin = e, e
        left, right = (s - margin).clamp(min=0.0), torch.minimum(length.double(), e + margin)
        within = _area(inside, full, first, row, e) - _area(inside, full, first, row, s)
        around = torch.zeros_like(start)
        if rest is not None and outside is not None:
            around = _area(outside, rest, first, row, s) - _area(outside, rest, first, row, left)
            around += _area(outside, rest, first, row, right) - _area(outside, rest, first, row, e)
    else:  # long() cuts towards zero, so the left margin is rounded up and the right one down
        whole_s, whole_e = start.long(), stop.long()
        reach = torch.minimum(margin, length + 1.0)
        whole_left = (start - reach).long().clamp(min=0)
        if layout == OIC_A:
            whole_last = whole_begin = whole_e
            whole_right = torch.minimum(length - 1, (stop - 1.0 + reach).long()) + 1
        elif layout == CMCS:
            whole_last = whole_begin = whole_e
            least = torch.minimum((start - reach).long(), whole_s - 1)
            whole_left = torch.where(least >= 0, least, whole_s)
            whole_right = torch.minimum(length, torch.maximum((stop + reach).long(), whole_e + 1))
        else:
            whole_last = whole_begin = torch.minimum(whole_e + 1, length)
            whole_right = torch.minimum(length - 1, (stop + reach + 1.0).long())
        whole_right = torch.maximum(whole_begin, whole_right)
        zero = first + row
        within = inside[zero + whole_last] - inside[zero + whole_s]
        around = torch.zeros_like(start)
        if outside is not None:
            around = outside[zero + whole_s] - outside[zero + whole_left]
            around += outside[zero + whole_right] - outside[zero + whole_begin]
        s, last, left, begin, right = (x.double() for x in (whole_s, whole_last, whole_left, whole_begin, whole_right))
    inner = torch.zeros_like(start)
    filled = last > s
    if inner_kind == MEAN:
        inner = torch.where(filled, within / (last - s), inner)
    elif inner_kind == MAX:
        inner[filled] = _largest(full, (first + s.long())[filled], (first + last.ceil().long())[filled])
    size = 2.0 * margin if fixed else (s - left) + (right - begin)
    if scale < 0.0:
        return inner, inner.clone()
    if own_weight != 0.0:
        own_first = own_offsets[own_row]
        around = around + own_weight * _passing(own, own_first, left, s, threshold, inclusive)
        around = around + own_weight * _passing(own, own_first, begin, right, threshold, inclusive)
    return inner, inner - torch.where(size > 0.0, outer_weight * (around / size), 0.0)
