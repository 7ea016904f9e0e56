"""Tensors to the NumPy core and back, and who does the work: the core, plain torch operations, or Triton kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, reduce
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .types import as_array, as_tensors

BACKENDS = ("auto", "core", "batched", "triton")
_CHOSEN: ContextVar[str] = ContextVar("tal_postproc_torch_backend", default="auto")


@contextmanager
def backend(name: Literal["auto", "core", "batched", "triton"]) -> Iterator[None]:
    """Who does the work of the functions of `tal_postproc.torch` within a ``with`` block of this thread or task.

    ``"auto"`` is the default: tensors on the CPU, or on MPS, which knows no float64, go to the NumPy core, those on
    another device to Triton kernels where there are such, and to batched torch operations where not.  ``"core"`` copies
    tensors of a device to the CPU and the result back; ``"batched"`` works on any device; ``"triton"`` takes a kernel
    wherever there is one.

    >>> from tal_postproc.torch import nms
    >>> rows, scores = torch.tensor([[0.0, 10.0], [1.0, 10.0]]), torch.tensor([0.8, 0.9])
    >>> with backend("core"):
    ...     keep = nms(rows, scores, tiou_threshold=0.5)
    >>> keep
    tensor([1])
    """
    token = _CHOSEN.set(_checks.as_choice(name, "name", BACKENDS))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


@cache
def has_triton() -> bool:
    """Whether Triton is installed, in a version that computes in float64 as it should."""
    try:
        import triton
    except ImportError:
        return False
    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 2)


def works_on(device: torch.device) -> Literal["core", "batched", "triton"]:
    """Who works on tensors of a device: what `backend` says, or the best for the device."""
    name: Any = _CHOSEN.get()
    if name != "auto":
        return name
    if device.type in ("cpu", "mps"):  # Apple's GPUs know no float64
        return "core"
    return "triton" if device.type == "cuda" and has_triton() else "batched"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors within arguments: in lists, mappings and our objects, too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif hasattr(value, "__dataclass_fields__") and type(value).__module__ == f"{__package__}.types":
        yield from tensors_in([getattr(value, name) for name in value.__dataclass_fields__])


def result_kind(*arguments: Any) -> tuple[torch.device, torch.dtype]:
    """The one device of all tensors, and the dtype of floats that come back: that of the floats, promoted."""
    found = list(tensors_in(arguments))
    devices = {tensor.device for tensor in found}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, got {', '.join(sorted(map(str, devices)))}")
    floats = [tensor.dtype for tensor in found if tensor.is_floating_point()]
    dtype = reduce(torch.promote_types, floats) if floats else torch.float64
    return (devices.pop() if devices else torch.device("cpu")), dtype


def _core_arguments(value: Any) -> Any:
    """Tensors within arguments as arrays, our objects as those of the core."""
    if isinstance(value, Tensor):
        return as_array(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_core_arguments, value))
    if isinstance(value, Mapping):
        return {name: _core_arguments(one) for name, one in value.items()}
    if type(value).__module__ == f"{__package__}.types":
        return value.numpy()
    return value


def _refuse(value: Any, name: str, function: Callable[..., Any]) -> None:
    """Raise for what is NumPy's: the function of the core takes it."""
    if isinstance(value, (list, tuple)):
        for one in value[:1]:
            _refuse(one, name, function)
    elif isinstance(value, Mapping):
        for one in value.values():
            _refuse(one, name, function)
    elif isinstance(value, np.ndarray) and value.dtype.kind not in "USO":  # names of videos
        raise TypeError(f"`{name}` must be a tensor, got a NumPy array; tal_postproc.{function.__name__} takes arrays")
    elif type(value).__module__ == "tal_postproc.types":
        raise TypeError(
            f"`{name}` must hold tensors, got tal_postproc.{type(value).__name__}; "
            f"tal_postproc.{function.__name__} takes it"
        )


def require_tensors(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Refuse arrays anywhere, and a first argument that is made of numbers; `function` is that of the core."""
    names = _parameters(function)
    for name, value in (*zip(names, arguments), *options.items()):
        _refuse(value, name, function)
    first: Any = arguments[0] if arguments else options.get(names[0], ())
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    if isinstance(first, (int, float, str)) or first is None:
        got = type(arguments[0] if arguments else options[names[0]]).__name__
        raise TypeError(f"`{names[0]}` must be a tensor, got {got}")


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def on_core(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of the NumPy core on tensors; arrays in its result come back as tensors like those given."""
    require_tensors(function, *arguments, **options)
    return through_core(function, *result_kind(arguments, options), arguments, options)


def through_core(
    function: Callable[..., Any],
    device: torch.device,
    dtype: torch.dtype,
    arguments: Sequence[Any],
    options: Mapping[str, Any],
) -> Any:
    """`on_core` after its checks."""
    given = {name: _core_arguments(value) for name, value in options.items()}
    return as_tensors(function(*map(_core_arguments, arguments), **given), device, dtype)


class DoubtError(Exception):
    """Something about arguments on a device is not as it must be; the core says what."""


class Inputs:
    """Arguments on a device made canonical, each as `_checks` does it; all values are judged at once, by `settle`."""

    def __init__(self, device: torch.device, history: bool = False) -> None:
        self._device = device
        self._history = history
        self._good: list[Tensor] = []

    def _placed(self, value: Any) -> Tensor:
        try:
            tensor = torch.as_tensor(value, device=self._device)
        except (TypeError, ValueError, RuntimeError):
            raise DoubtError from None
        if tensor.is_complex():
            raise DoubtError
        return tensor if self._history else tensor.detach()

    def real(self, value: Any) -> Tensor:
        """Float64 on the device, with its history where that is wanted."""
        tensor = self._placed(value).double()
        self.require(tensor.detach().abs() <= _checks.LARGEST)
        return tensor

    def segments(self, value: Any) -> Tensor:
        """(N, 2) float64, finite, start <= end."""
        tensor = self.real(value)
        if tensor.shape in ((0,), (0, 0)):
            return tensor.reshape(0, 2)
        if tensor.ndim != 2 or tensor.shape[1] != 2:
            raise DoubtError
        self.require(tensor[:, 0] <= tensor[:, 1])
        return tensor.contiguous()

    def values(self, value: Any, length: int) -> Tensor:
        """(N,) float64, finite."""
        tensor = self.real(value)
        if tensor.shape != (length,):
            raise DoubtError
        return tensor.contiguous()

    def integers(self, value: Any, length: int, below: int | None = None) -> Tensor:
        """(N,) int64; with `below`, indices from 0 to that."""
        tensor = self._placed(value).detach()
        if tensor.shape != (length,) or tensor.dtype == torch.uint64:
            raise DoubtError
        if tensor.is_floating_point():
            tensor = tensor.double()
            self.require((tensor == tensor.trunc()) & (tensor.abs() < 2.0**63))
        tensor = tensor.long()
        if below is not None:
            self.require((tensor >= 0) & (tensor < below))
        return tensor.contiguous()

    def require(self, good: Tensor) -> None:
        """Ask that all of these are true; answered by `settle`."""
        self._good.append(good.all())

    def settle(self) -> None:
        """Wait for the device, and raise DoubtError unless everything that was asked for is true."""
        if self._good and not torch.stack(self._good).all():
            raise DoubtError
