"""LinPro's small programs in batches: built, solved and certified by plain torch operations, on any device.

The programs, the pivots, the certificate and the tolerances are those of `tal_postproc._kernels.simplex`, where they
are told; only the least sum of squares is found in another way, by Newton's method on the multipliers, which needs few
rounds.  What is not certified stays open for the core.

Programs come last: a tensor is (rows, columns, programs) or less of it.  Everything is elementwise, a minimum, or a sum
by halves in a fixed order, and a program is padded to the size that its own rows ask for.  So its bits depend neither
on the others nor on how they are cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._kernels import simplex as _core
from ._ragged import chunks

MOST_ROWS = 16  # of a component that is solved here; codes of columns fit in int64 up to 39
_LOOK = 4  # rounds of a device between two looks at what is done, each of which waits for it
_ROUNDS = 60  # of Newton's method
_RIDGE = 1e-9  # of its matrix, where that is singular
_SOFT = 1e-6  # curvature that residuals get while it is not known which of them are above 0
_SETTLED = 1e-12  # largest residual of the equations, in units of the largest mass

Step = Callable[[Sequence[Tensor], Sequence[Tensor], int], tuple[list[Tensor], Tensor]]


class Programs(NamedTuple):
    """B programs of at most M rows and W columns; rows and columns that are not there are 0."""

    matrix: Tensor  # (M, W, B)
    sizes: Tensor  # (W, B)
    caps: Tensor  # (W, B)
    rhs: Tensor  # (M, B)
    weight: Tensor  # (M, B)
    rows: Tensor  # (B,)


class Pieces(NamedTuple):
    """Where the columns of B programs lie, and the units of their masses."""

    cuts: Tensor  # (W + 1, B) piece p is [cuts[p], cuts[p + 1]), perhaps empty
    column: Tensor  # (W, B) of every piece
    unit: Tensor  # (B,) of mass
    largest: Tensor  # (B,) score, the unit of violation


def add_up(x: Tensor, dim: int = 0) -> Tensor:
    """Sum over one dimension by halves: the same bits on every device, whatever lies beside it."""
    while x.shape[dim] > 1:
        if x.shape[dim] % 2:
            x = torch.cat((x, torch.zeros_like(x.narrow(dim, 0, 1))), dim)
        low, high = x.chunk(2, dim)
        x = low + high
    return x.squeeze(dim)


def find_components(group: Tensor, bounds: Tensor) -> Tensor:
    """Offsets of the components among rows sorted by group, then by window; as the core's kernel."""
    if not len(group):
        return group.new_zeros(1)
    span = bounds.max() + 1
    reach = (group * span + bounds[:, 3]).cummax(0).values
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = (group[1:] != group[:-1]) | (group[1:] * span + bounds[1:, 0] >= reach[:-1])
    return torch.cat((first.nonzero().squeeze(1), group.new_tensor([len(group)])))


def build(bounds: Tensor, scores: Tensor, rows: Tensor, mean: bool, upper: float) -> tuple[Programs, Pieces]:
    """The programs of (M, B, 4) regions and (M, B) scores, of which the first `rows` of each program count."""
    most, count = scores.shape
    width = 4 * most
    real = torch.arange(most, device=rows.device)[:, None] < rows
    bounds = torch.where(real[..., None], bounds, bounds[:1, :, :1])
    scores = torch.where(real, scores, 0.0)
    left, start, stop, right = bounds.unbind(2)
    cuts = bounds.permute(0, 2, 1).reshape(width, count).sort(0).values
    cuts = torch.cat((cuts, cuts[-1:]))
    length = cuts[1:] - cuts[:-1]
    here = cuts[:-1]
    window = (left[:, None] <= here) & (here < right[:, None]) & (length > 0)
    inside = window & (start[:, None] <= here) & (here < stop[:, None])
    inner = (stop - start).double()
    outer = (start - left + right - stop).double()
    factor, around = torch.ones_like(scores), -torch.ones_like(scores)
    if mean:
        factor = torch.where(inner > 0, inner, outer.clamp(min=1.0))
        around = torch.where((inner > 0) & (outer > 0), -inner / outer.clamp(min=1.0), around)
    entries = torch.where(inside, 1.0, around[:, None]) * window

    # equal columns are merged into the first of them; a code has one ternary digit per row
    digit = 3 ** torch.arange(most, device=rows.device)[:, None, None]
    codes = ((window.long() + inside) * digit).sum(0)
    codes, piece = codes.sort(dim=0, stable=True)
    places = torch.arange(width, device=rows.device)[:, None]
    fresh = torch.ones_like(codes, dtype=torch.bool)
    fresh[1:] = codes[1:] != codes[:-1]
    begin = torch.where(fresh, places, 0).cummax(0).values
    last = torch.cat((fresh[1:], torch.ones_like(fresh[:1])))
    end = torch.where(last, places, width).flip(0).cummin(0).values.flip(0)
    total = length.gather(0, piece).cumsum(0)
    total = total.gather(0, end) - total.gather(0, begin) + length.gather(0, piece.gather(0, begin))
    head = piece.gather(0, begin)
    column = torch.zeros_like(piece).scatter_(0, piece, head)
    sizes = torch.zeros_like(piece).scatter_(0, head, total)
    matrix = torch.where(column == places, entries, 0.0)
    sizes = torch.where((matrix != 0.0).any(0), sizes, 0).double()

    largest = scores.abs().amax(0)
    largest = torch.where(largest == 0.0, 1.0, largest)
    top = factor.amax(0).clamp(min=1.0)
    weight = torch.where(real, top / factor, 1.0)
    unit = top * largest
    caps = torch.where(sizes > 0.0, upper * sizes / unit, 0.0)
    programs = Programs(matrix, sizes, caps, scores / largest / weight, weight, rows)
    return programs, Pieces(cuts, column, unit, largest)


def _until_done(step: Step, fixed: Sequence[Tensor], moving: Sequence[Tensor], rounds: int) -> list[Tensor]:
    """Rounds of `step` until all programs are done; those that are leave the batch now and then.

    ``step(fixed, moving, turn)`` returns the new `moving` and which programs are done; those it must not move again.
    """
    found = [part.clone() for part in moving]
    device = moving[0].device
    own = torch.arange(moving[0].shape[-1], device=device)
    look = 1 if device.type == "cpu" else _LOOK
    for turn in range(rounds):
        moving, done = step(fixed, moving, turn)
        if turn % look == look - 1:
            left = (~done).nonzero().squeeze(1)
            if 2 * len(left) <= len(done):
                for whole, part in zip(found, moving):
                    whole[..., own] = part
                own, fixed, moving = (
                    own[left],
                    [part[..., left] for part in fixed],
                    [part[..., left] for part in moving],
                )
                if not len(left):
                    return found
    for whole, part in zip(found, moving):
        whole[..., own] = part
    return found


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """x[index[b], b] of (V, B), or x[:, index[b], b] of (R, V, B)."""
    if x.ndim == 2:
        return x.gather(0, index[None]).squeeze(0)
    return x.gather(1, index.expand(len(x), 1, -1)).squeeze(1)


def _pivot_round(fixed: Sequence[Tensor], moving: Sequence[Tensor], turn: int) -> tuple[list[Tensor], Tensor]:
    """One pivot, or one move from bound to bound, of every program that is not done."""
    caps, small, limit, patience = fixed
    table, value, basic, side, stalled, done = moving
    m = len(value)
    variables, width = len(caps), len(caps) - 2 * m
    number = torch.arange(variables, device=caps.device)[:, None]
    bland = stalled > patience
    one, two = table[m] * side, table[m + 1] * side
    slack = (_core._ENTERS * table[m + 1, width : width + m].abs().amax(0)).clamp(min=_core._ENTERS)
    first, second = one < -small, (one <= small) & (two < -slack)
    gain = torch.where(first.any(0), torch.where(first, one, torch.inf), torch.where(second, two, torch.inf))
    gain = torch.where(bland & (gain < torch.inf), -1.0, gain)
    best, enter = gain.min(0)  # of equal ones the first, as everywhere below
    done = done | (best == torch.inf) | (turn >= limit)

    column, move, room = _pick(table, enter), _pick(side, enter), _pick(caps, enter)
    change = -move * column[:m]
    ceiling = caps.gather(0, basic)
    up = (change > _core._ZERO) & (ceiling < torch.inf)
    bound = up | (change < -_core._ZERO)
    size = torch.where(bound, change.abs(), 1.0)
    distance = torch.where(bound, torch.where(up, ceiling - value, value).clamp(min=0.0), torch.inf)
    hair = torch.where(bland, 0.0, _core._HAIR)
    reach = ((distance + hair) / size).amin(0)
    ratio = distance / size
    may_leave = bound & (ratio <= reach) & (reach < room)
    least, leave = torch.where(may_leave, torch.where(bland, basic.double(), -size), torch.inf).min(0)
    leaves = least < torch.inf
    step = torch.where(leaves, torch.minimum(room, _pick(ratio, leave)), room)
    done = done | (step == torch.inf)
    stalled = torch.where(step <= 1e-12, stalled + 1, 0)
    value = torch.where(done, value, value + step * change)

    pivots = leaves & ~done
    gone = _pick(basic, leave)
    to_cap = _pick(up, leave)
    entering = (number == enter) & ~done
    side = torch.where(entering, torch.where(leaves, 1.0, -side), side)
    side = torch.where((number == gone) & pivots, torch.where(to_cap, -1.0, 1.0), side)
    here = (torch.arange(m, device=caps.device)[:, None] == leave) & pivots
    value = torch.where(here, torch.where(move < 0.0, room - step, step), value)
    basic = torch.where(here, enter, basic)
    row = table.gather(0, leave.expand(1, variables, -1))
    scaled = row / torch.where(pivots, _pick(column, leave), 1.0)
    table = table - torch.where(pivots, column, 0.0)[:, None] * scaled  # two roundings, on every device
    table.scatter_(0, leave.expand(1, variables, -1), torch.where(pivots, scaled, row))
    return [table, value, basic, side, stalled, done], done


def lexicographic(programs: Programs) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices of least weighted residual and then of least sum, with the multipliers of the rows for either goal.

    The variables are W columns, M residuals that rise and M that fall; all have their column in the table.
    """
    matrix, _, caps, rhs, weight, rows = programs
    m, width, count = matrix.shape
    real = torch.arange(m, device=rows.device)[:, None] < rows
    eye = torch.eye(m, dtype=torch.float64, device=rows.device)[..., None].expand(m, m, count)
    whole = torch.cat((matrix, eye, -eye), 1)
    caps = torch.cat((caps, torch.full_like(rhs, torch.inf), torch.full_like(rhs, torch.inf)))
    costs = torch.zeros(2, width + 2 * m, count, dtype=torch.float64, device=rows.device)
    costs[0, width : width + m] = costs[0, width + m :] = weight
    costs[1, :width] = (matrix != 0.0).any(0)
    sign = torch.where(rhs >= 0.0, 1.0, -1.0)
    table = torch.cat((whole * sign[:, None], costs))
    table[m, : width + 2 * m] -= add_up(sign[:, None] * (weight[:, None] * whole))
    row = torch.arange(m, device=rows.device)[:, None]
    basic = width + row + torch.where(rhs >= 0.0, 0, m)
    closed = caps <= 0.0  # they never enter
    side = torch.where(closed, 0.0, 1.0)
    columns = (matrix != 0.0).any(0).sum(0)
    fixed = [
        caps,
        _core._ENTERS * weight.amax(0).clamp(min=1.0),
        20 * (rows + columns) + 100,
        2 * rows + 20,
    ]
    moving = [table, rhs.abs(), basic, side, torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)]
    rounds = 20 * 5 * m + 100
    table, value, basic, side, _, _ = _until_done(_pivot_round, fixed, moving, rounds)

    inverse = table[:m, width : width + m]  # of the basis
    first = torch.where(real, weight - table[m, width : width + m], 0.0)
    second = torch.where(real, -table[m + 1, width : width + m], 0.0)
    x = torch.where(side < 0.0, caps, 0.0).scatter_(0, basic, value)
    for _ in range(2):  # the pivots' rounding errors, taken out through the inverse of the basis
        residual = rhs - add_up(whole * x, 1)
        value = value + add_up(inverse * residual, 1)
        x = x.scatter(0, basic, value)
        miss = costs - torch.stack([add_up(whole * y[:, None]) for y in (first, second)])
        one, two = (part.gather(0, basic) for part in miss)
        first = first + add_up(one[:, None] * inverse)
        second = second + add_up(two[:, None] * inverse)
    first, second = torch.where(real, first, 0.0), torch.where(real, second, 0.0)
    return torch.minimum(x[:width].clamp(min=0.0), caps[:width]), first, second


def certify(programs: Programs, x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How good solutions provably are: (violation, gap of the violation, sum, gap of the sum), each (B,)."""
    matrix, _, caps, rhs, weight, _ = programs
    zero = _core._ZERO
    total = add_up(x)
    violation = add_up(weight * (rhs - add_up(matrix * x, 1)).abs())
    met = violation <= _core.FEASIBLE
    z = torch.minimum(torch.maximum(first, -weight), weight)
    one, two = add_up(matrix * z[:, None]), add_up(matrix * second[:, None])
    steep = torch.where(one.abs() > zero, (1.0 - two) / one, 0.0).amax(0).clamp(min=0.0)
    for sign in (1.0, -1.0):
        room = weight - sign * first
        share = torch.where(room > zero, sign * second / room, 0.0).amax(0)
        steep = torch.where(met, steep, torch.maximum(steep, share))
    y = second + steep * z
    least_violation, least_sum = add_up(rhs * z), add_up(rhs * y)
    beyond = two + steep * one - 1.0
    capped = (caps < 1e3 * (1.0 + total)).all(0)
    near = torch.where(capped, caps, 0.0)
    over, outside = one.clamp(min=0.0), beyond.clamp(min=0.0)
    least_violation = least_violation - torch.where(capped, add_up(near * over), 1e3 * over.amax(0))
    least_sum = least_sum - torch.where(capped, add_up(near * outside), total * outside.amax(0))
    gap = torch.where(met, violation, (violation - least_violation).abs())
    least_sum = torch.where(met, least_sum, least_sum - (y.abs() / weight).amax(0) * violation)
    return violation, gap, total, ((total - least_sum).abs() + 1e-15 * y.abs().amax(0)) / (1.0 + total)


def _solve_definite(matrix: Tensor, target: Tensor) -> Tensor:
    """(M, B) solutions of (M, M, B) symmetric positive definite systems, by elimination without pivoting."""
    work = torch.cat((matrix, target[:, None]), 1)
    for k in range(len(matrix)):
        row = work[k] / work[k, k].clamp(min=1e-300)
        work = work - work[:, k, None] * row
        work[k] = row
    return work[:, -1]


def _newton_round(fixed: Sequence[Tensor], moving: Sequence[Tensor], turn: int) -> tuple[list[Tensor], Tensor]:
    """One step of Newton's method with exact line search towards multipliers y whose masses z(y) meet the equations.

    With z(y) = the best masses for y, ``clip(spread * matrix' y, 0, caps)``, goal - matrix z(y) is the gradient of the
    concave dual, piecewise quadratic.  Its derivative along the step is piecewise linear and falls.
    """
    matrix, spread, caps, goal, pinned = fixed
    y, best, least, done = moving
    wanted = spread * add_up(matrix * y[:, None])
    z = torch.minimum(wanted.clamp(min=0.0), caps)
    miss = torch.where(pinned, 0.0, goal - add_up(matrix * z, 1))
    error, unit = miss.abs().amax(0), z.amax(0).clamp(min=1.0)
    better = error < least
    best, settled = torch.where(better, y, best), least <= _SETTLED * unit
    least = torch.minimum(error, least)
    done = done | (error <= 4e-16 * unit) | (settled & ~better)

    curve = torch.where((wanted >= 0.0) & (wanted <= caps), spread, 0.0)
    eye = torch.eye(len(y), dtype=torch.float64, device=y.device)[..., None]
    hessian = add_up((matrix * curve)[:, None] * matrix, 2)
    ridge = _RIDGE * hessian.diagonal(0, 0, 1).amax(1).clamp(min=1e-6)
    hessian = torch.where(pinned | pinned[:, None], 0.0, hessian + ridge * eye)
    step = torch.where(pinned, 0.0, _solve_definite(torch.where(pinned & (eye > 0.0), 1.0, hessian), miss))

    pull = add_up(matrix * step[:, None])
    speed = spread * pull
    moves = torch.where(speed == 0.0, 1.0, speed)
    breaks = torch.cat((-wanted / moves, (caps - wanted) / moves))
    breaks = torch.where((breaks > 0.0) & (breaks < torch.inf) & (speed != 0.0).repeat(2, 1), breaks, 0.0)
    far = 2.0 * breaks.amax(0, keepdim=True) + 2.0
    times = torch.cat((breaks, far)).sort(0).values
    masses = torch.minimum((wanted[:, None] + speed[:, None] * times).clamp(min=0.0), caps[:, None])
    rising = add_up(miss * step) - add_up((masses - z[:, None]) * pull[:, None])
    low = ((rising > 0.0).sum(0) - 1).clamp(min=0, max=len(times) - 2)
    before, after = _pick(rising, low), _pick(rising, low + 1)
    begin, end = _pick(times, low), _pick(times, low + 1)
    fall = before - after
    length = begin + torch.where(fall > 0.0, before / torch.where(fall > 0.0, fall, 1.0), 0.0) * (end - begin)
    return [torch.where(done, y, y + length * step), best, least, done], done


def _multipliers(matrix: Tensor, spread: Tensor, caps: Tensor, goal: Tensor, pinned: Tensor, start: Tensor) -> Tensor:
    """(M, B) multipliers of the masses of least sum of squares, from `start` on; 0 in rows that are `pinned`."""
    start = torch.where(pinned, 0.0, start)
    far = torch.full_like(goal[0], torch.inf)
    moving = [start, start, far, torch.zeros_like(far, dtype=torch.bool)]
    return _until_done(_newton_round, [matrix, spread, caps, goal, pinned], moving, _ROUNDS)[1]


def least_squares(programs: Programs, x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The points of least sum(x^2 / sizes) among those as good as x, and how far they break optimality conditions."""
    matrix, sizes, caps, rhs, weight, rows = programs
    zero = _core._ZERO
    heaviest = weight.amax(0).clamp(min=1.0)
    steepest = second.abs().amax(0).clamp(min=1.0)
    residual = rhs - add_up(matrix * x, 1)
    met = add_up(weight * residual.abs()) <= _core.FEASIBLE

    # the optimal face: where columns whose reduced cost is not zero stay at their bound, and residuals that may change
    terms = (matrix * second[:, None]).abs().amax(0).clamp(min=1.0)
    size_one = add_up(matrix * first[:, None]).abs() / heaviest
    size_two = (1.0 - add_up(matrix * second[:, None])).abs() - 1e-12 * terms
    there = caps > 0.0
    face = there & (size_one <= zero) & (size_two <= zero)
    near = (size_one <= _core._NEAR) & (size_two <= _core._NEAR)
    between = torch.minimum(x, caps - x) > zero * caps.clamp(max=1.0)
    unclear = (there & ~face & (near | between)).any(0)
    slack = (second.abs() <= zero + 1e-12 * steepest) & ~met
    slack &= torch.arange(len(rhs), device=rows.device)[:, None] < rows
    rises = slack & (weight - first <= zero * heaviest)
    falls = slack & ~rises & (weight + first <= zero * heaviest)
    sign = rises.double() - falls.double()

    matrix = torch.where(face, matrix, 0.0)
    caps = torch.where(face, caps, 0.0)
    spread = torch.where(face, sizes, 0.0) / sizes.amax(0).clamp(min=1.0)
    goal = residual + add_up(matrix * x, 1)
    y, pinned = torch.zeros_like(goal), torch.zeros_like(slack)
    relaxed = (sign != 0.0).any(0).nonzero().squeeze(1)
    if len(relaxed):  # which residuals are above 0: soft ones tell
        some = sign[:, relaxed]
        eye = torch.eye(len(goal), dtype=torch.float64, device=goal.device)[..., None]
        soft = _multipliers(
            torch.cat((matrix[..., relaxed], eye * some), 1),
            torch.cat((spread[:, relaxed], some.abs() / _SOFT)),
            torch.cat((caps[:, relaxed], torch.where(some != 0.0, torch.inf, 0.0))),
            goal[:, relaxed],
            pinned[:, relaxed],
            y[:, relaxed],
        )
        above = some * soft > _SOFT * zero
        hard = _multipliers(  # it pulls at degenerate rows, which are let go, too
            matrix[..., relaxed], spread[:, relaxed], caps[:, relaxed], goal[:, relaxed], above, soft
        )
        y[:, relaxed], pinned[:, relaxed] = hard, above | (some * hard > 0.0)
    y = _multipliers(matrix, spread, caps, goal, pinned, y)
    wanted = add_up(matrix * y[:, None])
    z = torch.minimum((spread * wanted).clamp(min=0.0), caps)
    rest = goal - add_up(matrix * z, 1)
    wrong = torch.where(pinned, (-sign * rest).clamp(min=0.0), rest.abs()).amax(0)
    wrong = wrong > _SETTLED * z.amax(0).clamp(min=1.0)
    scale = torch.where(z > 0.0, z / torch.where(face, spread, 1.0), 0.0).amax(0)
    breach = (sign * y).clamp(min=0.0).amax(0) / torch.where(scale > 0.0, scale, 1.0)
    stays = unclear | ~face.any(0)
    breach = torch.where(unclear | wrong & ~stays, torch.inf, torch.where(stays, 0.0, breach))
    return torch.where(face & ~stays, z, x), breach


def finish(
    programs: Programs, x: Tensor, first: Tensor, second: Tensor, min_norm: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The selected solutions and their certificates: (x, violation, sum, largest gap, are they certified)."""
    violation, first_gap, total, second_gap = certify(programs, x, first, second)
    gap, proven = torch.maximum(first_gap, second_gap), torch.ones_like(first_gap, dtype=torch.bool)
    unclear_gap = first_gap
    if min_norm:
        moved, breach = least_squares(programs, x, first, second)
        found = certify(programs, moved, first, second)
        moved_gap = torch.maximum(found[1], found[3])
        loss = torch.maximum(found[0] - violation, (found[2] - total) / (1.0 + total))
        proven = (moved_gap <= _core.ACCEPTED) & (loss <= _core.FEASIBLE) & (breach <= _core.ACCEPTED)
        x = torch.where(proven, moved, x)
        unclear_gap = torch.where(proven, found[1], first_gap)
        violation, total = torch.where(proven, found[0], violation), torch.where(proven, found[2], total)
        proven &= gap <= _core.ACCEPTED
        gap = torch.where(proven, moved_gap, gap)
    unclear = (violation > _core.FEASIBLE) & (violation - unclear_gap <= _core.FEASIBLE)
    return x, violation, total, gap, (gap <= _core.ACCEPTED) & proven & ~unclear


def _lone(bounds: Tensor, scores: Tensor, mean: bool, upper: float) -> tuple[Tensor, Tensor]:
    """(3, B) levels left of, inside and right of lone instances, and their violations."""
    inner = bounds[:, 2] - bounds[:, 1]
    outer = bounds[:, 1] - bounds[:, 0] + bounds[:, 3] - bounds[:, 2]
    size, asked = torch.where(scores >= 0.0, inner, outer), scores.abs()
    share = torch.ones_like(scores) if mean else size.double().clamp(min=1.0)
    level = torch.where(size > 0, (asked / share).clamp(max=upper), 0.0)
    missed = torch.where(level >= upper, (asked - level * share).clamp(min=0.0), 0.0)
    inside = torch.where(scores >= 0.0, level, 0.0)
    around = torch.where(scores >= 0.0, 0.0, level)
    return torch.stack((around, inside, around)), torch.where(size > 0, missed, asked)


def solve_components(
    bounds: Tensor, scores: Tensor, offsets: Tensor, mean: bool, upper: float, min_norm: bool, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Labels of all components, as the core's kernel: (solver, numbers, sure, owner, pieces, levels).

    Those of more than `limit` rows, and those that fail their certificate, stay OPEN.
    """
    count, device = len(offsets) - 1, bounds.device
    sizes = offsets[1:] - offsets[:-1]
    low = offsets[:-1]
    asks = torch.cat((low.new_zeros(1), (scores != 0.0).cumsum(0)))
    asks = asks[offsets[1:]] != asks[offsets[:-1]]
    solver = torch.full((count,), _core.OPEN, device=device)
    numbers = torch.zeros(count, 3, dtype=torch.float64, device=device)
    sure = torch.ones(count, dtype=torch.bool, device=device)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # owner, start, stop, level

    small = sizes <= limit
    solver = torch.where(small & (~asks | (sizes == 1)), _core.CLOSED_FORM, solver)
    lone = (small & asks & (sizes == 1)).nonzero().squeeze(1)
    rows = low[lone]
    levels, missed = _lone(bounds[rows], scores[rows], mean, upper)
    edges = bounds[rows].T
    numbers[lone, 0] = missed
    numbers[lone, 1] = add_up(levels * (edges[1:] - edges[:-1]))
    found += [(lone, edges[part], edges[part + 1], levels[part]) for part in range(3)]

    most = 1
    while most < limit:
        most *= 2
        bucket = (small & asks & (2 * sizes > most) & (sizes <= most)).nonzero().squeeze(1)
        for part in chunks(bucket, 4 * most * most * max(most, 8)) if len(bucket) else ():
            at = low[part] + torch.arange(most, device=device)[:, None]
            at = torch.minimum(at, offsets[part + 1] - 1)
            programs, where = build(bounds[at], scores[at], sizes[part], mean, upper)
            mass, violation, total, gap, certified = finish(programs, *lexicographic(programs), min_norm)
            sure[part] = certified
            solver[part] = torch.where(certified, _core.SIMPLEX, _core.OPEN)
            numbers[part] = torch.stack((violation * where.largest, total * where.unit, gap), 1)
            columns = programs.sizes.gather(0, where.column).clamp(min=1.0)
            own_mass, own_caps = mass.gather(0, where.column), programs.caps.gather(0, where.column)
            level = (own_mass * where.unit / columns).clamp(max=upper)
            level = torch.where((own_mass > _core._NOTHING * own_caps.clamp(max=1.0)) & certified, level, 0.0)
            found.append((part.expand(4 * most, -1), where.cuts[:-1], where.cuts[1:], level))
    owner, start, stop, level = (torch.cat([one[i].reshape(-1) for one in found]) for i in range(4))
    kept = ((level > 0.0) & (stop > start)).nonzero().squeeze(1)
    return solver, numbers, sure, owner[kept], torch.stack((start, stop), 1)[kept], level[kept]
