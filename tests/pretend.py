"""A device that nobody has: tensors that say they are on CUDA, and are computed on the CPU.

Every operation is looked at.  Tensors of both places in one operation, and a tensor of the device handed to NumPy, are
errors as they are on a GPU, so that what runs here keeps its tensors together; and waits for the device are counted.
It says nothing about speed, nor about CUDA's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
_MAY_MIX = ("aten::index", "aten::index_put", "aten::index_put_", "aten::copy_", "aten::_to_copy")
_WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
waits = [0]  # how often the host has waited for the device


class Pretended(torch.Tensor):
    """A tensor of the device; `held` is what it is."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",  # for the C++ side: no CPU, and without a driver
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    def tolist(self) -> Any:
        waits[0] += 1
        return self.held.tolist()

    def new_tensor(self, data: Any, **options: Any) -> Pretended:
        return Pretended(self.held.new_tensor(data, **options))

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """For operations that make a tensor out of nothing."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # while such a mode is on, torch does not look for the device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    """The operation on what is held."""
    name, kwargs = function._schema.name, dict(kwargs)
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    ours = any(isinstance(one, Pretended) for one in tensors)
    if ours and name not in _MAY_MIX and any(one.ndim and not isinstance(one, Pretended) for one in tensors):
        raise RuntimeError(f"{name}: tensors on cuda:0 and on cpu")
    place = kwargs.get("device")
    wrap = ours if place is None else torch.device(place).type != "cpu"
    if place is not None:
        kwargs["device"] = torch.device("cpu")
    waits[0] += ours and (name in _WAITS or not wrap)

    def held(one: Any) -> Any:
        return one.held if isinstance(one, Pretended) else one

    made = function(*tree_map(held, args), **tree_map(held, kwargs))
    if name.endswith("_"):
        return args[0]
    return tree_map(lambda one: Pretended(one) if isinstance(one, torch.Tensor) and wrap else one, made)


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """Within, torch works on a CUDA device."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def put(value: Any) -> Any:
    """An array or a CPU tensor on the device."""
    return Pretended(torch.as_tensor(value).detach().clone())
