"""The functions of `tal_postproc`, for tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import suppression as _suppression
from ._bridge import on_core

__all__ = ["nms"]


def nms(segments: Tensor, scores: Tensor, **options: Any) -> Tensor:
    """As `tal_postproc.nms`, for tensors."""
    return on_core(_suppression.nms, segments, scores, **options)
