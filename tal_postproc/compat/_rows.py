"""What nearly all files share: tensors as arrays, and rows of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import Float


def plain(value: Any) -> Float:
    """The float64 array of a tensor on any device, or of an array."""
    return np.asarray(value.detach().cpu().double().numpy() if hasattr(value, "detach") else value, np.float64)


def as_rows(value: ArrayLike, name: str, columns: str) -> NDArray[Any]:
    """(N, C) array, in its own dtype; `columns` names the first ones ("start, end"); nothing has no rows."""
    rows = _checks.as_real(value, name)
    count = columns.count(",") + 1
    if not rows.size:
        return np.empty((0, count), rows.dtype)
    if rows.ndim != 2 or rows.shape[1] < count:
        raise ValueError(f"`{name}` must have rows [{columns}], got shape {rows.shape}")
    return rows
