"""BaS-Net (AAAI 2020): a base branch that knows background in every video, and one from which it is filtered out.

Layers of the released code, losses of Eq. 1 of the ILG paper; docs/tutorials/ilg_ptlr.md lists the choices.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ... import presets
from ...torch.losses import basnet_loss, top_mean
from . import Backbone, Output

__all__ = ["Basnet"]

NORM_WEIGHT = 1e-4
TIOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # those of most papers; the code goes on to 0.9


class Basnet(Backbone):
    """Three temporal convolutions, shared by the features (base) and the features times their weights (suppression).

    The weights are the attention, the suppression branch has the logits and the video scores.  The filter and the
    convolutions read the features themselves, so these are the embedding.
    """

    terms = ("base", "suppression", "norm")
    extra_terms = ("norm",)
    length = 750
    batch_size = 16
    reduction = "mean"

    def __init__(self, num_features: int, width: int, num_classes: int, *, norm_weight: float = NORM_WEIGHT) -> None:
        super().__init__()
        self.norm_weight = norm_weight  # of the L1 norm of the weights
        self.width = num_features
        hidden = max(1, width // 4)
        self.filter = nn.Sequential(nn.Linear(num_features, hidden), nn.LeakyReLU(), nn.Linear(hidden, 1), nn.Sigmoid())
        self.convolutions = nn.Sequential(
            nn.Conv1d(num_features, width, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.LeakyReLU(),
            nn.Dropout(0.7),
        )
        self.classifier = nn.Linear(width, num_classes + 1, bias=False)
        self.pipeline = replace(presets.get("basnet"), num_classes=num_classes, tiou_thresholds=TIOU_THRESHOLDS)

    def embed(self, features: Tensor) -> Tensor:
        return features

    def classify(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, C + 1) logits, the class activation sequences before the softmax."""
        logits: Tensor = self.classifier(self.convolutions(features.transpose(1, 2)).transpose(1, 2))
        return logits

    def suppressed(self, features: Tensor) -> Tensor:
        """(T, C + 1) logits of the suppression branch alone."""
        return self.classify((self.filter(features) * features)[None])[0]

    def head(self, embedding: Tensor) -> Output:
        weights = self.filter(embedding)
        base, logits = self.classify(torch.stack([embedding, weights * embedding]))
        return Output(embedding, weights[:, 0], logits, torch.softmax(top_mean(logits), -1), {"base": base})

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        found = basnet_loss(
            output.extra["base"][None], output.logits[None], output.attention[None], labels[None].float()
        )
        return {"base": found.base, "suppression": found.suppressed, "norm": self.norm_weight * found.norm}

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"cas": output.logits}, {"video": output.scores}
