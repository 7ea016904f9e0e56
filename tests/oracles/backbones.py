"""The heads of the plug-in backbones in NumPy, one number after the other."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return np.array([power / sum(powers) for power in powers])


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def cross_entropy(logits, labels):
    shares = np.array(labels, float) / sum(labels)
    return -sum(share * math.log(p) for share, p in zip(shares, softmax(logits)))


def binary_cross_entropy(probabilities, targets):
    terms = [y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in zip(probabilities, targets)]
    return -sum(terms) / len(terms)


def attention(x, w1, b1, w2, b2):
    return np.array([sigmoid(float(w2[0] @ np.maximum(w1 @ row + b1, 0) + b2[0])) for row in x])


def stpn(x, a, weight, bias, labels):
    """TCAM, video scores, losses."""
    pooled = sum(a[t] * x[t] for t in range(len(x))) / len(x)
    scores = [sigmoid(float(weight[c] @ pooled + bias[c])) for c in range(len(weight))]
    cam = np.array([[float(weight[c] @ row) for c in range(len(weight))] for row in x])
    return cam, scores, (binary_cross_entropy(scores, labels), 1e-4 * sum(abs(a)))


def gaussian(values):
    """One column, standard deviation 1, four to both sides; the ends repeat."""
    weights = {k: math.exp(-k * k / 2) for k in range(-4, 5)}
    total, last = sum(weights.values()), len(values) - 1
    return [sum(w * values[min(max(t + k, 0), last)] for k, w in weights.items()) / total for t in range(last + 1)]


def bm(x, a, weight, bias, clusters, labels):
    """Video scores, losses."""
    front = sum(a[t] * x[t] for t in range(len(x))) / sum(a)
    back = sum((1 - a[t]) * x[t] for t in range(len(x))) / sum(1 - a)
    q = np.array([softmax(list(weight @ row)) for row in x])
    q = np.array([gaussian(list(column)) for column in q.T]).T
    guide = [
        abs(a[t] - max(q[t][c] for c in range(len(labels)) if labels[c])) + abs(a[t] - (1 - q[t][-1]))
        for t in range(len(x))
    ]
    apart = clusters[0] - clusters[1]
    losses = (
        cross_entropy(list(weight @ front + bias), [*labels, 0]),
        0.1 * cross_entropy(list(weight @ back + bias), [0] * len(labels) + [1]),
        0.1 * sum(guide) / len(x),
        0.1 * (-math.log(sigmoid(float(apart @ front))) - math.log(sigmoid(float(-apart @ back)))),
    )
    return softmax(list(weight @ front + bias)), losses


def wum(f, weight, labels, width=2048):
    """Attention, video scores, losses, without Dropout."""
    length, scale = len(f), math.sqrt(2048 / width)
    m = [scale * math.sqrt(float(row @ row)) for row in f]
    action = sorted(range(length), key=lambda t: -m[t])[: max(1, length // 9)]
    background = sorted(range(length), key=lambda t: m[t])[: max(1, length // 4)]
    high, low = (sum(m[t] for t in chosen) / len(chosen) for chosen in (action, background))
    cas = np.array([[float(weight[c] @ row) for c in range(len(weight))] for row in f])
    top = [sum(sorted(column)[::-1][: max(1, length // 9)]) / max(1, length // 9) for column in cas.T]
    of_background = softmax([sum(column[background]) / len(background) for column in cas.T])
    norms = [scale * float(np.linalg.norm(sum(f[t] for t in chosen) / len(chosen))) for chosen in (action, background)]
    losses = (
        binary_cross_entropy(softmax(top), np.array(labels) / sum(labels)),
        5e-4 * (max(0, 100 - norms[0]) + norms[1]) ** 2,
        binary_cross_entropy(of_background, [1 / len(labels)] * len(labels)),
    )
    return [min(max((value - low) / (high - low), 0), 1) for value in m], softmax(top), losses


def facnet(x, centres, foreground, labels):
    """Snippets' logits, video scores, losses."""
    s = np.array([[5 * cosine(row, centre) for centre in centres] for row in x])
    s_f = np.array([5 * cosine(row, foreground) for row in x])
    totals = {
        "classwise": np.zeros(len(centres)),
        "agnostic": np.zeros(len(centres)),
        "instance": np.zeros(len(centres)),
    }
    for k in (1, 2, 5):
        overall = softmax(list(k * s_f))
        of_all = sum(overall[t] * x[t] for t in range(len(x)))
        for c, centre in enumerate(centres):
            weights = softmax(list(k * s[:, c]))
            of_class = sum(weights[t] * x[t] for t in range(len(x)))
            totals["classwise"][c] += 10 * cosine(of_class, foreground) / 3
            totals["agnostic"][c] += 10 * cosine(of_all, centre) / 3
            totals["instance"][c] += 2 * sum(weights[t] * s[t, c] for t in range(len(x))) / 3
    losses = (
        cross_entropy(list(totals["classwise"]), [*labels, 0]),
        0.1 * cross_entropy(list(totals["agnostic"]), [*labels, 0]),
        0.1 * cross_entropy(list(totals["instance"]), [*labels, 1]),
    )
    return s, softmax(list(totals["agnostic"])), losses
