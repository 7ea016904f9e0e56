"""The loop that all examples share: epochs, log, checkpoints that resume exactly, and the table at the end.

A `Recipe` says what a method is: its networks, the losses of one video, and the maps it predicts.  `train` does the
rest.  Times in a training are fractions of its length, so that short runs keep the papers' proportions.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from tqdm import tqdm

from .._files import atomic_write
from ..config import Pipeline
from ..evaluation import classification_map, mean_average_precision
from ..formats import write_detections
from ..pipeline import PostProcessor
from ..types import FormatError, MeanAveragePrecision, MissingExtraError, Segments, Video
from .data import FeatureSet, TrainTest, synthetic_features

try:
    import torch
    from torch import Tensor, nn
except ImportError:
    raise MissingExtraError("torch", "torch", "tal_postproc.examples") from None

__all__ = ["Profile", "Recipe", "Result", "Run", "as_device", "evaluate", "make_data", "require_choices", "train"]

Say = Callable[[str], object]
_FORMAT = "tal_postproc.examples 1"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Sizes of a run: of the synthetic data, of the network, of the training."""

    num_train: int = 200
    num_test: int = 100
    num_classes: int = 20
    num_rgb: int = 64
    num_flow: int = 64
    width: int = 128  # channels of the embedding, 2048 in most papers
    epochs: int = 40
    learning_rate: float = 1e-3
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method


@dataclass(frozen=True, kw_only=True)
class Run:
    """How to run an example, whichever it is.

    Parameters
    ----------
    profile : str
        One of those of the recipe: "smoke", "default" or "paper".
    seed : int
        Of the data, the initial weights, the order of the videos and Dropout.
    epochs, learning_rate : int and float, optional
        Instead of the profile's.
    device : str
        As torch names it.
    amp : bool
        Forward passes in bfloat16 where torch thinks it safe.
    output : str or path, optional
        Folder for log, checkpoint and detections.
    resume : bool
        Go on with the checkpoint in `output`.
    stop_after : int, optional
        End before this epoch begins, with a checkpoint, as if interrupted.
    progress : bool
        A bar on a terminal.
    threads : int, optional
        Of torch.  Default: 1, which is fastest for small networks and gives the same bits on any number of cores;
        for the profile "paper" as many as torch chooses.
    options : mapping of str to value
        Of the method, in place of those of the profile.
    """

    profile: str = "default"
    seed: int = 0
    epochs: int | None = None
    learning_rate: float | None = None
    device: str = "cpu"
    amp: bool = False
    output: str | os.PathLike[str] | None = None
    resume: bool = False
    stop_after: int | None = None
    progress: bool = False
    threads: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a training; mAP of the network before and after it."""

    name: str
    untrained: MeanAveragePrecision
    trained: MeanAveragePrecision
    classification: float
    detections: Segments
    seconds: float
    summary: Mapping[str, Any]

    def rows(self) -> list[list[str]]:
        """Header and two rows of a table, mAP in percent."""
        thresholds = [f"{threshold:g}" for threshold in self.trained.tiou_thresholds]
        return [
            ["mAP in %, tIoU", *thresholds, "avg"],
            *(
                [name, *(f"{100 * value:.1f}" for value in (*result.per_threshold, result.average))]
                for name, result in ((f"{self.name}, untrained", self.untrained), (self.name, self.trained))
            ),
        ]


class Recipe(ABC):
    """A method: networks, losses, predictions.

    Parameters
    ----------
    data : FeatureSet
        Of the training.
    profile : Profile
        With `epochs` and `options` of the run.
    seed : int
        For what is drawn besides torch's own generator.
    device : torch.device
        Where the networks are.

    A subclass sets `networks` (saved and resumed, moved to the device, switched between training and evaluation), and
    `optimizer`.
    """

    name: ClassVar[str]
    profiles: ClassVar[Mapping[str, Profile]]
    terms: ClassVar[tuple[str, ...]]  # names of the losses, the columns of the log
    batch_size: int = 10
    reduction: Literal["sum", "mean"] = "sum"  # of the gradients of a batch
    pipeline: Pipeline  # makes detections of what `predict` gives

    networks: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, data: FeatureSet, profile: Profile, seed: int, device: torch.device) -> None:
        self.data, self.profile, self.seed, self.device = data, profile, seed, device
        self.labels = torch.from_numpy(data.labels).to(device)

    @abstractmethod
    def losses(self, epoch: int, index: int) -> dict[str, Tensor]:
        """The weighted losses of training video `index`; their sum is minimised."""

    @abstractmethod
    def predict(self, data: FeatureSet, index: int) -> Video:
        """Maps and video scores of a video, in evaluation mode and without gradients."""

    def before_epoch(self, epoch: int, say: Say) -> None:  # noqa: B027
        """What comes between epochs: refresh labels, fill a memory, change a rate."""

    def after_epoch(self, epoch: int, say: Say) -> None:  # noqa: B027
        """What an epoch has to tell besides its losses; the checkpoint comes after it."""

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint needs besides networks and optimiser."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """The reverse of `extra_state`."""

    def summary(self) -> dict[str, Any]:
        """What the end of the training tells, besides mAP."""
        return {}

    def features(self, data: FeatureSet, index: int) -> Tensor:
        """All snippets of a video, on the device."""
        return torch.from_numpy(data.features(index)).to(self.device)

    def generator(self, epoch: int, index: int) -> np.random.Generator:
        """A stream for this video in this epoch, whatever came before."""
        return np.random.default_rng([self.seed, 7, epoch, index])

    def passed(self, epoch: int) -> float:
        """The part of the training that lies behind when this epoch begins."""
        return epoch / self.profile.epochs

    def step(self, epoch: int, indices: Sequence[int], autocast: Callable[[], Any]) -> dict[str, float]:
        """One step of the optimiser on the gradients of some videos, one forward pass for each."""
        self.optimizer.zero_grad(set_to_none=True)
        totals = dict.fromkeys(self.terms, 0.0)
        for index in indices:
            with autocast():
                found = self.losses(epoch, index)
                loss = torch.stack([value.float() for value in found.values()]).sum()
            if loss.requires_grad:
                (loss / len(indices) if self.reduction == "mean" else loss).backward()
            for term, value in found.items():
                totals[term] += float(value.detach())
        self.optimizer.step()
        return totals

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "extra": self.extra_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`; extra state first, for it may bring new networks."""
        self.load_extra_state(state["extra"])
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])

    def videos(self, data: FeatureSet, indices: Sequence[int] | None = None) -> Iterator[Video]:
        """`predict` of all videos or of some, the networks in evaluation mode meanwhile."""
        was_training = self.networks.training
        self.networks.eval()
        try:
            with torch.no_grad():
                for index in range(len(data)) if indices is None else indices:
                    yield self.predict(data, index)
        finally:
            self.networks.train(was_training)


def make_data(profile: Profile, seed: int) -> TrainTest:
    """The synthetic data of a profile."""
    return synthetic_features(
        profile.num_train,
        profile.num_test,
        num_rgb=profile.num_rgb,
        num_flow=profile.num_flow,
        num_classes=profile.num_classes,
        seed=seed,
    )


def evaluate(recipe: Recipe, data: FeatureSet) -> tuple[MeanAveragePrecision, Segments, float]:
    """mAP under the pipeline's protocol, the detections in seconds, and the mAP of the video scores."""
    steps, scores = [], []

    def watched() -> Iterator[Video]:
        for video in recipe.videos(data):
            steps.append(cast(float, video.seconds_per_snippet))
            scores.append(np.asarray(video.scores["video"], np.float64))
            yield video

    found = Segments.concatenate(list(PostProcessor(recipe.pipeline).process(watched())))
    detections = found if found.unit == "second" else found.to_seconds(steps)
    result = mean_average_precision(
        detections,
        data.annotations.segments,
        protocol=recipe.pipeline.protocol,
        ambiguous=data.annotations.ambiguous,
        empty_class="zero_ap",
    )
    first = int(recipe.pipeline.background == "first")
    per_class = np.stack(scores)[:, first : first + data.num_classes]
    return result, detections, float(classification_map(per_class, data.labels).average)


def train(recipe_class: type[Recipe], data: TrainTest | None = None, run: Run | None = None, say: Say = len) -> Result:
    """Train a method and measure it, before and after.

    Parameters
    ----------
    recipe_class : subclass of Recipe
        The method.
    data : TrainTest, optional
        Default: the synthetic data of the profile.
    run : Run, optional
        Profile, seed, device, folder, ...
    say : callable
        Gets every line of the log, ``print`` for example.

    Returns
    -------
    Result

    Notes
    -----
    After every epoch the checkpoint in the folder is replaced as a whole: networks, optimiser, what else the recipe
    keeps, and the states of the generators.  A resumed run ends with the same bits as one that was never interrupted,
    on the same machine with the same number of threads.
    """
    run = run or Run()
    if run.profile not in recipe_class.profiles:
        raise ValueError(f"`profile` must be one of {', '.join(recipe_class.profiles)}, got {run.profile!r}")
    profile = _profile(recipe_class.profiles[run.profile], run)
    with _threads(run):
        return _train(recipe_class, data or make_data(profile, run.seed), profile, run, say)


@contextmanager
def _threads(run: Run) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(run.threads or (before if run.profile == "paper" else 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(recipe_class: type[Recipe], data: TrainTest, profile: Profile, run: Run, say: Say) -> Result:
    device = as_device(run.device)
    torch.manual_seed(run.seed)
    recipe = recipe_class(data.train, profile, run.seed, device)
    recipe.networks.to(device)
    book = _Book(run, recipe, {**asdict(profile), "seed": run.seed, "data": data.name, "amp": run.amp}, say)
    started = time.perf_counter()
    untrained, _, _ = evaluate(recipe, data.test)
    first = book.resume()

    def autocast() -> Any:
        return torch.autocast(device.type, torch.bfloat16, enabled=run.amp)

    last = profile.epochs if run.stop_after is None else min(run.stop_after, profile.epochs)
    epochs = range(first, last)
    for epoch in tqdm(epochs, recipe.name, unit="epoch", disable=None if run.progress else True):
        recipe.before_epoch(epoch, book.write)
        recipe.networks.train()
        order = np.random.default_rng([run.seed, 3, epoch]).permutation(len(data.train))
        begun = time.perf_counter()
        totals = dict.fromkeys(recipe.terms, 0.0)
        for at in range(0, len(order), recipe.batch_size):
            for term, value in recipe.step(epoch, order[at : at + recipe.batch_size].tolist(), autocast).items():
                totals[term] += value
        means = {term: value / max(len(order), 1) for term, value in totals.items()}
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f"{recipe.name}: a loss is not finite in epoch {epoch}: {means}")
        recipe.after_epoch(epoch, book.write)
        book.epoch(epoch, profile.epochs, means, time.perf_counter() - begun)
    trained, detections, classification = evaluate(recipe, data.test)
    result = Result(
        name=recipe.name,
        untrained=untrained,
        trained=trained,
        classification=classification,
        detections=detections,
        seconds=time.perf_counter() - started,
        summary=recipe.summary(),
    )
    book.end(result, data.test.annotations.classes)
    return result


def _profile(base: Profile, run: Run) -> Profile:
    """The profile with what the run says otherwise; unknown options are refused."""
    unknown = sorted(set(run.options) - set(base.options))
    if unknown:
        raise ValueError(f"`options` must be among {', '.join(base.options) or 'none'}, got {', '.join(unknown)}")
    given = {"epochs": run.epochs, "learning_rate": run.learning_rate}
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(base, options={**base.options, **run.options}, **changed)


def as_device(name: str) -> torch.device:
    """The device of that name; ValueError where torch does not know it, or cannot use it here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # unknown; not there, or torch is built without it
        raise ValueError(f"`device` must be one that torch can use here, got {name!r}: {error}") from None


def require_choices(options: Mapping[str, Any], choices: Mapping[str, Collection[Any]]) -> None:
    """ValueError unless every option that is named in `choices` has one of the values there."""
    for name, allowed in choices.items():
        if options[name] not in allowed:
            raise ValueError(f"option `{name}` must be one of {', '.join(map(str, allowed))}, got {options[name]!r}")


class _Book:
    """Log, CSV and checkpoint of a run, in its folder if it has one."""

    def __init__(self, run: Run, recipe: Recipe, settings: dict[str, Any], say: Say) -> None:
        self.recipe, self.settings, self.say, self.run = recipe, settings, say, run
        self.folder = None if run.output is None else Path(run.output)
        if run.resume and self.folder is None:
            raise ValueError("`resume` needs `output`, the folder with the checkpoint")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not run.resume:
                for stale in ("log.txt", "log.csv", "checkpoint.pt"):
                    (self.folder / stale).unlink(missing_ok=True)

    def write(self, line: str) -> None:
        """A line of the log."""
        self.say(line)
        if self.folder is not None:
            with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def epoch(self, epoch: int, total: int, means: dict[str, float], seconds: float) -> None:
        """Log, CSV and checkpoint after an epoch."""
        terms = ", ".join(f"{term} {value:.4f}" for term, value in means.items())
        self.write(f"epoch {epoch + 1}/{total}: loss {sum(means.values()):.4f} ({terms}), {seconds:.1f} s")
        if self.folder is None:
            return
        path = self.folder / "log.csv"
        is_new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if is_new:
                rows.writerow(["epoch", "loss", *means, "seconds"])
            rows.writerow([epoch, repr(sum(means.values())), *map(repr, means.values()), f"{seconds:.3f}"])
        state = {
            "format": _FORMAT,
            "settings": json.dumps(self.settings, sort_keys=True),
            "epochs": epoch + 1,
            "recipe": self.recipe.state(),
            "generator": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with atomic_write(self.folder / "checkpoint.pt", "wb") as target:
            torch.save(state, target)

    def resume(self) -> int:
        """The number of epochs that are done; the recipe and the generators are as they were then."""
        if not self.run.resume or self.folder is None:
            return 0
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.recipe.device, weights_only=True)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise FormatError(f"{path}: not a checkpoint of these examples")
        before, now = json.loads(state["settings"]), json.loads(json.dumps(self.settings))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            what = ", ".join(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed)
            raise ValueError(f"{path}: made with other settings ({what})")
        self.recipe.load_state(state["recipe"])
        torch.set_rng_state(state["generator"].cpu())
        if state["cuda"]:
            torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
        done = int(state["epochs"])
        self._cut(done)
        self.write(f"resumed after epoch {done}")
        return done

    def _cut(self, epochs: int) -> None:
        """Rows of the CSV that were written after the checkpoint go."""
        path = cast(Path, self.folder) / "log.csv"
        if path.exists():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[: epochs + 1]
            with atomic_write(path) as file:
                file.writelines(kept)

    def end(self, result: Result, classes: Sequence[str]) -> None:
        """The last lines, and the files of the result."""
        for row in result.rows():
            self.write("  ".join(cell.ljust(28) if i == 0 else cell.rjust(5) for i, cell in enumerate(row)))
        self.write(f"video classification {100 * result.classification:.1f} mAP, {result.seconds:.0f} s in all")
        if self.folder is None:
            return
        write_detections(self.folder / "detections.json", result.detections, classes=classes)
        summary = {
            "name": result.name,
            "settings": self.settings,
            "tiou_thresholds": result.trained.tiou_thresholds.tolist(),
            "untrained": [*result.untrained.per_threshold.tolist(), result.untrained.average],
            "trained": [*result.trained.per_threshold.tolist(), result.trained.average],
            "classification": result.classification,
            "seconds": result.seconds,
            **result.summary,
        }
        with atomic_write(self.folder / "result.json") as file:
            file.write(json.dumps(summary, indent=2) + "\n")
