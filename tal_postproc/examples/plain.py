"""A backbone on its own losses: what every method that is plugged into it is compared with.

docs/tutorials/backbones.md explains the backbones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Video
from . import backbones
from .backbones import Output
from .data import FeatureSet
from .engine import Profile, Recipe

__all__ = ["Maps", "Plain"]

Maps = dict[str, Tensor]


class Plain(Recipe):
    """Option: `backbone`, one of `backbones.NAMES`.  Batch, optimiser and sampling are those of the backbone."""

    name = "plain"
    profiles: ClassVar = {
        "smoke": Profile(
            num_train=12,
            num_test=6,
            num_classes=3,
            num_rgb=16,
            num_flow=16,
            width=32,
            epochs=4,
            options={"backbone": "stpn"},
        ),
        "default": Profile(options={"backbone": "stpn"}, epochs=60, learning_rate=2e-3),
        "paper": Profile(options={"backbone": "stpn"}, width=2048, epochs=720, learning_rate=1e-4),
    }
    terms: ClassVar[tuple[str, ...]] = ("classification", "extra")

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        super().__init__(data, profile, seed, device)
        kind = backbones.get(profile.options["backbone"])
        self.backbone = kind(data.features(0).shape[1], profile.width, data.num_classes)
        self.batch_size, self.reduction = kind.batch_size, kind.reduction
        self.pipeline = self.backbone.pipeline
        self.networks = nn.Module()
        self.networks.backbone = self.backbone
        self.prepare()
        self.networks.to(device)
        groups = self.backbone.parameter_groups(profile.learning_rate)
        own = {id(parameter) for group in groups for parameter in group["params"]}
        groups.append({"params": [one for one in self.networks.parameters() if id(one) not in own]})
        self.optimizer = torch.optim.Adam(
            groups, profile.learning_rate, betas=kind.betas, weight_decay=kind.weight_decay
        )

    def prepare(self) -> None:
        """Networks besides the backbone, for a method that needs them."""

    def snippets(self, data: FeatureSet, index: int, epoch: int | None = None) -> Tensor:
        """What the backbone sees of a video, (n, D): all snippets, or its number of them, random ones in an epoch."""
        if self.backbone.length is None:
            return self.features(data, index)
        rng = None if epoch is None else self.generator(epoch, index)
        return torch.from_numpy(data.sample(index, self.backbone.length, rng)).to(self.device)

    def of_backbone(self, output: Output, labels: Tensor) -> Maps:
        """The backbone's own losses: the sum of those that classify, and the sum of the others."""
        found = self.backbone.losses(output, labels)
        total = {"classification": output.logits.new_zeros(()), "extra": output.logits.new_zeros(())}
        for term, value in found.items():
            kind = "extra" if term in self.backbone.extra_terms else "classification"
            total[kind] = total[kind] + value
        return total

    def losses(self, epoch: int, index: int) -> Maps:
        output = self.backbone(self.snippets(self.data, index, epoch))
        return self.of_backbone(output, self.labels[index])

    def predicted(self, output: Output) -> tuple[Maps, Maps]:
        """Maps and video scores that are tested."""
        return self.backbone.maps(output)

    def predict(self, data: FeatureSet, index: int) -> Video:
        features = self.snippets(data, index)
        maps, scores = self.predicted(self.backbone(features))
        original = len(data.features(index))
        return Video(
            data.ids[index],
            {name: value.double().cpu().numpy() for name, value in maps.items()},
            {name: value.double().cpu().numpy() for name, value in scores.items()},
            seconds_per_snippet=data.seconds_per_snippet(index, original) * original / len(features),
        )


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("plain"))
