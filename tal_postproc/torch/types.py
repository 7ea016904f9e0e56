"""What goes in and comes out as tensors: the fields of `tal_postproc.types`, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import types as _core
from ..types import UNITS, Unit, UnitError

__all__ = ["EnsembledSegments", "FusedSegments", "LinProLabelMap", "LinProLabels", "Segments"]


def as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values for NumPy: the same memory where tensor and dtype allow, bfloat16 and smaller as float64."""
    host = tensor.detach().cpu().resolve_neg().resolve_conj()
    if host.is_floating_point() and (host.dtype == torch.bfloat16 or host.itemsize < 2):
        host = host.double()
    return host.numpy()


def _to_numpy(value: Any) -> Any:
    """Tensors within a field as arrays, all else as it is."""
    if isinstance(value, Mapping):
        return {name: _to_numpy(one) for name, one in value.items()}
    return as_array(value) if isinstance(value, Tensor) else value


def _moved(value: Any, device: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(one, device, dtype) for name, one in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)


class _Fields:
    """What all results can do."""

    __slots__ = ()

    def numpy(self) -> Any:
        """The same as an object of `tal_postproc`, with NumPy arrays; waits for the device."""
        values = {one.name: _to_numpy(getattr(self, one.name)) for one in fields(self)}  # type: ignore[arg-type]
        return getattr(_core, type(self).__name__)(**values)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """The same on another device, or with floats of another dtype."""
        moved = {one.name: _moved(getattr(self, one.name), device, dtype) for one in fields(self)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, eq=False)
class Segments(_Fields):
    """Rows of one or many videos in flat columns, as `tal_postproc.Segments`, for tensors of one device.

    Only shapes are checked here; the functions check values when they get them, which costs no wait of its own.

    >>> found = Segments(torch.tensor([[1.0, 4.0], [6.0, 7.0]]), labels=torch.tensor([0, 2]))
    >>> len(found), found.num_videos, found.scores, found.to_seconds(2.0).segments.tolist()
    (2, 1, tensor([1., 1.]), [[2.0, 8.0], [12.0, 14.0]])
    """

    segments: Tensor  # (N, 2)
    labels: Tensor = None  # type: ignore[assignment]  # (N,) int64, default 0
    scores: Tensor = None  # type: ignore[assignment]  # (N,), default 1
    offsets: Tensor = None  # type: ignore[assignment]  # (V+1,) int64, default one video
    unit: Unit = "snippet"
    video_ids: tuple[str, ...] = ()
    columns: Mapping[str, Tensor] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        rows, put = self.segments, object.__setattr__
        if not isinstance(rows, Tensor):
            raise TypeError(
                f"`segments` must be a tensor, got {type(rows).__name__}; tal_postproc.Segments takes arrays"
            )
        if rows.ndim != 2 or rows.shape[1] != 2:
            if rows.numel():
                raise ValueError(
                    f"`segments` must have shape (N, 2), one [start, end] per row, got shape {tuple(rows.shape)}"
                )
            put(self, "segments", rows.reshape(0, 2))
        n = len(self.segments)
        if self.labels is None:
            put(self, "labels", torch.zeros(n, dtype=torch.int64, device=rows.device))
        if self.scores is None:
            dtype = rows.dtype if rows.is_floating_point() else torch.float64
            put(self, "scores", torch.ones(n, dtype=dtype, device=rows.device))
        if self.offsets is None:
            put(self, "offsets", torch.tensor([0, n], device=rows.device))
        put(self, "columns", dict(self.columns or {}))
        put(self, "video_ids", tuple(map(str, self.video_ids)))
        if self.unit not in UNITS:
            raise ValueError(f"`unit` must be one of {', '.join(map(repr, UNITS))}, got {self.unit!r:.80}")
        for name, column in (("labels", self.labels), ("scores", self.scores), *self.columns.items()):
            if not isinstance(column, Tensor):
                raise TypeError(f"`{name}` must be a tensor, got {type(column).__name__}")
            if column.shape[:1] != (n,):
                raise ValueError(f"`{name}` must have {n} rows, got shape {tuple(column.shape)}")
        if self.video_ids and len(self.video_ids) != self.num_videos:
            raise ValueError(f"`video_ids` must name {self.num_videos} videos, got {len(self.video_ids)}")

    @classmethod
    def from_numpy(
        cls, rows: _core.Segments, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> Segments:
        """The reverse of `numpy`."""
        return as_tensors(rows, torch.device(device), dtype)

    def __len__(self) -> int:
        return len(self.segments)

    def __repr__(self) -> str:
        where = f"{self.segments.dtype}, {self.segments.device}"
        return f"<torch Segments: {len(self)} rows of {self.num_videos} video(s), unit={self.unit!r}, {where}>"

    @property
    def num_videos(self) -> int:
        """Number of videos V, those without rows included."""
        return len(self.offsets) - 1

    @property
    def video_index(self) -> Tensor:
        """(N,) int64: the video that every row belongs to."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return torch.searchsorted(self.offsets, rows, right=True) - 1

    def video(self, which: int | str) -> Segments:
        """The rows of one video, by position or by id; waits for the device."""
        at = self.video_ids.index(which) if isinstance(which, str) else range(self.num_videos)[which]
        first, stop = self.offsets[at : at + 2].tolist()
        return self._part(at, first, stop)

    def split(self) -> Iterator[Segments]:
        """One `Segments` per video; waits for the device once."""
        bounds = self.offsets.tolist()
        return (self._part(v, *bounds[v : v + 2]) for v in range(self.num_videos))

    def _part(self, at: int, first: int, stop: int) -> Segments:
        return Segments(
            self.segments[first:stop],
            self.labels[first:stop],
            self.scores[first:stop],
            torch.tensor([0, stop - first], device=self.offsets.device),
            self.unit,
            self.video_ids[at : at + 1],
            {name: column[first:stop] for name, column in self.columns.items()},
        )

    def require_unit(self, unit: Unit, name: str = "segments") -> None:
        """Raise UnitError unless the rows are in `unit`."""
        if self.unit != unit:
            raise UnitError(f"`{name}` must be in unit {unit!r}, got {self.unit!r}")

    def to_seconds(self, seconds_per_snippet: float | Sequence[float]) -> Segments:
        """The same in seconds, from snippets; one factor, or one per video."""
        self.require_unit("snippet")
        factor = torch.as_tensor(seconds_per_snippet, dtype=torch.float64, device=self.segments.device)
        if factor.ndim:
            factor = factor[self.video_index][:, None]
        dtype = self.segments.dtype if self.segments.is_floating_point() else torch.float64
        return replace(self, segments=(self.segments.double() * factor).to(dtype), unit="second")


@dataclass(frozen=True, slots=True, eq=False)
class FusedSegments(_Fields):
    """What `fuse_segments` made of N segments; the fields of `tal_postproc.FusedSegments` as tensors."""

    segments: Tensor  # (M, 2)
    scores: Tensor  # (M,)
    assignment: Tensor  # (N,) int64
    picks: Tensor  # (M,) int64
    sizes: Tensor  # (M,) int64
    effective_size: Tensor  # (M,)
    start_std: Tensor  # (M,)
    end_std: Tensor  # (M,)
    degenerate: Tensor  # (M,) bool

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class EnsembledSegments(_Fields):
    """What `weighted_segment_fusion` made; the fields of `tal_postproc.EnsembledSegments` as tensors."""

    segments: Tensor  # (M, 2)
    scores: Tensor  # (M,)
    labels: Tensor  # (M,) int64
    assignment: Tensor  # (N,) int64
    sizes: Tensor  # (M,) int64

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class LinProLabels(_Fields):
    """LinPro labels of one class; the fields of `tal_postproc.LinProLabels`, the labels as a tensor."""

    labels: Tensor  # (T,)
    objective: float
    violation: float
    gap: float
    status: str
    solved: Mapping[str, int]
    uncertified: int


@dataclass(frozen=True, slots=True, eq=False)
class LinProLabelMap(_Fields):
    """LinPro labels of one video; the fields of `tal_postproc.LinProLabelMap`, arrays as tensors."""

    labels: Tensor  # (T, K)
    objective: Tensor  # (K,)
    violation: Tensor  # (K,)
    gap: Tensor  # (K,)
    status: tuple[str, ...]
    solved: Mapping[str, int]
    uncertified: int


_TWINS = {
    getattr(_core, twin.__name__): twin
    for twin in (EnsembledSegments, FusedSegments, LinProLabelMap, LinProLabels, Segments)
}


def as_tensors(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A result of the NumPy core as tensors on `device`, its floats in `dtype`; what holds no array stays as it is."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value)
        return tensor.to(device, dtype if tensor.is_floating_point() else None)
    if isinstance(value, (tuple, list)):
        return type(value)(as_tensors(one, device, dtype) for one in value)
    if isinstance(value, dict):
        return {name: as_tensors(one, device, dtype) for name, one in value.items()}
    twin = _TWINS.get(type(value))
    if twin is None:
        return value
    return twin(**{one.name: as_tensors(getattr(value, one.name), device, dtype) for one in fields(twin)})
