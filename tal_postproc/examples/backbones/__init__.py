"""Networks that turn the snippet features of one video into attention, logits and video scores; a file for each.

All of them have the shape of `Backbone`, so that a method which needs only that (RSKP's propagation, GauFuse's labels)
can be put on any of them.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn

from ...config import Pipeline

__all__ = ["NAMES", "Backbone", "Output", "get"]

NAMES = {  # module -> its class
    "rskp": "RskpHead",
    "stpn": "Stpn",
    "bm": "Bm",
    "wum": "Wum",
    "facnet": "FacNet",
    "basnet": "Basnet",
}


def get(name: Any) -> type[Backbone]:
    """The class of a backbone that methods can be plugged into.

    >>> get("stpn").terms
    ('classification', 'sparsity')
    """
    if name not in NAMES:
        raise ValueError(f"option `backbone` must be one of {', '.join(NAMES)}, got {name!r}")
    return cast("type[Backbone]", getattr(importlib.import_module(f".{name}", __package__), NAMES[name]))


@dataclass(frozen=True)
class Output:
    """What a backbone says about one video of T snippets and C classes; background is the last column.

    Parameters
    ----------
    embedding : (T, D) tensor
        Features of the head.
    attention : (T,) tensor
        In [0, 1].
    logits : (T, C + 1) tensor
        Where the network has no background, its column is 0.
    scores : (C + 1,) tensor
        Of the video, in [0, 1].
    extra : mapping of str to tensor
        What else the losses or the maps of this backbone need.
    """

    embedding: Tensor
    attention: Tensor
    logits: Tensor
    scores: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)


class Backbone(nn.Module, ABC):
    """Features (T, D) of one video -> `Output`; ``get(name)(num_features, width, num_classes)`` makes one.

    `embed` and `head` are apart, so that features that were changed in between can share the head.  How the published
    code trains it (what it samples, the batch, the optimiser) stands with it.
    """

    terms: ClassVar[tuple[str, ...]]  # names of its losses
    extra_terms: ClassVar[tuple[str, ...]] = ()  # those that are not classification: a method applies them once
    length: ClassVar[int | None] = None  # snippets that are sampled from a video; None: it takes them all
    batch_size: ClassVar[int] = 10
    reduction: ClassVar[Literal["sum", "mean"]] = "sum"  # of the gradients of a batch
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    weight_decay: ClassVar[float] = 5e-4
    width: int  # of the embedding
    pipeline: Pipeline  # makes detections of `maps`, background included if they have it

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """(T, D) features -> (T, width) embedding."""

    @abstractmethod
    def head(self, embedding: Tensor) -> Output:
        """Everything that follows from an embedding."""

    @abstractmethod
    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Weighted losses; `labels` is (C,) bool.  Their sum is what the paper minimises."""

    @abstractmethod
    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps and video scores as `pipeline` names them."""

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """What the optimiser gets, for the learning rate of a profile."""
        return [{"params": list(self.parameters()), "lr": rate}]

    def forward(self, features: Tensor) -> Output:
        """The head of the embedding."""
        return self.head(self.embed(features))
