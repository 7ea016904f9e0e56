"""Losses, term by term as the papers print them; plain Python on nested lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]


def log_softmax(logits: Row) -> list[float]:
    top = max(logits)
    total = math.fsum(math.exp(z - top) for z in logits)
    return [z - top - math.log(total) for z in logits]


def pseudo_label_loss(
    logits: Sequence[Row],
    targets: Sequence[Row],
    weights: Row | None = None,
    ignore: Sequence[bool] | None = None,
    min_log_prob: float = -math.inf,
) -> tuple[list[float], list[list[float]]]:
    """-sum_c G_c log P_c of every snippet, and its derivatives P_c sum_k G_k - G_c; clamped terms are constants."""
    losses, gradients = [], []
    for t, (row, target) in enumerate(zip(logits, targets)):
        loss, active = 0.0, []
        log_prob = log_softmax(row)
        for c, goal in enumerate(target):
            clamped = goal < 0 and log_prob[c] < min_log_prob
            loss -= goal * (min_log_prob if clamped else log_prob[c])
            active.append(0.0 if clamped else goal)
        total = math.fsum(active)
        weight = 0.0 if ignore is not None and ignore[t] else 1.0 if weights is None else weights[t]
        losses.append(weight * loss)
        gradients.append([weight * (math.exp(log_prob[c]) * total - active[c]) for c in range(len(row))])
    return losses, gradients


def normalized_cross_entropy(logits: Row, labels: Row) -> float:
    total = math.fsum(labels)
    return -math.fsum(y / total * z for y, z in zip(labels, log_softmax(logits)) if y > 0)


def softmax_binary_cross_entropy(logits: Row, labels: Row) -> float:
    """Mean over the classes; 1 - P_c is the sum of the other probabilities."""
    total = math.fsum(labels)
    log_prob = log_softmax(logits)
    loss = 0.0
    for c, label in enumerate(labels):
        others = [z for k, z in enumerate(log_prob) if k != c]
        top = max(others)
        rest = top + math.log(math.fsum(math.exp(z - top) for z in others))
        loss -= label / total * log_prob[c] + (1 - label / total) * rest
    return loss / len(logits)


def top_mean(values: Row, share: int) -> float:
    count = max(1, len(values) // share)
    return math.fsum(sorted(values, reverse=True)[:count]) / count


def attention_normalization_loss(attention: Row, share: int) -> float:
    """Mean of the lowest T / share values minus the mean of the highest."""
    return -top_mean([-a for a in attention], share) - top_mean(attention, share)
