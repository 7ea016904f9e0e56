"""Features and annotations of a training and a test set: synthetic, THUMOS14 as in W-TALC, or ActivityNet 1.3.

The synthetic set has THUMOS14's statistics of instances (`synthetic.make_annotations`) and features of two modalities,
RGB before flow, in which only a part of an action is discriminative and the scene around it looks like it.  Its
difficulty (`Difficulty`) was set once, by the mAP of `mil`, a plain classifier of videos, before any other method
existed here.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _npy, _unpickle, synthetic
from .._checks import Float
from ..formats import read_annotations, read_wtalc_annotations
from ..types import Annotations, FormatError, Segments

__all__ = ["Difficulty", "FeatureSet", "TrainTest", "read_activitynet", "read_wtalc", "synthetic_features"]

Features = NDArray[np.floating[Any]]
FEATURE_BYTES = 16 << 30  # largest file of features


class FeatureSet:
    """Videos with snippet features (T, D) float32, their annotations, and what follows from both.

    Parameters
    ----------
    annotations : Annotations
        In seconds; names the videos.
    load : callable
        ``load(i)`` gives the features of video i, (T, D) with T >= 1.
    num_rgb : int
        The first columns are RGB, the others flow.
    seconds_per_snippet : float or None
        None: that of every video is its duration over its T, as with ActivityNet.
    """

    def __init__(
        self,
        annotations: Annotations,
        load: Callable[[int], Features],
        *,
        num_rgb: int,
        seconds_per_snippet: float | None = synthetic.SECONDS_PER_SNIPPET,
    ) -> None:
        self.annotations = annotations
        self.num_rgb = num_rgb
        self._load = load
        self._step = seconds_per_snippet
        self.labels = np.zeros((annotations.num_videos, len(annotations.classes)), bool)
        for row, of_video in zip(self.labels, annotations.segments.split()):
            row[of_video.labels] = True

    def __len__(self) -> int:
        return self.annotations.num_videos

    @property
    def ids(self) -> tuple[str, ...]:
        """Name of every video."""
        return self.annotations.video_ids

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return len(self.annotations.classes)

    def features(self, index: int) -> Features:
        """(T, D) of video `index`; ValueError if there are no snippets or a value is not finite."""
        found = self._load(index).astype(np.float32, copy=False)
        if found.ndim != 2 or not len(found) or not np.isfinite(found).all():
            raise ValueError(
                f"features of {self.ids[index]!r} must be finite, of shape (T >= 1, D), got shape {found.shape}"
            )
        return found

    def seconds_per_snippet(self, index: int, num_snippets: int) -> float:
        """Of video `index`, which has `num_snippets`."""
        return self._step or float(self.annotations.durations[index]) / num_snippets

    def sample(self, index: int, length: int, rng: np.random.Generator | None = None) -> Features:
        """`length` of the T snippets: those at floor(i T / length), or one of every stretch from there on at random."""
        whole = self.features(index)
        edges = np.arange(length + 1) * len(whole) // length
        chosen = edges[:-1]
        if rng is not None:
            chosen = chosen + np.floor(rng.random(length) * np.maximum(edges[1:] - chosen, 1)).astype(np.int64)
        return whole[chosen]


@dataclass(frozen=True)
class TrainTest:
    """The two halves of an experiment, and what to call it."""

    train: FeatureSet
    test: FeatureSet
    name: str


# ----------------------------------------------------------------------------------------------------------- synthetic


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the synthetic features are.

    The defaults were set so that `mil` of the profile "default" reaches an mAP like that of the first published
    models, STPN say (28.9 on average over 0.1:0.7): ``python -m tal_postproc.examples.mil --seed S`` gives 29.7, 26.1
    and 29.8 for the seeds 0, 1 and 2.  No other method was run while they were chosen.

    Parameters
    ----------
    signal : float
        Length of the discriminative part of an action's features, where noise has length 1.
    rest : float
        How long, as a part of it, the features of the undiscriminative rest of an action are.
    core : float
        Largest part of an action that is discriminative; the least is half of it.
    context : float
        Probability that the scene of the action shows on a side of an instance, and expected number of other places
        with it per instance.
    cuts : float
        Camera changes per minute; each shot has its own background and its own look.
    noise : float
        Of a snippet, drifting slowly.
    """

    signal: float = 1.0
    rest: float = 0.4
    core: float = 0.5
    context: float = 0.8
    cuts: float = 3.0
    noise: float = 1.2


def synthetic_features(
    num_train: int,
    num_test: int,
    *,
    num_rgb: int = 64,
    num_flow: int = 64,
    num_classes: int = 20,
    seed: int = 0,
    difficulty: Difficulty | None = None,
) -> TrainTest:
    """A training and a test set out of a seed.

    A snippet's features are the positive part of a sum of directions, one set for each modality, plus noise: an action
    has a discriminative core and a rest, both of its class; the scene of an action (its context) stands beside
    instances and elsewhere in the same videos, stronger in RGB than in flow; every shot has one of a dozen backgrounds
    that all classes share, and a look of its own.  Classes come in pairs that resemble each other.  No snippet of one
    video depends on how many others there are.

    Examples
    --------
    >>> data = synthetic_features(2, 1, num_classes=4)
    >>> len(data.train), len(data.test), data.train.features(0).shape, data.train.labels[0].tolist()
    (2, 1, (570, 128), [False, False, False, True])
    """
    num_train, num_test = _checks.as_count(num_train, "num_train"), _checks.as_count(num_test, "num_test")
    sizes = _checks.as_count(num_rgb, "num_rgb", at_least=1), _checks.as_count(num_flow, "num_flow", at_least=1)
    truth = synthetic.make_annotations(num_train + num_test, seed, num_classes=num_classes)
    rule = difficulty or Difficulty()
    worlds = [_World(seed, name, size, num_classes) for name, size in zip(("rgb", "flow"), sizes)]
    spans = list(truth.segments.split())

    def load(index: int) -> Features:
        return _draw(worlds, rule, seed, truth.video_ids[index], spans[index], float(truth.durations[index]))

    made = [load(index) for index in range(truth.num_videos)]

    def of(rows: range) -> FeatureSet:
        return FeatureSet(_videos(truth, rows), lambda i: made[rows[i]], num_rgb=sizes[0])

    train, test = of(range(num_train)), of(range(num_train, num_train + num_test))
    return TrainTest(train, test, f"synthetic, seed {seed}")


NUM_BACKGROUNDS = 12
ALIKE = 0.4  # cosine between the two classes of a pair, and between the core and the rest of a class
MODALITIES = {"rgb": (1.0, 0.8), "flow": (0.5, 1.0)}  # how strongly scenes and actions show


class _World:
    """The directions of one modality: of length 1, the same for all videos."""

    def __init__(self, seed: int, modality: str, size: int, num_classes: int) -> None:
        rng = np.random.default_rng(np.random.SeedSequence([seed, *f"features of {modality}".encode()]))
        self.scene_strength, self.action_strength = MODALITIES[modality]
        self.size = size
        pairs = self._directions(rng, (num_classes + 1) // 2)[np.arange(num_classes) // 2]
        self.core = self._mixed(pairs, self._directions(rng, num_classes))
        self.rest = self._mixed(self.core, self._directions(rng, num_classes))
        self.context = self._directions(rng, num_classes)
        self.background = self._directions(rng, NUM_BACKGROUNDS)

    def _directions(self, rng: np.random.Generator, count: int) -> Float:
        found = rng.standard_normal((count, self.size))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    @staticmethod
    def _mixed(base: Float, other: Float) -> Float:
        found = ALIKE * base + np.sqrt(1 - ALIKE**2) * other
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def _draw(worlds: Sequence[_World], rule: Difficulty, seed: int, name: str, truth: Any, duration: float) -> Features:
    """(T, D) float32 of one video."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, *f"features of {name}".encode()]))
    step = synthetic.SECONDS_PER_SNIPPET
    edges = np.arange(max(1, int(duration / step)) + 1) * step
    num_classes = len(worlds[0].core)

    def coverage(start: Float, end: Float) -> Float:
        """(n, T): which part of every snippet the intervals cover."""
        inside = np.minimum(edges[1:], end[:, None]) - np.maximum(edges[:-1], start[:, None])
        return np.clip(inside / step, 0.0, 1.0)

    spans, which = np.unique(truth.segments, axis=0, return_inverse=True)  # an interval of two classes is one picture
    start, end = spans.T
    length = end - start
    part = rule.core * rng.uniform(0.5, 1.0, len(spans))
    left = start + rng.uniform(0.0, 1.0, len(spans)) * (1 - part) * length
    strength = np.exp(0.3 * rng.standard_normal((len(spans), 1)))
    core = strength * coverage(left, left + part * length)
    rest = strength * coverage(start, end) * rule.rest
    scene = np.zeros((len(spans), len(edges) - 1))
    for side in (-1, 1):
        reach = length * rng.exponential(1.0, len(spans))
        shown = rng.random((len(spans), 1)) < rule.context
        beside = coverage(start - reach, start) if side < 0 else coverage(end, end + reach)
        scene = np.maximum(scene, shown * beside)
    elsewhere = rng.integers(len(spans), size=rng.poisson(rule.context * len(spans)))
    begin = rng.uniform(0.0, duration, len(elsewhere))
    for row, found in zip(elsewhere, coverage(begin, begin + length[elsewhere] * rng.lognormal(0.0, 0.4, len(begin)))):
        scene[row] = np.maximum(scene[row], found)
    scene = np.maximum(scene, 0.5 * coverage(start, end))  # the scene goes on while the action does

    by_class = np.zeros((3, num_classes, len(edges) - 1))
    for label, row in zip(truth.labels, which.reshape(-1)):
        for total, found in zip(by_class, (core, rest, scene)):
            total[label] = np.maximum(total[label], found[row])
    cuts = np.sort(rng.uniform(0.0, duration, rng.poisson(rule.cuts * duration / 60)))
    shot = np.searchsorted(cuts, (edges[:-1] + edges[1:]) / 2)
    setting = rng.integers(NUM_BACKGROUNDS, size=len(cuts) + 1)
    active = np.minimum(1.0, coverage(start, end).sum(axis=0))[:, None]

    columns = []
    for world in worlds:
        look = rng.standard_normal((len(cuts) + 1, world.size)) / np.sqrt(world.size)
        noise = rng.standard_normal((len(edges) - 1, world.size)) / np.sqrt(world.size)
        noise = 0.6 * noise + 0.8 * _slow(rng, len(edges) - 1, world.size) / np.sqrt(world.size)
        action = np.maximum(by_class[0], 0.0).T @ world.core + by_class[1].T @ world.rest
        signal = rule.signal * (world.action_strength * action + world.scene_strength * by_class[2].T @ world.context)
        place = (1 - 0.5 * active) * world.background[setting[shot]] + 0.5 * look[shot]
        columns.append(np.maximum(signal + place + rule.noise * noise, 0.0))
    return np.concatenate(columns, axis=1).astype(np.float32)


def _slow(rng: np.random.Generator, num_snippets: int, size: int) -> Float:
    """Unit noise with straight lines between white knots every 4 snippets."""
    knots = 1.22 * rng.standard_normal((num_snippets // 4 + 2, size))
    place = np.arange(num_snippets) / 4
    before = place.astype(np.int64)
    weight = (place - before)[:, None]
    return (1 - weight) * knots[before] + weight * knots[before + 1]


# --------------------------------------------------------------------------------------------------------------- files


def read_wtalc(root: str | Path, *, max_bytes: int = FEATURE_BYTES) -> TrainTest:
    """THUMOS14 in the layout of W-TALC: training on "validation" (200 videos), tests on "test" (212).

    Parameters
    ----------
    root : str or path
        With ``Thumos14reduced-I3D-JOINTFeatures.npy``, a pickled object array of one (T, 2048) float array per video
        (RGB, then flow; 25/16 snippets per second), and the folder ``Thumos14reduced-Annotations``.
    max_bytes : int
        Largest size of the features' file, which is held in memory.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    FormatError
        If the pickle holds anything but arrays of numbers, or not one array per video.  Nothing in it is called.
    """
    folder = Path(root)
    annotations = read_wtalc_annotations(folder / "Thumos14reduced-Annotations", subset=None)
    path = folder / "Thumos14reduced-I3D-JOINTFeatures.npy"
    found = _object_array(path, max_bytes)
    if len(found) != annotations.num_videos:
        raise FormatError(f"{path}: must have one array per video ({annotations.num_videos}), got {len(found)}")
    position = {name: row for row, name in enumerate(annotations.video_ids)}

    def of(subset: str) -> FeatureSet:
        truth = read_wtalc_annotations(folder / "Thumos14reduced-Annotations", subset=subset)
        rows = [position[name] for name in truth.video_ids]
        return FeatureSet(truth, lambda i: found[rows[i]], num_rgb=_half(found[0].shape[1], path))

    return TrainTest(of("validation"), of("test"), "THUMOS14")


def _half(columns: int, path: Path) -> int:
    if columns % 2:
        raise FormatError(f"{path}: features must have as many RGB as flow columns, got {columns} in all")
    return columns // 2


def _object_array(path: Path, max_bytes: int) -> list[NDArray[Any]]:
    """The matrices of a pickled object array, by the reader that calls nothing."""
    size = path.stat().st_size
    if size > max_bytes:
        raise FormatError(f"{path}: must have at most {max_bytes} bytes (`max_bytes`), got {size}")
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        stream = cast(IO[bytes], file)  # as far as anyone reads it
        shape, _, dtype = _npy.read_header(stream, str(path))
        if not dtype.hasobject:
            raise FormatError(f"{path}: must be an object array of one (T, D) array per video, got {dtype} of {shape}")
        return _unpickle.load_matrices(stream, shape, str(path))


def read_activitynet(features: str | Path, annotations: str | Path) -> TrainTest:
    """ActivityNet 1.3: one ``<video>.npy`` (T, D) per video and the JSON of the annotations.

    Training on the subset "training", tests on "validation"; the seconds of a snippet are the duration of its video
    over T.  Videos without a file are left out; a file may be named with or without the leading ``v_``.

    Raises
    ------
    FileNotFoundError
        If none of the videos of a subset has a file.
    """
    folder = Path(features)

    def of(subset: str) -> FeatureSet:
        truth = read_annotations(annotations, subset=subset)
        files = [_first(folder / f"{stem}.npy" for stem in _stems(name)) for name in truth.video_ids]
        present = [row for row, file in enumerate(files) if file is not None]
        if not present:
            raise FileNotFoundError(f"{folder}: no features of the {truth.num_videos} videos of subset {subset!r}")
        chosen = [files[row] for row in present]

        def load(index: int) -> Features:
            found: Features = np.load(str(chosen[index]), allow_pickle=False)
            return found

        kept = _videos(truth, present)
        return FeatureSet(kept, load, num_rgb=_half(load(0).shape[1], Path(str(chosen[0]))), seconds_per_snippet=None)

    return TrainTest(of("training"), of("validation"), "ActivityNet 1.3")


def _stems(name: str) -> tuple[str, ...]:
    """Names that a file of this video may have; an id is never a path."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise FormatError(f"a video's id must be the name of a file, got {name!r}")
    return name, f"v_{name}", name.removeprefix("v_")


def _first(paths: Iterator[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _videos(truth: Annotations, rows: Sequence[int]) -> Annotations:
    """Some of the videos."""

    def some(segments: Segments) -> Segments:
        parts = [segments.video(row) for row in rows]
        return Segments.concatenate(parts) if parts else Segments.empty(unit=segments.unit, video_ids=())

    ambiguous = None if truth.ambiguous is None else some(truth.ambiguous)
    return Annotations(some(truth.segments), truth.classes, truth.durations[list(rows)], ambiguous=ambiguous)
