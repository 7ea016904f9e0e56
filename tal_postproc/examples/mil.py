"""The plain baseline: multiple-instance learning on video-level labels, nothing else.

One hidden layer, one logit per snippet and class, the mean of the highest eighth of every class's logits, cross-entropy
with the video's labels.  Its mAP is what the difficulty of the synthetic data was set by (`data.Difficulty`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import Bank, Classes, Margin, Nms, Pipeline, Score, Signal
from ..torch.losses import normalized_cross_entropy, top_mean
from ..types import Video
from .data import FeatureSet
from .engine import Profile, Recipe

__all__ = ["Mil"]


class Mil(Recipe):
    """See the module; the pipeline is the plainest there is."""

    name = "mil"
    profiles: ClassVar = {
        "smoke": Profile(num_train=16, num_test=8, num_classes=4, num_rgb=16, num_flow=16, width=32, epochs=4),
        "default": Profile(),
        "paper": Profile(width=2048, epochs=100, learning_rate=1e-4),
    }
    terms = ("classification",)
    pipeline = Pipeline(
        banks=(
            Bank(
                thresholds=tuple(k / 20 for k in range(2, 19)),
                signal=Signal(normalize="minmax"),
                score=Score(margin=Margin(scale=0.25), video_weight=0.2),
            ),
        ),
        classes=Classes(threshold=0.1, fallback="argmax"),
        stages=(Nms(threshold=0.5),),
    )

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        super().__init__(data, profile, seed, device)
        self.networks = nn.Sequential(
            nn.Linear(data.features(0).shape[1], profile.width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(profile.width, data.num_classes),
        )
        self.optimizer = torch.optim.Adam(self.networks.parameters(), profile.learning_rate, weight_decay=5e-4)

    def losses(self, epoch: int, index: int) -> dict[str, Tensor]:
        logits = self.networks(self.features(self.data, index))
        return {"classification": normalized_cross_entropy(top_mean(logits), self.labels[index])}

    def predict(self, data: FeatureSet, index: int) -> Video:
        logits = self.networks(self.features(data, index))
        return Video(
            data.ids[index],
            {"cas": logits.double().cpu().numpy()},
            {"video": torch.softmax(top_mean(logits), -1).double().cpu().numpy()},
            seconds_per_snippet=data.seconds_per_snippet(index, len(logits)),
        )


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("mil"))
