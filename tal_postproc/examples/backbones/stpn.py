"""STPN with an embedding (CVPR 2018): sparse attention, one weighted mean, one linear classifier.

Formulas of a public reproduction, the embedding of RSKP's network, one model on both modalities;
docs/tutorials/backbones.md lists the choices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import Bank, Classes, Pipeline, Score, Signal
from . import Backbone, Output

__all__ = ["Stpn", "attention_of"]

SPARSITY = 1e-4
HIDDEN = 256  # of the attention


def attention_of(width: int) -> nn.Sequential:
    """Two layers, (T, width) -> (T, 1) in [0, 1]."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Sigmoid())


class Stpn(Backbone):
    """Attention a; the video is its mean over time, weighted with a; its classifier, applied to snippets, is the TCAM.

    There is no background: its column of the logits is 0.
    """

    terms = ("classification", "sparsity")
    extra_terms = ("sparsity",)
    length = 400
    batch_size = 6
    reduction = "mean"
    weight_decay = 0.0
    pipeline = Pipeline(
        banks=(
            Bank(
                thresholds=(0.05,),
                signal=Signal(mix=(("attention*cas", 1.0),)),
                upsample=24,
                inclusive=True,
                score=Score(margin=None, signal=Signal(mix=(("attention*logits", 1.0),))),
            ),
        ),
        classes=Classes(threshold=0.1, inclusive=False),
        tiou_thresholds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        provenance="one stream of bellos1203/STPN, of whose runs no two of a class overlap: nothing to suppress",
    )

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        linear = nn.Linear(num_features, width)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.embedding = nn.Sequential(linear, nn.ReLU(), nn.Dropout(0.6))
        self.attention = attention_of(width)
        self.classifier = nn.Linear(width, num_classes)

    def embed(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.embedding(features)
        return embedding

    def head(self, embedding: Tensor) -> Output:
        attention = self.attention(embedding)[:, 0]
        video = self.classifier((attention[:, None] * embedding).mean(dim=0))
        return Output(
            embedding,
            attention,
            functional.pad(embedding @ self.classifier.weight.T, (0, 1)),  # no bias: the class activation map
            functional.pad(torch.sigmoid(video), (0, 1)),
            {"video": video},
        )

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        video = output.extra["video"]
        return {
            "classification": functional.binary_cross_entropy_with_logits(video, labels.to(video.dtype)),
            "sparsity": SPARSITY * output.attention.sum(),
        }

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logits = output.logits[:, :-1]
        maps = {"cas": torch.sigmoid(logits), "logits": logits, "attention": output.attention}
        return maps, {"video": output.scores[:-1]}
