"""The two-stream network with the semantic-aware mechanism (CVPR 2023); docs/tutorials/two_stream.md explains it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..types import Video
from .backbones.two_stream import BRANCHES, GUIDES, TwoStream
from .data import FeatureSet
from .engine import Profile, Recipe, require_choices

__all__ = ["TwoStreamRecipe"]

WARM = 0.1  # of the training: the semantic loss grows up to its weight
OPTIONS = {
    "length": 400,
    "batch_size": 16,
    "branches": "both",
    "context": True,
    "background": True,
    "guide": "hamnet",
    "guide_reduction": "mean",
    "semantic": True,
    "dictionary": "means",
    "normalized_labels": False,
    "preset": "two_stream_thumos",
}
CHOICES = {
    "branches": BRANCHES,
    "guide": GUIDES,
    "guide_reduction": ("mean", "sum"),
    "dictionary": ("means", "uniform"),
    "preset": ("two_stream_thumos", "two_stream_anet13"),
}


class TwoStreamRecipe(Recipe):
    """Options: `length` T, the snippets that are sampled from a video in training; `batch_size`; `dictionary`, what
    it starts as, "means" of the classes or "uniform" in [0, 1]; the others are those of
    `backbones.two_stream.TwoStream`.
    """

    name = "two_stream"
    profiles: ClassVar = {
        "smoke": Profile(
            num_train=12,
            num_test=6,
            num_classes=3,
            num_rgb=16,
            num_flow=16,
            width=32,
            epochs=4,
            options={**OPTIONS, "length": 60},
        ),
        "default": Profile(options=OPTIONS, learning_rate=4e-3),
        "paper": Profile(options={**OPTIONS, "length": 750}, width=2048, epochs=100, learning_rate=1e-4),
    }
    terms = TwoStream.terms
    reduction = "mean"
    networks: TwoStream

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        super().__init__(data, profile, seed, device)
        options = dict(profile.options)
        require_choices(options, CHOICES)
        self.length, start = int(options.pop("length")), options.pop("dictionary")
        self.batch_size = int(options.pop("batch_size"))
        self.networks = TwoStream(data.features(0).shape[1], profile.width, data.num_classes, **options)
        if start == "means":
            self.networks.dictionary.data.copy_(class_means(data))
        others = [parameter for name, parameter in self.networks.named_parameters() if name != "dictionary"]
        groups: list[dict[str, Any]] = [
            {"params": others},
            {"params": [self.networks.dictionary], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.Adam(groups, profile.learning_rate, weight_decay=5e-4)
        self.pipeline = self.networks.pipeline

    def losses(self, epoch: int, index: int) -> dict[str, Tensor]:
        features = self.data.sample(index, self.length, self.generator(epoch, index))
        found = self.networks.losses(self.networks(torch.from_numpy(features).to(self.device)), self.labels[index])
        if "semantic" in found:
            found["semantic"] = min(self.passed(epoch) / WARM, 1.0) * found["semantic"]
        return found

    def predict(self, data: FeatureSet, index: int) -> Video:
        features = self.features(data, index)
        maps, scores = self.networks.maps(self.networks(features))
        return Video(
            data.ids[index],
            {name: value.double().cpu().numpy() for name, value in maps.items()},
            {name: value.double().cpu().numpy() for name, value in scores.items()},
            seconds_per_snippet=data.seconds_per_snippet(index, len(features)),
        )


def class_means(data: FeatureSet) -> Tensor:
    """(C + 1, D): the mean snippet of the videos that show a class; row 0, background, is that of all videos."""
    totals = np.zeros((data.num_classes + 1, data.features(0).shape[1]))
    counts = np.zeros((data.num_classes + 1, 1))
    for index in range(len(data)):
        features = data.features(index)
        shown = np.concatenate([[True], data.labels[index]])[:, None]
        totals += shown * features.sum(axis=0, dtype=np.float64)
        counts += shown * len(features)
    return torch.from_numpy((totals / np.maximum(counts, 1)).astype(np.float32))


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("two_stream"))
