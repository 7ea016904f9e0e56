"""torchvision (pytorch/vision): ``ops.nms`` and ``ops.batched_nms`` for segments.

``from torchvision.ops import nms`` becomes ``from tal_postproc.compat.torchvision import nms``, and boxes
``(t0, 0, t1, 1)`` become segments ``(t0, t1)``.  Needs torch, not torchvision.
"""

from __future__ import annotations

from ..types import MissingExtraError

try:
    import torch  # noqa: F401
except ModuleNotFoundError as _error:
    raise MissingExtraError("torch", "torch", "compat.torchvision") from _error

from torch import Tensor

from .. import torch as tpt

__all__ = ["batched_nms", "nms"]


def nms(segments: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Rows that hard NMS keeps: ``torchvision.ops.nms``, with two columns instead of four.

    Parameters
    ----------
    segments : (N, 2) Tensor of float
        Start and end, start <= end, in any one unit; negative times are fine.
    scores : (N,) Tensor of float
    iou_threshold : float
        In [0, 1].  A row goes when its IoU with a kept one is strictly greater.

    Returns
    -------
    (M,) Tensor of int64
        On the device of `segments`, best score first; the earlier row first among equals, on every device.

    Raises
    ------
    ValueError
        For boxes: of four columns this function would have to guess which ones are time.

    Examples
    --------
    >>> import torch
    >>> nms(torch.tensor([[0.0, 10.0], [1.0, 10.0], [20.0, 30.0]]), torch.tensor([0.8, 0.9, 0.5]), 0.5)
    tensor([1, 2])
    """
    _refuse_boxes(segments)
    return tpt.nms(segments, scores, tiou_threshold=float(iou_threshold))


def batched_nms(segments: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within every group: ``torchvision.ops.batched_nms``.

    Parameters
    ----------
    segments, scores, iou_threshold
        As in `nms`.
    idxs : (N,) Tensor of int
        Group of every row; rows of different groups are not compared.

    Returns
    -------
    (M,) Tensor of int64
        Best score first over all groups.

    Notes
    -----
    What differs: groups are kept apart by sorting, while torchvision shifts coordinates, which needs them to be
    positive and costs digits.

    Examples
    --------
    >>> import torch
    >>> segments = torch.tensor([[-9.0, 1.0], [-8.0, 1.0], [-9.0, 0.0]])
    >>> batched_nms(segments, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 1, 0]), 0.5)
    tensor([1, 0])
    """
    _refuse_boxes(segments)
    return tpt.nms(segments, scores, tiou_threshold=float(iou_threshold), idxs=idxs)


def _refuse_boxes(segments: Tensor) -> None:
    if segments.ndim == 2 and segments.shape[1] == 4:
        raise ValueError(
            f"`segments` must have shape (N, 2), got boxes of shape {tuple(segments.shape)}; hand over "
            "boxes[:, [0, 2]] where x is time, or use torchvision for boxes"
        )
