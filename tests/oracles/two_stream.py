"""The equations of the two-stream network (CVPR 2023), snippet by snippet and class by class."""

from __future__ import annotations

import math


def pooled(features, attention):
    """Eq. 1 for one of the attentions: D numbers."""
    total = sum(attention)
    columns = range(len(features[0]))
    return [sum(a * x[d] for a, x in zip(attention, features)) / total for d in columns]


def softmax(values):
    raised = [math.exp(value - max(values)) for value in values]
    return [value / sum(raised) for value in raised]


def top(weighted, sigma):
    """Eq. 3: for every class the mean of the k largest values over time."""
    k = max(len(weighted) // sigma, 1)
    return [sum(sorted((row[c] for row in weighted), reverse=True)[:k]) / k for c in range(len(weighted[0]))]


def scores(features, attention, p, weight, bias, sigma):
    """Eq. 1 to 4 for one of the attentions: scores of the attention-based branch, of MIL, and their mean."""
    x = pooled(features, attention)
    att = softmax([sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)])
    mil = softmax(top([[a * value for value in row] for a, row in zip(attention, p)], sigma))
    return att, mil, [(a + m) / 2 for a, m in zip(att, mil)]


def cross_entropy(labels, given):
    """Eq. 5."""
    return -sum(label * math.log(score) for label, score in zip(labels, given))


def semantic(features, p, dictionary):
    """Eq. 6."""
    total = 0.0
    for x, row in zip(features, p):
        centroid = dictionary[row.index(max(row))]
        total += math.sqrt(sum((a - b) ** 2 for a, b in zip(x, centroid)))
    return total / len(features)


def guide(foreground, p, which):
    """Eq. 7: `which` says what stands for z_fg[t, 0]."""
    total = 0.0
    for a, row in zip(foreground, p):
        background = {
            "hamnet": softmax(row)[0],
            "literal": a * softmax(row)[0],
            "acm": softmax([a * value for value in row])[0],
        }[which]
        total += abs(1 - a - background)
    return total / len(foreground)
