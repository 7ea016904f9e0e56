"""WUM, uncertainty modelling (AAAI 2021): background is out of distribution, where features are short.

Formulas of the released code; docs/tutorials/backbones.md lists the choices.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import presets
from ...torch.losses import softmax_binary_cross_entropy, top_mean
from . import Backbone, Output

__all__ = ["Wum"]

ACTION_SHARE, BACKGROUND_SHARE = 9, 4  # T / 9 pseudo action and T / 4 pseudo background snippets
DROPPED = 0.7
MARGIN = 100.0
MAGNITUDE = 5e-4  # weight of the magnitude loss; that of the background's entropy is 1
PUBLISHED_WIDTH = 2048


class Wum(Backbone):
    """One temporal convolution, whose output is classified; the length of its features tells action from background.

    There is no background class: its column of the logits is 0.  The attention is the magnitude between that of the
    pseudo background and that of the pseudo action snippets.  Magnitudes are counted as if the features had the
    published width: the root of ``2048 / width`` times the norm.
    """

    terms = ("classification", "magnitude", "entropy")
    extra_terms = ("magnitude", "entropy")
    length = 750
    batch_size = 16
    reduction = "mean"

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        self.convolution = nn.Conv1d(num_features, width, 3, padding=1)
        self.classifier = nn.Linear(width, num_classes, bias=False)
        self.pipeline = replace(presets.get("um_thumos"), num_classes=num_classes)

    def embed(self, features: Tensor) -> Tensor:
        return torch.relu(self.convolution(features.T[None])[0]).T

    def head(self, embedding: Tensor) -> Output:
        logits = self.classifier(functional.dropout(embedding, DROPPED, self.training))
        scale = (PUBLISHED_WIDTH / self.width) ** 0.5
        magnitude = scale * torch.linalg.vector_norm(embedding, dim=1)
        kept = functional.dropout(torch.ones_like(magnitude), DROPPED, self.training)  # one mask for both choices
        action = _largest(magnitude.detach() * kept, ACTION_SHARE)
        background = _largest((magnitude.max() - magnitude).detach() * kept, BACKGROUND_SHARE)
        low, high = magnitude[background].mean(), magnitude[action].mean()
        attention = ((magnitude - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)
        video = top_mean(logits, share=ACTION_SHARE)
        return Output(
            embedding,
            attention,
            functional.pad(logits, (0, 1)),
            functional.pad(torch.softmax(video, -1), (0, 1)),
            {
                "video": video,
                "background": logits[background].mean(dim=0),
                "lengths": scale
                * torch.stack(
                    [torch.linalg.vector_norm(embedding[chosen].mean(dim=0)) for chosen in (action, background)]
                ),
            },
        )

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        of_action, of_background = output.extra["lengths"]
        return {
            "classification": softmax_binary_cross_entropy(output.extra["video"], labels),
            "magnitude": MAGNITUDE * ((MARGIN - of_action).clamp(min=0) + of_background) ** 2,
            "entropy": softmax_binary_cross_entropy(output.extra["background"], torch.ones_like(labels)),
        }

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        maps = {"cas": torch.softmax(output.logits[:, :-1], -1), "magnitude": output.attention}
        return maps, {"video": output.scores[:-1]}


def _largest(values: Tensor, share: int) -> Tensor:
    """Indices of the largest T / share values, one at least; the earlier of equal ones."""
    return torch.sort(values, descending=True, stable=True).indices[: max(1, len(values) // share)]
