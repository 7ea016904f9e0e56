"""ILG and PTLR: BaS-Nets that must agree give the first labels, two networks in turn refine them (Algorithm 1).

docs/tutorials/ilg_ptlr.md explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .. import presets
from ..config import Pipeline
from ..evaluation import pseudo_label_quality
from ..pseudo_labels import two_threshold_label_map
from ..torch.losses import top_mean
from ..types import LabelState, Segments, Video
from .backbones import Output
from .backbones.basnet import NORM_WEIGHT, Basnet
from .backbones.ptlr import UNUSED, FrameNetwork, NetworkOts, NetworkRts
from .data import FeatureSet
from .engine import Profile, Recipe, Say, require_choices

__all__ = ["Ilg", "IlgPtlr", "rescale"]

PARTS = (1.0, 1.5)  # of RGB and flow in the CAS
CONSISTENCY = 0.5  # alpha, beta and gamma of Eq. 5
FACTORS = (0.5, 2.0)  # s of Eq. 3 and 4
SURE, IDLE = 0.7, 0.1  # of ILG's labels
THRESHOLDS = (0.7, 0.65, 0.6, 0.55)  # theta_p, stage by stage
NETWORKS: Mapping[str, type[FrameNetwork]] = {"ots": NetworkOts, "rts": NetworkRts}
INITIAL = {  # a BaS-Net per modality?  Eq. 2?  Eq. 3 and 4?
    "ilg": (True, True, True),
    "cross_stream": (True, True, False),
    "multi_resolution": (True, False, True),
    "two_streams": (True, False, False),
    "basnet": (False, False, False),
}
SUMMED = ("video", "all")
OPTIONS = {
    "initial": "ilg",
    "summed": "video",
    "stages": 3,
    "networks": "both",
    "frame_width": 512,
    "frame_rate": 1e-3,
    "batch_size": 16,
    "weight_decay": 5e-4,
    "norm_weight": 1e-4,
    "he_start": False,
}
SMALL = {  # for features that are shorter, and networks that are narrower, than those of the paper
    "frame_width": 256,
    "frame_rate": 2e-3,
    "batch_size": 4,
    "weight_decay": 1e-5,
    "norm_weight": 1e-5,
    "he_start": True,
}
FIRST_UNITS = 3  # 1,500 iterations of ILG, 500 of each network in each stage


class Phase(NamedTuple):
    """A network that is trained, on the labels of the one before it."""

    stage: int  # 0 is the first labels
    network: str
    begin: int  # epoch


class Ilg(nn.Module):
    """BaS-Nets side by side, one per modality, or one for all features.

    Parameters
    ----------
    sizes : sequence of int
        Columns of every modality; they are the parts of the features, in order.
    width, num_classes : int
        Of every network.
    norm_weight : float
        See `Basnet`.
    """

    def __init__(
        self, sizes: tuple[int, ...], width: int, num_classes: int, *, norm_weight: float = NORM_WEIGHT
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.shares = [part / sum(PARTS) for part in PARTS] if len(sizes) > 1 else [1.0]
        self.streams = nn.ModuleList(Basnet(size, width, num_classes, norm_weight=norm_weight) for size in sizes)

    def _read(self, features: Tensor) -> list[tuple[Basnet, Tensor, Output]]:
        """Every network, its columns, and what it says of them."""
        networks = cast("list[Basnet]", list(self.streams))
        return [(network, part, network(part)) for network, part in zip(networks, features.split(self.sizes, dim=1))]

    def losses(
        self, features: Tensor, labels: Tensor, *, cross_stream: bool, factor: float | None
    ) -> dict[str, Tensor]:
        """The terms of Eq. 5 that take part; `factor` is s of Eq. 3 and 4."""
        streams = self._read(features)
        own = [value for network, _, output in streams for value in network.losses(output, labels).values()]
        found = {"basnet": torch.stack(own).sum()}
        if cross_stream:
            found["cross_stream"] = CONSISTENCY * _distance(*(_cas(output.logits) for _, _, output in streams))
        if factor is not None:
            distances = [
                _distance(rescale(_cas(output.logits), factor), _cas(network.suppressed(rescale(part, factor))))
                for network, part, output in streams
            ]
            found["multi_resolution"] = CONSISTENCY * torch.stack(distances).sum()
        return found

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(T, C + 1) CAS and (C + 1,) video scores, both averaged with the weights of the modalities."""
        outputs = [output for _, _, output in self._read(features)]
        cas = torch.stack([share * _cas(output.logits) for share, output in zip(self.shares, outputs)])
        scores = torch.stack([share * output.scores for share, output in zip(self.shares, outputs)])
        return cas.sum(dim=0), scores.sum(dim=0)


class IlgPtlr(Recipe):
    """Options: `initial`, the first labels: "ilg", only one of its consistencies ("cross_stream", "multi_resolution"),
    neither ("two_streams"), or one "basnet" on all features; `summed`, whose scores sum to less than 0.1 in their
    background, the classes of the "video" or "all"; `stages`, 0 (only the first network) to 4; `networks`
    "both", "ots" or "rts"; `frame_width`, channels of PTLR's networks; `frame_rate`, their learning rate; `batch_size`;
    `weight_decay`; `norm_weight`, that of the L1 norm of BaS-Net's foreground weights; `he_start`, whether
    the networks start from weights that keep the scale of the features (He et al.) and not as torch starts them.
    """

    name = "ilg_ptlr"
    profiles: ClassVar = {
        "smoke": Profile(
            num_train=12,
            num_test=6,
            num_classes=3,
            num_rgb=16,
            num_flow=16,
            width=32,
            epochs=9,
            learning_rate=1e-2,
            options={**OPTIONS, **SMALL, "frame_width": 16},
        ),
        "default": Profile(options={**OPTIONS, **SMALL}, epochs=63, learning_rate=2e-3),
        "paper": Profile(options=OPTIONS, width=2048, epochs=360, learning_rate=1e-4),
    }
    terms = ("basnet", "cross_stream", "multi_resolution", "labels")
    reduction = "mean"

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        super().__init__(data, profile, seed, device)
        self.plan = _plan(profile)
        self.batch_size = int(profile.options["batch_size"])
        self.num_features = data.features(0).shape[1]
        two_streams, self.cross_stream, self.multi_resolution = INITIAL[profile.options["initial"]]
        sizes = (data.num_rgb, self.num_features - data.num_rgb) if two_streams else (self.num_features,)
        self.initial = Ilg(sizes, profile.width, data.num_classes, norm_weight=profile.options["norm_weight"])
        if profile.options["he_start"]:
            self.initial.apply(_he_start)
        self.networks = self.parts = nn.ModuleDict({"initial": self.initial})
        self.names = _names(profile.options)  # of PTLR's networks, in the order of a stage
        for name in self.names:
            self.parts[name] = self._new(name)
        self.pipeline = self._pipeline()
        self.labels_of: list[Tensor] = []  # (T,) of every video: a class, C for background, or UNUSED
        self.history: list[dict[str, Any]] = []
        self._enter(0)

    def _new(self, name: str) -> FrameNetwork:
        options = self.profile.options
        network = NETWORKS[name](self.num_features, int(options["frame_width"]), self.data.num_classes)
        return network.apply(_he_start) if options["he_start"] else network

    def _pipeline(self) -> Pipeline:
        ptlr = presets.get("ptlr")
        if not self.names:  # BaS-Net's proposals, at the thresholds that the paper gives
            basnet = cast(Basnet, self.initial.streams[0]).pipeline
            return replace(basnet, banks=(replace(basnet.banks[0], thresholds=ptlr.banks[0].thresholds),))
        banks = tuple(bank for bank in ptlr.banks if bank.signal.mix[0][0] in self.names)
        return replace(ptlr, banks=banks, background="last", num_classes=self.data.num_classes)

    def _enter(self, phase: int) -> None:
        """Only the network of this phase learns."""
        self.phase = phase
        name = self.plan[phase].network
        rate = self.profile.options["frame_rate"] if name in NETWORKS else self.profile.learning_rate
        network = self.parts[name].to(self.device)
        self.optimizer = torch.optim.Adam(network.parameters(), rate, weight_decay=self.profile.options["weight_decay"])

    def before_epoch(self, epoch: int, say: Say) -> None:
        if epoch == self._end(self.phase) < self.profile.epochs:
            name = self.plan[self.phase + 1].network
            self.parts[name] = self._new(name)  # new weights (Algorithm 1, "train" of every stage)
            self._enter(self.phase + 1)

    def after_epoch(self, epoch: int, say: Say) -> None:
        if epoch + 1 == self._end(self.phase):
            codes = self.label()
            self.labels_of = [torch.from_numpy(_selected(code)).to(self.device) for code in codes]
            self.history.append(self.quality(codes))
            say(_told(self.history[-1]))

    def _end(self, phase: int) -> int:
        return self.plan[phase + 1].begin if phase + 1 < len(self.plan) else self.profile.epochs

    def label(self) -> list[NDArray[np.int8]]:
        """(T, C) codes of `LabelState` of every video, by the network of this phase; actions only of its classes."""
        stage, name, _ = self.plan[self.phase]
        was_training = self.networks.training
        self.networks.eval()
        found = []
        with torch.no_grad():
            for index in range(len(self.data)):
                cas = self.parts[name](self.features(self.data, index))
                if not stage:
                    cas = cas[0]
                    if self.profile.options["summed"] == "video":
                        cas = torch.cat([cas[:, :-1] * self.labels[index], cas[:, -1:]], dim=1)
                found.append(
                    two_threshold_label_map(
                        cas.double().cpu().numpy(),
                        action_threshold=THRESHOLDS[stage - 1] if stage else SURE,
                        background_threshold=THRESHOLDS[stage - 1] if stage else IDLE,
                        background_rule="own" if stage else "sum",
                        background="last",
                        known_labels=self.data.labels[index],
                    )
                )
        self.networks.train(was_training)
        return found

    def quality(self, codes: list[NDArray[np.int8]]) -> dict[str, Any]:
        """Precision and recall of labels against the annotations, which nothing else here looks at."""
        truth = Segments.concatenate([_truth(self.data, index, len(code)) for index, code in enumerate(codes)])
        found = pseudo_label_quality(codes, truth)
        stage, name, _ = self.plan[self.phase]
        return {
            "stage": stage,
            "network": name,
            "precision": found.precision,
            "recall": found.coverage,  # the paper's word: correct among all snippets
            "recall_of_action": found.recall,
            "classes": int(np.any([(code == LabelState.ACTION).any(axis=0) for code in codes], axis=0).sum()),
        }

    def step(self, epoch: int, indices: Sequence[int], autocast: Callable[[], Any]) -> dict[str, float]:
        mkldnn: Any = torch.backends.mkldnn
        before = mkldnn.enabled
        mkldnn.enabled = False  # it prepares itself for every length, and those of videos all differ
        try:
            return super().step(epoch, indices, autocast)
        finally:
            mkldnn.enabled = before

    def losses(self, epoch: int, index: int) -> dict[str, Tensor]:
        features = self.features(self.data, index)
        network = self.parts[self.plan[self.phase].network]
        if isinstance(network, FrameNetwork):
            return {"labels": network.loss(features, self.labels_of[index])}
        factor = self.generator(epoch, index).uniform(*FACTORS) if self.multi_resolution else None
        return self.initial.losses(features, self.labels[index], cross_stream=self.cross_stream, factor=factor)

    def predict(self, data: FeatureSet, index: int) -> Video:
        features = self.features(data, index)
        if self.names:
            maps = {name: self.parts[name](features) for name in self.names}
            scores = torch.stack([top_mean(cas) for cas in maps.values()]).mean(dim=0)
        else:
            cas, scores = self.initial(features)
            maps = {"cas": cas}
        return Video(
            data.ids[index],
            {name: value.double().cpu().numpy() for name, value in maps.items()},
            {"video": scores.double().cpu().numpy()},
            seconds_per_snippet=data.seconds_per_snippet(index, len(features)),
        )

    def summary(self) -> dict[str, Any]:
        """`labels`: the quality of every network's labels, as in the paper's Tables IV and VI."""
        return {"labels": self.history}

    def extra_state(self) -> dict[str, Any]:
        return {"phase": self.phase, "labels": self.labels_of, "history": self.history}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.labels_of, self.history = list(state["labels"]), list(state["history"])
        self._enter(state["phase"])


def rescale(values: Tensor, factor: float) -> Tensor:
    """ST of Eq. 3: (T, n) resampled linearly to (max(1, round(factor T)), n)."""
    size = max(1, round(factor * len(values)))
    return functional.interpolate(values.T[None], size=size, mode="linear", align_corners=False)[0].T


def _cas(logits: Tensor) -> Tensor:
    return torch.softmax(logits, -1)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """L1, mean over time and columns, as the binary cross-entropy beside it is a mean over classes."""
    return (one - other).abs().mean()


def _he_start(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv1d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _names(options: Mapping[str, Any]) -> tuple[str, ...]:
    if not options["stages"]:
        return ()
    return tuple(NETWORKS) if options["networks"] == "both" else (options["networks"],)


def _plan(profile: Profile) -> list[Phase]:
    """What is trained from which epoch on."""
    options = profile.options
    require_choices(
        options,
        {
            "initial": INITIAL,
            "summed": SUMMED,
            "networks": ("both", *NETWORKS),
            "stages": range(len(THRESHOLDS) + 1),
        },
    )
    names = _names(options)
    turns = [(stage, name) for stage in range(1, int(options["stages"]) + 1) for name in names]
    unit = profile.epochs / (FIRST_UNITS + len(turns))
    plan = [Phase(0, "initial", 0)]
    for turn, (stage, name) in enumerate(turns, FIRST_UNITS):
        plan.append(Phase(stage, name, round(unit * turn)))
    if len({phase.begin for phase in plan} | {profile.epochs}) <= len(plan):
        raise ValueError(f"`epochs` must leave some for each of {len(plan)} networks in turn, got {profile.epochs}")
    return plan


def _selected(codes: NDArray[np.int8]) -> NDArray[np.int64]:
    """(T,) the class of every snippet, C for background, or UNUSED; a snippet has one class at most."""
    idle = np.where(codes[:, 0] == LabelState.BACKGROUND, codes.shape[1], UNUSED)
    acts = codes == LabelState.ACTION
    return np.where(acts.any(axis=1), acts.argmax(axis=1), idle).astype(np.int64)


def _truth(data: FeatureSet, index: int, num_snippets: int) -> Segments:
    """What acts in a video, in snippets; without instances after the end of its features."""
    found = data.annotations.segments.video(index).to_snippets(data.seconds_per_snippet(index, num_snippets))
    return found.select(found.segments[:, 0] < num_snippets)


def _told(row: Mapping[str, Any]) -> str:
    where = f"stage {row['stage']}, {row['network']}" if row["stage"] else "first"
    shares = (100 * row[name] for name in ("precision", "recall", "recall_of_action"))
    told = "labels, {}: precision {:.1f}, recall {:.1f} of all snippets, {:.1f} of action; of {} classes"
    return told.format(where, *shares, row["classes"])


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("ilg_ptlr"))
