"""RSKP's network (CVPR 2022): a cosine head with a foreground centre, EM attention, and the bipartite random walk.

What the paper leaves open follows its released code (docs/tutorials/rskp.md lists it).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import presets
from ...torch.losses import attention_normalization_loss, normalized_cross_entropy, with_background
from . import Backbone, Output

__all__ = ["RskpHead", "assign", "normalize_over_time", "random_walk", "summarize"]

SHARPNESS = 20.0  # of the cosines in the head
AGNOSTIC, CLASSWISE, ATTENTION = 1.0, 0.2, 0.1  # weights of the losses


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(n, m): cosines of the rows of two matrices."""
    return functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).T


def assign(features: Tensor, means: Tensor, *, sharpness: float = 5.0) -> Tensor:
    """(T, n): how much every snippet belongs to every mean; rows sum to 1 (the E step, Eq. 2)."""
    return torch.softmax(sharpness * cosine(features, means), dim=-1)


def normalize_over_time(assignment: Tensor) -> Tensor:
    """Norm1 of the paper: columns divided by their sum (+ 1e-9, for those that nobody belongs to)."""
    return assignment / (assignment.sum(dim=0, keepdim=True) + 1e-9)


def summarize(features: Tensor, means: Tensor, *, iterations: int = 2, sharpness: float = 5.0) -> Tensor:
    """Representative snippets (n, D): the means after some EM iterations (Eq. 2 and 3)."""
    for _ in range(iterations):
        means = normalize_over_time(assign(features, means, sharpness=sharpness)).T @ features
    return means


def random_walk(features: Tensor, means: Tensor, assignment: Tensor, *, weight: float = 0.5) -> Tensor:
    r"""What the features become when knowledge of the means goes to and fro for ever (Eq. 6).

    With :math:`Z` the assignment, :math:`N = \mathrm{Norm}_1(Z)`, :math:`w` the weight, :math:`B = w Z \mu + F`,

    .. math:: F^* = (1 - w) (I - w^2 Z N^\top)^{-1} B = (1 - w) (B + w^2 Z (I - w^2 N^\top Z)^{-1} N^\top B) .

    The first form inverts a T x T matrix, the second (Woodbury) solves one of n x n: O(T n D) time and O(T D) memory.
    :math:`N^\top Z` has rows that sum to 1, so the system is well conditioned whatever the assignment.

    Parameters
    ----------
    features : (T, D) tensor
        F, or anything else that stands for snippets, scores for example.
    means : (n, D) tensor
        The same of the representative snippets.
    assignment : (T, n) tensor
        Rows sum to 1.
    weight : float
        w in [0, 1); 0 leaves the features as they are.
    """
    backward = normalize_over_time(assignment).T
    start = weight * assignment @ means + features
    system = torch.eye(len(means), dtype=features.dtype, device=features.device) - weight**2 * backward @ assignment
    return (1 - weight) * (start + weight**2 * assignment @ torch.linalg.solve(system, backward @ start))


class RskpHead(Backbone):
    """One linear embedding; cosines with centres of C + 1 classes and of the foreground.

    The video is classified twice: by its features averaged with the attention (class-agnostic, no background in the
    labels) and by one feature per class averaged with that class's activation (class-wise, background in the labels).
    """

    terms = ("agnostic", "classwise", "attention")
    extra_terms = ("attention",)
    betas = (0.9, 0.99)

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        linear = nn.Linear(num_features, width)
        self.embedding = nn.Sequential(linear, nn.ReLU(), nn.Dropout(0.6))
        self.centres = nn.Parameter(torch.empty(num_classes + 1, width))
        for weight in (linear.weight, self.centres):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(linear.bias)
        self.foreground = nn.Parameter(-self.centres[-1:].detach().clone())
        self.pipeline = replace(presets.get("rskp"), num_classes=num_classes)

    def embed(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.embedding(features)
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """(..., C + 1) logits of snippets, or of anything else in their space."""
        return SHARPNESS * cosine(embedding, self.centres)

    def head(self, embedding: Tensor) -> Output:
        logits = self.classify(embedding)
        attention = torch.sigmoid(SHARPNESS * cosine(embedding, self.foreground))[:, 0]
        agnostic = self.classify((attention[:, None] * embedding).sum(dim=0) / (attention.sum() + 1e-5))
        by_class = torch.sigmoid(logits)
        of_class = (by_class / (by_class.sum(dim=0) + 1e-5)).T @ embedding
        classwise = SHARPNESS * functional.cosine_similarity(of_class, self.centres)
        return Output(
            embedding,
            attention,
            logits,
            torch.softmax(agnostic, -1),
            {"agnostic": agnostic, "classwise": classwise},
        )

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        without, with_it = (with_background(labels, value) for value in (0.0, 1.0))
        return {
            "agnostic": AGNOSTIC * normalized_cross_entropy(output.extra["agnostic"], without),
            "classwise": CLASSWISE * normalized_cross_entropy(output.extra["classwise"], with_it),
            "attention": ATTENTION * attention_normalization_loss(output.attention),
        }

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"cas": torch.softmax(output.logits, -1) * output.attention[:, None]}, {"video": output.scores}
