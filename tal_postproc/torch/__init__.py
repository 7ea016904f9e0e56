"""`tal_postproc` for tensors: the same names, on the CPU through the NumPy core, on a GPU in batches.

``import tal_postproc.torch as tpt``; what runs where is told in docs/howto/devices.md.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    from ..types import MissingExtraError

    raise MissingExtraError("torch", "torch", "tal_postproc.torch") from _error

from ._bridge import backend
from .functions import nms
from .types import EnsembledSegments, FusedSegments, LinProLabelMap, LinProLabels, Segments

__all__ = [
    "EnsembledSegments",
    "FusedSegments",
    "LinProLabelMap",
    "LinProLabels",
    "Segments",
    "backend",
    "nms",
]
