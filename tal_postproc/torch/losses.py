"""Losses of weakly supervised training: on pseudo labels, on video-level labels, on attention."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import _checks

__all__ = [
    "BasnetLoss",
    "attention_normalization_loss",
    "basnet_loss",
    "normalized_cross_entropy",
    "pseudo_label_loss",
    "reaches_min_log_prob",
    "softmax_binary_cross_entropy",
    "top_mean",
    "with_background",
]

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def pseudo_label_loss(
    logits: Tensor,
    targets: Any,
    *,
    weights: Any = None,
    ignore: Any = None,
    min_log_prob: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of every snippet with its pseudo label, whose values may be negative.

    With :math:`P = \mathrm{softmax}(z)` over the classes, a snippet with target :math:`G` costs ([1]_, Sec. 3.3, where
    the sign is left out of print)

    .. math::

        L = -\sum_c G_c \log P_c , \qquad \frac{\partial L}{\partial z_c} = P_c \sum_k G_k - G_c .

    Targets need not sum to 1, and they are negative where :math:`G` is a difference of two refreshes (:math:`\Delta G`,
    [1]_, Eq. 8).  The descent direction is therefore :math:`G_c - P_c \sum_k G_k`, not the :math:`G_c (1 - P_c)` of
    [1]_, Eq. 7 and 9, which is the derivative of the one term :math:`G_c \log P_c` alone.  Where the targets of a
    snippet sum to 0, it is :math:`G_c` whatever the model predicts.

    A negative :math:`G_c` rewards :math:`\log P_c \to -\infty`: the loss has no lower bound.  `min_log_prob`, called
    :math:`m`, replaces :math:`\log P_c` by :math:`\max(m, \log P_c)` in the terms with :math:`G_c < 0`, and only there.
    Below :math:`m` such a term is the constant :math:`-G_c m`: it is missing from the gradient, from :math:`G_c` and
    from :math:`\sum_k G_k` alike; at :math:`m` exactly it is still in.  The loss is then at least
    :math:`m \sum_{G_c < 0} |G_c|`.

    Parameters
    ----------
    logits : (..., T, C) tensor of float
        Before the softmax.
    targets : (..., T, C) tensor or array_like
        :math:`G` or :math:`\Delta G`, as `LabelRefresher.targets` gives it.  No gradient flows into it.
    weights : (..., T) tensor or array_like, optional
        Weight of every snippet, >= 0.  Default: 1.
    ignore : (..., T) tensor or array_like of bool, optional
        Snippets that do not count: bands around boundaries, or the padding of a batch.  What stands there may be
        anything, NaN too, and its gradient is 0.
    min_log_prob : float, optional
        :math:`m` < 0.  Default: none, as published.  With differences as targets take one, -10 for example.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by the sum of the weights of the snippets that count; without any it is 0.

    Returns
    -------
    Tensor
        A scalar, or (..., T) for "none"; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError
        If `logits` are not floating point, or `ignore` is not boolean.
    ValueError
        If shapes disagree or an option is out of range.  Values of tensors are not looked at: that would wait for the
        device.

    See Also
    --------
    reaches_min_log_prob : which snippets the clamp holds.
    tal_postproc.LabelRefresher : makes the targets, refresh by refresh.

    Notes
    -----
    Half precision is computed in float32.  For a tri-state map, ignore ``(states == LabelState.IGNORE).any(-1)``.  The
    online pseudo labels of RSKP ([2]_, Eq. 7, in its code with a temperature of 0.2) are
    ``pseudo_label_loss(logits / 0.2, (other_logits / 0.2).softmax(-1))``.

    References
    ----------
    .. [1] J. Zhou et al., "Improving Weakly Supervised Temporal Action Localization by Bridging Train-Test Gap in
           Pseudo Labels", CVPR 2023.
    .. [2] L. Huang et al., "Weakly Supervised Temporal Action Localization via Representative Snippet Knowledge
           Propagation", CVPR 2022.

    Examples
    --------
    Two snippets of two classes, one of them ignored:

    >>> logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    >>> loss = pseudo_label_loss(logits, [[0.5, -0.25], [1.0, 0.0]], ignore=[False, True])
    >>> loss.backward()
    >>> print(f"{loss.item():.4f}", logits.grad.tolist())  # 0.25 log 2; P_c * 0.25 - G_c
    0.1733 [[-0.375, 0.375], [0.0, 0.0]]
    """
    logits, targets, ignored = _snippets(logits, targets, ignore)
    log_prob = logits.log_softmax(-1)
    if min_log_prob is not None:
        least = _log_limit(min_log_prob)
        log_prob = torch.where(targets < 0, log_prob.clamp(min=least), log_prob)
    losses = -(targets * log_prob).sum(-1)
    shares = (
        torch.ones_like(losses) if weights is None else _as(weights, logits).expand(_fit(weights, losses, "weights"))
    )
    if ignored is not None:
        shares = shares.masked_fill(ignored, 0.0)
    losses = losses * shares
    if _checks.as_choice(reduction, "reduction", REDUCTIONS) == "mean":
        total = shares.sum()
        return losses.sum() / torch.where(total > 0, total, 1.0)
    return losses.sum() if reduction == "sum" else losses


def reaches_min_log_prob(logits: Tensor, targets: Any, *, min_log_prob: float, ignore: Any = None) -> Tensor:
    """Snippets of which `pseudo_label_loss` clamps a term: how far the descent has run into the limit.

    Parameters
    ----------
    logits, targets, min_log_prob, ignore
        As in `pseudo_label_loss`.

    Returns
    -------
    (..., T) tensor of bool
        True where some class has a negative target and a log-probability below the limit.

    Examples
    --------
    >>> logits = torch.tensor([[20.0, 0.0], [20.0, 0.0]])
    >>> reaches_min_log_prob(logits, [[0.5, -0.5], [-0.5, 0.5]], min_log_prob=-10.0).tolist()
    [True, False]
    """
    logits, targets, ignored = _snippets(logits.detach(), targets, ignore)
    reached = ((targets < 0) & (logits.log_softmax(-1) < _log_limit(min_log_prob))).any(-1)
    return reached if ignored is None else reached & ~ignored


def normalized_cross_entropy(logits: Tensor, labels: Any, *, reduction: Reduction = "mean") -> Tensor:
    r"""Cross-entropy of video-level scores with labels that are divided by their sum.

    .. math::

        L = -\sum_c \frac{y_c}{\sum_k y_k} \log \mathrm{softmax}(z)_c

    A video with several classes wants equal probability for each of them.

    Parameters
    ----------
    logits : (..., C) tensor of float
        Video-level scores before the softmax, such as `top_mean` of a TCAM.
    labels : (..., C) tensor or array_like
        :math:`y` >= 0, usually 0 or 1, the background's column included (`with_background`).  A video without any
        costs 0.  No gradient flows into it.
    reduction : {"mean", "sum", "none"}
        Over the videos.

    Returns
    -------
    Tensor
        A scalar, or (...) for "none"; float64 for float64 logits, else float32.

    Raises
    ------
    ValueError
        If shapes disagree or an option is out of range.

    Notes
    -----
    The background's label is 0 for scores that are pooled with attention or over the foreground, 1 for those that are
    pooled over the whole video, where every video shows some: so in the released code of [1]_ and [2]_, on whose
    class-agnostic and class-wise (multiple instance learning) heads this is the loss.

    References
    ----------
    .. [1] L. Huang et al., "Weakly Supervised Temporal Action Localization via Representative Snippet Knowledge
           Propagation", CVPR 2022 (:math:`\mathcal{L}_{cls}` of the supplement).
    .. [2] L. Huang et al., "Foreground-Action Consistency Network for Weakly Supervised Temporal Action Localization",
           ICCV 2021.

    Examples
    --------
    >>> logits = torch.zeros(1, 4)
    >>> print(f"{normalized_cross_entropy(logits, with_background([[1, 1, 0]], 0.0)):.4f}")  # log 4
    1.3863
    """
    logits, labels = _video(logits, labels)
    return _reduce(-(labels * logits.log_softmax(-1)).sum(-1), reduction)


def softmax_binary_cross_entropy(logits: Tensor, labels: Any, *, reduction: Reduction = "mean") -> Tensor:
    r"""Binary cross-entropy of softmax scores with labels that are divided by their sum.

    .. math::

        L = -\frac{1}{C} \sum_c \left( \bar y_c \log P_c + (1 - \bar y_c) \log (1 - P_c) \right), \qquad
        P = \mathrm{softmax}(z), \quad \bar y = y / \sum_k y_k

    Parameters
    ----------
    logits : (..., C) tensor of float, C >= 2
        Video-level scores before the softmax, such as `top_mean` of a TCAM.
    labels : (..., C) tensor or array_like
        :math:`y` >= 0, the background's column included (`with_background`).  No gradient flows into it.
    reduction : {"mean", "sum", "none"}
        Over the videos; over the classes it is always the mean.

    Returns
    -------
    Tensor
        A scalar, or (...) for "none"; float64 for float64 logits, else float32.

    Raises
    ------
    ValueError
        If shapes disagree or an option is out of range.

    Notes
    -----
    The loss of both branches of BaS-Net ([1]_, as its released code computes it) and of WUM.  :math:`1 - P_c` is summed
    from the other classes where it is small, so no logit is too large; torch's own function limits logarithms to -100
    instead.

    References
    ----------
    .. [1] P. Lee, Y. Uh and H. Byun, "Background Suppression Network for Weakly-supervised Temporal Action
           Localization", AAAI 2020.

    Examples
    --------
    >>> print(f"{softmax_binary_cross_entropy(torch.zeros(1, 2), [[1.0, 0.0]]):.4f}")  # log 2
    0.6931
    """
    logits, labels = _video(logits, labels)
    if logits.shape[-1] < 2:
        raise ValueError(f"`logits` needs 2 classes at least, got shape {tuple(logits.shape)}")
    log_prob = logits.log_softmax(-1)
    # Only the largest probability can be near 1, and what it lacks is the sum of the others.
    best = logits.argmax(-1, keepdim=True) == torch.arange(logits.shape[-1], device=logits.device)
    rest = log_prob.masked_fill(best, -torch.inf).logsumexp(-1, keepdim=True)
    log_not = torch.where(best, rest, torch.log1p(-log_prob.masked_fill(best, -1.0).exp()))
    return _reduce(-(labels * log_prob + (1.0 - labels) * log_not).mean(-1), reduction)


def top_mean(values: Tensor, *, share: int = 8, ignore: Any = None) -> Tensor:
    """Mean of the largest T / `share` values over time, of every class: a video's score from its TCAM.

    Parameters
    ----------
    values : (..., T, C) tensor of float
        A TCAM, or any other values per snippet and class.
    share : int, default 8
        max(1, floor(T / share)) values count; T is the number of snippets that are not ignored.
    ignore : (..., T) tensor or array_like of bool, optional
        Snippets that do not count, such as the padding of a batch.

    Returns
    -------
    (..., C) tensor
        float64 for float64 values, else float32; 0 where no snippet counts.

    Raises
    ------
    ValueError
        If shapes disagree or `share` is below 1.

    Notes
    -----
    Published shares: 8 (BaS-Net, W-TALC and its heirs), 9 (WUM).  Among equal values the earlier snippet has the
    gradient.

    Examples
    --------
    >>> top_mean(torch.arange(16.0).reshape(16, 1)).tolist()  # 14 and 15
    [14.5]
    """
    values = _logits(values, "values", 2)
    ignored = None if ignore is None else _ignored(ignore, values[..., 0])
    # Sorted rising with signs changed, so that the earlier of equal values comes first.
    return -_lowest_mean(-values.transpose(-1, -2), share, None if ignored is None else ignored.unsqueeze(-2))


def attention_normalization_loss(
    attention: Tensor, *, share: int = 8, ignore: Any = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean of the lowest T / `share` attention values minus mean of the highest: pushes attention towards 0 and 1.

    .. math::

        L = \frac{1}{l} \min_{|S| = l} \sum_{t \in S} a_t - \frac{1}{l} \max_{|S| = l} \sum_{t \in S} a_t ,
        \qquad l = \max(1, \lfloor T / s \rfloor)

    Parameters
    ----------
    attention : (..., T) tensor of float
        In [0, 1]; :math:`a`.
    share : int, default 8
        :math:`s`.  T is the number of snippets that are not ignored.
    ignore : (..., T) tensor or array_like of bool, optional
        Snippets that do not count, such as the padding of a batch.
    reduction : {"mean", "sum", "none"}
        Over the videos.

    Returns
    -------
    Tensor
        In [-1, 0]: a scalar, or (...) for "none"; float64 for float64 attention, else float32.  0 where no snippet
        counts.

    Raises
    ------
    ValueError
        If shapes disagree or an option is out of range.

    Notes
    -----
    From [1]_; RSKP ([2]_, :math:`\mathcal{L}_{att}`) takes it with weight 0.1.  Among equal values the earlier snippet
    has the gradient.

    References
    ----------
    .. [1] Y. Zhai et al., "Two-Stream Consensus Network for Weakly-Supervised Temporal Action Localization", ECCV 2020.
    .. [2] L. Huang et al., "Weakly Supervised Temporal Action Localization via Representative Snippet Knowledge
           Propagation", CVPR 2022.

    Examples
    --------
    >>> attention_normalization_loss(torch.tensor([0.25, 1.0, 0.5, 0.75]), share=4).item()
    -0.75
    """
    attention = _logits(attention, "attention", 1)
    ignored = None if ignore is None else _ignored(ignore, attention)
    lowest, highest = _lowest_mean(attention, share, ignored), -_lowest_mean(-attention, share, ignored)
    return _reduce(lowest - highest, reduction)


class BasnetLoss(NamedTuple):
    """The sum that is minimised, and its parts, each a scalar."""

    total: Tensor
    base: Tensor
    suppressed: Tensor
    norm: Tensor


def basnet_loss(
    base: Tensor,
    suppressed: Tensor,
    attention: Tensor,
    labels: Any,
    *,
    share: int = 8,
    norm_weight: float = 1e-4,
    background: Literal["last", "first"] = "last",
    ignore: Any = None,
) -> BasnetLoss:
    r"""Losses of BaS-Net: all videos show background to the base branch, none does to the suppression branch.

    .. math::

        L = L_{base} + L_{supp} + \alpha L_{norm} ,

    ([1]_, and [2]_, Eq. 1): binary cross-entropy of the softmax of `top_mean` with labels :math:`[y, 1]` for the base
    branch and :math:`[y, 0]` for the suppression branch, each divided by its sum, and the mean over the videos of the
    L1 norm of the foreground weights.

    Parameters
    ----------
    base, suppressed : (B, T, K + 1) tensors of float
        Class activation sequences of the two branches before the softmax.
    attention : (B, T) tensor of float
        Foreground weights of the filter.
    labels : (B, K) tensor or array_like
        :math:`y`, 1 for the classes that a video shows.
    share : int, default 8
        See `top_mean`.
    norm_weight : float, default 1e-4
        :math:`\alpha` >= 0.
    background : {"last", "first"}
        Where the sequences have the background's column.
    ignore : (B, T) tensor or array_like of bool, optional
        Snippets that do not count, such as the padding of a batch.

    Returns
    -------
    BasnetLoss
        Scalars `total`, `base`, `suppressed` and `norm`; the last one without its weight.

    Raises
    ------
    ValueError
        If shapes disagree or an option is out of range.

    References
    ----------
    .. [1] P. Lee, Y. Uh and H. Byun, "Background Suppression Network for Weakly-supervised Temporal Action
           Localization", AAAI 2020.
    .. [2] R. Su et al., "Improving Weakly Supervised Temporal Action Localization by Exploiting Multi-resolution
           Information in Temporal Domain".

    Examples
    --------
    >>> loss = basnet_loss(torch.zeros(1, 8, 2), torch.zeros(1, 8, 2), torch.ones(1, 8), [[1.0]])
    >>> print(f"{loss.base:.4f} {loss.suppressed:.4f} {loss.norm:.0f} {loss.total:.4f}")  # log 2, log 2, 8
    0.6931 0.6931 8 1.3871
    """
    weight = _checks.as_number(norm_weight, "norm_weight", at_least=0.0)
    attention = _logits(attention, "attention", 1)
    size = attention.abs() if ignore is None else attention.abs().masked_fill(_ignored(ignore, attention), 0.0)
    base_loss, suppressed_loss = (
        softmax_binary_cross_entropy(
            top_mean(branch, share=share, ignore=ignore), with_background(labels, value, column=background)
        )
        for branch, value in ((base, 1.0), (suppressed, 0.0))
    )
    norm = size.sum(-1).mean()
    return BasnetLoss(base_loss + suppressed_loss + weight * norm, base_loss, suppressed_loss, norm)


def with_background(labels: Any, value: float, *, column: Literal["last", "first"] = "last") -> Tensor:
    """Video-level labels with one more column, the background's.

    Parameters
    ----------
    labels : (..., K) tensor or array_like
        1 for the classes that a video shows.
    value : float
        The background's label, the same for all videos.
    column : {"last", "first"}
        Where it goes.

    Returns
    -------
    (..., K + 1) tensor
        Of the labels' dtype if that is floating point, else float32.

    Examples
    --------
    >>> with_background([[1, 0]], 1.0).tolist()
    [[1.0, 0.0, 1.0]]
    """
    tensor = torch.as_tensor(labels)
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    extra = torch.full_like(tensor[..., :1], _checks.as_number(value, "value"))
    first = _checks.as_choice(column, "column", ("last", "first")) == "first"
    return torch.cat((extra, tensor) if first else (tensor, extra), -1)


# ------------------------------------------------------------------ what they share
def _logits(value: Tensor, name: str, ndim: int) -> Tensor:
    """A tensor of at least `ndim` dimensions, in float64 if it is that, else in float32."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"`{name}` must be a floating-point tensor, got {kind}")
    if value.ndim < ndim:
        raise ValueError(f"`{name}` must have {ndim} dimensions at least, got shape {tuple(value.shape)}")
    return value if value.dtype == torch.float64 else value.float()


def _as(value: Any, like: Tensor) -> Tensor:
    """A constant in the dtype and on the device of another tensor."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()


def _fit(value: Any, like: Tensor, name: str) -> torch.Size:
    """The shape of `like`, which `value` must have."""
    shape = tuple(torch.as_tensor(value).shape)
    if shape != tuple(like.shape):
        raise ValueError(f"`{name}` must have shape {tuple(like.shape)}, got shape {shape}")
    return like.shape


def _ignored(ignore: Any, like: Tensor) -> Tensor:
    """A mask of the shape and on the device of another tensor."""
    mask = torch.as_tensor(ignore, device=like.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"`ignore` must be boolean, got {mask.dtype}")
    _fit(mask, like, "ignore")
    return mask


def _snippets(logits: Tensor, targets: Any, ignore: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits and targets of one shape, 0 where they are ignored, and the mask."""
    logits = _logits(logits, "logits", 2)
    targets = _as(targets, logits)
    _fit(targets, logits, "targets")
    if ignore is None:
        return logits, targets, None
    ignored = _ignored(ignore, logits[..., 0])
    return logits.masked_fill(ignored[..., None], 0.0), targets.masked_fill(ignored[..., None], 0.0), ignored


def _log_limit(value: Any) -> float:
    limit = _checks.as_number(value, "min_log_prob")
    if limit >= 0:
        raise ValueError(f"`min_log_prob` must be below 0, as logarithms of probabilities are, got {limit:g}")
    return limit


def _video(logits: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
    """Video-level logits, and labels divided by their sum."""
    logits = _logits(logits, "logits", 1)
    labels = _as(labels, logits)
    _fit(labels, logits, "labels")
    total = labels.sum(-1, keepdim=True)
    return logits, labels / torch.where(total > 0, total, 1.0)


def _lowest_mean(values: Tensor, share: int, ignored: Tensor | None) -> Tensor:
    """Mean of the lowest T / share values along the last axis."""
    share = _checks.as_count(share, "share", at_least=1)
    if ignored is None:
        ignored = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
    ordered = values.masked_fill(ignored, torch.inf).sort(dim=-1, stable=True).values
    present = (~ignored).sum(-1, keepdim=True)
    count = (present // share).clamp(min=1)
    used = torch.arange(values.shape[-1], device=values.device) < torch.minimum(count, present)
    return (ordered.masked_fill(~used, 0.0) / count).sum(-1)


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    """Mean (0 of nothing), sum, or neither."""
    if _checks.as_choice(reduction, "reduction", REDUCTIONS) == "mean":
        return losses.sum() / max(losses.numel(), 1)
    return losses.sum() if reduction == "sum" else losses
