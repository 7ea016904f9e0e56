"""The only file that knows HiGHS: programs of LinPro in two stages, with the multipliers that prove the answer."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import Float

Index = NDArray[np.int32]
Answer = tuple[Float, Float, Float]

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


def solve(caps: Float, rhs: Float, weight: Float, start: Index, row: Index, value: Float, relax: bool) -> Answer | None:
    """(x, first, second) of a program as `_kernels.simplex.assemble` makes it, or None where there is no answer.

    The equations as they are come first; only if they cannot be met and `relax` is set, residuals are allowed, their
    least sum is found, and then the least sum of x among the solutions that are complementary to its multipliers.
    """
    m, width = len(rhs), len(caps)
    cost, lower = np.ones(width), np.zeros(width)
    strict = _run(cost, lower, caps, rhs, start, row, value)
    if strict is not None:
        return strict[0], np.zeros(m), strict[1]
    if not relax:
        return None
    residuals = np.arange(m, dtype=np.int32)
    start = np.concatenate((start, len(row) + residuals, len(row) + m + residuals))
    row = np.concatenate((row, residuals, residuals))
    value = np.concatenate((value, np.ones(m), -np.ones(m)))
    lower, upper = np.zeros(width + 2 * m), np.concatenate((caps, np.full(2 * m, np.inf)))
    least = _run(np.concatenate((np.zeros(width), weight, weight)), lower, upper, rhs, start, row, value)
    if least is None:
        return None
    _, first, reduced = least
    lower[reduced < -_ZERO], upper[reduced > _ZERO] = upper[reduced < -_ZERO], 0.0
    last = _run(np.concatenate((cost, np.zeros(2 * m))), lower, upper, rhs, start, row, value)
    if last is None:  # the least violation, and no proof of the rest
        return least[0][:width], first, np.zeros(m)
    return last[0][:width], first, last[1]


def _run(cost: Float, lower: Float, upper: Float, rhs: Float, start: Index, row: Index, value: Float) -> Answer | None:
    """Solution, multipliers of the rows and reduced costs of least cost; None where HiGHS proves or finds none."""
    import highspy

    for threads in (1, 0):  # 0: as this thread's first solver, perhaps the caller's own, has set it
        highs = _solver(threads)
        taken = highs.passModel(
            *(len(cost), len(rhs), len(value)),
            *(1, 1, 0.0),  # stored by columns; minimise; no offset
            *(cost, lower, upper, rhs, rhs, start, row, value),
            np.zeros(len(cost), np.int32),  # nothing is integral
        )
        if highspy.HighsStatus.kError not in (taken, highs.run()):
            if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                return None
            solution = highs.getSolution()
            return np.array(solution.col_value), np.array(solution.row_dual), np.array(solution.col_dual)
        _own.highs = None
    return None


def _solver(threads: int) -> Any:
    """This thread's solver, made when it is first needed."""
    import highspy

    if getattr(_own, "highs", None) is None or _own.process != os.getpid():
        _own.highs, _own.process = highspy.Highs(), os.getpid()
        for name, value in {**_OPTIONS, "threads": threads}.items():
            _own.highs.setOptionValue(name, value)
    return _own.highs
