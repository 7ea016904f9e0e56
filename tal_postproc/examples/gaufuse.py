"""GauFuse (CVPR 2023) in training: a network learns from its fused instances; docs/tutorials/gaufuse.md explains it.

All losses of the network below stay.  From some epoch on, the instances that its maps give, fused as in a test, become
labels of snippets (LinPro, Eq. 6), and what changes from one refresh of the labels to the next (Eq. 8) is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from .. import presets
from ..config import Fuse, Pipeline, RefreshSchedule, Stage
from ..evaluation import pseudo_label_quality
from ..pseudo_labels import score_label_map
from ..refresh import LabelRefresher
from ..torch.losses import pseudo_label_loss, reaches_min_log_prob
from ..types import Video
from . import rskp
from .backbones.rskp import RskpHead
from .data import FeatureSet
from .engine import Profile, Say, require_choices
from .plain import Maps

__all__ = ["Gaufuse"]

LABEL_PARTS, TEST_PARTS = (0.8, 0.2), (0.85, 0.15)  # of the plain and the propagated map
LOSS_PARTS = 0.8, 0.2  # of S and S^a in the loss on the labels
FIRST, GROWTH, OVER, LARGEST = 10.0, 5.0, 0.134, 50.0  # weight of that loss: five times as much after 0.134
SCHEDULES = {"paper": RefreshSchedule.paper(), "code": RefreshSchedule.code()}
PRESETS = {"paper": "gaufuse_paper", "code": "gaufuse"}
CODE_TEMPERATURES = 0.02, 0.02, 0.02, 0.002, 0.002, 0.0016  # of the labels, refresh by refresh
CODE_RATES = (0.229, 0.8), (0.571, 0.4096), (0.700, 0.01024), (0.743, 0.00512)  # from when on, factor of the rate
INSTANCES = "nms", "uniform", "exponential", "student_t", "gaussian"
OPTIONS = {
    **rskp.OPTIONS,
    "schedule": "paper",
    "labels": "linpro",
    "delta": True,
    "instances": "gaussian",
    "label_temperature": None,
    "test_instances": "gaussian",
    "test_temperature": None,
    "known_classes": True,
    "min_log_prob": -10.0,
    "as_released": False,
}


class Gaufuse(rskp.Rskp):
    """Options: those of `Rskp`, and

    * `schedule`: "paper" or "code": refreshes, factors of the differences, temperatures, learning rate, fusion and
      LinPro (presets `gaufuse_paper`, `gaufuse`); proposals are the backbone's, with "code" on RSKP the code's;
    * `labels`: "linpro"; "score", the largest score of the instances that cover a snippet; "none": no labels at all;
    * `delta`: learn differences of labels, else the labels themselves;
    * `instances`, `test_instances`: what becomes of overlapping proposals when labels are made, and in a test: "nms",
      or fused with "uniform", "exponential", "student_t" or "gaussian" weights;
    * `label_temperature`, `test_temperature`: of these fusions, in place of the schedule's;
    * `known_classes`: labels for the classes that a video is known to show; else for those that the network finds, and
      for the background;
    * `min_log_prob`: where the loss ends that differences below 0 drive down for ever; 0: nowhere;
    * `as_released`: with the three mistakes of the released code.

    On another backbone than RSKP's own there is no propagation and no memory: its own losses and the labels.
    """

    name = "gaufuse"
    profiles: ClassVar = {
        "smoke": replace(rskp.Rskp.profiles["smoke"], epochs=7, options=OPTIONS),
        "default": replace(rskp.Rskp.profiles["default"], options=OPTIONS),
        "paper": replace(rskp.Rskp.profiles["paper"], epochs=350, options=OPTIONS),
    }
    terms = (*rskp.Rskp.terms, "labels")
    memory_from = 0.286
    map_parts = TEST_PARTS

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        options = _checked(profile.options)
        if options["backbone"] != "rskp":
            options = {**options, "representatives": "none"}
        super().__init__(data, replace(profile, options=options), seed, device)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.own_pipeline = self.pipeline
        self.pipeline = self._ending(self._preset(False), "test_instances", self.options["test_temperature"])
        self.refresher = self._make_refresher()
        self.history: list[dict[str, Any]] = []  # an entry per refresh
        self.seen = {"labelled": 0, "reached": 0}  # snippets of this epoch

    # -------------------------------------------------------------------------------------------------------- pipelines
    def _preset(self, for_labels: bool) -> Pipeline:
        """The code's chain for RSKP, else the backbone's own proposals with the fusion of the schedule."""
        name = PRESETS[self.options["schedule"]]
        found = presets.for_labels(name) if for_labels else presets.get(name)
        if self._as_code:
            return replace(found, background="last", num_classes=self.data.num_classes)
        fuse = replace(cast(Fuse, found.stages[0]), weights="scores")
        return replace(self.own_pipeline, stages=(fuse,), labels=found.labels)

    @property
    def _as_code(self) -> bool:
        return self.options["schedule"] == "code" and isinstance(self.backbone, RskpHead)

    def _ending(self, pipeline: Pipeline, option: str, temperature: float | None) -> Pipeline:
        """The pipeline with the stage that an option names."""
        how = self.options[option]
        fuse = cast(Fuse, pipeline.stages[0])
        stages: tuple[Stage, ...]
        if how != "nms":
            changed = {"temperature": temperature or fuse.temperature, "distribution": how}
            stages = (replace(fuse, **changed, signed_denominator=fuse.signed_denominator and how == "gaussian"),)
        else:
            stages = presets.get("gaufuse_nms").stages if self._as_code else self.own_pipeline.stages
        return replace(pipeline, stages=stages)

    def label_pipelines(self) -> list[Pipeline]:
        """What makes the instances, refresh by refresh; the last one for all that are left."""
        temperatures: Sequence[float | None] = (self.options["label_temperature"],)
        if temperatures[0] is None and self.options["schedule"] == "code":
            temperatures = CODE_TEMPERATURES
        made = [self._ending(self._preset(True), "instances", temperature) for temperature in temperatures]
        known = self.options["known_classes"]  # else the background is one class more
        return made if known else [replace(one, background="none", num_classes=None) for one in made]

    def _make_refresher(self) -> LabelRefresher:
        schedule = SCHEDULES[self.options["schedule"]]
        known = dict(zip(self.data.ids, self.data.labels))
        return LabelRefresher(
            self.label_pipelines(),
            self.data.num_classes + (not self.options["known_classes"]),
            known_labels=known if self.options["known_classes"] else None,
            total_epochs=self.profile.epochs,
            schedule=schedule if self.options["delta"] else replace(schedule, delta_scales=()),
            background="last" if self.options["known_classes"] else "none",
            make_labels=score_label_map if self.options["labels"] == "score" else None,
            num_threads=1,
        )

    # ---------------------------------------------------------------------------------------------------------- refresh
    def before_epoch(self, epoch: int, say: Say) -> None:
        super().before_epoch(epoch, say)
        if self.options["schedule"] == "code":
            factors = [factor for start, factor in CODE_RATES if self.reached(epoch, start)]
            for group, rate in zip(self.optimizer.param_groups, self.rates):
                group["lr"] = rate * (factors or [1.0])[-1]
        if self.options["labels"] == "none" or not self.refresher.due(epoch):
            return
        report = self.refresher.refresh(epoch, self._teacher())
        precision, recall = self._quality()
        self.history.append(
            {
                "epoch": epoch,
                "instances": report.num_instances,
                "change": report.churn.relative_change,
                "precision": precision,
                "recall": recall,
            }
        )
        say(f"{report}\nlabels against the truth: precision {precision:.3f}, recall {recall:.3f}")
        if self.uses_memory(epoch):
            self._empty_memory()

    def _teacher(self) -> Iterator[Video]:
        """The training set as the network sees it now."""
        self.map_parts = LABEL_PARTS
        if self.options["as_released"]:  # Dropout stays on
            self.networks.train()
            with torch.no_grad():
                for index in range(len(self.data)):
                    yield self.predict(self.data, index)
        else:
            yield from self.videos(self.data)
        self.map_parts = TEST_PARTS

    def _empty_memory(self) -> None:
        """A new teacher, a new memory; as released, its slots are zeros that anything displaces."""
        released = self.options["as_released"]
        self.memory.features.zero_()
        self.memory.scores.fill_(0.0 if released else -1.0)
        if not released:
            self.fill_memory()

    def slots_of(self, labels: Tensor) -> Tensor:
        slots = super().slots_of(labels)
        return torch.zeros_like(slots) if self.options["as_released"] else slots  # the axis of the batch, of length 1

    def _quality(self) -> tuple[float, float]:
        """Precision and recall of the labels against the truth, which nothing is learnt from."""
        maps = [self.refresher.bank.labels(name)[:, : self.data.num_classes] for name in self.data.ids]
        sizes = [(len(self.data.features(index)), len(labels)) for index, labels in enumerate(maps)]
        steps = [self.data.seconds_per_snippet(index, size) * size / rows for index, (size, rows) in enumerate(sizes)]
        truth = self.data.annotations.segments.to_snippets(steps)
        ends = np.array([rows for _, rows in sizes])[truth.video_index]  # some features stop before the video does
        quality = pseudo_label_quality(maps, truth.select((truth.segments[:, 0] < ends) & (truth.segments[:, 1] >= 0)))
        return quality.precision, quality.recall

    # ----------------------------------------------------------------------------------------------------------- losses
    def pseudo_weight(self, epoch: int) -> float:
        """RSKP's, since the paper preserves its losses; in the code 1 again from the first refresh on."""
        schedule = self.options["schedule"]
        again = schedule == "code" and self.reached(epoch, SCHEDULES[schedule].refreshes[0])
        return 1.0 if again else super().pseudo_weight(epoch)

    def label_weight(self, epoch: int) -> float:
        """10 at the first refresh, five times as much after 0.134 of the training, then constant."""
        since = self.passed(epoch) - SCHEDULES["paper"].refreshes[0]
        return min(FIRST * GROWTH ** (since / OVER), LARGEST)

    def more_losses(self, epoch: int, index: int, logits: Sequence[Tensor]) -> Maps:
        if self.refresher.epoch is None:
            return {}
        # A row per snippet that the backbone sees: of all, or of equal stretches, out of each of which it samples one.
        targets = torch.from_numpy(self.refresher.targets(self.data.ids[index], epoch)).to(self.device)
        least = self.options["min_log_prob"] or None
        if least is not None:
            self.seen["labelled"] += int((targets != 0).any(-1).sum())
            self.seen["reached"] += int(reaches_min_log_prob(logits[0], targets, min_log_prob=least).sum())
        parts = LOSS_PARTS if len(logits) == 2 else (1.0,)
        losses = [
            part * pseudo_label_loss(of_branch, targets, min_log_prob=least) for part, of_branch in zip(parts, logits)
        ]
        return {"labels": self.label_weight(epoch) * torch.stack(losses).sum()}

    def after_epoch(self, epoch: int, say: Say) -> None:
        if self.seen["labelled"]:
            share = self.seen["reached"] / self.seen["labelled"]
            say(f"{100 * share:.2f} % of the labelled snippets reach `min_log_prob`")
            self.history[-1]["reached"] = share
        self.seen = dict.fromkeys(self.seen, 0)

    # ------------------------------------------------------------------------------------------------------- checkpoint
    def extra_state(self) -> dict[str, Any]:
        return {"labels": self.refresher.state_dict(), "history": self.history}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.history = list(state["history"])
        self.refresher.load_state_dict(state["labels"])

    def summary(self) -> dict[str, Any]:
        return {"refreshes": self.history}


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    require_choices(
        options,
        {
            "schedule": tuple(SCHEDULES),
            "labels": ("linpro", "score", "none"),
            "instances": INSTANCES,
            "test_instances": INSTANCES,
        },
    )
    return options


if __name__ == "__main__":
    import sys

    from ._command import main

    sys.exit(main("gaufuse"))
