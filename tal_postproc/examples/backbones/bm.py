"""BM, background modelling (ICCV 2019): attention splits a video into foreground and background, both are classified.

There is no public code: the formulas are those of DGAM's code, which builds on it, and of the paper's idea;
docs/tutorials/backbones.md lists the choices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import Bank, Classes, Margin, Nms, Pipeline, Score, Signal
from ...torch.losses import normalized_cross_entropy, with_background
from . import Backbone, Output
from .stpn import attention_of

__all__ = ["Bm", "smooth"]

BACKGROUND, GUIDE, CLUSTER = 0.1, 0.1, 0.1  # weights of the losses
PUBLISHED_FEATURES = 2048
RADIUS = 4  # snippets, of the Gaussian with standard deviation 1


def smooth(values: Tensor) -> Tensor:
    """(T, K): every column smoothed in time by a Gaussian of standard deviation 1; the ends repeat."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=values.dtype, device=values.device)
    kernel = torch.softmax(-(offsets**2) / 2, 0)
    padded = functional.pad(values.T[:, None], (RADIUS, RADIUS), mode="replicate")
    return functional.conv1d(padded, kernel[None, None])[:, 0].T


def weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """(D,): the mean over time, with weights (T,) that may all be 0."""
    return weights @ features / (weights.sum() + 1e-8)


class Bm(Backbone):
    """Foreground and background feature, one classifier for both with a column for the background.

    The attention is guided by what the classifier says of every snippet, smoothed in time; two learned vectors pull
    the two features apart.  The features are taken as they come: no embedding.
    """

    terms = ("foreground", "background", "guide", "cluster")
    extra_terms = ("guide", "cluster")
    length = 400
    batch_size = 16
    reduction = "mean"

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = num_features
        self.attention = attention_of(num_features)
        self.classifier = nn.Linear(num_features, num_classes + 1)
        self.clusters = nn.Parameter(torch.empty(2, num_features))  # u_f, u_b
        nn.init.xavier_uniform_(self.clusters)
        self.pipeline = Pipeline(
            banks=(
                Bank(
                    thresholds=tuple(k / 40 for k in range(10)),
                    signal=Signal(mix=(("attention*cas", 1.0),), normalize="minmax"),
                    score=Score(margin=Margin(scale=0.25)),
                ),
            ),
            classes=Classes(threshold=0.1),
            stages=(Nms(threshold=0.5),),
            background="last",
            num_classes=num_classes,
            tiou_thresholds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        )

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """Adam moves every weight by the rate, what a layer gives by that times the sum of what it reads.

        So layers that read features learn faster where these are fewer than the published 2,048.
        """
        of_hidden = list(self.attention[2].parameters())
        kept = {id(parameter) for parameter in of_hidden}
        of_features = [parameter for parameter in self.parameters() if id(parameter) not in kept]
        return [
            {"params": of_features, "lr": rate * PUBLISHED_FEATURES / self.width},
            {"params": of_hidden, "lr": rate},
        ]

    def embed(self, features: Tensor) -> Tensor:
        return features

    def head(self, embedding: Tensor) -> Output:
        attention = self.attention(embedding)[:, 0]
        foreground = weighted_mean(embedding, attention)
        background = weighted_mean(embedding, 1 - attention)
        of_foreground = self.classifier(foreground)
        towards = self.clusters[0] - self.clusters[1]
        return Output(
            embedding,
            attention,
            embedding @ self.classifier.weight.T,
            torch.softmax(of_foreground, -1),
            {
                "foreground": of_foreground,
                "background": self.classifier(background),
                "apart": torch.stack([towards @ foreground, -towards @ background]),
            },
        )

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        attention = output.attention
        smoothed = smooth(torch.softmax(output.logits.detach(), -1))
        action = (smoothed[:, :-1] * labels).amax(-1)
        guide = (attention - action).abs() + (attention - (1 - smoothed[:, -1])).abs()
        background_only = with_background(torch.zeros_like(labels), 1.0)
        return {
            "foreground": normalized_cross_entropy(output.extra["foreground"], with_background(labels, 0.0)),
            "background": BACKGROUND * normalized_cross_entropy(output.extra["background"], background_only),
            "guide": GUIDE * guide.mean(),
            "cluster": CLUSTER * -functional.logsigmoid(output.extra["apart"]).sum(),
        }

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"cas": torch.softmax(output.logits, -1), "attention": output.attention}, {"video": output.scores}
