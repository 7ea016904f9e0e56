"""What the papers' equations about training say, literally, on tensors."""

from __future__ import annotations

import torch


def norm1(assignment):
    """Columns that sum to 1 (+ 1e-9 in the divisor)."""
    return assignment / (assignment.sum(dim=0) + 1e-9)


def walk_by_inverse(features, means, assignment, weight):
    """RSKP, Eq. 6: the inverse of a T x T matrix, as the authors compute it."""
    system = torch.eye(len(features), dtype=features.dtype) - weight**2 * assignment @ norm1(assignment).T
    return (1 - weight) * torch.linalg.inv(system) @ (weight * assignment @ means + features)


def walk_step_by_step(features, means, assignment, weight, iterations):
    """RSKP, Eq. 4 and 5."""
    spread, refined = features, means
    for _ in range(iterations):
        refined = weight * norm1(assignment).T @ spread + (1 - weight) * means
        spread = weight * assignment @ refined + (1 - weight) * features
    return spread


def em(features, means, iterations, sharpness):
    """RSKP, Eq. 2 and 3, snippet by snippet."""
    for _ in range(iterations):
        rows = []
        for snippet in features:
            cosines = [snippet @ mean / (snippet.norm() * mean.norm()) for mean in means]
            rows.append(torch.softmax(sharpness * torch.stack(cosines), 0))
        assignment = norm1(torch.stack(rows))
        means = torch.stack([(assignment[:, [k]] * features).sum(dim=0) for k in range(len(means))])
    return means
