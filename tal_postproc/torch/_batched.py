"""Suppression and fusion of all groups at once, in plain torch operations that run on any device.

Each function has the name, the arguments and, to the last integer, the results of the kernel of the NumPy core that it
stands in for: canonical tensors of one device, with ``order`` sorted by `_ragged.score_order`.  Overlaps are the core's
own expression, so thresholds are met by the same rows; sums take fixed partners, so that nothing varies from run to
run, and differ from the core's in the last digits.

Greedy clusters need no loop over picks: among the best rows of a group, whether a row opens a cluster follows from
those before it, so repeating ``keep[j] = not any(keep[i] and i suppresses j, i before j)`` settles one more row every
time at least, and usually all of them in a few turns.  The heads found then take what they overlap from the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._kernels import centres as _centres
from .._kernels.windows import GATED, GAUSSIAN, LINEAR
from ._ragged import LINEAR as WIDTHS
from ._ragged import buckets, chunks, for_groups, offsets_of, padded, room, running_sum, tree_sum
from .types import FusedSegments, as_array

Columns = Any  # start, end and length, one after the other: a tensor or a tuple

BLOCK = 32  # best rows of a group that are settled together, a multiple of 8; more where they hardly overlap
FEW = 8  # groups of up to so many rows are settled row by row
TILE = 4096  # voters whose votes are added at once
PATIENCE = 16  # rounds on a GPU between two looks at how far the groups are; each look waits for the device
TIE = 1e-12  # as in the core


# ------------------------------------------------------------------------------------------------ NMS, greedy clusters


def nms_groups(segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    """Rows that survive, group after group and best first, and the offsets of the groups among them.

    `how` is (threshold, inclusive, candidate, length_offset, area_eps).
    """
    heads, _ = _heads(segments, order, offsets, *how)
    return order[heads], torch.searchsorted(heads, offsets)


def cluster_groups(
    segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, *how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy clusters around the best row left: members cluster by cluster, best first; both kinds of offsets.

    `how` is (threshold, inclusive, candidate, length_offset, area_eps).
    """
    heads, owner = _heads(segments, order, offsets, *how)
    rising, members = torch.sort(owner, stable=True)
    bounds = torch.cat((torch.searchsorted(rising, heads), heads.new_full((1,), len(order))))
    return order[members], bounds, torch.searchsorted(heads, offsets)


def _heads(
    segments: Tensor,
    order: Tensor,
    offsets: Tensor,
    threshold: float,
    inclusive: bool,
    candidate: bool,
    length_offset: float,
    area_eps: float,
) -> tuple[Tensor, Tensor]:
    """Positions in `order` that open a cluster, rising; and for every position the one that opened its cluster."""
    n = len(order)
    start, end = segments[order].unbind(1)
    columns = torch.stack((start, end, end - start + length_offset + area_eps))
    owner = torch.arange(n + 1, device=order.device)  # the last one takes what is written for padding

    def hits(rows: Tensor, heads: Tensor) -> Tensor:
        """Which heads overlap which rows enough."""
        overlap = _overlap(heads, rows, candidate, length_offset)
        return overlap >= threshold if inclusive else overlap > threshold

    for width, groups in buckets(offsets[1:] - offsets[:-1], WIDTHS):
        for part in chunks(groups, width * min(width, BLOCK)) if width > 1 else ():
            places, real = padded(offsets[part], offsets[part + 1], width if width <= FEW else _in_words(width))
            if width <= FEW:
                _take_in_turn(places, real, columns, hits, owner)
                continue
            block = BLOCK
            while places.numel():
                places, real, block = _take(places, real, block, columns, hits, length_offset, owner)
    owner = owner[:n]
    return torch.nonzero(owner == torch.arange(n, device=order.device)).flatten(), owner


def _take_in_turn(
    places: Tensor, real: Tensor, columns: Tensor, hits: Callable[[Tensor, Tensor], Tensor], owner: Tensor
) -> None:
    """Settle all rows of groups of a few, one row of every group after the other."""
    places = places.T.contiguous()  # neighbours in memory are of different groups: there are many
    rows = torch.where(real.T, columns[:, places], math.nan)
    head = places.clone()
    for i in range(len(places) - 1):
        gets = hits(rows[:, i + 1 :], rows[:, i : i + 1])
        gets &= (head[i] == places[i]) & (head[i + 1 :] == places[i + 1 :])  # of a head, by one that has none yet
        head[i + 1 :] = torch.where(gets, places[i], head[i + 1 :])
    _write(owner, places, head, real.T)


def _take(
    places: Tensor,
    real: Tensor,
    block: int,
    columns: Tensor,
    hits: Callable[[Tensor, Tensor], Tensor],
    length_offset: float,
    owner: Tensor,
) -> tuple[Tensor, Tensor, int]:
    """Settle the best rows of every group, and give their heads what they hit of the rest; what is left, and how many
    rows to settle next.  `places` are positions in `order`.
    """
    rows = torch.where(real, columns[:, places], math.nan)  # nothing overlaps a NaN
    block = min(block, places.shape[1])
    best, best_places, best_real = rows[..., :block], places[:, :block], real[:, :block]
    before = torch.ones(block, block, dtype=torch.bool, device=places.device).tril(-1)
    inside = hits(best[..., :, None], best[..., None, :]) & before
    keep = _settle(inside, best_real)
    found, head = _first(inside & keep[:, None, :])
    _write(owner, best_places, best_places.gather(1, head), found & best_real)
    rows, places, real = rows[..., block:], places[:, block:], real[:, block:]
    if not places.numel():
        return places, real, block

    most = int(keep.sum(1).max())
    kept, at = torch.sort(keep.byte(), dim=1, descending=True, stable=True)
    kept, at = kept[:, :most].bool(), at[:, :most]
    heads = torch.where(kept, best.gather(2, at.expand(3, -1, -1)), math.nan)
    step = max(1, room(places) // (len(places) * most))
    if step < places.shape[1] and len(places) == 1:
        found, head = _first_nearby(rows, heads, hits, length_offset, step)
    else:
        tiles = [_first(hits(tile[..., :, None], heads[..., None, :])) for tile in rows.split(step, -1)]
        found, head = (torch.cat(parts, 1) for parts in zip(*tiles))
    _write(owner, places, best_places.gather(1, at).gather(1, head), found & real)
    left = real & ~found
    counts = left.sum(1)
    rest, bounds = places[left], offsets_of(counts[counts > 0])
    places, real = padded(bounds[:-1], bounds[1:], _in_words(int(counts.max())))
    if 2 * most > block:  # they hardly overlap: more at once, as long as they fit
        block = min(2 * block, max(BLOCK, math.isqrt(room(rest) // max(1, len(places))) // 8 * 8))
    return rest[places], real, block


def _first_nearby(
    rows: Tensor, heads: Tensor, hits: Callable[[Tensor, Tensor], Tensor], length_offset: float, step: int
) -> tuple[Tensor, Tensor]:
    """`_first` for the many rows of one group: `step` rows of neighbouring starts meet the heads that touch their hull.

    Rounding keeps order, so what shares anything with a row does with the hull.
    """
    found = torch.zeros_like(rows[0], dtype=torch.bool)
    first = torch.zeros_like(rows[0], dtype=torch.int64)
    for at in torch.sort(rows[0, 0]).indices.split(step):
        tile = rows[:, :, at]
        low, high = tile[0].nan_to_num(math.inf).amin(), tile[1].nan_to_num(-math.inf).amax()  # NaN is padding
        touch = torch.minimum(heads[1, 0], high) - torch.maximum(heads[0, 0], low) + length_offset > 0.0
        near = torch.nonzero(touch).flatten()
        if len(near):
            found[:, at], which = _first(hits(tile[..., :, None], heads[..., None, near]))
            first[:, at] = near[which]
    return found, first


def _in_words(width: int) -> int:
    """The width at which the flags of a row fill words of eight."""
    return -width % 8 + width


def _overlap(head: Columns, row: Columns, candidate: bool, length_offset: float) -> Tensor:
    """Overlap of heads with rows, both (start, end, length); 0, less or NaN where they share nothing."""
    shared = torch.minimum(head[1], row[1])
    shared -= torch.maximum(head[0], row[0])
    if length_offset:
        shared += length_offset
    whole = row[2] if candidate else (row[2] + head[2]).sub_(shared)
    return shared.div_(whole)


def _settle(hits: Tensor, real: Tensor) -> Tensor:
    """Which rows open a cluster, where only earlier ones hit a row: the fixed point."""
    keep = real
    while True:
        again = real & ~_any_of(hits, keep)
        if torch.equal(again, keep):
            return keep
        keep = again


def _any_of(hits: Tensor, keep: Tensor) -> Tensor:
    """For every row, whether one that is kept hits it; eight flags are one word."""
    return (hits.view(torch.int64) & keep.contiguous().view(torch.int64)[:, None, :]).any(-1)


def _first(hits: Tensor) -> tuple[Tensor, Tensor]:
    """For every row, whether any head hits it, and the first one that does."""
    found, first = hits.view(torch.uint8).max(-1)
    return found.bool(), first


def _write(target: Tensor, place: Tensor, values: Tensor, real: Tensor) -> None:
    """Put what is real in its place, and the rest into the last entry, without asking how many there are."""
    target[torch.where(real, place, len(target) - 1)] = values


# ------------------------------------------------------------------------------------------------------------ soft-NMS


def soft_nms_groups(
    segments: Tensor,
    scores: Tensor,
    order: Tensor,
    offsets: Tensor,
    method: int,
    sigma: float,
    threshold: float,
    slope: float,
    min_score: float,
    keep_first: bool,
    decay_negative: bool,
    limit: int,
    candidate: bool,
    length_offset: float,
    area_eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in the order of picking, their decayed scores, and the offsets of the groups among them.

    Arguments as in the core.  One round picks the best row of every group of a chunk; ``exp`` may differ from the
    core's by one unit in the last place, and with it the order of rows whose scores agree to that.
    """
    n = len(order)
    picked, new_scores = order.new_full((n + 1,), -1), scores.new_zeros(n + 1)
    for width, groups in buckets(offsets[1:] - offsets[:-1], WIDTHS[::2]):
        for part in chunks(groups, width):
            place, real = padded(offsets[part], offsets[part + 1], width)
            row = torch.where(real, order[place], len(scores)).sort(1).values  # the earlier row wins a tie
            row.clamp_(max=max(0, len(scores) - 1))
            start, end = segments[row].unbind(-1)
            rows = torch.stack((start, end, end - start + length_offset + area_eps))
            score = torch.where(real, scores[row], -math.inf)
            picks = []
            for turn in range(min(width, limit)):
                if turn and turn % max(16, score.shape[1] // 4) == 0:  # leave out what was picked
                    alive = score > -math.inf
                    at = torch.sort(alive.byte(), dim=1, descending=True, stable=True).indices[:, : width - turn]
                    row, score, rows = row.gather(1, at), score.gather(1, at), rows.gather(2, at.expand(3, -1, -1))
                best, at = score.max(1, keepdim=True)
                goes = best > -math.inf
                if not (keep_first and turn == 0):
                    goes &= best >= min_score
                if _looks(turn, score) and not goes.any():
                    break
                picks.append((row.gather(1, at), best, goes))
                score.scatter_(1, at, torch.where(goes, -math.inf, best))
                pick = torch.where(goes, rows.gather(2, at.expand(3, -1, -1)), math.nan)
                overlap = _overlap(pick, rows, candidate, length_offset)
                decays = score > (-math.inf if decay_negative else 0.0)
                if method == LINEAR:
                    decays &= overlap >= threshold
                    factor = 1.0 - overlap
                else:
                    decays &= overlap > 0.0
                    if method != GAUSSIAN:
                        gate = threshold + slope * pick[2]
                        decays &= overlap > gate if method == GATED else overlap >= gate
                    factor = (-overlap * overlap / sigma).exp_()
                score = torch.where(decays, score * factor, score)
            if picks:
                rows_picked, decayed, goes = (torch.cat(parts, 1) for parts in zip(*picks))
                place = offsets[part, None] + torch.arange(len(picks), device=order.device)
                _write(picked, place, rows_picked, goes)
                _write(new_scores, place, decayed, goes)
    taken = picked[:n] >= 0
    return picked[:n][taken], new_scores[:n][taken], offsets_of(taken.long())[offsets]


def _looks(turn: int, tensor: Tensor) -> bool:
    """Whether to look, in this round, at how far the groups are."""
    return tensor.device.type == "cpu" or turn % PATIENCE == 0


# -------------------------------------------------------------------------------------------------------------- voting


def vote_groups(
    kept: Tensor,
    kept_order: Tensor,
    kept_offsets: Tensor,
    segments: Tensor,
    scores: Tensor,
    order: Tensor,
    offsets: Tensor,
    threshold: float,
    times_overlap: bool,
    candidate: bool,
    length_offset: float,
    area_eps: float,
) -> Tensor:
    """Score-weighted mean of the rows of its group that overlap each kept segment; what is in no group stays."""
    own = segments[order].T
    voters = torch.stack((own[0], own[1], own[1] - own[0] + length_offset + area_eps, scores[order]))
    whole = kept.T
    heads = torch.stack((whole[0], whole[1], whole[1] - whole[0] + length_offset + area_eps))
    group = torch.searchsorted(kept_offsets, torch.arange(len(kept_order), device=order.device), right=True) - 1
    first, stop = offsets[group], offsets[group + 1]
    voted = kept.clone()
    for width, wanted in buckets(stop - first, WIDTHS):
        for part in chunks(wanted, min(width, TILE)):
            row = kept_order[part]
            head = heads[:, row, None]
            sums = kept.new_zeros(3, len(row))  # weight, shift of the start, shift of the end
            for ahead in range(0, width, TILE):
                place, real = padded(first[part] + ahead, stop[part], min(width - ahead, TILE))
                voter = voters[:, place]
                overlap = _overlap(head, voter, candidate, length_offset)
                votes = real & (overlap >= threshold) & (voter[3] > 0.0)
                weight = torch.where(votes, voter[3] * overlap if times_overlap else voter[3], 0.0)
                sums += tree_sum(torch.stack((weight, *(weight * (voter[:2] - head[:2])))))
            moved = head[:2, :, 0] + sums[1:] / sums[0]
            moved = torch.stack((moved[0], torch.maximum(moved[0], moved[1])))
            voted[row] = torch.where(sums[0] > 0.0, moved, head[:2, :, 0]).T
    return voted


# -------------------------------------------------------------------------------------------------------------- fusion


def fuse_groups(
    segments: Tensor,
    scores: Tensor,
    weights: Tensor,
    order: Tensor,
    offsets: Tensor,
    *,
    overlap: tuple[float, bool, bool, float, float],
    temperature: float,
    distribution: str = "gaussian",
    dof: float = 4.0,
    fit: bool = False,
    signed_denominator: bool = False,
    multiplicity: Tensor | None = None,
    cluster_with: Callable[..., tuple[Tensor, Tensor, Tensor]] = cluster_groups,
) -> tuple[FusedSegments, Tensor]:
    """As `fusion.fuse_groups`, with the clusters that `cluster_with` finds.

    The locations of student_t are searched by the core, on the host; all else stays on the device.  Centres can be
    differentiated in segments, scores and weights; the clusters, the spreads and student_t cannot.
    """
    members, bounds, group_bounds = cluster_with(segments.detach(), scores.detach(), order, offsets, *overlap)
    times = torch.ones_like(members) if multiplicity is None else multiplicity[members]
    weight = weights[members]
    columns = torch.cat((segments[members], scores[members, None]), 1).T

    def centres(place: Tensor, real: Tensor) -> Tensor:
        """(9, clusters): centre of each column, spread of each column, effective size, rows, degenerate."""
        w, count = weight[place], times[place]
        top = torch.where(real, w, -math.inf).amax(-1, keepdim=True).detach()
        share = torch.where(real, count * torch.exp((w - top) / temperature), 0.0)
        share = share / tree_sum(share)[:, None]
        effective = 1.0 / tree_sum(share * share / count)
        values = columns[:, place]
        head = values[..., :1]
        apart = torch.where(real, values - head, 0.0)
        shift = tree_sum(share * apart)
        centre = head[..., 0] + shift
        spread = tree_sum((share * (apart - shift[..., None]) ** 2).detach()).sqrt()
        degenerate = torch.zeros_like(real[:, 0])
        if signed_denominator:
            signed = 1.0 - tree_sum((1.0 - torch.sign(w)) * share)
            degenerate = signed <= TIE
            centre = centre / torch.where(degenerate, 1.0, signed)
        elif distribution == "uniform":
            low, high = (torch.where(real, values, math.inf).amin(-1), torch.where(real, values, -math.inf).amax(-1))
            centre = low + 0.5 * (high - low)
        elif distribution != "gaussian":
            rising, at = torch.sort(torch.where(real, values, math.inf), dim=-1, stable=True)
            shares = share.expand_as(values).gather(-1, at)
            if distribution == "exponential":
                centre = _medians(rising, shares, real)
            else:
                centre, degenerate = _student(rising, shares, real, centre, spread, dof, fit)
        rows = torch.where(real, count, 0).sum(-1)
        return torch.cat((centre, spread, torch.stack((effective, rows.to(effective), degenerate.to(effective)))))

    found = for_groups(bounds, 8, centres)
    cluster = torch.searchsorted(bounds, torch.arange(len(members), device=order.device), right=True) - 1
    assignment = torch.full_like(scores, -1, dtype=torch.int64)
    assignment[members] = cluster
    fused = FusedSegments(
        segments=torch.stack((found[0], torch.maximum(found[0], found[1])), 1),
        scores=found[2],
        assignment=assignment,
        picks=members[bounds[:-1]],
        sizes=found[7].long(),
        effective_size=found[6],
        start_std=found[3],
        end_std=found[4],
        degenerate=found[8] > 0.0,
    )
    return fused, group_bounds


def _medians(rising: Tensor, shares: Tensor, real: Tensor) -> Tensor:
    """Midpoint of the lower and the upper weighted median; values rise, with padding behind them."""
    below = running_sum(shares)
    last = real.sum(-1, keepdim=True) - 1
    lower = torch.minimum((real & (below < 0.5 - TIE)).sum(-1, keepdim=True), last)
    upper = torch.minimum((real & (below <= 0.5 + TIE)).sum(-1, keepdim=True), last)
    low, high = rising.gather(-1, lower)[..., 0], rising.gather(-1, upper)[..., 0]
    return low + 0.5 * (high - low)


def _student(
    rising: Tensor, shares: Tensor, real: Tensor, centre: Tensor, spread: Tensor, dof: float, fit: bool
) -> tuple[Tensor, Tensor]:
    """The core's locations of every column, and where a fitted scale collapsed."""
    bounds = as_array(offsets_of(real.sum(-1)))
    given = rising[:, real], shares[:, real], centre.contiguous(), spread.contiguous()
    columns = [tuple(map(as_array, column)) for column in zip(*given)]
    found = [_centres.student_locations(values, bounds, g, mean, std, dof, fit) for values, g, mean, std in columns]
    locations, collapsed = (torch.stack([torch.from_numpy(column) for column in part]) for part in zip(*found))
    return locations.to(centre.device), collapsed.any(0).to(centre.device)


def running_clusters(
    segments: Tensor, scores: Tensor, order: Tensor, offsets: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Weighted boxes fusion in one dimension: every row joins the running mean that it overlaps most, or starts one.

    Returns the cluster of every row of `order`, in that order, and the running means.  A round takes the next row of
    every group of a chunk.
    """
    n = len(order)
    columns = torch.cat((segments[order], scores[order, None]), 1).T
    slot, centres = order.new_zeros(n + 1), segments.new_full((n + 1, 2), math.nan)
    for width, groups in buckets(offsets[1:] - offsets[:-1], WIDTHS[::2]):
        for part in chunks(groups, 4 * width):
            place, real = padded(offsets[part], offsets[part + 1], width)
            means = columns.new_full((3, *place.shape), math.nan)  # start, end and mass of every cluster
            count, most = place.new_zeros(len(part), 1), 0
            for turn in range(width):
                here = slice(turn, turn + 1)
                row, there = columns[:, place[:, here]], real[:, here]
                most = int(count.max()) if _looks(turn, row) else most + 1
                start, end, _ = means[..., :most]
                overlap = _overlap((start, end, end - start), (row[0], row[1], row[1] - row[0]), False, 0.0)
                none = overlap.new_full(row.shape[1:], -1.0)
                best, at = torch.cat((none, overlap.nan_to_num_(-1.0)), 1).max(1, keepdim=True)
                joins = best > threshold
                at = torch.where(joins, at - 1, count)
                index = at.expand(3, -1, -1)
                before = means.gather(2, index)
                start, end = torch.where(joins, before[:2], row[:2])
                mass = torch.where(joins, before[2], 0.0) + row[2]
                share = row[2] / mass
                start = torch.where(mass > 0.0, start + share * (row[0] - start), start)
                end = torch.where(mass > 0.0, end + share * (row[1] - end), end)
                after = torch.stack((start, torch.maximum(start, end), mass))
                means.scatter_(2, index, torch.where(there, after, before))
                _write(slot, place[:, here], place.gather(1, at), there)
                count += there & ~joins
            _write(centres, place, means[:2].permute(1, 2, 0), torch.arange(width, device=order.device) < count)
    opened = torch.nonzero(~centres[:n, 0].isnan()).flatten()
    return torch.searchsorted(opened, slot[:n]), centres[opened]
