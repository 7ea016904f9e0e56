"""The only file that knows HiGHS: one component of LinPro solved in two stages, with the multipliers that prove it."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import Float

_OPTIONS = {
    "output_flag": False,
    "presolve": "off",  # costs more than it saves on programs of this size
    "solver": "simplex",
    "simplex_strategy": 1,  # dual: all costs are positive, so that it needs no first phase
    "parallel": "off",
    "threads": 1,
    "primal_feasibility_tolerance": 1e-10,
    "dual_feasibility_tolerance": 1e-10,
}
_ZERO = 1e-9  # a reduced cost above it keeps its variable at the bound in the second stage

_own = threading.local()  # a solver belongs to the thread that made it, and does not survive a fork


def solve(
    pattern: NDArray[np.int8], ratio: Float, caps: Float, rhs: Float, weight: Float
) -> tuple[Float, Float, Float] | None:
    """(x, first, second) of the program in `_kernels.simplex`, or None where HiGHS finds no answer.

    The equations as they are come first; only if they cannot be met, residuals are allowed, their least sum is found,
    and then the least sum of x among the solutions that are complementary to its multipliers.
    """
    m, width = pattern.shape
    if width == 0:
        return np.zeros(0), np.clip(np.sign(rhs), -1.0, 1.0) * weight, np.zeros(m)
    column, row = np.nonzero(pattern.T)
    value = np.where(pattern[row, column] > 0, 1.0, -ratio[row])
    start = np.searchsorted(column, np.arange(width))
    lower = np.zeros(width)
    strict = _run(_model(np.ones(width), lower, caps, rhs, start, row, value))
    if strict is not None and strict[0] == "kOptimal":
        return strict[1], np.zeros(m), strict[2]

    residuals = np.arange(m)
    cost = np.concatenate((np.zeros(width), weight, weight))
    lower, upper = np.zeros(width + 2 * m), np.concatenate((caps, np.full(2 * m, np.inf)))
    start = np.concatenate((start, len(row) + np.arange(2 * m)))
    row = np.concatenate((row, residuals, residuals))
    value = np.concatenate((value, np.ones(m), -np.ones(m)))
    relaxed = _model(cost, lower, upper, rhs, start, row, value)
    found = _run(relaxed)
    if found is None or found[0] != "kOptimal":
        return None
    first, reduced = found[2:]
    lower[reduced < -_ZERO], upper[reduced > _ZERO] = upper[reduced < -_ZERO], 0.0
    cost = np.concatenate((np.ones(width), np.zeros(2 * m)))
    last = _run(_model(cost, lower, upper, rhs, start, row, value))
    if last is None or last[0] != "kOptimal":
        return None
    return np.clip(last[1][:width], 0.0, caps), first, last[2]


Model = tuple[Any, ...]


def _model(cost: Float, lower: Float, upper: Float, rhs: Float, start: Any, row: Any, value: Float) -> Model:
    """The arguments of HiGHS's ``passModel``: columns in compressed form, equations, nothing integral."""
    counts = len(cost), len(rhs), len(value), 1, 1, 0.0  # stored by columns; minimise; no offset
    return (
        *counts,
        cost,
        lower,
        upper,
        rhs,
        rhs,
        start.astype(np.int32),
        row.astype(np.int32),
        value,
        np.zeros(len(cost), np.int32),
    )


def _run(model: Model) -> tuple[str, Float, Float, Float] | None:
    """Status, solution, multipliers of the rows and reduced costs; None where HiGHS could not even begin."""
    import highspy

    for options in ({}, {"threads": 0}):  # 0: as this thread's first solver, perhaps the caller's own, has set it
        highs = _solver(options)
        highs.passModel(*model)
        if highs.run() != highspy.HighsStatus.kError:
            solution = highs.getSolution()
            x, dual, reduced = (np.array(part) for part in (solution.col_value, solution.row_dual, solution.col_dual))
            return highs.getModelStatus().name, x, dual, reduced
        _own.highs = None
    return None


def _solver(options: dict[str, Any]) -> Any:
    """This thread's solver, made when it is first needed."""
    import highspy

    if getattr(_own, "highs", None) is None or _own.process != os.getpid():
        _own.highs, _own.process = highspy.Highs(), os.getpid()
        for name, value in (_OPTIONS | options).items():
            _own.highs.setOptionValue(name, value)
    return _own.highs
