"""The two-stream network (CVPR 2023): attention and multiple-instance learning side by side, and a dictionary.

Background is column 0 in everything that has the paper's name; `Output` has it last, as all backbones do.  What the
paper leaves open is listed in docs/tutorials/two_stream.md.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ... import presets
from ...config import Signal
from ...torch.losses import top_mean, with_background
from . import Backbone, Output

__all__ = ["BRANCHES", "GUIDES", "TwoStream"]

KINDS = ("foreground", "context", "background")  # columns of the attention
SIGMA = {"foreground": 8, "context": 2, "background": 2}  # of Eq. 3
CONTEXT, BACKGROUND, SEMANTIC, GUIDE = 0.1, 0.1, 5e-2, 2e-3  # lambda_1 to lambda_4 of Eq. 8
DROPOUT = 0.5
EPS = 1e-8
BRANCHES = ("both", "attention", "mil")
GUIDES = ("hamnet", "literal", "acm", "none")


class TwoStream(Backbone):
    """Eq. 1 to 8 of the paper.

    Parameters
    ----------
    num_features : int
        D, of the features and, as the block in front is residual, of everything behind it.
    width : int
        Channels between the two convolutions of that block; D in the paper.
    num_classes : int
        C, without background.
    branches : {"both", "attention", "mil"}
        Which scores Eq. 4 averages.  Without MIL there is no p, so `guide` must be "none" and `semantic` off.
    context, background, semantic : bool
        Whether these losses are in Eq. 8.
    guide : {"hamnet", "literal", "acm", "none"}
        What Eq. 7 compares 1 - a_fg with: the background's probability in softmax(p), that times a_fg (the equation as
        printed), or that in softmax(a_fg p), with no gradient through 1 - a_fg (ACM-Net's code).
    guide_reduction : {"mean", "sum"}
        Over time in Eq. 7; the sum is ACM-Net's.
    normalized_labels : bool
        Labels in Eq. 5 divided by their sum, as in ACM-Net's code.
    preset : str
        "two_stream_thumos", or "two_stream_anet13", whose thresholds are for a map that is not stretched to [0, 1].
    """

    terms = ("foreground", "context", "background", "guide", "semantic")
    extra_terms = ("guide", "semantic")

    def __init__(
        self,
        num_features: int,
        width: int,
        num_classes: int,
        *,
        branches: str = "both",
        context: bool = True,
        background: bool = True,
        guide: str = "hamnet",
        guide_reduction: str = "mean",
        semantic: bool = True,
        normalized_labels: bool = False,
        preset: str = "two_stream_thumos",
    ) -> None:
        super().__init__()
        if branches == "attention" and (guide != "none" or semantic):
            raise ValueError("option `branches` 'attention' has no p: it needs `guide` 'none' and `semantic` false")
        self.branches, self.guide, self.guide_reduction = branches, guide, guide_reduction
        self.normalized_labels, self.semantic = normalized_labels, semantic
        self.kinds = tuple(kind for kind, used in zip(KINDS, (True, context, background)) if used)
        self.residual = nn.Sequential(
            nn.Conv1d(num_features, width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Conv1d(width, num_features, 3, padding=1),
        )
        for parameter in self.residual[-1].parameters():
            nn.init.zeros_(parameter)  # x starts as the features, so that their class means are centroids of x
        self.attention = nn.Linear(num_features, len(KINDS))
        self.classifier = nn.Linear(num_features, num_classes + 1)  # of the three pooled features
        self.mil = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(num_features, num_classes + 1))
        self.dictionary = nn.Parameter(torch.rand(num_classes + 1, num_features))  # Q
        found = presets.get(preset)
        signal = Signal(normalize="none" if preset == "two_stream_anet13" else "minmax")
        self.pipeline = replace(found, num_classes=num_classes, banks=(replace(found.banks[0], signal=signal),))

    def embed(self, features: Tensor) -> Tensor:
        """x of Sec. 3.1."""
        added: Tensor = self.residual(features.T[None])[0].T
        return features + added

    def head(self, embedding: Tensor) -> Output:
        attention = torch.softmax(self.attention(embedding), -1)  # (T, 3)
        p = self.mil(embedding)  # (T, C + 1)
        y = {}
        for k, kind in enumerate(KINDS):
            a = attention[:, [k]]
            pooled = (a * embedding).sum(0) / (a.sum() + EPS)  # Eq. 1
            att = torch.softmax(self.classifier(pooled), -1)
            mil = torch.softmax(top_mean(a * p, share=SIGMA[kind]), -1)  # Eq. 2 and 3
            y[kind] = {"both": (att + mil) / 2, "attention": att, "mil": mil}[self.branches]  # Eq. 4
        return Output(
            embedding,
            attention[:, 0],
            background_last(p),
            background_last(y["foreground"]),
            {"p": p, **y},
        )

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        weights = {"foreground": 1.0, "context": CONTEXT, "background": BACKGROUND}
        of_kind = {
            "foreground": with_background(labels, 0.0, column="first"),
            "context": with_background(labels, 1.0, column="first"),
            "background": with_background(torch.zeros_like(labels), 1.0, column="first"),
        }
        found = {}
        for kind in self.kinds:  # Eq. 5
            target = of_kind[kind]
            target = target / target.sum().clamp(min=1.0) if self.normalized_labels else target
            found[kind] = -weights[kind] * (target * torch.log(output.extra[kind] + EPS)).sum()
        p = output.extra["p"]
        if self.guide != "none":
            found["guide"] = GUIDE * self.guide_loss(output.attention, p)
        if self.semantic:
            distance = (output.embedding - self.dictionary[p.argmax(-1)]).square().sum(-1)
            found["semantic"] = SEMANTIC * torch.sqrt(distance + EPS).mean()  # Eq. 6
        return found

    def guide_loss(self, foreground: Tensor, p: Tensor) -> Tensor:
        """Eq. 7, without its weight."""
        rest = 1 - foreground
        if self.guide == "acm":
            rest, background = rest.detach(), torch.softmax(foreground[:, None] * p, -1)[:, 0]
        else:
            background = torch.softmax(p, -1)[:, 0]
            background = foreground * background if self.guide == "literal" else background
        difference = (rest - background).abs()
        return difference.sum() if self.guide_reduction == "sum" else difference.mean()

    def maps(self, output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """z_fg of probabilities, or a_fg for every class where there is only the attention; background first."""
        p = torch.softmax(output.extra["p"], -1)
        z = output.attention[:, None] * (torch.ones_like(p) if self.branches == "attention" else p)
        return {"cas": z}, {"video": output.extra["foreground"]}


def background_last(values: Tensor) -> Tensor:
    """Column 0 becomes the last one."""
    return values.roll(-1, dims=-1)
