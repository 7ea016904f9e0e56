"""Kernels of LinPro: systems of one class cut into small linear programs, and those solved and certified.

The rows of a *component* are instances whose windows [left, right) hang together.  Its columns are groups of snippets
that all rows see alike: `matrix` holds 1 inside, 0 elsewhere, and in the margins -1 or, for means, minus the number of
snippets inside over that in the margins.  With x the label mass of every column and r the residuals, the program is,
in that order of importance,

    min sum(weight * abs(r)),   then min sum(x),   then min sum(x^2 / sizes),
    where matrix x + r = rhs,  0 <= x <= caps.

Masses are in units that make the largest right-hand side about 1; an infinite cap is no cap.
"""

from __future__ import annotations

import numpy as np

from . import kernel

CLOSED_FORM, SIMPLEX, HIGHS, OPEN = range(4)  # who solved a component; OPEN: not solved yet

FEASIBLE = 1e-9  # violation, in units of the largest score, below which a component counts as met
ACCEPTED = 1e-8  # largest gap or breach of optimality conditions that is certified
_ZERO = 1e-9  # of pivots, of the distance to a bound, and of reduced costs where they say what is optimal
_NEAR = 1e-6  # a reduced cost between that and this may be a 0 that multipliers miss
_ENTERS = 1e-11  # reduced cost, relative to the largest weight or multiplier, that is worth a pivot
_NOTHING = 1e-13  # mass that is a rounding error
_HAIR = 1e-11  # by which a basic variable may overstep its bound for the sake of a larger pivot


@kernel
def find_components(group, bounds):
    """Offsets of the components among rows sorted by group, then by window."""
    offsets = np.empty(len(group) + 1, np.int64)
    count, reach = 0, np.int64(0)
    for row in range(len(group)):
        if row == 0 or group[row] != group[row - 1] or bounds[row, 0] >= reach:
            offsets[count] = row
            count += 1
            reach = bounds[row, 0]
        reach = max(reach, bounds[row, 3])
    offsets[count] = len(group)
    return offsets[: count + 1]


@kernel
def _cut_points(bounds):
    """The distinct window and segment ends, rising."""
    cuts = bounds.copy().reshape(-1)
    gap = 1
    while gap < len(cuts):
        gap = 3 * gap + 1
    while gap > 1:  # Shell's sort: a call of NumPy's compiles for a second
        gap //= 3
        for i in range(gap, len(cuts)):
            value, j = cuts[i], i
            while j >= gap and cuts[j - gap] > value:
                cuts[j] = cuts[j - gap]
                j -= gap
            cuts[j] = value
    count = 1
    for i in range(1, len(cuts)):
        if cuts[i] != cuts[count - 1]:
            cuts[count] = cuts[i]
            count += 1
    return cuts[:count]


@kernel
def build(bounds, scores, mean):
    """Pieces and columns of one component: its program without caps.

    Returns (matrix, sizes, rhs, weight, top, largest, cuts, column): the unit of mass is top * largest, that of
    violation `largest`; piece p is [cuts[p], cuts[p + 1]) and belongs to column[p].
    """
    m = len(bounds)
    cuts = _cut_points(bounds)
    pieces = len(cuts) - 1
    entries, codes = np.zeros((m, pieces)), np.zeros(pieces, np.int64)
    factor = np.ones(m)
    largest, top = 0.0, 1.0
    for j in range(m):
        left, start, stop, right = bounds[j, 0], bounds[j, 1], bounds[j, 2], bounds[j, 3]
        inner, outer = stop - start, start - left + right - stop
        around = -1.0
        if mean:
            factor[j] = inner if inner > 0 else max(outer, 1)
            if inner > 0 and outer > 0:
                around = -inner / outer
        top, largest = max(top, factor[j]), max(largest, abs(scores[j]))
        key = (j + 1) * np.int64(0x2545F4914F6CDD1D)
        key ^= key >> 29
        for p in range(pieces):
            if left <= cuts[p] < right:
                inside = start <= cuts[p] < stop
                entries[j, p] = 1.0 if inside else around
                codes[p] += key if inside else 3 * key
    # columns in the order of time; equal ones are merged
    column, first = np.full(pieces, -1), np.empty(pieces, np.int64)
    sizes = np.zeros(pieces)
    count = 0
    for p in range(pieces):
        for k in range(count):
            if codes[first[k]] == codes[p]:
                same = True
                for j in range(m):
                    if entries[j, first[k]] != entries[j, p]:
                        same = False
                        break
                if same:
                    column[p] = k
                    break
        if column[p] < 0:
            column[p] = count
            first[count] = p
            count += 1
        sizes[column[p]] += cuts[p + 1] - cuts[p]
    matrix = np.empty((m, count))
    for k in range(count):
        for j in range(m):
            matrix[j, k] = entries[j, first[k]]
    rhs, weight = np.empty(m), np.empty(m)
    if largest == 0.0:
        largest = 1.0
    for j in range(m):
        weight[j] = top / factor[j]
        rhs[j] = scores[j] / largest / weight[j]
    return matrix, sizes[:count], rhs, weight, top, largest, cuts, column


@kernel
def _pivot(table, rows, p, k, sign):
    """Make column k, times `sign`, the unit column of row p; `rows` is the number of rows that take part."""
    width = table.shape[1]
    scale = 1.0 / (sign * table[p, k])
    for c in range(width):
        table[p, c] *= scale
    for i in range(rows):
        share = sign * table[i, k]
        if i != p and share != 0.0:
            for c in range(width):
                table[i, c] -= share * table[p, c]
    for i in range(rows):  # exactly the unit column
        table[i, k] = 0.0
    table[p, k] = sign


@kernel
def lexicographic(matrix, caps, rhs, weight):
    """Vertex of least weighted residual and then of least sum, by a dense primal simplex from the basis of residuals.

    Returns (x, first, second): the mass of every column, and the multipliers of the rows for either goal.  It stops
    after more pivots than are ever needed; what it has then proves itself or not.  Variables are the K columns and
    the m residuals twice (K + j rises, K + m + j falls).
    """
    m, width = matrix.shape
    table = np.zeros((m + 2, width + m))
    basic, value = np.empty(m, np.int64), np.empty(m)
    place = np.full(width + 2 * m, -1)
    at_cap = np.zeros(width, np.bool_)
    heaviest = 1.0
    for j in range(m):
        sign = 1.0 if rhs[j] >= 0.0 else -1.0
        heaviest = max(heaviest, weight[j])
        for k in range(width):
            table[j, k] = sign * matrix[j, k]
            table[m, k] -= sign * weight[j] * matrix[j, k]
        table[j, width + j] = sign
        table[m, width + j] = 0.0 if sign > 0.0 else 2.0 * weight[j]
        basic[j] = width + j if sign > 0.0 else width + m + j
        place[basic[j]] = j
        value[j] = abs(rhs[j])
    for k in range(width):
        table[m + 1, k] = 1.0
    small = _ENTERS * heaviest
    stalled, room = 0, 0.0
    for _ in range(20 * (m + width) + 100):
        # entering variable: the first goal, and only where it is indifferent the second
        enter, best, second_goal, slack = -1, 0.0, True, _ENTERS
        for c in range(width, width + m):
            slack = max(slack, _ENTERS * abs(table[m + 1, c]))
        bland = stalled > 2 * m + 20
        for v in range(width + 2 * m):
            if place[v] >= 0:
                continue
            if v < width:
                if caps[v] <= 0.0:
                    continue
                one, two = table[m, v], table[m + 1, v]
                if at_cap[v]:
                    one, two = -one, -two
            elif v < width + m:
                one, two = table[m, v], table[m + 1, v]
            else:
                one, two = 2.0 * weight[v - width - m] - table[m, v - m], -table[m + 1, v - m]
            if one < -small:
                if second_goal or (one < best and not bland):
                    enter, best, second_goal = v, one, False
            elif second_goal and one <= small and two < -slack and (enter < 0 or (two < best and not bland)):
                enter, best = v, two
            if bland and enter >= 0 and not second_goal:
                break
        if enter < 0:
            break
        k, sign = (enter, 1.0) if enter < width + m else (enter - m, -1.0)
        step = caps[enter] if enter < width else np.inf
        move = -1.0 if enter < width and at_cap[enter] else 1.0
        # leaving variable: of the rows whose bound is met first, give or take a hair, the one with the largest pivot
        leave, to_cap, largest, reach = -1, False, 0.0, np.inf
        for turn in range(2):
            for i in range(m):
                change = -move * sign * table[i, k]
                if change < -_ZERO:
                    distance, up = value[i], False
                elif change > _ZERO and basic[i] < width and caps[basic[i]] < np.inf:
                    distance, up = caps[basic[i]] - value[i], True
                else:
                    continue
                if turn == 0:
                    reach = min(reach, (max(distance, 0.0) + (0.0 if bland else _HAIR)) / abs(change))
                elif max(distance, 0.0) / abs(change) <= reach and (
                    leave < 0 or (basic[i] < basic[leave] if bland else abs(change) > largest)
                ):
                    room, leave, to_cap, largest = max(distance, 0.0) / abs(change), i, up, abs(change)
            if reach >= step:
                break
        if leave >= 0:
            step = min(step, room)
        if step == np.inf:
            break
        stalled = stalled + 1 if step <= 1e-12 else 0
        for i in range(m):
            value[i] -= move * step * sign * table[i, k]
        if leave < 0:
            at_cap[enter] = not at_cap[enter]
            continue
        gone = basic[leave]
        place[gone] = -1
        if gone < width:
            at_cap[gone] = to_cap
        value[leave] = (caps[enter] - step) if move < 0.0 else step
        if enter < width:
            at_cap[enter] = False
        basic[leave], place[enter] = enter, leave
        one = table[m, k] if sign > 0.0 else 2.0 * weight[enter - width - m] - table[m, k]
        two = sign * table[m + 1, k]
        _pivot(table, m, leave, k, sign)
        for c in range(width + m):
            table[m, c] -= one * table[leave, c]
            table[m + 1, c] -= two * table[leave, c]
        table[m, k] = 0.0 if sign > 0.0 else 2.0 * weight[enter - width - m]
        table[m + 1, k] = 0.0
    x = np.zeros(width)
    first, second = np.empty(m), np.empty(m)
    for k in range(width):
        if at_cap[k]:
            x[k] = caps[k]
    for i in range(m):
        if basic[i] < width:
            x[basic[i]] = value[i]
        first[i] = weight[i] - table[m, width + i]
        second[i] = -table[m + 1, width + i]
    residual = np.empty(m)
    for _ in range(2):  # the pivots' rounding errors, taken out through the inverse of the basis
        for j in range(m):
            residual[j] = rhs[j]
            for k in range(width):
                residual[j] -= x[k] * matrix[j, k]
            if place[width + j] >= 0:
                residual[j] -= value[place[width + j]]
            elif place[width + m + j] >= 0:
                residual[j] += value[place[width + m + j]]
        for i in range(m):
            for j in range(m):
                value[i] += table[i, width + j] * residual[j]
            if basic[i] < width:
                x[basic[i]] = value[i]
        one, two = np.zeros(m), np.zeros(m)  # by how much the multipliers miss the costs of the basis
        for i in range(m):
            v = basic[i]
            if v >= width:
                j, sign = (v - width, 1.0) if v < width + m else (v - width - m, -1.0)
                one[i], two[i] = weight[j] - sign * first[j], -sign * second[j]
                continue
            two[i] = 1.0
            for j in range(m):
                one[i] -= matrix[j, v] * first[j]
                two[i] -= matrix[j, v] * second[j]
        for i in range(m):
            for j in range(m):
                first[j] += one[i] * table[i, width + j]
                second[j] += two[i] * table[i, width + j]
    for k in range(width):
        x[k] = min(max(x[k], 0.0), caps[k])
    return x, first, second


@kernel
def certify(matrix, caps, rhs, weight, x, first, second):
    """How good a solution provably is: (violation, gap of the violation, sum, gap of the sum).

    The bounds hold for any multipliers.  With y = second + M first for a sufficient M, no label map of this violation
    has a sum below rhs.y - sum caps (A'y - 1)+, less M times the violation where there is one; likewise no residual is
    below rhs.z - sum caps (A'z)+ for z = first within the weights.  Where caps are far or none, the sum that was
    reached takes their place, since no better map has a column beyond it, and the bound of the violation holds for maps
    of a mass up to 1e3.  What rounding may take from large multipliers counts as a gap.
    """
    m, width = matrix.shape
    violation, total = 0.0, 0.0
    capped = True
    for k in range(width):
        total += x[k]
    for k in range(width):
        capped = capped and caps[k] < 1e3 * (1.0 + total)
    for j in range(m):
        residual = rhs[j]
        for k in range(width):
            residual -= x[k] * matrix[j, k]
        violation += weight[j] * abs(residual)
    met = violation <= FEASIBLE
    multiplier = 0.0
    one, two = np.zeros(width), np.zeros(width)
    for k in range(width):
        for j in range(m):
            one[k] += matrix[j, k] * min(max(first[j], -weight[j]), weight[j])
            two[k] += matrix[j, k] * second[j]
        if abs(one[k]) > _ZERO:
            multiplier = max(multiplier, (1.0 - two[k]) / one[k])  # -d2 / d1 with d1 = -one, d2 = 1 - two
    if not met:
        for j in range(m):
            if weight[j] - first[j] > _ZERO:
                multiplier = max(multiplier, second[j] / (weight[j] - first[j]))
            if weight[j] + first[j] > _ZERO:
                multiplier = max(multiplier, -second[j] / (weight[j] + first[j]))
    least_violation, least_sum, largest, heaviest = 0.0, 0.0, 0.0, 0.0
    for j in range(m):
        z = min(max(first[j], -weight[j]), weight[j])
        y = second[j] + multiplier * z
        least_violation += rhs[j] * z
        least_sum += rhs[j] * y
        largest = max(largest, abs(y))
        heaviest = max(heaviest, abs(y) / weight[j])
    excess, outer_excess = 0.0, 0.0
    for k in range(width):
        over, beyond = one[k], two[k] + multiplier * one[k] - 1.0
        if capped:
            least_violation -= caps[k] * max(over, 0.0)
            least_sum -= caps[k] * max(beyond, 0.0)
        else:
            outer_excess, excess = max(outer_excess, over), max(excess, beyond)
    if not capped:
        least_violation -= 1e3 * outer_excess
        least_sum -= total * excess
    gap = violation
    if not met:
        gap = violation - least_violation
        least_sum -= heaviest * violation
    return violation, abs(gap), total, (abs(total - least_sum) + 1e-15 * largest) / (1.0 + total)


@kernel
def _cholesky(matrix, target):
    """Solution of a small symmetric positive definite system by Cholesky's method, in place."""
    n = len(target)
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                matrix[i, i] = np.sqrt(max(total, 1e-14))
            else:
                matrix[i, j] = total / matrix[j, j]
    for i in range(n):
        for k in range(i):
            target[i] -= matrix[i, k] * target[k]
        target[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            target[i] -= matrix[k, i] * target[k]
        target[i] /= matrix[i, i]


@kernel
def least_squares(matrix, sizes, caps, rhs, weight, x, first, second):
    """The one point of least sum(x^2 / sizes) among those as good as x, and how far it breaks optimality conditions.

    The optimal face is where columns whose reduced cost is not zero stay at their bound.  On it, an active-set method:
    a basis of the rows, *free* variables besides it that Newton's step moves, the others at their bounds.  `x` is a
    vertex.  Where a reduced cost is too near 0 to tell the face, nothing is moved and nothing proven.
    """
    m, width = matrix.shape
    heaviest, steepest, violation = 1.0, 1.0, 0.0
    goal = rhs.copy()
    for j in range(m):
        heaviest, steepest = max(heaviest, weight[j]), max(steepest, abs(second[j]))
        residual = rhs[j]
        for k in range(width):
            residual -= x[k] * matrix[j, k]
        violation += weight[j] * abs(residual)
        goal[j] = residual
    met = violation <= FEASIBLE

    # the variables of the face: columns, and residuals that may change (K + j as they rise, K + m + j as they fall)
    variable = np.empty(width + 2 * m, np.int64)
    n = 0
    for k in range(width):
        one, two, terms = 0.0, 1.0, 1.0
        for j in range(m):
            one -= matrix[j, k] * first[j]
            two -= matrix[j, k] * second[j]
            terms = max(terms, abs(matrix[j, k] * second[j]))
        if caps[k] <= 0.0:
            continue
        size_one, size_two = abs(one) / heaviest, abs(two) - 1e-12 * terms
        if size_one <= _ZERO and size_two <= _ZERO:
            variable[n] = k
            n += 1
        elif (size_one <= _NEAR and size_two <= _NEAR) or min(x[k], caps[k] - x[k]) > _ZERO * min(1.0, caps[k]):
            return x, np.inf
    columns = n
    if not met:
        for j in range(m):
            if abs(second[j]) > _ZERO + 1e-12 * steepest:
                continue
            if weight[j] - first[j] <= _ZERO * heaviest:
                variable[n] = width + j
                n += 1
            elif weight[j] + first[j] <= _ZERO * heaviest:
                variable[n] = width + m + j
                n += 1
    if columns == 0:
        return x, 0.0

    largest_size = 0.0
    for k in range(width):
        largest_size = max(largest_size, sizes[k])
    table = np.zeros((m, n + m))
    z, cap, curve = np.empty(n), np.full(n, np.inf), np.zeros(n)
    interior = np.zeros(n, np.bool_)
    for c in range(n):
        v = variable[c]
        if v < width:
            cap[c], curve[c], z[c] = caps[v], largest_size / sizes[v], x[v]
            for j in range(m):
                table[j, c] = matrix[j, v]
        else:
            j = v - width if v < width + m else v - width - m
            sign = 1.0 if v < width + m else -1.0
            z[c] = max(sign * goal[j], 0.0)
            table[j, c] = sign
        if z[c] <= _ZERO * min(1.0, cap[c]):
            z[c] = 0.0
        elif z[c] >= cap[c] * (1.0 - _ZERO):
            z[c] = cap[c]
        else:
            interior[c] = True
    for j in range(m):  # what the variables of the face have to add up to
        for c in range(columns):
            goal[j] += table[j, c] * x[variable[c]]
        table[j, n + j] = 1.0
    original = table[:, :n].copy()

    BASIC, FREE, BOUND = 0, 1, 2
    state = np.full(n, BOUND)
    basic = np.full(m, -1)
    rank = 0
    for turn in range(2):  # interior variables enter the basis first
        for c in range(n):
            if interior[c] != (turn == 0) or rank == m:
                continue
            p, largest = -1, 1e-8
            for i in range(m):
                if basic[i] < 0 and abs(table[i, c]) > largest:
                    p, largest = i, abs(table[i, c])
            if p >= 0:
                _pivot(table, m, p, c, 1.0)
                basic[p], state[c] = c, BASIC
                rank += 1
            elif interior[c]:
                state[c] = FREE
    for c in range(n):
        if interior[c] and state[c] == BOUND:
            state[c] = FREE

    slope = np.empty(n)
    free = np.empty(n, np.int64)
    stalled, settled, done = 0, False, False
    for _ in range(50 * n + 200):
        scale = 0.0
        for c in range(n):
            slope[c] = curve[c] * z[c]
            scale = max(scale, slope[c])
        for i in range(m):
            if basic[i] >= 0 and curve[basic[i]] != 0.0 and z[basic[i]] != 0.0:
                pull = curve[basic[i]] * z[basic[i]]
                for c in range(n):
                    if state[c] != BASIC:
                        slope[c] -= pull * table[i, c]
        count = 0
        for c in range(n):
            if state[c] == FREE:
                free[count] = c
                count += 1
        if settled or count == 0:
            enter, best = -1, -1e-11 * scale
            for c in range(n):
                if state[c] == BOUND:
                    gain = slope[c] if z[c] <= 0.0 else -slope[c]
                    if gain < best:
                        enter, best = c, gain
                        if stalled > 2 * n:
                            break
            if enter < 0:
                done = True
                break
            state[enter] = FREE
            free[count] = enter
            count += 1
        hessian, step = np.empty((count, count)), np.empty(count)
        for a in range(count):
            step[a] = -slope[free[a]]
            for b in range(a + 1):
                total = curve[free[a]] if a == b else 0.0
                for i in range(m):
                    if basic[i] >= 0:
                        total += curve[basic[i]] * table[i, free[a]] * table[i, free[b]]
                hessian[a, b] = total
        _cholesky(hessian, step)
        length, block, blocked_row = 1.0, -1, -1
        for a in range(count):
            c = free[a]
            if step[a] < 0.0 and z[c] + length * step[a] < 0.0:
                length, block = -z[c] / step[a], c
            elif step[a] > 0.0 and z[c] + length * step[a] > cap[c]:
                length, block = (cap[c] - z[c]) / step[a], c
        moves = np.zeros(m)
        for i in range(m):
            if basic[i] >= 0:
                for a in range(count):
                    moves[i] -= table[i, free[a]] * step[a]
                c = basic[i]
                if abs(moves[i]) <= 1e-14:
                    continue
                if moves[i] < 0.0 and z[c] + length * moves[i] < 0.0:
                    length, block, blocked_row = max(-z[c] / moves[i], 0.0), c, i
                elif moves[i] > 0.0 and z[c] + length * moves[i] > cap[c]:
                    length, block, blocked_row = max((cap[c] - z[c]) / moves[i], 0.0), c, i
        for a in range(count):
            c = free[a]
            z[c] = min(max(z[c] + length * step[a], 0.0), cap[c])
        for i in range(m):
            if basic[i] >= 0:
                z[basic[i]] = min(max(z[basic[i]] + length * moves[i], 0.0), cap[basic[i]])
        stalled = stalled + 1 if length <= 1e-12 else 0
        settled = block < 0
        if settled:
            continue
        up = cap[block] < np.inf and z[block] > 0.5 * cap[block]
        z[block] = cap[block] if up else 0.0
        state[block] = BOUND
        if blocked_row >= 0:
            swap, largest = -1, 0.0
            for a in range(count):
                if abs(table[blocked_row, free[a]]) > largest:
                    swap, largest = free[a], abs(table[blocked_row, free[a]])
            _pivot(table, m, blocked_row, swap, 1.0)
            basic[blocked_row], state[swap] = swap, BASIC

    # rounding errors, taken out through the inverse of the basis; then the conditions on the face as it was given
    for _ in range(2):
        for i in range(m):
            if basic[i] < 0:
                continue
            change = 0.0
            for j in range(m):
                if table[i, n + j] != 0.0:
                    residual = goal[j]
                    for c in range(n):
                        residual -= original[j, c] * z[c]
                    change += table[i, n + j] * residual
            z[basic[i]] = min(max(z[basic[i]] + change, 0.0), cap[basic[i]])
    scale, worst = 0.0, 0.0
    for c in range(n):
        scale = max(scale, curve[c] * z[c])
    multipliers = np.zeros(m)
    for i in range(m):
        if basic[i] >= 0:
            for j in range(m):
                multipliers[j] += curve[basic[i]] * z[basic[i]] * table[i, n + j]
    for c in range(n):
        breach = curve[c] * z[c]
        for j in range(m):
            breach -= original[j, c] * multipliers[j]
        if z[c] <= 0.0:
            breach = max(-breach, 0.0)
        elif z[c] >= cap[c]:
            breach = max(breach, 0.0)
        worst = max(worst, abs(breach))
    found = x.copy()
    for c in range(columns):
        found[variable[c]] = z[c]
    if not done:
        worst = max(worst, scale)
    return found, worst / scale if scale > 0.0 else 0.0


@kernel
def finish(matrix, sizes, caps, rhs, weight, x, first, second, min_norm):
    """The selected solution and its certificate: (x, violation, sum, largest gap, is it certified)."""
    violation, first_gap, total, second_gap = certify(matrix, caps, rhs, weight, x, first, second)
    gap, breach = max(first_gap, second_gap), 0.0
    if min_norm and gap <= ACCEPTED:
        moved, breach = least_squares(matrix, sizes, caps, rhs, weight, x, first, second)
        new_violation, first_gap, new_total, second_gap = certify(matrix, caps, rhs, weight, moved, first, second)
        loss = max(new_violation - violation, (new_total - total) / (1.0 + total))
        if max(first_gap, second_gap) <= ACCEPTED and loss <= FEASIBLE:
            x, violation, total, gap = moved, new_violation, new_total, max(first_gap, second_gap)
        else:  # it left the optimal face: multipliers too large to tell where that ends
            breach = np.inf
    unclear = violation > FEASIBLE >= violation - first_gap  # not met, but perhaps it can be
    return x, violation, total, gap, gap <= ACCEPTED and breach <= ACCEPTED and not unclear


@kernel
def _closed_form(bounds, score, mean, upper):
    """Level inside and level in the margins of a lone instance, and its violation."""
    inner = bounds[2] - bounds[1]
    outer = bounds[1] - bounds[0] + bounds[3] - bounds[2]
    size = inner if score >= 0.0 else outer
    if size <= 0:
        return 0.0, 0.0, abs(score)
    share = 1.0 if mean else float(size)
    level = min(abs(score) / share, upper)
    violation = max(abs(score) - level * share, 0.0) if level >= upper else 0.0
    return (level, 0.0, violation) if score >= 0.0 else (0.0, level, violation)


@kernel
def solve_components(bounds, scores, offsets, mean, upper, min_norm, limit, columns, x, first, second):
    """Labels of all components; those of more than `limit` rows, and those that fail their certificate, stay OPEN.

    With `columns`, the components were solved together by HiGHS (see `assemble`), with the masses x and the multipliers
    given; none stays open then.  Returns (solver, numbers, sure, owner, pieces, levels): per component who solved it,
    [violation, sum, gap], and whether it is certified; and the pieces [start, stop) with a label above 0, with their
    component and level.
    """
    count = len(offsets) - 1
    given = len(columns) > 0
    solver, numbers, sure = np.full(count, OPEN), np.zeros((count, 3)), np.ones(count, np.bool_)
    owner, pieces, levels = (
        np.empty(4 * len(bounds), np.int64),
        np.empty((4 * len(bounds), 2), np.int64),
        np.empty(4 * len(bounds)),
    )
    filled = 0
    for c in range(count):
        low, high = offsets[c], offsets[c + 1]
        if high - low > limit:
            continue
        if not given and not scores[low:high].any():
            solver[c] = CLOSED_FORM  # no labels at all
            continue
        if high - low == 1 and not given:
            inside, around, violation = _closed_form(bounds[low], scores[low], mean, upper)
            for part in range(3):
                start, stop = bounds[low, part], bounds[low, part + 1]
                level = inside if part == 1 else around
                if level > 0.0 and stop > start:
                    owner[filled], pieces[filled, 0], pieces[filled, 1], levels[filled] = c, start, stop, level
                    numbers[c, 1] += level * (stop - start)
                    filled += 1
            numbers[c, 0] = violation
            solver[c] = CLOSED_FORM
            continue
        matrix, sizes, rhs, weight, top, largest, cuts, column = build(bounds[low:high], scores[low:high], mean)
        unit = top * largest
        caps = upper * sizes / unit
        if given:
            own = np.minimum(np.maximum(x[columns[c] : columns[c + 1]], 0.0), caps), first[low:high], second[low:high]
        else:
            own = lexicographic(matrix, caps, rhs, weight)
        mass, violation, total, gap, sure[c] = finish(
            matrix, sizes, caps, rhs, weight, own[0], own[1], own[2], min_norm
        )
        if not (given or sure[c]):
            continue
        solver[c] = HIGHS if given else SIMPLEX
        numbers[c, 0], numbers[c, 1], numbers[c, 2] = violation * largest, total * unit, gap
        for p in range(len(cuts) - 1):
            if mass[column[p]] > _NOTHING * min(1.0, caps[column[p]]):
                owner[filled], pieces[filled, 0], pieces[filled, 1] = c, cuts[p], cuts[p + 1]
                levels[filled] = min(mass[column[p]] * unit / sizes[column[p]], upper)
                filled += 1
    return solver, numbers, sure, owner[:filled], pieces[:filled], levels[:filled]


@kernel
def assemble(bounds, scores, offsets, mean, upper):
    """The programs of all components one after the other, for a solver of sparse ones: columns in compressed form.

    Returns (caps, rhs, weight, start, row, value, columns): component c has the columns columns[c] .. columns[c + 1],
    and column k the entries start[k] .. start[k + 1].
    """
    count, m = len(offsets) - 1, len(bounds)
    columns = np.zeros(count + 1, np.int64)
    caps, start = np.empty(4 * m), np.zeros(4 * m + 1, np.int32)
    rhs, weight = np.empty(m), np.empty(m)
    room = 0
    for c in range(count):
        room += (offsets[c + 1] - offsets[c]) * 4 * (offsets[c + 1] - offsets[c])
    row, value = np.empty(room, np.int32), np.empty(room)
    width, entries = 0, 0
    for c in range(count):
        low, high = offsets[c], offsets[c + 1]
        matrix, sizes, own_rhs, own_weight, top, largest, _, _ = build(bounds[low:high], scores[low:high], mean)
        for j in range(high - low):
            rhs[low + j], weight[low + j] = own_rhs[j], own_weight[j]
        for k in range(len(sizes)):
            caps[width] = upper * sizes[k] / (top * largest)
            for j in range(high - low):
                if matrix[j, k] != 0.0:
                    row[entries], value[entries] = low + j, matrix[j, k]
                    entries += 1
            width += 1
            start[width] = entries
        columns[c + 1] = width
    return caps[:width], rhs, weight, start[: width + 1], row[:entries], value[:entries], columns


@kernel
def paint(labels, column, pieces, levels, first, last):
    """Write the levels of the pieces first .. last over their columns of a (T, K) map."""
    for p in range(first, last):
        for t in range(pieces[p, 0], pieces[p, 1]):
            labels[t, column[p]] = levels[p]
