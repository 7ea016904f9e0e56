"""The one door: arguments become canonical arrays here, or a clear error.

Kernels have one signature each (C-contiguous float64 and int64), so every public function passes what it was given
through these checkers first.  A message names the argument, the rule, the offending value and how many there are.
Nothing is changed in place; an array that is canonical already is handed on without a copy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LARGEST = 1e150  # beyond it, a product or a length overflows
MOST = 2**31 - 1  # of anything that is counted

# What `tal_postproc.torch` has under the same name; a test compares.
TENSOR_TWINS = frozenset(
    (
        "EnsembledSegments",
        "FusedSegments",
        "LinProLabelMap",
        "LinProLabels",
        "PostProcessor",
        "Segments",
        "average_recall",
        "batched_nms",
        "classification_map",
        "extract_proposals",
        "filter_ambiguous",
        "fuse_segments",
        "gaussian_label_map",
        "hard_label_map",
        "linpro_label_map",
        "linpro_label_maps",
        "linpro_labels",
        "mean_average_precision",
        "nms",
        "oic_scores",
        "pseudo_label_quality",
        "score_label_map",
        "segment_voting",
        "segments_to_seconds",
        "smooth_label_map",
        "soft_nms",
        "tiou_matrix",
        "tri_state_label_map",
        "two_threshold_label_map",
        "upsample_tcam",
        "weighted_segment_fusion",
    )
)


def _called() -> str:
    """The outermost function or class of this package on the stack: what the user called."""
    name, frame = "", sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
            owner = frame.f_locals.get("self")
            name = frame.f_code.co_name if owner is None else type(owner).__name__
        frame = frame.f_back  # type: ignore[assignment]
    return name


def refuse_tensors(value: Any, name: str) -> None:
    """Raise for a tensor, or for a list that begins with one, and name who takes it; nothing is imported for that."""
    while isinstance(value, (list, tuple)) and len(value):
        value = value[0]
    homes = {one.__module__ for one in type(value).__mro__}
    if any(home.partition(".")[0] == "torch" or home.startswith(f"{__package__}.torch.") for home in homes):
        called = {"Video": "PostProcessor"}.get(_called(), _called())
        who = f"tal_postproc.torch.{called}" if called in TENSOR_TWINS else "tal_postproc.torch"
        raise TypeError(f"`{name}` must hold NumPy arrays, got {type(value).__name__}; {who} is for tensors")


def as_real(value: ArrayLike, name: str) -> NDArray[Any]:
    """Any array of real numbers, in its own dtype; refuses complex, text, objects, tensors and ragged lists."""
    if not isinstance(value, np.ndarray):
        refuse_tensors(value, name)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` must be a rectangular array of real numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        if array.size == 0 and array.dtype.kind == "O":
            return array.astype(np.float64)
        raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    return array


def _canonical(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    """C-contiguous, aligned and writable, copied only where it must be: kernels would compile anew for other kinds."""
    array = np.ascontiguousarray(array, dtype=dtype)
    return array if array.flags.carray else array.copy()


def _refuse_rows(array: NDArray[Any], bad: NDArray[np.bool_], name: str, rule: str) -> None:
    """Raise for the first row of `array` that `bad` marks, and say how many there are."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1)) if bad.ndim > 1 else np.flatnonzero(bad)
    first = rows[0]
    raise ValueError(f"`{name}` {rule}; row {first} is {array[first].tolist()} ({len(rows)} of {len(array)} rows)")


def _require_finite(array: NDArray[Any], name: str) -> None:
    if not (np.abs(array) <= LARGEST).all():
        bad = ~np.isfinite(array)
        if bad.any():
            _refuse_rows(array, bad, name, "must be finite")
        _refuse_rows(array, np.abs(array) > LARGEST, name, f"must lie within +-{LARGEST:g}")


def as_segments(value: ArrayLike, name: str = "segments") -> Float:
    """(N, 2) float64, finite, start <= end; an empty list is (0, 2)."""
    array = _canonical(as_real(value, name), np.float64)
    if array.shape in ((0,), (0, 0), (0, 2)):
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"`{name}` must have shape (N, 2), one [start, end] per row, got shape {array.shape}")
    _require_finite(array, name)
    if not (array[:, 0] <= array[:, 1]).all():
        _refuse_rows(array, array[:, 0] > array[:, 1], name, "needs start <= end")
    return array


def as_values(value: ArrayLike, length: int | None, name: str, *, per: str = "segment") -> Float:
    """(N,) float64, finite; `length` is the N it must have."""
    array = _canonical(as_real(value, name), np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "(N,)" if length is None else f"({length},), one per {per}"
        raise ValueError(f"`{name}` must have shape {wanted}, got shape {array.shape}")
    _require_finite(array, name)
    return array


def as_durations(value: ArrayLike, length: int, name: str = "durations") -> Float:
    """(V,) float64 of its own, above 0 and finite, or NaN where it is not known."""
    array = np.array(as_real(value, name), np.float64)
    if array.shape != (length,):
        raise ValueError(f"`{name}` must have shape ({length},), one per video, got shape {array.shape}")
    bad = np.isinf(array) | (array <= 0)
    if bad.any():
        _refuse_rows(array, bad, name, "must be finite and above 0, or NaN where it is not known")
    return array


def as_integers(value: ArrayLike, length: int | None, name: str, *, per: str = "segment") -> Int:
    """(N,) int64; floats are taken when they are whole numbers."""
    array = as_real(value, name)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "(N,)" if length is None else f"({length},), one per {per}"
        raise ValueError(f"`{name}` must have shape {wanted}, got shape {array.shape}")
    if array.dtype.kind == "f":
        whole = np.isfinite(array)
        whole[whole] = array[whole] == np.trunc(array[whole])
        if not whole.all():
            _refuse_rows(array, ~whole, name, "must hold whole numbers")
    if array.dtype.kind in "fu" and (np.abs(array.astype(np.float64)) >= 2.0**63).any():
        _refuse_rows(array, np.abs(array.astype(np.float64)) >= 2.0**63, name, "must fit in int64")
    return _canonical(array, np.int64)


def as_labels(value: ArrayLike, length: int, name: str = "labels", *, num_classes: int | None = None) -> Int:
    """(N,) int64 class indices, not negative, below `num_classes` where that is known."""
    array = as_integers(value, length, name)
    if array.size:
        upper = np.iinfo(np.int64).max if num_classes is None else num_classes
        bad = (array < 0) | (array >= upper)
        if bad.any():
            rule = "must be >= 0" if num_classes is None else f"must lie in [0, {num_classes})"
            _refuse_rows(array, bad, name, rule)
    return array


def as_known_labels(value: ArrayLike | None, num_classes: int, name: str = "known_labels") -> NDArray[np.bool_]:
    """(K,) bool, True for the classes that a video shows, from such a mask or from indices; all of them for None."""
    if value is None:
        return np.ones(num_classes, np.bool_)
    array = as_real(value, name)
    if array.dtype == np.bool_:
        if array.shape != (num_classes,):
            raise ValueError(f"`{name}` must have shape ({num_classes},), one per class, got shape {array.shape}")
        return array.copy()
    index = as_integers(array, None, name)
    index = as_labels(index, len(index), name, num_classes=num_classes)
    known = np.zeros(num_classes, np.bool_)
    known[index] = True
    if known.sum() < len(index):  # so that zeros and ones are not taken for indices
        raise ValueError(f"`{name}` must be a mask of bool or differing class indices, got {index.tolist()}")
    return known


def as_map(value: ArrayLike, name: str, *, length: int | None = None) -> NDArray[Any]:
    """(T,) or (T, K) of real numbers in its own dtype; columns are checked when they are gathered."""
    array = as_real(value, name)
    if array.ndim not in (1, 2):
        raise ValueError(f"`{name}` must have shape (T,) or (T, K), got shape {array.shape}")
    if length is not None and len(array) != length:
        raise ValueError(f"`{name}` must have {length} snippets like the other maps, got {len(array)}")
    return array


def within_bounds(values: Float) -> bool:
    """Whether all values are finite, and none is larger than what we compute with."""
    return not values.size or bool(values.min() >= -LARGEST and values.max() <= LARGEST)


def as_columns(array: NDArray[Any], columns: Int | None, name: str) -> Float:
    """The chosen columns of a (T, K) map as a finite, C-contiguous float64 (C, T) buffer; all of them for None."""
    chosen = array.T if columns is None else array.T[columns]
    gathered = _canonical(chosen, np.float64)
    if not within_bounds(gathered):
        bad = ~(np.abs(gathered) <= LARGEST).all(axis=0)
        rule = f"must lie within +-{LARGEST:g}" if np.isfinite(gathered).all() else "must be finite"
        first = int(np.flatnonzero(bad)[0])
        shown = gathered[:, first].tolist()
        raise ValueError(f"`{name}` {rule}; snippet {first} is {shown} ({int(bad.sum())} of {len(bad)} snippets)")
    return gathered


def as_number(
    value: Any,
    name: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> float:
    """A finite float within the bounds."""
    if not isinstance(value, float):  # the common case needs no more than the bounds
        if isinstance(value, (bool, str, bytes)) or np.ndim(value) != 0:
            raise TypeError(f"`{name}` must be a number, got {value!r:.80}")
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"`{name}` must be a number, got {value!r:.80}") from None
    if not abs(value) <= LARGEST:
        raise ValueError(f"`{name}` must be finite and within +-{LARGEST:g}, got {value}")
    if at_least is not None and value < at_least:
        raise ValueError(f"`{name}` must be at least {at_least:g}, got {value:g}")
    if above is not None and value <= above:
        raise ValueError(f"`{name}` must be above {above:g}, got {value:g}")
    if at_most is not None and value > at_most:
        raise ValueError(f"`{name}` must be at most {at_most:g}, got {value:g}")
    return float(value)


def as_count(value: Any, name: str, *, at_least: int = 0) -> int:
    """A whole number, at least `at_least`."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"`{name}` must be a whole number, got {value!r:.80}")
    value = int(value)
    if value < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}, got {value}")
    if value > MOST:
        raise ValueError(f"`{name}` must be at most {MOST}, got {value}")
    return value


def as_flag(value: Any, name: str) -> bool:
    """True or False, and nothing that Python would take for it."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False, got {value!r:.80}")
    return bool(value)


def as_tiou_threshold(value: Any, name: str = "tiou_threshold", *, inclusive: bool = False) -> float:
    """A number in [0, 1]; above 0 where reaching it is enough, because every pair of segments reaches 0."""
    value = as_number(value, name, at_least=0.0, at_most=1.0)
    if inclusive and value == 0.0:
        raise ValueError(
            f"`{name}` must be above 0 where reaching it is enough, got 0: every pair of segments reaches 0"
        )
    return value


def as_overlap(overlap: str, length_offset: Any, area_eps: Any) -> tuple[bool, float, float]:
    """How segments are compared, as kernels take it: candidate's length only?, length offset, area epsilon."""
    return (
        as_choice(overlap, "overlap", ("iou", "candidate")) == "candidate",
        as_number(length_offset, "length_offset", at_least=0.0),
        as_number(area_eps, "area_eps", at_least=0.0),
    )


def as_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """One of the named choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r:.80}")
    return str(value)


def as_threshold_list(value: ArrayLike, name: str = "thresholds") -> Float:
    """(M,) float64, finite, in the order given; a single number is a list of one."""
    return as_values(np.atleast_1d(as_real(value, name)), None, name)


def as_offsets(value: ArrayLike, num_rows: int, name: str = "offsets") -> Int:
    """(V+1,) int64 from 0 to `num_rows`, never decreasing."""
    array = as_integers(value, None, name)
    if len(array) == 0 or array[0] != 0 or array[-1] != num_rows or (np.diff(array) < 0).any():
        shown = array.tolist() if len(array) <= 6 else [*array[:3].tolist(), "...", *array[-2:].tolist()]
        raise ValueError(f"`{name}` must rise from 0 to {num_rows} (the number of rows), got {shown}")
    return array


def as_extension(value: Any, name: str = "extend_end") -> int:
    """Steps that a reported end is moved by: -1, 0 or 1."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__") or int(value) not in (-1, 0, 1):
        raise ValueError(f"`{name}` must be -1, 0 or 1, got {value!r:.80}")
    return int(value)


def as_warp(value: Any, name: str = "warp") -> tuple[Float, Float]:
    """Knots and times of a piecewise linear time warp: at least 2 of each, never decreasing."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"`{name}` must be a pair (knots, times), got {type(value).__name__}")
    knots = as_values(value[0], None, f"{name}[0]", per="knot")
    times = as_values(value[1], len(knots), f"{name}[1]", per="knot")
    if len(knots) < 2:
        raise ValueError(f"`{name}` needs at least 2 knots, got {len(knots)}")
    for which, row in enumerate((knots, times)):
        falls = np.flatnonzero(np.diff(row) < 0)
        if len(falls):
            at = falls[0] + 1
            raise ValueError(
                f"`{name}[{which}]` must never decrease; entry {at} is {row[at]:g} after {row[at - 1]:g} "
                f"({len(falls)} of {len(row)} entries)"
            )
    return knots, times


def as_decay_start(method: str, tiou_threshold: float | None, gate: tuple[float, float] | None) -> tuple[float, float]:
    """The overlap at which decay starts, and how much later per unit of length; refuses what `method` would ignore."""
    if method == "linear":
        if tiou_threshold is None:
            raise ValueError("`tiou_threshold` must be given for method 'linear'")
    elif tiou_threshold is not None:
        raise ValueError(f"`tiou_threshold` is for method 'linear' only, got {tiou_threshold} with method {method!r}")
    if method in ("gated", "improved"):
        if gate is None or np.shape(gate) != (2,):
            raise ValueError(f"`gate` must be a pair (t1, t2) for method {method!r}, got {gate!r}")
        return as_number(gate[0], "gate[0]"), as_number(gate[1], "gate[1]")
    if gate is not None:
        raise ValueError(f"`gate` is for methods 'gated' and 'improved' only, got {gate!r} with method {method!r}")
    if method == "linear":
        return as_tiou_threshold(tiou_threshold, inclusive=True), 0.0
    return 0.0, 0.0
