"""Slow literal answers for the LinPro labels; imports nothing from the package.

The rows are written snippet by snippet from the description of the regions, the linear programs are solved over
snippets, uncompressed, by `scipy.optimize.linprog`.  Two judges look over its shoulder: exact rational arithmetic on
small systems (`solve_exactly`), and a bound that needs no second solver for the selection (`min_norm_error`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.linalg import null_space
from scipy.optimize import linprog, nnls

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def regions(start, end, num_snippets, layout="symmetric", margin_scale=0.25, margin_power=1.0):
    """Snippets inside and outside one instance, as two lists."""
    inner, outer = [], []
    if layout == "gaufuse":  # boundaries are cut first, and the margin follows from what is left
        start, end = int(start), int(end)
        margin = margin_scale * (end - start) ** margin_power
        for t in range(num_snippets):
            if start <= t < end:
                inner.append(t)
            elif max(0, int(start - margin)) <= t < start or end <= t < min(num_snippets - 1, int(end + margin + 1)):
                outer.append(t)
        return inner, outer
    margin = margin_scale * (end - start) ** margin_power
    covered = [t for t in range(num_snippets) if start <= t + 0.5 < end]
    if not covered:
        covered = [min(max(int(np.floor((start + end) / 2)), 0), num_snippets - 1)]
    for t in range(num_snippets):
        middle = t + 0.5
        if t in covered:
            inner.append(t)
        elif start - margin <= middle < end + margin:
            outer.append(t)
    return inner, outer


def rows(segments, num_snippets, normalization="mean", **geometry):
    """(n, T) matrix of the system W g = q: + inside, - outside."""
    W = np.zeros((len(segments), num_snippets))
    for row, (start, end) in zip(W, segments):
        inner, outer = regions(float(start), float(end), num_snippets, **geometry)
        for t in inner:
            row[t] = 1 / len(inner) if normalization == "mean" else 1
        for t in outer:
            row[t] = -1 / len(outer) if normalization == "mean" else -1
    return W


@dataclass
class Optimum:
    """The lexicographic optimum of a system, and the face of all its optima.

    The optima are the g with ``W g = q`` on rows where `side` is 0, ``W g <= q`` where it is 1 and ``W g >= q`` where
    it is -1, and with ``g = low`` where `low` equals `high`, ``low <= g <= high`` elsewhere.
    """

    feasible: bool
    violation: float
    objective: float
    labels: np.ndarray
    side: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _program(cost, W, q, side, low, high):
    """min cost . g on a face; None where there is no such g, else the solution and the multipliers of the rows."""
    equal, up, down = side == 0, side == 1, side == -1
    system = {
        "A_eq": W[equal] if equal.any() else None,
        "b_eq": q[equal] if equal.any() else None,
        "A_ub": np.concatenate((W[up], -W[down])) if (up | down).any() else None,
        "b_ub": np.concatenate((q[up], -q[down])) if (up | down).any() else None,
    }
    bounds = np.column_stack((low, high))
    for more in ({}, {"presolve": False}):
        found = linprog(cost, **system, bounds=bounds, method="highs", options={**TIGHT, **more})
        if found.status == 2:
            return None
        if found.status == 0:
            break
    else:
        raise RuntimeError(f"the oracle has no answer: {found.message}")
    price = np.zeros(len(q))
    price[equal] = found.eqlin.marginals
    price[up] = found.ineqlin.marginals[: up.sum()]
    price[down] = -found.ineqlin.marginals[up.sum() :]
    return found.x, price


def solve(W, q, upper_bound=None, tolerance=1e-7):
    """Strict equality; where that has no answer, least sum of |W g - q|, then least sum of g.

    The second stage does not hold the violation by a constraint, whose tolerance the multipliers would magnify, but
    walks on the face that complementary slackness with the multipliers of the first stage leaves.  `tolerance` says
    which multipliers and reduced costs are 0.
    """
    n, T = W.shape
    low, high = np.zeros(T), np.full(T, np.inf if upper_bound is None else float(upper_bound))
    side = np.zeros(n, int)
    if n == 0 or T == 0:
        return Optimum(not q.any(), np.abs(q).sum(), 0.0, low, side, low, high)
    unit = np.abs(q).max() or 1.0  # HiGHS counts absolutely
    q, high = q / unit, high / unit
    strict = _program(np.ones(T), W, q, side, low, high)
    if strict is None:
        cost = np.concatenate((np.zeros(T), np.ones(2 * n)))
        elastic = np.hstack((W, np.eye(n), -np.eye(n)))
        nothing, endless = np.zeros(2 * n), np.full(2 * n, np.inf)
        _, price = _program(cost, elastic, q, side, np.append(low, nothing), np.append(high, endless))
        side = np.where(price > 1 - tolerance, 1, np.where(price < tolerance - 1, -1, 0))
        gain = W.T @ price  # of a snippet, in violation
        high = np.where(gain < -tolerance, 0.0, high)
        low = np.where(gain > tolerance, high, low)
    g, price = strict or _program(np.ones(T), W, q, side, low, high)
    reduced = 1 - W.T @ price
    side = np.where(np.abs(price) > tolerance, 0, side)
    high, low = np.where(reduced > tolerance, low, high), np.where(reduced < -tolerance, high, low)
    violation = np.abs(W @ g - q).sum()
    return Optimum(strict is not None, violation * unit, g.sum() * unit, g * unit, side, low * unit, high * unit)


def solve_exactly(W, q, upper_bound=None):
    """(violation, objective) as fractions: a textbook tableau with Bland's rule, for small systems.

    An entry of W is taken as the fraction with the smallest denominator near it, so 1 / 3 is a third.
    """
    W = [[Fraction(float(w)).limit_denominator(1000) for w in row] for row in W]
    q = [Fraction(float(value)) for value in q]
    n, T = len(W), len(W[0]) if W else 0
    caps = 0 if upper_bound is None else T
    width = T + caps + 2 * n  # labels, room below the cap, shortfall, excess
    tableau, basis = [], []
    for j in range(n):
        sign = 1 if q[j] >= 0 else -1
        row = [sign * w for w in W[j]] + [Fraction(0)] * (caps + 2 * n) + [sign * q[j]]
        row[T + caps + j], row[T + caps + n + j] = Fraction(sign), Fraction(-sign)
        tableau.append(row)
        basis.append(T + caps + (j if sign > 0 else n + j))
    for t in range(caps):
        row = [Fraction(0)] * width + [Fraction(float(upper_bound))]
        row[t] = row[T + t] = Fraction(1)
        tableau.append(row)
        basis.append(T + t)
    violation = [Fraction(0)] * (T + caps) + [Fraction(1)] * (2 * n) + [Fraction(0)]
    total = [Fraction(1)] * T + [Fraction(0)] * (width - T + 1)
    for row, at in zip(tableau, basis):
        for cost in (violation, total):
            if cost[at]:
                factor = cost[at]
                cost[:] = [c - factor * r for c, r in zip(cost, row)]
    while True:
        enters = [k for k in range(width) if (violation[k], total[k]) < (0, 0)]
        if not enters:
            return -violation[-1], -total[-1]
        k = enters[0]
        _, _, i = min((row[-1] / row[k], basis[i], i) for i, row in enumerate(tableau) if row[k] > 0)
        pivot = tableau[i] = [value / tableau[i][k] for value in tableau[i]]
        basis[i] = k
        for row in (*tableau, violation, total):
            if row is not pivot and row[k]:
                factor = row[k]
                row[:] = [value - factor * p for value, p in zip(row, pivot)]


def min_norm_error(W, q, upper_bound, g, tolerance=1e-9):
    """How far, at most, g is from the optimum with the least sum of squares, given that g is an optimum.

    The conditions of Karush, Kuhn and Tucker: with multipliers y of the rows and m of the sum, g - W' y - m must be 0
    where 0 < g < upper_bound, at least 0 where g is 0 and at most 0 where g is at the bound; rows that are not met
    have the largest |y|, with the sign of what they lack.  A linear program looks for the multipliers with the least
    failure.  If the failure is at most e everywhere, g is the projection of a point not further than e sqrt(T) from
    the origin, so it is not further than that from the projection of the origin itself.  HiGHS finds the multipliers
    to 1e-10 at best, and they can be large: on the stress systems a true optimum has at most 1e-7 (1 + |g|).
    """
    n, T = W.shape
    unit = max(1.0, g.max(initial=0))
    q, g, upper_bound = q / unit, g / unit, None if upper_bound is None else upper_bound / unit
    lack = q - W @ g
    zero, full = g <= tolerance, np.zeros(T, bool)
    if upper_bound is not None:
        full = g >= upper_bound - tolerance
    # y (n), m, the largest |y|, e
    stationary = np.hstack((W.T, np.ones((T, 1)), np.zeros((T, 1))))
    below, above = stationary[~zero], stationary[~full]  # what must reach g, what must not exceed it
    A = [np.column_stack((-below, -np.ones(len(below)))), np.column_stack((above, -np.ones(len(above))))]
    b = [-g[~zero], g[~full]]
    equal, target = [], []
    for j in range(n):
        row = np.zeros(n + 3)
        row[j], row[n + 1] = 1, -np.sign(lack[j])
        if abs(lack[j]) > tolerance:
            equal.append(row)
            target.append(0.0)
        else:
            for sign in (1, -1):
                row = np.zeros(n + 3)
                row[j], row[n + 1] = sign, -1
                A.append(row[None])
                b.append([0.0])
    found = linprog(
        np.append(np.zeros(n + 2), 1.0),
        A_ub=np.concatenate(A),
        b_ub=np.concatenate(b),
        A_eq=np.array(equal) if equal else None,
        b_eq=np.array(target) if equal else None,
        bounds=[(None, None)] * (n + 1) + [(0, None)] * 2,
        method="highs",
        options=TIGHT,
    )
    if found.status != 0:
        return np.inf
    y, m = found.x[:n], found.x[n]
    slope = g - W.T @ y - m
    failure = np.concatenate((slope[~zero], -slope[~full], [0.0])).max()
    return failure * np.sqrt(T) * unit


def least_distance(W, q, optimum):
    """The optimum with the least sum of squares, by `scipy.optimize.nnls`; None where that fails numerically.

    On the face of the optima, g = p + N z with p the shortest solution of the equations; the least |z| with G z >= h
    is a least-distance problem, which Lawson and Hanson (Solving Least Squares Problems, chapter 23) turn into one of
    nonnegative least squares.
    """
    low, high = optimum.low, optimum.high
    free = low < high
    g = np.where(free, 0.0, low)
    if not free.any():
        return g
    V, rest = W[:, free], q - W @ g
    equal = optimum.side == 0
    p, N = np.zeros(free.sum()), np.eye(free.sum())
    if equal.any():
        p = np.linalg.lstsq(V[equal], rest[equal], rcond=1e-10)[0]
        N = null_space(V[equal], rcond=1e-10)
    if N.shape[1] == 0:
        g[free] = p
        return g
    slope, least = [N], [-p]  # g >= 0
    if np.isfinite(high[free]).all():
        slope.append(-N)
        least.append(p - high[free])
    unmet = ~equal
    slope.append(-optimum.side[unmet, None] * (V[unmet] @ N))
    least.append(-optimum.side[unmet] * (rest[unmet] - V[unmet] @ p))
    G, h = np.concatenate(slope), np.concatenate(least)
    moves = np.abs(G).max(axis=1) > 1e-10
    E = np.vstack((G[moves].T, h[moves] - 1e-12))  # rounding must not leave nothing
    f = np.append(np.zeros(N.shape[1]), 1.0)
    try:
        r = E @ nnls(E, f, maxiter=50 * E.shape[1])[0] - f
    except RuntimeError:
        return None
    if -r[-1] < 1e-9:
        return None
    z = r[:-1] / -r[-1]
    g[free] = p + N @ z
    return g


def stress(seed, largest=100):
    """One system: (segments, scores, num_snippets, options), of every awkward kind, the same for the same seed."""
    rng = np.random.default_rng((seed, 3))
    sizes = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 64, 100]
    shares = np.array([4, 6, 8, 8, 8, 8, 8, 6, 5, 5, 4, 3, 2, 1.0])
    chosen = np.array(sizes) <= largest
    n = int(rng.choice(np.array(sizes)[chosen], p=shares[chosen] / shares[chosen].sum()))
    num_snippets = int(rng.choice([3, 8, 20, 40, 60, 100])) if n <= 20 else int(rng.integers(60, 300))
    grid = rng.choice(["float", "half", "int"])
    longest = num_snippets / rng.choice([1, 2, 4, 8])
    start = rng.uniform(-1, num_snippets - 0.5, n)
    length = rng.uniform(0, longest, n) ** rng.choice([1.0, 0.5])
    for j in range(1, n):
        kind = rng.uniform()
        twin = rng.integers(j)
        if kind < 0.08:  # a duplicate
            start[j], length[j] = start[twin], length[twin]
        elif kind < 0.2:  # nested
            start[j], length[j] = start[twin] + 0.25 * length[twin], 0.5 * length[twin]
        elif kind < 0.25:  # the same start
            start[j] = start[twin]
        elif kind < 0.3:  # starts where another ends
            start[j] = start[twin] + length[twin]
    end = np.clip(start + length, 0, num_snippets + 1)  # every instance touches the video
    start = np.minimum(start, np.minimum(end, num_snippets))
    if grid != "float":
        step = 0.5 if grid == "half" else 1.0
        start, end = np.round(start / step) * step, np.round(end / step) * step
    segments = np.column_stack((start, end))
    options = {
        "normalization": str(rng.choice(["mean", "sum"])),
        "upper_bound": [1.0, 1.0, None, 0.3, 2.0][rng.integers(5)],
        "layout": str(rng.choice(["symmetric", "gaufuse"])),
    }
    margin = [(0.25, 1.0), (0.25, 1.0), (0.0785, 0.9), (0.5, 1.0), (0.0, 1.0), (1.5, 0.5)][rng.integers(6)]
    options["margin_scale"], options["margin_power"] = margin
    kind = rng.uniform()
    if kind < 0.4:
        scores = rng.uniform(0.05, 1.0, n)
    elif kind < 0.5:
        scores = rng.uniform(-0.5, 1.5, n)
    elif kind < 0.6:
        scores = rng.integers(-1, 9, n) / 8
    else:  # there is a map with these scores, up to rounding
        geometry = {name: options[name] for name in ("normalization", "layout", "margin_scale", "margin_power")}
        known = rng.uniform(0, options["upper_bound"] or 1.0, num_snippets)
        if kind < 0.8:
            known *= rng.uniform(size=num_snippets) < 0.4
        if kind < 0.7:
            known = np.round(known * 8) / 8
        scores = rows(segments, num_snippets, **geometry) @ known
    return segments, scores, num_snippets, options
