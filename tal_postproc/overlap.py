"""How much segments overlap."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from . import _checks
from ._checks import Float
from ._kernels import segments as _kernels

__all__ = ["tiou_matrix"]

OverlapKind = Literal["iou", "candidate"]


def tiou_matrix(
    a: ArrayLike,
    b: ArrayLike,
    *,
    overlap: OverlapKind = "iou",
    length_offset: float = 0.0,
    area_eps: float = 0.0,
) -> Float:
    r"""Temporal intersection over union of every segment of `a` with every segment of `b`.

    With offset :math:`o` and epsilon :math:`\epsilon`, the intersection is
    :math:`I = \max(0, \min(e_a, e_b) - \max(s_a, s_b) + o)`, a length is :math:`\ell = e - s + o + \epsilon`, and

    .. math::

        \mathrm{iou} = \frac{I}{\ell_a + \ell_b - I}, \qquad \mathrm{candidate} = \frac{I}{\ell_b} .

    Parameters
    ----------
    a, b : (N, 2) and (M, 2) array_like of float
        Start and end in one common unit, start <= end; negative times are fine.
    overlap : {"iou", "candidate"}
        "candidate" divides by the length of the candidate alone, as the code of RSKP, FAC-Net and GauFuse does.  The
        rows of `b` are the candidates; in suppression the candidate is the row that may be suppressed.
    length_offset : float, default 0
        Added to intersections and lengths, in the unit of the segments, >= 0.  1 is the "+1" of published code.
    area_eps : float, default 0
        Added to lengths only, >= 0.  1e-6 is what ActionFormer's ``nms_1d_cpu`` adds.

    Returns
    -------
    overlaps : (N, M) ndarray of float64
        In [0, 1].  0 where the denominator is 0: two segments without length do not overlap, even where they are equal.

    Raises
    ------
    ValueError
        If a segment is not finite or ends before it starts, or an option is out of its range.

    Notes
    -----
    O(N M).  The conventions are in docs/conventions.md.

    Examples
    --------
    >>> tiou_matrix([[0, 4]], [[2, 6], [0, 8], [5, 6]])
    array([[0.33333333, 0.5       , 0.        ]])
    >>> tiou_matrix([[0, 4]], [[2, 6], [0, 8], [5, 6]], overlap="candidate")
    array([[0.5, 0.5, 0. ]])
    """
    a, b = _checks.as_segments(a, "a"), _checks.as_segments(b, "b")
    return _kernels.overlap_matrix(a, b, *_checks.as_overlap(overlap, length_offset, area_eps))
