"""The search: which settings are tried, how each is judged, and what may be believed of the best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks, _threads
from .._checks import Float, Int
from ..bootstrap import weighing
from ..config import Pipeline
from ..evaluation import PROTOCOLS, SNIPPETS_PER_SECOND, _as_thresholds, match_all
from ..types import MissingExtraError, Segments, Video
from ._shared import Shared, order_key
from ._space import Choice, Space

METHODS = ("grid", "random", "optuna")
PER_TASK = 16  # settings that a thread takes at once: neighbours, which share most of their work


@dataclass(frozen=True)
class Trial:
    """A setting and its mAP on all videos.

    `std` is the spread of the mAP over resamples of the videos, `gain_std` that of its difference from the starting
    pipeline on the same resamples; `per_fold` has the mAP on the videos of each fold.  Fractions.
    """

    setting: Mapping[str, Any]
    score: float
    std: float
    gain_std: float
    per_fold: tuple[float, ...]


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    `best` is the pipeline with the largest mAP on all videos, the starting one included; the earlier of equals.  Its
    own mAP flatters it, as it was chosen by it.  What may be expected on other videos is `out_of_fold`: for each fold
    the setting that is best on all other videos is judged on the fold, and the mean is taken.  `gain` is that minus
    the starting pipeline's mean over the folds, `gain_std` its spread over resamples of the videos.

    >>> import tal_postproc as tpp
    >>> data = tpp.synthetic.make_videos(20, seed=0)
    >>> result = tpp.tune(data.videos, data.ground_truth, tpp.presets.get("rskp"), {"margin.scale": [0.1, 0.25, 0.5]})
    >>> len(result.table), TuningResult.from_dict(result.to_dict()) == result
    (3, True)
    """

    start: Pipeline
    best: Pipeline
    best_setting: Mapping[str, Any]  # empty where nothing is better than the starting pipeline
    best_score: float
    baseline: Trial
    table: tuple[Trial, ...]  # in the order of the search
    refused: tuple[tuple[Mapping[str, Any], str], ...]  # settings that make no pipeline, and why
    chosen: tuple[Mapping[str, Any], ...]  # the setting that is best without each fold
    out_of_fold: float
    gain: float
    gain_std: float
    method: str
    seed: int
    protocol: str
    tiou_thresholds: tuple[float, ...]
    num_videos: int

    @property
    def within_noise(self) -> bool:
        """Whether the gain is at most two of its standard errors."""
        return not self.gain > 2.0 * self.gain_std

    @property
    def verdict(self) -> str:
        """The gain in a sentence, in points of mAP."""
        text = f"gain over the starting pipeline: {100 * self.gain:.2f} ± {100 * self.gain_std:.2f}"
        return f"{text}; within noise" if self.within_noise else text

    def ranked(self) -> tuple[Trial, ...]:
        """The table, best first; the earlier one first among equals."""
        return tuple(sorted(self.table, key=lambda trial: -trial.score))

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON can hold; `within_noise` and `verdict` come along to be read."""
        plain = {**asdict(self), "start": self.start.to_dict(), "best": self.best.to_dict()}
        listed: dict[str, Any] = json.loads(json.dumps(plain))
        return {**listed, "within_noise": self.within_noise, "verdict": self.verdict}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TuningResult:
        """The result that `to_dict` wrote."""
        rest = {key: value for key, value in values.items() if key not in ("within_noise", "verdict")}
        unknown = sorted(set(rest) ^ set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"`values` must have the fields of a TuningResult, {unknown[0]!r} is missing or unknown")
        for name in ("start", "best"):
            rest[name] = Pipeline.from_dict(rest[name])
        rest["baseline"] = _trial(rest["baseline"])
        rest["table"] = tuple(map(_trial, rest["table"]))
        rest["refused"] = tuple((setting, reason) for setting, reason in rest["refused"])
        for name in ("chosen", "tiou_thresholds"):
            rest[name] = tuple(rest[name])
        return cls(**rest)


def _trial(values: Mapping[str, Any]) -> Trial:
    return Trial(**{**values, "per_fold": tuple(values["per_fold"])})


def tune(
    videos: Iterable[Video],
    ground_truth: Segments,
    pipeline: Pipeline,
    space: Mapping[str, Any],
    *,
    method: Literal["grid", "random", "optuna"] = "grid",
    evaluations: int | None = None,
    folds: int = 5,
    tiou_thresholds: ArrayLike | str | None = None,
    protocol: str | None = None,
    ambiguous: Segments | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    num_resamples: int = 100,
    seed: int = 0,
    num_threads: int | None = None,
    cache_bytes: int = 1 << 28,
    progress: bool = False,
) -> TuningResult:
    """Search settings of a pipeline on annotated videos, and say whether the gain is more than noise.

    Every setting is judged by its mAP on all videos.  Its detections are matched once; what they score on a fold, or on
    videos drawn with replacement, is counted from that.  What several settings have in common (signals, runs, contrast,
    the first stages) is computed once, as long as it fits into `cache_bytes`.

    Parameters
    ----------
    videos : iterable of Video
        For validation: at least as many as `folds`.  All are held in memory.
    ground_truth : Segments
        Matched by video id where both sides have ids, else by position.  Instances of other videos do not count.
    pipeline : config.Pipeline
        Where the search starts, and what its gain is measured against.
    space : mapping of str to values
        Names of settings, and for each a list of values, a `tuning.Range`, or its fields as a dictionary.  A name is a
        path, ``"banks.0.score.margin.scale"``, with ``*`` for every bank or stage, or the end of one where that is
        clear: ``"margin.scale"``, ``"temperature"``.  Below a list of thresholds stand ``first``, ``last`` and
        ``number`` or ``step``: evenly spaced ones.  Values can be whole stages, as settings or dictionaries; a name
        that only some of them know counts where it is known.
    method : {"grid", "random", "optuna"}
        All combinations; some, drawn evenly and none twice; or a tree-structured Parzen estimator that learns from
        the settings it has seen (needs optuna).
    evaluations : int, optional
        How many settings "random" and "optuna" try; fewer where there are no more.
    folds : int, default 5
        At least 2.  A video is in one fold; the videos of every class are spread over the folds evenly.
    tiou_thresholds : (I,) array_like or str, optional
        As in `mean_average_precision`.  Default: those of the pipeline, "0.1:0.7" where it has none.
    protocol : str, optional
        Default: that of the pipeline.
    ambiguous, snippets_per_second
        As in `mean_average_precision`, which gives the mAP with ``empty_class="zero_ap"``.
    num_resamples : int, default 100
        For the spreads, at least 2.
    seed : int, default 0
        Of folds, resamples and methods.
    num_threads : int, optional
        Default: all cores.  "optuna" tries one setting after the other.
    cache_bytes : int, default 2**28
        Memory for what settings share; 0 makes everything anew.
    progress : bool, default False
        Show a bar on a terminal.

    Returns
    -------
    TuningResult
        ``.best``, ``.best_setting``, ``.table``, ``.gain``, ``.gain_std``, ``.within_noise``, ``.verdict``,
        ``.refused``.

    Raises
    ------
    ValueError
        If a name or a value cannot be, with the rule; what only some combinations break is listed in ``.refused``.
    MissingExtraError
        If method is "optuna" and optuna is not installed.

    Notes
    -----
    The same arguments give the same result, for every number of threads and every `cache_bytes`; with "optuna", for
    one version of it.  Ties: the starting pipeline first, then the earlier setting.  `gain_std` is the spread of the
    judgement alone; that other videos might have led to another setting is not in it.

    Examples
    --------
    >>> import tal_postproc as tpp
    >>> data = tpp.synthetic.make_videos(30, seed=0)
    >>> space = {"margin.scale": [0.1, 0.25, 0.5], "stages.0.threshold": tpp.tuning.Range(0.2, 0.6, step=0.1)}
    >>> result = tune(data.videos, data.ground_truth, tpp.presets.get("rskp"), space, folds=3)
    >>> len(result.table), sorted(result.best_setting), result.best_score > result.baseline.score
    (15, ['margin.scale', 'stages.0.threshold'], True)
    """
    videos = _as_videos(videos)
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"`pipeline` must be a config.Pipeline (see presets.get), got {type(pipeline).__name__}")
    searched = Space(pipeline, space)
    _checks.as_choice(method, "method", METHODS)
    if (evaluations is None) != (method == "grid"):
        raise ValueError("`evaluations` is how many settings 'random' and 'optuna' try; 'grid' tries all")
    if evaluations is not None:
        evaluations = _checks.as_count(evaluations, "evaluations", at_least=1)
    if _checks.as_count(folds, "folds", at_least=2) > len(videos):
        raise ValueError(f"`folds` must be at most the number of videos, {len(videos)}, got {folds}")
    seed = _checks.as_count(seed, "seed")
    protocol = _checks.as_choice(pipeline.protocol if protocol is None else protocol, "protocol", tuple(PROTOCOLS))
    truth = _aligned(ground_truth, videos, "ground_truth")
    if not len(truth):
        raise ValueError("`ground_truth` must hold instances of the videos, got none; do the video ids agree?")
    judge = _Judge(
        Shared(videos, _checks.as_count(cache_bytes, "cache_bytes")),
        truth,
        (
            _as_thresholds(pipeline.tiou_thresholds or "0.1:0.7" if tiou_thresholds is None else tiou_thresholds),
            protocol,
            None if ambiguous is None else _aligned(ambiguous, videos, "ambiguous"),
        ),
        snippets_per_second,
        _folds(truth, len(videos), folds, seed),
        _draws(len(videos), _checks.as_count(num_resamples, "num_resamples", at_least=2), seed),
    )
    baseline = judge.scores(pipeline)  # what is wrong with videos or annotations is said here

    total = searched.size if evaluations is None else min(evaluations, searched.size or evaluations)
    bar = _bar(total, progress)
    with bar:
        if method == "optuna":
            found = list(_by_optuna(searched, judge, int(total or 0), seed, bar.update))
        else:
            settings = searched.grid() if method == "grid" else _drawn(searched, int(total or 0), seed)
            found = _evaluated(searched, judge, settings, num_threads, bar.update)
    return _result(pipeline, searched, judge, baseline, found, method=method, seed=seed)


# ------------------------------------------------------------------------------------------------------- what came in


def _as_videos(videos: Iterable[Video]) -> tuple[Video, ...]:
    _checks.refuse_tensors(videos, "videos")
    if isinstance(videos, Video) or not isinstance(videos, Iterable):
        raise TypeError(f"`videos` must be an iterable of Video, got {type(videos).__name__}")
    listed = tuple(videos)
    for video in listed:
        if not isinstance(video, Video):
            raise TypeError(f"`videos` must hold Video, got {type(video).__name__}")
    names = [video.id for video in listed if video.id]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`videos` must have ids that differ, {twice!r} stands {names.count(twice)} times")
    return listed


def _aligned(segments: Segments, videos: Sequence[Video], name: str) -> Segments:
    """The rows of these videos, in their order and without names."""
    if not isinstance(segments, Segments):
        _checks.refuse_tensors(segments, name)
        raise TypeError(f"`{name}` must be Segments, got {type(segments).__name__}")
    if segments.video_ids and all(video.id for video in videos):
        known = set(segments.video_ids)
        none = Segments.empty(segments.unit)
        parts = [segments.video(video.id) if video.id in known else none for video in videos]
        return Segments.concatenate(part.replace(video_ids=(), columns={}) for part in parts)
    if segments.num_videos != len(videos):
        raise ValueError(
            f"`{name}` must have one video for each of `videos` ({len(videos)}), got {segments.num_videos}"
        )
    return segments.replace(video_ids=(), columns={})


def _folds(truth: Segments, num_videos: int, folds: int, seed: int) -> Int:
    """The fold of every video.  Rare classes first, each video goes where its class is rarest, then where room is."""
    shows = np.zeros((num_videos, int(truth.labels.max(initial=0)) + 1), np.bool_)
    shows[truth.video_index, truth.labels] = True
    mixed = np.random.default_rng([seed, 1]).permutation(num_videos)
    fold = np.full(num_videos, -1)
    placed = np.zeros((folds, shows.shape[1]), np.int64)
    for label in [*np.argsort(shows.sum(axis=0), kind="stable").tolist(), None]:  # at last videos without instances
        for video in mixed.tolist():
            if fold[video] < 0 and (label is None or shows[video, label]):
                sizes = np.bincount(fold[fold >= 0], minlength=folds)
                same = np.zeros(folds, np.int64) if label is None else placed[:, label]
                fold[video] = np.lexsort((sizes, same))[0]
                placed[fold[video]] += shows[video]
    return fold


def _draws(num_videos: int, count: int, seed: int) -> Int:
    """(R, V) how often each video is drawn."""
    drawn = np.random.default_rng([seed, 2]).integers(0, num_videos, (count, num_videos))
    return np.array([np.bincount(row, minlength=num_videos) for row in drawn])


def _bar(total: int | None, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="setting", disable=None if _checks.as_flag(progress, "progress") else True)


# ------------------------------------------------------------------------------------------------------------ judging


@dataclass(frozen=True)
class _Judge:
    """Scores of a pipeline: on all videos, on each fold, without each fold, and on resamples."""

    shared: Shared
    truth: Segments
    how: tuple[Any, ...]
    snippets_per_second: float
    fold: Int
    draws: Int

    @property
    def num_folds(self) -> int:
        return int(self.fold.max()) + 1

    def scores(self, pipeline: Pipeline) -> Float:
        """(1 + 2 F + R,) mAP."""
        inside = self.fold == np.arange(self.num_folds)[:, None]
        everything = np.ones((1, len(self.fold)), np.int64)
        return self._weighted(pipeline, np.concatenate([everything, inside, ~inside, self.draws]))

    def resampled(self, pipeline: Pipeline, fold: int) -> Float:
        """(R,) mAP on resamples of the videos of one fold."""
        return self._weighted(pipeline, self.draws * (self.fold == fold))

    def _weighted(self, pipeline: Pipeline, weights: Int) -> Float:
        thresholds, protocol, ambiguous = self.how
        unit = "second" if PROTOCOLS[protocol].unit == self.truth.unit == "second" else ""
        found = self.shared.detections(pipeline, unit)
        matched = match_all(found, self.truth, thresholds, protocol, ambiguous, self.snippets_per_second)
        evaluate, _ = weighing(matched)
        per_class = evaluate(np.pad(weights.astype(np.int64), ((0, 0), (0, 1))))  # (B, I, K), NaN without instances
        present = ~np.isnan(per_class)
        means = np.where(present, per_class, 0.0).sum(axis=2) / np.maximum(present.sum(axis=2), 1)
        return means.mean(axis=1)


Found = tuple[Mapping[str, Any], Pipeline | None, Float | str]  # a setting, its pipeline, its scores or why not


def _try(
    searched: Space, setting: Mapping[str, Any], seen: set[str]
) -> tuple[Mapping[str, Any], Pipeline | str] | None:
    """What counts of a setting, and its pipeline or why there is none; None for one that was there before."""
    pipeline: Pipeline | str
    try:
        pipeline, used = searched.make(setting)
    except (ValueError, TypeError) as error:
        pipeline, used = str(error), dict(setting)
    name = json.dumps(used)
    if name in seen:
        return None
    seen.add(name)
    return used, pipeline


def _scored(judge: _Judge, pipeline: Pipeline) -> Float | str:
    try:
        return judge.scores(pipeline)
    except ValueError as error:  # the starting pipeline had none: it is the setting's
        return str(error)


def _evaluated(
    searched: Space,
    judge: _Judge,
    settings: Iterable[Mapping[str, Any]],
    num_threads: int | None,
    tick: Callable[[int], Any],
) -> list[Found]:
    """Scores of settings that are known beforehand, those that share work one after the other."""
    seen: set[str] = set()
    tried = [one for one in (_try(searched, setting, seen) for setting in settings) if one is not None]
    pipelines = list(dict.fromkeys(one for _, one in tried if isinstance(one, Pipeline)))
    pipelines.sort(key=order_key)

    def evaluate(some: list[Pipeline]) -> list[Float | str]:
        return [_scored(judge, one) for one in some]

    scores: dict[Pipeline, Float | str] = {}
    parts = _threads.ordered_map(evaluate, pipelines, num_threads, lambda _: _threads.BUDGET // PER_TASK)
    for one, score in zip(pipelines, parts):
        scores[one] = score
        tick(1)
    return [(used, None, one) if isinstance(one, str) else (used, one, scores[one]) for used, one in tried]


def _drawn(searched: Space, count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """Settings drawn evenly, none twice; fewer than `count` where many draws bring nothing new."""
    rng = np.random.default_rng([seed, 3])
    seen: set[str] = set()
    for _ in range(100 * count):
        if len(seen) == count:
            return
        setting = {choice.name: choice.value(rng.random()) for choice in searched.choices}
        one = _try(searched, setting, seen)
        if one is not None:
            yield setting


def _by_optuna(searched: Space, judge: _Judge, count: int, seed: int, tick: Callable[[int], Any]) -> Iterator[Found]:
    """Settings that a tree-structured Parzen estimator asks for, one after the other."""
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("optuna", "tune", "method 'optuna'") from None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        known: dict[str, float] = {}
        for _ in range(10 * count):
            if len(known) == count:
                return
            trial = study.ask()
            setting = {choice.name: _suggested(trial, choice) for choice in searched.choices}
            seen: set[str] = set()
            used, pipeline = _try(searched, setting, seen) or (setting, "")
            name = seen.pop()
            if name not in known:
                scores = pipeline if isinstance(pipeline, str) else _scored(judge, pipeline)
                known[name] = float(scores[0]) if isinstance(scores, np.ndarray) else 0.0
                yield used, pipeline if isinstance(pipeline, Pipeline) else None, scores
                tick(1)
            study.tell(trial, known[name])
    finally:
        optuna.logging.set_verbosity(verbosity)


def _suggested(trial: Any, choice: Choice) -> Any:
    """A value that the estimator wants to see; it learns along the order of numbers."""
    if choice.values is None and choice.range is not None:
        return trial.suggest_float(choice.name, choice.range.first, choice.range.last, log=choice.log)
    values = choice.values or ()
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numbers:
        return values[trial.suggest_categorical(choice.name, list(range(len(values))))]
    return sorted(values)[trial.suggest_int(choice.name, 0, len(values) - 1)]


# ------------------------------------------------------------------------------------------------------------- result


def _result(
    start: Pipeline, searched: Space, judge: _Judge, baseline: Float, found: Sequence[Found], **said: Any
) -> TuningResult:
    """The table, the best, and what the best is without each fold."""
    folds = judge.num_folds
    rows: list[tuple[Mapping[str, Any], Pipeline, Float]] = [({}, start, baseline)]
    rows += [(used, one, scores) for used, one, scores in found if one is not None and isinstance(scores, np.ndarray)]
    trials = tuple(
        Trial(
            setting=used,
            score=float(scores[0]),
            std=float(scores[1 + 2 * folds :].std(ddof=1)),
            gain_std=float((scores - baseline)[1 + 2 * folds :].std(ddof=1)),
            per_fold=tuple(scores[1 : 1 + folds].tolist()),
        )
        for used, _, scores in rows
    )
    table = np.array([scores for _, _, scores in rows])
    best = int(table[:, 0].argmax())
    chosen = table[:, 1 + folds : 1 + 2 * folds].argmax(axis=0).tolist()
    inside = np.array([table[row, 1 + fold] for fold, row in enumerate(chosen)])
    spread = np.zeros(len(judge.draws))
    for fold, row in enumerate(chosen):
        if row:
            spread += (judge.resampled(rows[row][1], fold) - judge.resampled(start, fold)) / folds
    thresholds, protocol, _ = judge.how
    return TuningResult(
        start=start,
        best=rows[best][1],
        best_setting=rows[best][0],
        best_score=trials[best].score,
        baseline=trials[0],
        table=trials[1:],
        refused=tuple((used, scores) for used, _, scores in found if isinstance(scores, str)),
        chosen=tuple(rows[row][0] for row in chosen),
        out_of_fold=float(inside.mean()),
        gain=float((inside - table[0, 1 : 1 + folds]).mean()),
        gain_std=float(spread.std(ddof=1)),
        protocol=protocol,
        tiou_thresholds=tuple(thresholds.tolist()),
        num_videos=len(judge.fold),
        **said,
    )
