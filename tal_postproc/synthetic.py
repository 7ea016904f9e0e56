"""THUMOS14-like videos out of a seed: annotations, and activation maps with the faults that real ones have.

The annotations follow a small model whose numbers were read off the 412 annotated THUMOS14 videos; the maps are
simulated from annotations, synthetic or real.  How strong the faults are was set by the mAP of plain NMS alone (RSKP's
thresholds and suppression), to be like that of published models; no other method was run while they were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int
from .types import Annotations, Segments, Video, Videos

Background = Literal["none", "last", "first"]

__all__ = ["Faults", "iter_videos", "make_annotations", "make_videos", "simulate_tcams"]

SECONDS_PER_SNIPPET = 16 / 25  # 16 frames at 25 fps, as in the usual I3D features

# Statistics of the THUMOS14 annotations: 200 validation and 212 test videos, an interval with two classes counted
# once, intervals that end behind their video left out.  Per class: videos whose main class it is; intervals in such a
# video of 150 s (geometric mean of n * (150 / duration) ** 0.85); seconds of an interval (geometric mean).
THUMOS14_CLASSES = (
    ("BaseballPitch", 21, 4.0, 3.2),
    ("BasketballDunk", 20, 17.8, 1.8),
    ("Billiards", 20, 5.4, 2.3),
    ("CleanAndJerk", 21, 4.6, 12.5),
    ("CliffDiving", 26, 9.7, 3.1),
    ("CricketBowling", 6, 6.0, 2.8),
    ("CricketShot", 35, 16.2, 1.5),
    ("Diving", 20, 12.0, 2.9),
    ("FrisbeeCatch", 17, 9.9, 3.7),
    ("GolfSwing", 18, 3.3, 6.9),
    ("HammerThrow", 20, 7.6, 6.7),
    ("HighJump", 20, 8.0, 5.1),
    ("JavelinThrow", 20, 6.1, 5.9),
    ("LongJump", 20, 6.1, 6.7),
    ("PoleVault", 20, 7.4, 6.9),
    ("Shotput", 25, 7.6, 4.7),
    ("SoccerPenalty", 21, 6.3, 2.7),
    ("TennisSwing", 19, 12.1, 1.9),
    ("ThrowDiscus", 20, 6.7, 7.0),
    ("VolleyballSpiking", 23, 11.7, 2.5),
)
# The same annotations: mean and standard deviation of log(duration), the exponent of n ~ duration ** 0.85 with its
# residual, the log-length residual of a video and of an interval within its video, the correlation of the two
# residuals of a video, and the spread of log(gap) within a video.
LOG_DURATION = (4.98, 0.88)
COUNT_EXPONENT, COUNT_SPREAD = 0.85, 0.73
LENGTH_SPREAD_VIDEO, LENGTH_SPREAD_WITHIN = 0.51, 0.44
COUNT_LENGTH_CORRELATION = -0.3  # chosen: the measured -0.39 makes lengths too short, -0.2 coverage too low
GAP_SPREAD = 1.15
EDGE_GAP = 1.8  # how much longer the first and the last gap are; chosen, not fitted
MAX_COVERAGE = 0.8  # most of a video that actions may fill; chosen: 95 % of the real videos stay below 0.75
CLIFF_DIVING, CRICKET_BOWLING, CRICKET_SHOT, DIVING = 4, 5, 6, 7
BOWLING_WITH_SHOT = 27 / 35  # share of the CricketShot videos in which the bowling is annotated, too
SECOND_CLASS = 8 / 412  # share of the videos with two classes that have nothing to do with each other


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How badly a simulated TCAM behaves; all at 0 is a map that follows its annotations.

    The defaults are fixed: with them, plain NMS behind RSKP's thresholds reaches an mAP like that of published
    weakly supervised models (``docs/conventions.md``).

    Parameters
    ----------
    core : float
        In [0, 1]: how far the response is lost outside the discriminative core of an instance.
    miss : float
        Probability that an instance hardly fires at all.
    boundary : float
        Standard deviation of the response's start and end, as a fraction of the instance's length.
    split : float
        Probability that an instance breaks in two.
    context : float
        Probability, for each side of an instance, that the scene before or after it fires too.
    distractors : float
        Expected number of action-like stretches of background per instance.
    confusion : float
        Probability that the next class (k + 1 modulo K) fires with the true one throughout a video.
    cuts : float
        Expected camera changes per minute; each shot shifts the level of all classes present and of the attention.
    noise : float
        Standard deviation of the noise on the logits.
    """

    core: float = 0.8
    miss: float = 0.1
    boundary: float = 0.1
    split: float = 0.2
    context: float = 0.4
    distractors: float = 0.4
    confusion: float = 0.4
    cuts: float = 3.0
    noise: float = 0.4

    def __post_init__(self) -> None:
        for field in fields(self):
            bounded = field.name in ("core", "miss", "split", "context", "confusion")
            value = _checks.as_number(
                getattr(self, field.name), field.name, at_least=0.0, at_most=1.0 if bounded else None
            )
            object.__setattr__(self, field.name, value)

    @classmethod
    def none(cls) -> Faults:
        """No fault at all.

        >>> Faults.none().noise
        0.0
        """
        return cls(**{field.name: 0.0 for field in fields(cls)})


def _generator(seed: int, video_id: str) -> np.random.Generator:
    """A stream of its own for every video, whatever its place and its neighbours."""
    return np.random.default_rng(np.random.SeedSequence([seed, *video_id.encode()]))


def _class_names(num_classes: int) -> tuple[str, ...]:
    known = tuple(name for name, *_ in THUMOS14_CLASSES[:num_classes])
    return known + tuple(f"class_{k}" for k in range(len(known), num_classes))


def _annotate(rng: np.random.Generator, num_classes: int) -> tuple[Float, Int, float]:
    """Segments in seconds, labels, duration of one video."""
    table = np.array([row[1:] for row in THUMOS14_CLASSES])[np.arange(num_classes) % len(THUMOS14_CLASSES)]
    videos, count_at_150, typical_length = table.T
    main = int(rng.choice(num_classes, p=videos / videos.sum()))
    duration = round(float(np.clip(rng.lognormal(*LOG_DURATION), 9.0, 1700.0)), 2)

    more, longer = rng.standard_normal(2)
    longer = COUNT_LENGTH_CORRELATION * more + np.sqrt(1 - COUNT_LENGTH_CORRELATION**2) * longer
    expected = count_at_150[main] * (duration / 150) ** COUNT_EXPONENT * np.exp(COUNT_SPREAD * more)
    lengths = (
        typical_length[main]
        * np.exp(LENGTH_SPREAD_VIDEO * longer)
        * rng.lognormal(0.0, LENGTH_SPREAD_WITHIN, max(1, round(expected)))
    )
    lengths = np.clip(lengths, 0.3, MAX_COVERAGE * duration)
    lengths = lengths[np.cumsum(lengths) <= MAX_COVERAGE * duration]
    n = len(lengths)

    labels = np.full(n, main)
    gaps = rng.lognormal(0.0, GAP_SPREAD, n + 1)
    gaps[[0, -1]] *= EDGE_GAP
    kind = rng.random()
    if main == CRICKET_SHOT and kind < BOWLING_WITH_SHOT:  # a shot follows its bowling without a gap
        labels[0::2] = CRICKET_BOWLING
        gaps[1:n:2] = 0.0
    elif num_classes > 1 and kind < SECOND_CLASS:
        labels[rng.random(n) < 0.5] = (main + rng.integers(1, num_classes)) % num_classes
    gaps *= (duration - lengths.sum()) / gaps.sum()
    ends = np.cumsum(gaps[:-1] + lengths)
    # Tenths of a second, as annotated; floor keeps the order of all boundaries and the end inside the video.
    segments = np.floor(np.column_stack([ends - lengths, ends]) * 10) / 10
    if main == CLIFF_DIVING and num_classes > DIVING:  # in THUMOS14 every cliff dive is annotated as a dive, too
        segments, labels = np.repeat(segments, 2, axis=0), np.tile([CLIFF_DIVING, DIVING], n)
    return segments, labels, duration


def make_annotations(num_videos: int, seed: int = 0, *, num_classes: int = 20) -> Annotations:
    r"""Annotations with the statistics of THUMOS14.

    A video has a main class, drawn by its share in THUMOS14, and a log-normal duration D.  It holds about
    ``count * (D / 150) ** 0.85`` intervals, log-normal lengths whose level differs between classes and videos, and
    log-normal gaps scaled to fill what remains.  Every CliffDiving is a Diving as well, most CricketShot videos
    show the bowling before each shot, and 2 % of the videos mix two unrelated classes.

    Parameters
    ----------
    num_videos : int
        ``>= 0``.  Video i is named ``synthetic_00000``, ``synthetic_00001``, ... and does not depend on this number.
    seed : int
        ``>= 0``.
    num_classes : int
        K ``>= 1``.  The first 20 are those of THUMOS14 in alphabetical order; further ones repeat their statistics.

    Returns
    -------
    Annotations
        In seconds, rounded to tenths; every instance lies within its video, and those of one class never overlap.
        With the durations, and the names of all `num_classes` classes.

    Examples
    --------
    >>> truth = make_annotations(2, seed=0)
    >>> truth.segments.video_ids, truth.segments.unit, truth.durations.tolist()
    (('synthetic_00000', 'synthetic_00001'), 'second', [365.08, 158.15])
    """
    num_videos = _checks.as_count(num_videos, "num_videos")
    num_classes = _checks.as_count(num_classes, "num_classes", at_least=1)
    seed = _checks.as_count(seed, "seed")
    ids = [f"synthetic_{v:05d}" for v in range(num_videos)]
    made = [_annotate(_generator(seed, "annotations of " + name), num_classes) for name in ids]
    instances = Segments(
        np.concatenate([np.empty((0, 2)), *(segments for segments, _, _ in made)]),
        np.concatenate([np.empty(0, np.int64), *(labels for _, labels, _ in made)]),
        offsets=np.cumsum([0, *(len(labels) for _, labels, _ in made)]),
        unit="second",
        video_ids=ids,
    )
    return Annotations(instances, _class_names(num_classes), np.array([duration for _, _, duration in made]))


def _sigmoid(x: Float) -> Float:
    return 1 / (1 + np.exp(-np.clip(x, -60.0, 60.0)))


def _slow_noise(rng: np.random.Generator, num_snippets: int, columns: int) -> Float:
    """Unit noise that drifts over a few snippets: white knots every 4 snippets, straight lines between them."""
    knots = 1.22 * rng.standard_normal((num_snippets // 4 + 2, columns))  # 1.22: the lines take a third of the variance
    place = np.arange(num_snippets) / 4
    before = place.astype(np.int64)
    weight = (place - before)[:, None]
    return (1 - weight) * knots[before] + weight * knots[before + 1]


def _responses(rng: np.random.Generator, times: Float, intervals: Float, faults: Faults) -> Float:
    """(n, T): how strongly each of n intervals fires at each time, about 3 where it fires fully."""
    n = len(intervals)
    start, end = intervals[:, :1], intervals[:, 1:]
    length = np.maximum(end - start, 0.1)

    def each(low: float, high: float) -> Float:
        return rng.uniform(low, high, (n, 1))

    def happens(probability: float) -> NDArray[np.bool_]:
        return rng.random((n, 1)) < probability

    blur = np.minimum(0.1, 0.15 * length)  # seconds

    def box(left: Float, right: Float) -> Float:
        return _sigmoid((times - left) / blur) * _sigmoid((right - times) / blur)

    shift = faults.boundary * length * rng.standard_normal((2, n, 1))
    left, right = start + shift[0], end + shift[1]
    width = length * (1 - faults.core * each(0.0, 0.8))
    core = left + each(0.0, 1.0) * np.maximum(right - left - width, 0.0)
    rest = 1 - faults.core * each(0.2, 1.0)
    shape = np.maximum(rest * box(left, right), box(core, core + width))

    dip = happens(faults.split) * each(0.6, 1.0)
    middle = left + length * each(0.3, 0.7)
    shape *= 1 - dip * np.exp(-0.5 * ((times - middle) / np.maximum(0.1 * length, 0.3)) ** 2)

    for side in (-1, 1):
        reach = length * rng.exponential(0.4, (n, 1))
        level = happens(faults.context) * each(0.1, 0.6)
        scene = box(left - reach, left) if side < 0 else box(right, right + reach)
        shape = np.maximum(shape, level * scene)

    strength = 3.2 * np.exp(0.35 * rng.standard_normal((n, 1)))
    return strength * np.where(happens(faults.miss), 0.25, 1.0) * shape


def _evidence(rng: np.random.Generator, times: Float, truth: Segments, num_classes: int, faults: Faults) -> Float:
    """(T, K): what speaks for each class, right or wrong; 0 where nothing does."""
    evidence = np.zeros((len(times), num_classes))
    if not len(truth):
        return evidence
    # Rows that share an interval show the same pictures: they share its faults.
    intervals, interval = np.unique(truth.segments, axis=0, return_inverse=True)
    fired = _responses(rng, times, intervals, faults)[interval.reshape(-1)]
    present = np.unique(truth.labels)
    for k in present:
        evidence[:, k] = fired[truth.labels == k].max(axis=0)

    rows = rng.integers(len(truth), size=rng.poisson(faults.distractors * len(intervals)))
    length = np.diff(truth.segments[rows], axis=1) * rng.lognormal(0.0, 0.4, (len(rows), 1))
    start = rng.uniform(0.0, times[0] + times[-1], (len(rows), 1))
    stretches = np.concatenate([start, start + length], axis=1)
    false = rng.uniform(0.2, 0.9, (len(rows), 1)) * _responses(rng, times, stretches, faults)
    for k, stretch in zip(truth.labels[rows], false):
        evidence[:, k] = np.maximum(evidence[:, k], stretch)

    for k in present:
        if rng.random() < faults.confusion:
            wrong = (k + 1) % num_classes
            evidence[:, wrong] = np.maximum(evidence[:, wrong], rng.uniform(0.6, 1.4) * evidence[:, k])
    return evidence


def _simulate(
    rng: np.random.Generator, times: Float, truth: Segments, num_classes: int, faults: Faults
) -> tuple[Float, Float]:
    """Logits (T, K + 1), background last, and attention (T,) of one video."""
    evidence = _evidence(rng, times, truth, num_classes, faults)
    present = np.unique(truth.labels)
    duration = times[0] + times[-1]
    cuts = np.sort(rng.uniform(0.0, duration, rng.poisson(faults.cuts * duration / 60)))
    shots = rng.standard_normal((len(cuts) + 1, 2))[np.searchsorted(cuts, times)] * min(1.0, faults.cuts)

    logits = np.zeros((len(times), num_classes + 1))
    logits[:, :-1] = evidence
    logits[:, present] += 1.0 + 0.3 * shots[:, :1]
    logits[:, -1] = 2.5
    noise = rng.standard_normal(logits.shape)
    noise[:, present] = 0.5 * noise[:, present] + _slow_noise(rng, len(times), len(present))
    logits += faults.noise * noise
    wander = 0.3 * shots[:, 1] + faults.noise * _slow_noise(rng, len(times), 1)[:, 0]
    return logits, _sigmoid(1.3 * evidence.max(axis=1) - 2.8 + wander)


def _softmax(logits: Float) -> Float:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def iter_videos(
    ground_truth: Segments,
    durations: ArrayLike,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    faults: Faults | None = None,
    background: Background = "none",
    seconds_per_snippet: float = SECONDS_PER_SNIPPET,
) -> Iterator[Video]:
    """The videos of `simulate_tcams` one at a time, so that large sets need no memory.

    Examples
    --------
    >>> truth = make_annotations(1000, seed=0)
    >>> next(iter_videos(truth.segments, truth.durations, num_classes=20)).id
    'synthetic_00000'
    """
    ground_truth.require_unit("second", "ground_truth")
    lasting = _checks.as_values(durations, ground_truth.num_videos, "durations", per="video")
    if (lasting <= 0).any():
        first = int(np.argmax(lasting <= 0))
        raise ValueError(f"`durations` must be above 0, got {lasting[first]} for video {first}")
    if num_classes is None:
        num_classes = int(ground_truth.labels.max(initial=0)) + 1
    num_classes = _checks.as_count(num_classes, "num_classes", at_least=1)
    _checks.as_labels(ground_truth.labels, len(ground_truth), "ground_truth.labels", num_classes=num_classes)
    seed = _checks.as_count(seed, "seed")
    _checks.as_choice(background, "background", get_args(Background))
    seconds_per_snippet = _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
    ids = ground_truth.video_ids or tuple(map(str, range(ground_truth.num_videos)))
    classes = np.arange(num_classes)
    columns = {"none": classes, "last": np.append(classes, num_classes), "first": np.append(num_classes, classes)}[
        background
    ]
    chosen = Faults() if faults is None else faults

    def simulate() -> Iterator[Video]:
        for name, truth, duration in zip(ids, ground_truth.split(), lasting.tolist()):
            num_snippets = max(1, int(duration / seconds_per_snippet))
            times = (np.arange(num_snippets, dtype=np.float64) + 0.5) * seconds_per_snippet
            logits, attention = _simulate(_generator(seed, name), times, truth, num_classes, chosen)
            highest = np.sort(logits, axis=0)[-max(1, len(logits) // 20) :]
            yield Video(
                name,
                {
                    "cas": (_softmax(logits) * attention[:, None])[:, columns],
                    "attention": attention,
                    "logits": logits[:, columns],
                },
                {"video": _softmax(highest.mean(axis=0))[columns]},
                seconds_per_snippet=seconds_per_snippet,
                duration=duration,
            )

    return simulate()


def simulate_tcams(
    ground_truth: Segments,
    durations: ArrayLike,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    faults: Faults | None = None,
    background: Background = "none",
    seconds_per_snippet: float = SECONDS_PER_SNIPPET,
) -> tuple[Video, ...]:
    r"""Activation maps that a weakly supervised model could have given for these annotations.

    Every instance fires over its discriminative core and less elsewhere; some break in two or hardly fire; the
    scene around them and stretches of background fire as well; a wrong class may fire with the right one; camera
    changes shift everything; and there is noise (`Faults`).  From logits :math:`l` (K classes and background) and
    attention :math:`a`, as in the published two-branch models,

    .. math:: \mathrm{cas}_{t,k} = \mathrm{softmax}(l_t)_k \, a_t .

    The video-level score is the softmax of the mean of the highest twentieth of each logit.

    Parameters
    ----------
    ground_truth : Segments
        In seconds.  What lies outside its video leaves no trace.
    durations : (V,) array_like of float
        Seconds, above 0, one per video.
    num_classes : int, optional
        K; the default is the highest label + 1.
    seed : int
        ``>= 0``.  A video depends on the seed, its id and its own annotations only.
    faults : Faults, optional
        How badly the maps behave.
    background : {"none", "last", "first"}
        Where ``cas``, ``logits`` and the video scores keep the column of the background, if they do.
    seconds_per_snippet : float
        Above 0.  A video has ``max(1, floor(duration / seconds_per_snippet))`` snippets.

    Returns
    -------
    videos : tuple of Video
        In the order of `ground_truth`; maps ``"cas"`` (T, K) and ``"attention"`` (T,) in [0, 1], ``"logits"``
        (T, K), scores ``"video"`` (K,), all float64.

    Raises
    ------
    UnitError
        If `ground_truth` is not in seconds.
    ValueError
        If a duration is not above 0 or a label is not below `num_classes`.

    Examples
    --------
    >>> truth = Segments([[2.0, 5.0]], labels=[1], unit="second", video_ids=["jump"])
    >>> (video,) = simulate_tcams(truth, [12.8], num_classes=3)
    >>> video.maps["cas"].shape, int(video.maps["cas"].max(axis=0).argmax())
    ((20, 3), 1)
    """
    return tuple(
        iter_videos(
            ground_truth,
            durations,
            num_classes=num_classes,
            seed=seed,
            faults=faults,
            background=background,
            seconds_per_snippet=seconds_per_snippet,
        )
    )


def make_videos(
    num_videos: int,
    seed: int = 0,
    *,
    num_classes: int = 20,
    faults: Faults | None = None,
    background: Background = "none",
    seconds_per_snippet: float = SECONDS_PER_SNIPPET,
) -> Videos:
    """THUMOS14-like videos: `make_annotations`, then `simulate_tcams`.

    Parameters
    ----------
    num_videos, seed, num_classes
        As in `make_annotations`.  Video i does not depend on `num_videos`.
    faults, background, seconds_per_snippet
        As in `simulate_tcams`.

    Returns
    -------
    Videos
        With ``.annotations``; ``.ground_truth`` (Segments in seconds) is short for a part of them.

    Examples
    --------
    >>> data = make_videos(2, seed=0)
    >>> len(data), data.ground_truth.num_videos, data.classes[0]
    (2, 2, 'BaseballPitch')
    """
    annotations = make_annotations(num_videos, seed, num_classes=num_classes)
    videos = simulate_tcams(
        annotations.segments,
        annotations.durations,
        num_classes=num_classes,
        seed=seed,
        faults=faults,
        background=background,
        seconds_per_snippet=seconds_per_snippet,
    )
    return Videos(videos, annotations.classes, annotations)
