"""Kernels for the centres of clusters: shares of the members, weighted moments, medians, Student t locations.

Clusters are CSR ranges: cluster c owns the rows ``members[bounds[c]:bounds[c + 1]]``.
"""

from __future__ import annotations

import numpy as np

from . import kernel

# Two locations explain a cluster equally well when their cross-entropies differ by less.
_TIE = 1e-12


@kernel
def softmax_shares(weights, multiplicity, members, bounds, temperature):
    """Softmax of ``weights / temperature`` within every cluster, in member order; and 1 / sum of squares.

    Row i stands for ``multiplicity[i]`` equal members: its share is that of all of them.
    """
    shares, effective_size = np.empty(len(members)), np.empty(len(bounds) - 1)
    for c in range(len(bounds) - 1):
        top = weights[members[bounds[c]]]
        for j in range(bounds[c] + 1, bounds[c + 1]):
            top = max(top, weights[members[j]])
        total = squares = 0.0
        for j in range(bounds[c], bounds[c + 1]):
            shares[j] = multiplicity[members[j]] * np.exp((weights[members[j]] - top) / temperature)
            total += shares[j]
        for j in range(bounds[c], bounds[c + 1]):
            shares[j] /= total
            squares += shares[j] * shares[j] / multiplicity[members[j]]
        effective_size[c] = 1.0 / squares
    return shares, effective_size


@kernel
def weighted_moments(columns, bounds, shares):
    """Weighted mean and standard deviation of every column in every cluster, exact where all its values are equal."""
    mean = np.empty((len(columns), len(bounds) - 1))
    std = np.empty_like(mean)
    for i in range(len(columns)):
        for c in range(len(bounds) - 1):
            head = columns[i, bounds[c]]
            shift = squares = 0.0
            for j in range(bounds[c], bounds[c + 1]):
                shift += shares[j] * (columns[i, j] - head)
            for j in range(bounds[c], bounds[c + 1]):
                squares += shares[j] * (columns[i, j] - head - shift) ** 2
            mean[i, c], std[i, c] = head + shift, np.sqrt(squares)
    return mean, std


@kernel
def weighted_medians(values, bounds, shares):
    """Midpoint of the lower and the upper weighted median of every cluster; values rise within a cluster."""
    medians = np.empty(len(bounds) - 1)
    for c in range(len(bounds) - 1):
        below = 0.0
        lower = upper = bounds[c + 1] - 1
        for j in range(bounds[c], bounds[c + 1]):
            below += shares[j]
            if below >= 0.5 - _TIE:
                lower = upper = j
                break
        while upper < bounds[c + 1] - 1 and below <= 0.5 + _TIE:
            upper += 1
            below += shares[upper]
        medians[c] = values[lower] + 0.5 * (values[upper] - values[lower])
    return medians


@kernel
def _student_terms(z, g, at):
    """Cross-entropy of a unit Student t at `at`, its slope and its curvature (all without the factor (dof + 1) / 2)."""
    value = slope = curvature = 0.0
    for j in range(len(z)):
        d = at - z[j]
        t = 1.0 + d * d
        value += g[j] * np.log(t)
        slope += g[j] * 2.0 * d / t
        curvature += g[j] * 2.0 * (2.0 - t) / (t * t)
    return value, slope, curvature


@kernel
def _student_bounds(z, g, low, high):
    """Lower bounds of the cross-entropy and of its curvature on an interval, term by term.

    The curvature of log(1 + d^2) falls until d^2 = 3, where it is -1/4, and rises to 0 from there.
    """
    value = curvature = 0.0
    for j in range(len(z)):
        near = max(0.0, low - z[j], z[j] - high) ** 2
        far = max(z[j] - low, high - z[j]) ** 2
        t = 1.0 + (far if far < 3.0 else max(near, 3.0))
        value += g[j] * np.log(1.0 + near)
        curvature += g[j] * 2.0 * (2.0 - t) / (t * t)
    return value, curvature


@kernel
def _student_root(z, g, low, high):
    """The zero of a rising slope between `low` and `high`: Newton, and bisection where Newton leaves the bracket."""
    at = 0.5 * (low + high)
    for _ in range(100):
        _, slope, curvature = _student_terms(z, g, at)
        if slope > 0.0:
            high = at
        else:
            low = at
        ahead = at - slope / curvature if curvature > 0.0 else low
        if not low < ahead < high:
            ahead = 0.5 * (low + high)
        if abs(ahead - at) <= 1e-15 * (1.0 + abs(at)):
            return ahead
        at = ahead
    return at


@kernel
def _student_location(z, g):
    """Global minimum of the cross-entropy over the location, by branch and bound; the leftmost of equally good ones.

    An interval is dropped when its lower bound exceeds the best value seen, solved when it is provably convex, and
    halved otherwise.
    """
    low, high = np.empty(256), np.empty(256)  # halving in depth: never deeper than the bits of a float
    low[0], high[0] = z[0], z[-1]
    depth = 1
    upper, found, location = _student_terms(z, g, 0.0)[0], np.inf, 0.0
    while depth > 0:
        depth -= 1
        a, b = low[depth], high[depth]
        middle, radius = 0.5 * (a + b), 0.5 * (b - a)
        value, slope, _ = _student_terms(z, g, middle)
        upper = min(upper, value)
        bound, curvature = _student_bounds(z, g, a, b)
        bound = max(bound, value - abs(slope) * radius + 0.5 * min(curvature, 0.0) * radius * radius)
        if bound > upper + _TIE:
            continue
        small = radius < 1e-9 or depth > 250
        if curvature < 0.0 and not small:
            low[depth], high[depth], low[depth + 1], high[depth + 1] = middle, b, a, middle  # the left one is next
            depth += 2
        elif _student_terms(z, g, a)[1] <= 0.0 <= _student_terms(z, g, b)[1]:
            at = middle if small else _student_root(z, g, a, b)
            value = _student_terms(z, g, at)[0]
            upper = min(upper, value)
            if value < found - _TIE:
                found, location = value, at
    return location


@kernel
def _student_fit(z, g, dof):
    """Location where location and scale are fitted together (EM with expanded parameters), and whether it collapsed."""
    heaviest = 0
    for j in range(1, len(z)):
        if g[j] > g[heaviest]:
            heaviest = j
    if g[heaviest] >= dof / (dof + 1.0) - _TIE:  # the likelihood has no bound: the scale shrinks to 0 here
        return z[heaviest], True
    location, variance = 0.0, 1.0
    for _ in range(5000):
        total = first = second = 0.0
        for j in range(len(z)):
            weight = g[j] / (dof + (z[j] - location) ** 2 / variance)
            total += weight
            first += weight * (z[j] - location)
        step = first / total
        for j in range(len(z)):
            second += g[j] / (dof + (z[j] - location) ** 2 / variance) * (z[j] - location - step) ** 2
        second /= total
        moved = abs(step) > 1e-15 or abs(second - variance) > 1e-14 * variance
        location += step
        variance = second
        if variance < 1e-24:
            return location, True
        if not moved:
            break
    return location, False


@kernel
def student_locations(values, bounds, shares, mean, std, dof, fit):
    """Student t location of every cluster, and whether a fitted scale collapsed; values rise within a cluster."""
    locations, degenerate = mean.copy(), np.zeros(len(mean), np.bool_)
    z, g = np.empty(len(values)), np.empty(len(values))
    for c in range(len(mean)):
        unit = std[c] if fit else std[c] * np.sqrt(dof)
        if not unit > 0.0:
            degenerate[c] = fit
            continue
        count = 0
        for j in range(bounds[c], bounds[c + 1]):
            if shares[j] < 1e-30:  # below the rounding of the sums; its distance in units could overflow
                continue
            at = (values[j] - mean[c]) / unit
            if count > 0 and at == z[count - 1]:
                g[count - 1] += shares[j]
            else:
                z[count], g[count] = at, shares[j]
                count += 1
        if fit:
            location, degenerate[c] = _student_fit(z[:count], g[:count], dof)
        else:
            location = _student_location(z[:count], g[:count])
        locations[c] = mean[c] + unit * location
    return locations, degenerate
