"""RSKP (CVPR 2022): representative snippets summarise videos, propagate, and teach; docs/tutorials/rskp.md explains it.

The paper's own network is `backbones.rskp.RskpHead`; any other backbone can take its place (the paper's Table 6).
Then sampling, batch, optimiser and testing are those of the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .backbones import Output
from .backbones.rskp import assign, random_walk, summarize
from .engine import Profile, Say, require_choices
from .plain import Maps, Plain

__all__ = ["Memory", "Rskp"]

SLOTS = 5
WALK = 0.5  # w of Eq. 4 to 6
PSEUDO_TEMPERATURE = 0.2
OLD, NEW = 0.2, 0.8  # parts of the inter-video and the intra-video logits in the pseudo labels
MAP_PARTS = SCORE_PARTS = 0.6, 0.4  # of the plain and the propagated branch, in a test
OPTIONS = {
    "backbone": "rskp",
    "representatives": "em",
    "propagation": "walk",
    "pseudo_labels": True,
    "memory": True,
    "num_means": 8,
}


class Memory(nn.Module):
    """The best representative snippets of every class over all videos (Sec. 3.2).

    Parameters
    ----------
    num_classes, width : int
        Sizes.
    slots : int
        Snippets per class.
    """

    features: Tensor
    scores: Tensor

    def __init__(self, num_classes: int, width: int, slots: int = SLOTS) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(num_classes, slots, width))
        self.register_buffer("scores", torch.full((num_classes, slots), -1.0))  # nothing there yet

    def read(self, classes: Tensor) -> Tensor:
        """(n, width): what there is of some classes, one after the other."""
        chosen: Tensor = self.features[classes][self.scores[classes] >= 0]
        return chosen

    def offer(self, classes: Tensor, means: Tensor, scores: Tensor) -> None:
        """Means (n, width) with scores (n, C): the best stay, in every one of some classes; old ones win ties."""
        for label in classes.tolist():
            values = torch.cat([self.scores[label], scores[:, label]])
            best = torch.sort(values, descending=True, stable=True).indices[: self.scores.shape[1]]
            self.features[label] = torch.cat([self.features[label], means])[best]
            self.scores[label] = values[best]


class Rskp(Plain):
    """Options: `backbone`, one of `backbones.NAMES`; `representatives` "em", "features" (the snippets themselves) or
    "none" (one branch); `propagation` "walk" (Eq. 6), "once" (Z mu), "scores" (the logits walk, not the features) or
    "unclassified" (no classification loss on what was propagated); `pseudo_labels`; `memory`; `num_means`.
    """

    name = "rskp"
    profiles: ClassVar = {
        "smoke": Profile(
            num_train=12, num_test=6, num_classes=3, num_rgb=16, num_flow=16, width=32, epochs=4, options=OPTIONS
        ),
        "default": Profile(options=OPTIONS, epochs=60, learning_rate=2e-3),
        "paper": Profile(options=OPTIONS, width=2048, epochs=200, learning_rate=5e-5),
    }
    terms: ClassVar[tuple[str, ...]] = ("classification", "extra", "pseudo")
    memory_from: ClassVar[float] = 0.5  # of the training: epoch 100 of 200
    map_parts: tuple[float, float] = MAP_PARTS

    def prepare(self) -> None:
        self.options = _checked(self.profile.options)
        means = torch.empty(int(self.options["num_means"]), self.backbone.width)
        nn.init.xavier_uniform_(means)
        self.means = nn.Parameter(means)
        self.memory = Memory(self.data.num_classes, self.backbone.width)
        self.networks.memory, self.networks.means = self.memory, self.means

    def before_epoch(self, epoch: int, say: Say) -> None:
        if self.uses_memory(epoch) and bool((self.memory.scores < 0).all()):
            self.fill_memory()
            say(f"memory filled before epoch {epoch + 1}")

    def uses_memory(self, epoch: int) -> bool:
        """Whether representative snippets of other videos take part in this epoch."""
        return bool(self.options["memory"]) and self.two_branches and self.reached(epoch, self.memory_from)

    def reached(self, epoch: int, fraction: float) -> bool:
        """Whether this epoch begins at or after a fraction of the training, rounded to an epoch, halves up."""
        return epoch >= math.floor(fraction * self.profile.epochs + 0.5 + 1e-9)

    @property
    def two_branches(self) -> bool:
        """Whether anything is propagated at all."""
        return bool(self.options["representatives"] != "none")

    def fill_memory(self) -> None:
        """Offer the representative snippets of the whole training set, in evaluation mode."""
        self.networks.eval()
        with torch.no_grad():
            for index in range(len(self.data)):
                embedding = self.backbone.embed(self.snippets(self.data, index))
                self._offer(self.labels[index], self._representatives(embedding))

    def _representatives(self, embedding: Tensor) -> Tensor:
        return embedding if self.options["representatives"] == "features" else summarize(embedding, self.means)

    def _offer(self, labels: Tensor, means: Tensor) -> None:
        with torch.no_grad():
            scores = torch.softmax(self.backbone.head(means).logits, -1)[:, :-1]
            self.memory.offer(self.slots_of(labels), means, scores)

    def slots_of(self, labels: Tensor) -> Tensor:
        """The classes whose slots a video reads and may fill."""
        return labels.nonzero()[:, 0]

    def pseudo_weight(self, epoch: int) -> float:
        """Of the pseudo labels that the propagated branches give."""
        return 0.5 if self.uses_memory(epoch) else 1.0

    def more_losses(self, epoch: int, index: int, logits: Sequence[Tensor]) -> Maps:
        """What a method on top of this one adds; it gets the logits (n, C + 1) of S and, with two branches, S^a."""
        return {}

    def propagated(self, output: Output, means: Tensor) -> Output:
        """The other branch: the head behind features, or logits, to which the means have spread."""
        assignment = assign(output.embedding, means)
        how = self.options["propagation"]
        if how == "scores":
            of_means = self.backbone.head(means).logits
            return replace(output, logits=random_walk(output.logits, of_means, assignment, weight=WALK))
        if how == "once":
            return self.backbone.head(assignment @ means)
        return self.backbone.head(random_walk(output.embedding, means, assignment, weight=WALK))

    def losses(self, epoch: int, index: int) -> Maps:
        labels = self.labels[index]
        output = self.backbone(self.snippets(self.data, index, epoch))
        total = self.of_backbone(output, labels)
        if not self.two_branches:
            return {**total, **self.more_losses(epoch, index, [output.logits])}
        means = self._representatives(output.embedding)
        intra = self.propagated(output, means)
        branches = {1.0: intra}
        labelled = intra.logits
        if self.uses_memory(epoch):
            slots = self.memory.read(self.slots_of(labels))
            inter = self.propagated(output, slots)
            branches[0.5] = inter
            labelled = OLD * inter.logits + NEW * intra.logits
            self._offer(labels, means)
        if self.options["propagation"] not in ("scores", "unclassified"):
            for part, branch in branches.items():
                of_branch = self.of_backbone(branch, labels)["classification"]
                total["classification"] = total["classification"] + part * of_branch
        if self.options["pseudo_labels"]:
            target = torch.softmax(labelled.detach() / PSEUDO_TEMPERATURE, -1)
            wrong = -(target * torch.log_softmax(output.logits / PSEUDO_TEMPERATURE, -1)).sum(-1)
            total["pseudo"] = self.pseudo_weight(epoch) * wrong.mean()
        return {**total, **self.more_losses(epoch, index, [output.logits, intra.logits])}

    def predicted(self, output: Output) -> tuple[Maps, Maps]:
        of_plain = self.backbone.maps(output)
        if not self.two_branches:
            return of_plain
        other = self.propagated(output, self._representatives(output.embedding))
        of_other = self.backbone.maps(replace(other, attention=output.attention))
        maps, scores = (
            {name: plain * value + spread * two[name] for name, value in one.items()}
            for one, two, (plain, spread) in zip(of_plain, of_other, (self.map_parts, SCORE_PARTS))
        )
        return maps, scores


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    require_choices(
        options,
        {
            "representatives": ("em", "features", "none"),
            "propagation": ("walk", "once", "scores", "unclassified"),
        },
    )
    return options


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("rskp"))
