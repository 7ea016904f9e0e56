"""PTLR's two networks, which classify snippets: at the original temporal scale (OTS) and at reduced ones (RTS).

Sec. III-D of the paper; docs/tutorials/ilg_ptlr.md lists the choices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["UNUSED", "FrameNetwork", "NetworkOts", "NetworkRts"]

UNUSED = -1  # the label of a snippet that is not selected
NUM_BRANCHES = 3
DROPOUT = 0.5


class FrameNetwork(nn.Module, ABC):
    """Features (T, D) -> (T, C + 1) probabilities, the CAS; background is the last column."""

    steps: ClassVar[tuple[int, ...]]  # of the branches, in snippets

    @abstractmethod
    def branches(self, features: Tensor) -> list[Tensor]:
        """(ceil(T / step), C + 1) logits of every branch; row t is about snippet t * step."""

    def forward(self, features: Tensor) -> Tensor:
        """What the branches say, copied up (snippet t reads floor(t / step)) and averaged."""
        found = [
            torch.softmax(logits, -1).repeat_interleave(step, dim=0)[: len(features)]
            for logits, step in zip(self.branches(features), self.steps)
        ]
        return torch.stack(found).mean(dim=0)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Eq. 6 and 7: cross-entropy with the labels (T,) of selected snippets, their mean, the mean over branches.

        A branch without any selected snippet adds 0.
        """
        found = []
        for logits, step in zip(self.branches(features), self.steps):
            chosen = labels[::step]
            total = functional.cross_entropy(logits.float(), chosen, ignore_index=UNUSED, reduction="sum")
            found.append(total / (chosen != UNUSED).sum().clamp(min=1))
        return torch.stack(found).mean()


def _convolution(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(num_in, num_out, 3, stride=stride, padding=1), nn.ReLU())


def _classifier(width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(DROPOUT), nn.Conv1d(width, num_classes + 1, 1))


class NetworkOts(FrameNetwork):
    """Two convolutions over 3 snippets and a classifier of each (Fig. 2b)."""

    steps = (1,)

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(num_features, width), _convolution(width, width), _classifier(width, num_classes)
        )

    def branches(self, features: Tensor) -> list[Tensor]:
        return [self.layers(features.T[None])[0].T]


class NetworkRts(FrameNetwork):
    """One convolution, then branch m = 1, 2, 3 of m convolutions that halve the length, and a classifier (Fig. 2c)."""

    steps = tuple(2**m for m in range(1, NUM_BRANCHES + 1))

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.shared = _convolution(num_features, width)
        self.reduced = nn.ModuleList(
            nn.Sequential(*(_convolution(width, width, stride=2) for _ in range(m)), _classifier(width, num_classes))
            for m in range(1, NUM_BRANCHES + 1)
        )

    def branches(self, features: Tensor) -> list[Tensor]:
        shared = self.shared(features.T[None])
        return [branch(shared)[0].T for branch in self.reduced]
