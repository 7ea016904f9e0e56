"""FAC-Net (ICCV 2021): class-wise foreground, class-agnostic attention and multiple-instance branch, hybrid attention.

Formulas of the released code, one model on both modalities; docs/tutorials/backbones.md lists the choices.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ... import presets
from ...torch.losses import normalized_cross_entropy, with_background
from . import Backbone, Output
from .rskp import cosine

__all__ = ["FacNet"]

SHARPNESS = 5.0  # of the cosines of snippets
VIDEO = 2.0  # times that of the video's
TEMPERATURES = (1.0, 2.0, 5.0)  # of the attentions over time whose scores are averaged
CLASSWISE, AGNOSTIC, INSTANCE = 1.0, 0.1, 0.1  # weights of the losses


class FacNet(Backbone):
    """Two linear layers; cosines with centres of C + 1 classes and of the foreground; three ways to a video's score.

    Class-wise: is the feature of a class like the foreground?  Class-agnostic: which class is the feature of the
    foreground like?  Multiple instances: the mean of a class's own scores.
    """

    terms = ("classwise", "agnostic", "instance")
    betas = (0.9, 0.99)
    weight_decay = 5e-3

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        first, second = nn.Linear(num_features, width), nn.Linear(width, width)
        self.centres = nn.Parameter(torch.empty(num_classes + 1, width))
        for weight in (first.weight, second.weight, self.centres):
            nn.init.xavier_uniform_(weight)
        for bias in (first.bias, second.bias):
            nn.init.zeros_(bias)
        self.embedding = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.5), second, nn.ReLU(), nn.Dropout(0.5))
        self.foreground = nn.Parameter(-self.centres[-1:].detach().clone())
        self.pipeline = replace(presets.get("facnet_thumos"), num_classes=num_classes)

    def embed(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.embedding(features)
        return embedding

    def head(self, embedding: Tensor) -> Output:
        logits = SHARPNESS * cosine(embedding, self.centres)
        foreground = SHARPNESS * cosine(embedding, self.foreground)
        classwise, agnostic, instance = [], [], []
        for temperature in TEMPERATURES:
            by_class = torch.softmax(temperature * logits, dim=0)
            overall = torch.softmax(temperature * foreground, dim=0)
            classwise.append(SHARPNESS * cosine(by_class.T @ embedding, self.foreground)[:, 0])
            agnostic.append(SHARPNESS * cosine(overall.T @ embedding, self.centres)[0])
            instance.append((by_class * logits).sum(dim=0))
        found = {
            name: VIDEO * torch.stack(values).mean(dim=0)
            for name, values in (("classwise", classwise), ("agnostic", agnostic), ("instance", instance))
        }
        return Output(embedding, torch.sigmoid(foreground[:, 0]), logits, torch.softmax(found["agnostic"], -1), found)

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        without, with_it = (with_background(labels, value) for value in (0.0, 1.0))
        return {
            "classwise": CLASSWISE * normalized_cross_entropy(output.extra["classwise"], without),
            "agnostic": AGNOSTIC * normalized_cross_entropy(output.extra["agnostic"], without),
            "instance": INSTANCE * normalized_cross_entropy(output.extra["instance"], with_it),
        }

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"cas": torch.softmax(output.logits, -1)}, {"video": output.scores}
