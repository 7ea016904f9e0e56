"""Tuning: names of settings, the same numbers as one pipeline after the other, honest gains, and clear refusals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tqdm
from numpy.testing import assert_allclose

import tal_postproc as tpp
from tal_postproc import cli, formats
from tal_postproc.cli import tune as tune_command
from tal_postproc.config import Keep, Nms, Pipeline, SoftNms, Vote
from tal_postproc.plotting import surface
from tal_postproc.tuning import Range, TuningResult, tune
from tal_postproc.tuning import _search as search
from tal_postproc.tuning import _shared as shared
from tal_postproc.tuning._space import Space

DATA = tpp.synthetic.make_videos(24, seed=3, num_classes=4)
TRUTH = DATA.ground_truth
RSKP = replace(tpp.presets.get("rskp"), background="none", num_classes=None, protocol="activitynet")
SPACE = {"margin.scale": [0.1, 0.25], "stages.0.threshold": [0.2, 0.5, 0.7]}


def made(space, setting, pipeline=RSKP):
    return Space(pipeline, space).make(setting)[0]


def detections(pipeline, videos=DATA.videos):
    found = list(tpp.PostProcessor(pipeline).process(videos))
    parts = [part if part.unit == "second" else part.to_seconds(0.64) for part in found]
    return tpp.Segments.concatenate(parts)


def literal_map(found, which, **options):
    """mAP on the videos `which`, copies included, by laying them side by side."""
    sides = []
    for side in (found, TRUTH):
        parts = [side.video(int(v)).replace(video_ids=(), columns={}) for v in which]
        sides.append(tpp.Segments.concatenate(parts))
    return tpp.mean_average_precision(*sides, empty_class="zero_ap", **options).average


# ------------------------------------------------------------------ names and values
def test_every_field_can_be_named():
    space = {
        "banks.0.score.margin.scale": [0.5],
        "margin.power": [0.9],
        "banks.*.min_length": [3],
        "thresholds.last": [0.08],
        "thresholds.number": [4],
        "classes.threshold": [0.3],
        "stages.0": [Nms(threshold=0.4)],
        "overlap.kind": ["iou"],
    }
    found = made(space, {name: values[0] for name, values in space.items()})
    bank = found.banks[0]
    assert (bank.score.margin.scale, bank.score.margin.power, bank.min_length) == (0.5, 0.9, 3)
    assert_allclose(bank.thresholds, np.linspace(0.001, 0.08, 4), rtol=1e-11)
    assert found.classes.threshold == 0.3
    assert found.stages == (Nms(threshold=0.4),)
    assert replace(found, banks=RSKP.banks, classes=RSKP.classes, stages=RSKP.stages) == RSKP


def test_a_list_of_thresholds_is_written_down_or_spaced():
    assert made({"banks.0.thresholds": [[0.2, 0.1]]}, {"banks.0.thresholds": [0.2, 0.1]}).banks[0].thresholds == (
        0.2,
        0.1,
    )
    spaced = {"thresholds.first": [0.1], "thresholds.last": [0.4], "thresholds.step": [0.1]}
    setting = {name: values[0] for name, values in spaced.items()}
    assert made(spaced, setting).banks[0].thresholds == (0.1, 0.2, 0.3, 0.4)
    assert len(made({"thresholds.first": [0.0]}, {"thresholds.first": 0.0}).banks[0].thresholds) == 20


def test_a_star_is_every_bank_that_knows_the_name():
    cola = tpp.presets.get("cola")
    found = made({"banks.*.score.video_weight": [0.7]}, {"banks.*.score.video_weight": 0.7}, cola)
    assert [bank.score.video_weight for bank in found.banks] == [0.7, 0.7]
    found = made({"stages.*.threshold": [0.3]}, {"stages.*.threshold": 0.3}, cola)
    assert found.stages == (cola.stages[0], replace(cola.stages[1], threshold=0.3))


def test_a_name_counts_where_the_stage_knows_it():
    soft = {"type": "SoftNms", "sigma": 0.5}
    space = {"stages.0": [Nms(threshold=0.5), soft], "sigma": [0.3, 0.7], "stages.0.min_score": [None, 0.1]}
    result = tune(DATA.videos, TRUTH, RSKP, space, folds=2, num_resamples=2)
    assert len(result.table) == 5  # NMS once, and soft-NMS four times
    assert list(result.table[0].setting) == ["stages.0"]
    assert result.table[-1].setting == {"stages.0": soft, "sigma": 0.7, "stages.0.min_score": 0.1}


def test_ranges():
    assert Range(1, 5, step=2).values() == (1, 3, 5)
    assert all(isinstance(value, int) for value in Range(1, 5, step=2).values())
    assert Range(0.1, 0.7, step=0.1).values() == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert Range(0.0, 1.0, number=3).values() == (0.0, 0.5, 1.0)
    assert Range(0.01, 1.0, number=3, log=True).values() == (0.01, 0.1, 1.0)
    assert Range(0.0, 1.0).values() is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one name"),
        ({"margin.scal": [1]}, "'margin.scal' is no setting of the pipeline; there are .*banks.0.score.margin.scale"),
        ({"quux": [1]}, "'quux' is no setting of the pipeline; there are banks, banks.0, banks.0.thresholds, "),
        ({"protocol": ["wtalc"]}, "'protocol' is no setting of the pipeline"),
        ({"threshold": [0.5]}, r"means several settings; there are classes.threshold, stages.0.threshold"),
        ({"stages.0.threshold": [0.5, 1.5]}, "`Nms.threshold` must be at most 1, got 1.5"),
        ({"stages.0.threshold": ["a"]}, "`Nms.threshold` must be a number"),
        ({"stages.0": [{"type": "Nms", "treshold": 0.5}]}, "Nms does not know 'treshold'"),
        ({"stages.0.threshold": []}, "must be a list of at least one value"),
        ({"stages.0.threshold": "0.5"}, "must be a list of at least one value, or a Range"),
        ({"stages.0.threshold": [0.5, 0.5]}, "must hold every value once, got 0.5 2 times"),
        ({"stages.0.threshold": {"first": 0.1}}, "must be a list, or have first, last and step or number"),
        ({"margin.scale": [1], "banks.0.score.margin.scale": [2]}, "names 'banks.0.score.margin.scale' 2 times"),
        ({"thresholds.step": [0.1], "thresholds.number": [3]}, "'thresholds.step' or a number in its place, not both"),
        ({"stages.0.threshold": Range(0.1, 0.5)}, "needs a step or a number for method 'grid'"),
        ({"stages.0.threshold": Range(0.1, 1.5, step=0.7)}, "`Nms.threshold` must be at most 1, got 1.5"),
    ],
)
def test_spaces_that_cannot_be(space, message):
    with pytest.raises(ValueError, match=message):
        tune(DATA.videos, TRUTH, RSKP, space)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0.1), "`Range.last` must be at least 0.5, got 0.1"),
        ((0.1, 0.5, 0.0), "`Range.step` must be above 0"),
        ((0.1, 0.5, 0.1, 3), "goes with neither"),
        ((0.1, 0.5, None, 1), "`Range.number` must be at least 2"),
        ((0.0, 0.5, None, None, True), "`Range.first` must be above 0"),
    ],
)
def test_ranges_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Range(*arguments)


def test_what_only_a_combination_breaks_is_reported():
    space = {"thresholds.first": [0.0, 0.3], "thresholds.last": [0.1, 0.5]}
    result = tune(DATA.videos, TRUTH, RSKP, space, folds=2)
    assert len(result.table) == 3
    ((setting, reason),) = result.refused
    assert setting == {"thresholds.first": 0.3, "thresholds.last": 0.1}
    assert reason == "`banks.0.thresholds.first` must be at most last, got 0.3 and 0.1"


def test_what_the_videos_refuse_is_reported_but_not_of_the_start():
    result = tune(DATA.videos, TRUTH, RSKP, {"stages.0": [Nms(threshold=0.5), Vote(threshold=0.5)]}, folds=2)
    assert [reason.split(":")[0] for _, reason in result.refused] == [
        "`Vote` must follow a suppression in the same unit"
    ]
    with pytest.raises(ValueError, match="must follow a suppression"):
        tune(DATA.videos, TRUTH, replace(RSKP, stages=(Vote(threshold=0.5),)), {"classes.threshold": [0.1]})


# ------------------------------------------------------------------ the numbers
@pytest.mark.parametrize("preset", ["rskp", "gaufuse", "cola", "hamnet"])
def test_the_table_is_what_the_pipelines_score(preset):
    start = replace(tpp.presets.get(preset), background="none", num_classes=None)
    stage = next(i for i, stage in enumerate(start.stages) if hasattr(stage, "overlap"))
    name = f"stages.{stage}.overlap.length_offset"
    space = {"banks.*.score.margin.scale": [0.1, 0.3], "classes.threshold": [0.1, 0.4], name: [0.0, 1.0]}
    options = {"tiou_thresholds": [0.3, 0.5], "protocol": "activitynet"}
    result = tune(DATA.videos, TRUTH, start, space, folds=3, **options)
    assert [row.setting for row in result.table] == [dict(zip(space, values)) for values in product(*space.values())]
    fold = search._folds(TRUTH, len(DATA), 3, 0)
    for row, pipeline in [(result.baseline, start), *((row, made(space, row.setting, start)) for row in result.table)]:
        found = detections(pipeline)
        whole = tpp.mean_average_precision(found, TRUTH, empty_class="zero_ap", **options).average
        assert_allclose(row.score, whole, rtol=1e-12)
        expected = [literal_map(found, np.flatnonzero(fold == f), **options) for f in range(3)]
        assert_allclose(row.per_fold, expected, rtol=1e-12)
    best = max([result.baseline, *result.table], key=lambda row: row.score)
    assert result.best_score == best.score
    assert result.best == (made(space, best.setting, start) if best.setting else start)


def test_gain_and_spreads_by_hand():
    space = {"stages.0.threshold": [0.1, 0.3, 0.6], "margin.scale": [0.1, 0.6]}
    folds, resamples = 3, 6
    result = tune(DATA.videos, TRUTH, RSKP, space, folds=folds, num_resamples=resamples, seed=5)
    fold = search._folds(TRUTH, len(DATA), folds, 5)
    rng = np.random.default_rng([5, 2])
    draws = [rng.integers(0, len(DATA), len(DATA)) for _ in range(resamples)]
    settings = [{}, *(row.setting for row in result.table)]
    found = [detections(made(space, setting) if setting else RSKP) for setting in settings]

    sampled = np.array([[literal_map(one, drawn) for drawn in draws] for one in found])
    assert_allclose([row.std for row in result.table], sampled[1:].std(axis=1, ddof=1), rtol=1e-9)
    assert_allclose([row.gain_std for row in result.table], (sampled[1:] - sampled[0]).std(axis=1, ddof=1), rtol=1e-9)
    gains, spread = [], np.zeros(resamples)
    for f in range(folds):
        inside, outside = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        best = int(np.argmax([literal_map(one, outside) for one in found]))
        assert result.chosen[f] == settings[best]
        gains.append(literal_map(found[best], inside) - literal_map(found[0], inside))
        drawn = [row[fold[row] == f] for row in draws]
        spread += [(literal_map(found[best], row) - literal_map(found[0], row)) / folds for row in drawn]
    assert_allclose(result.gain, np.mean(gains), rtol=1e-9)
    assert_allclose(result.gain_std, spread.std(ddof=1), rtol=1e-9)
    assert_allclose(result.out_of_fold - result.gain, np.mean(result.baseline.per_fold), rtol=1e-12)


def test_a_gain_of_chance_is_within_noise():
    """Scores that know nothing: the best of many settings looks better, and is not."""
    rng = np.random.default_rng(0)
    noise = [
        replace(video, maps={"cas": rng.random(video.maps["cas"].shape) * 0.1}, scores={"video": rng.random(4)})
        for video in DATA.videos
    ]
    space = {"thresholds.last": Range(0.02, 0.1, step=0.01), "margin.scale": Range(0.1, 0.5, step=0.1)}
    result = tune(noise, TRUTH, RSKP, space)
    assert result.best_score > result.baseline.score
    assert result.within_noise
    assert result.verdict.endswith("within noise")
    strict = replace(RSKP, classes=replace(RSKP.classes, threshold=0.9))
    better = tune(DATA.videos, TRUTH, strict, {"classes.threshold": [0.1, 0.5]})
    assert not better.within_noise
    assert "noise" not in better.verdict


def test_nothing_better_leaves_the_start():
    result = tune(DATA.videos, TRUTH, RSKP, {"banks.0.thresholds": [[50.0]]}, folds=2)
    assert (result.best, result.best_setting, result.gain, result.gain_std) == (RSKP, {}, 0.0, 0.0)
    assert result.within_noise


def test_thresholds_of_the_overlap_are_those_of_the_pipeline_unless_given():
    high = replace(RSKP, tiou_thresholds=(0.6, 0.8))
    found = detections(RSKP)
    for start, given, expected in [
        (high, {}, (0.6, 0.8)),
        (high, {"tiou_thresholds": [0.5]}, (0.5,)),
        (replace(high, tiou_thresholds=()), {}, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
    ]:
        result = tune(DATA.videos, TRUTH, start, {"margin.scale": [0.1]}, folds=2, num_resamples=2, **given)
        whole = tpp.mean_average_precision(found, TRUTH, tiou_thresholds=expected, empty_class="zero_ap")
        assert result.tiou_thresholds == expected
        assert_allclose(result.baseline.score, whole.average, rtol=1e-12)


# ------------------------------------------------------------------ how it is computed changes nothing
@pytest.mark.parametrize("preset", ["rskp", "cola"])
def test_reuse_threads_and_pieces_change_nothing(preset, monkeypatch):
    start = replace(tpp.presets.get(preset), background="none", num_classes=None)
    space = {"banks.*.score.margin.scale": [0.1, 0.3], "classes.threshold": [0.1, 0.4], "banks.0.min_length": [1, 2]}
    expected = tune(DATA.videos, TRUTH, start, space, num_threads=1, cache_bytes=0)
    for more in ({"num_threads": 1}, {"num_threads": 3}, {"cache_bytes": 100_000}):
        assert tune(DATA.videos, TRUTH, start, space, **more) == expected
    monkeypatch.setattr(shared, "PIECE", 7)
    assert tune(DATA.videos, TRUTH, start, space) == expected


def test_what_settings_share_is_made_once(monkeypatch):
    made_of = {"runs": 0, "scores": 0}
    find, score = tpp.PostProcessor._find_runs, tpp.PostProcessor._score_runs

    def counted(name, function):
        def call(*args):
            made_of[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(tpp.PostProcessor, "_find_runs", counted("runs", find))
    monkeypatch.setattr(tpp.PostProcessor, "_score_runs", counted("scores", score))
    space = {
        "margin.scale": [0.1, 0.2, 0.3],
        "stages.0.threshold": [0.1, 0.2, 0.3, 0.4],
        "classes.threshold": [0.3, 0.4],
    }
    tune(DATA.videos, TRUTH, RSKP, space, num_threads=1)
    assert made_of == {"runs": 3, "scores": 7}  # for each rule of classes, and for each of its margins; and the start
    made_of.update(runs=0, scores=0)
    tune(DATA.videos, TRUTH, RSKP, space, num_threads=1, cache_bytes=0)
    assert made_of["runs"] == made_of["scores"] >= 25


def test_what_is_kept_stays_within_the_budget():
    keeper = shared.Shared(DATA.videos, 1_500_000)
    for threshold in np.linspace(0.1, 0.9, 12).tolist():
        keeper.detections(replace(RSKP, stages=(SoftNms(sigma=threshold),)), "second")
        keeper.detections(replace(RSKP, classes=None, stages=(Nms(threshold=threshold),)), "second")
        held = sum(shared._bytes(value) for value, _ in keeper._kept.values())
        assert held <= keeper._used <= 1_500_000
        assert keeper._kept


def test_given_proposals_are_suppressed():
    found = list(tpp.PostProcessor(replace(RSKP, stages=())).process(DATA.videos))
    given = [replace(video, maps={}, proposals=rows) for video, rows in zip(DATA.videos, found)]
    result = tune(given, TRUTH, Pipeline(stages=(Nms(threshold=0.5),)), {"stages.0.threshold": [0.2, 0.4]}, folds=2)
    start = replace(RSKP, stages=(Nms(threshold=0.5),))
    other = tune(DATA.videos, TRUTH, start, {"stages.0.threshold": [0.2, 0.4]}, folds=2)
    assert result.table == other.table
    with pytest.raises(ValueError, match="must all bring proposals"):
        tune([*given[:-1], DATA.videos[-1]], TRUTH, RSKP, {"stages.0.threshold": [0.2]}, folds=2)


# ------------------------------------------------------------------ methods
@pytest.mark.parametrize("method", ["random", "optuna"])
def test_methods_that_sample(method):
    if method == "optuna":
        pytest.importorskip("optuna")
    space = {
        "margin.scale": Range(0.05, 1.0, log=True),
        "stages.0.threshold": Range(0.1, 0.7, step=0.1),
        "ties": ["first", "last"],
    }
    options = {"method": method, "evaluations": 12, "folds": 2}
    result = tune(DATA.videos, TRUTH, RSKP, space, seed=1, **options)
    assert len(result.table) == 12 == len({json.dumps(row.setting) for row in result.table})
    for row in result.table:
        assert 0.05 <= row.setting["margin.scale"] <= 1.0
        assert row.setting["stages.0.threshold"] in Range(0.1, 0.7, step=0.1).values()
        assert_allclose(row.score, literal_map(detections(made(space, row.setting)), range(len(DATA))), rtol=1e-12)
    assert tune(DATA.videos, TRUTH, RSKP, space, seed=1, num_threads=3, **options) == result
    assert tune(DATA.videos, TRUTH, RSKP, space, seed=2, **options).table != result.table
    few = tune(DATA.videos, TRUTH, RSKP, {"ties": ["first", "last"]}, **options)
    assert len(few.table) == 2


def test_random_draws_logarithmically():
    space = Space(RSKP, {"margin.scale": Range(0.01, 1.0, log=True)})
    drawn = [setting["margin.scale"] for setting in search._drawn(space, 400, 0)]
    assert 150 < sum(value < 0.1 for value in drawn) < 250


def test_optuna_learns():
    """With the same number of settings its best is better than that of random ones, in the median of seeds."""
    pytest.importorskip("optuna")
    space = {
        "thresholds.last": Range(0.01, 0.9),
        "margin.scale": Range(0.01, 2.0),
        "stages.0.threshold": Range(0.05, 0.95),
    }
    options = {"evaluations": 40, "folds": 2, "num_resamples": 2}
    best = {
        method: np.median(
            [tune(DATA.videos, TRUTH, RSKP, space, method=method, seed=s, **options).best_score for s in range(5)]
        )
        for method in ("random", "optuna")
    }
    assert best["optuna"] > best["random"]


def test_without_optuna_the_extra_is_named():
    code = """
import sys
sys.modules["optuna"] = None
import tal_postproc as tpp
data = tpp.synthetic.make_videos(4, seed=0)
try:
    rskp = tpp.presets.get("rskp")
    tpp.tune(data.videos, data.ground_truth, rskp, {"margin.scale": [0.1]}, method="optuna", evaluations=1, folds=2)
except tpp.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tal_postproc[tune]'" in done.stdout


# ------------------------------------------------------------------ folds, videos, results
def test_folds_are_even_in_videos_and_classes():
    data = tpp.synthetic.make_videos(60, seed=1, num_classes=5)
    fold = search._folds(data.ground_truth, 60, 5, 0)
    assert np.ptp(np.bincount(fold)) <= 2
    shows = np.zeros((60, 5), bool)
    shows[data.ground_truth.video_index, data.ground_truth.labels] = True
    counts = np.array([[shows[fold == f, k].sum() for k in range(5)] for f in range(5)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 2).all()
    assert (search._folds(data.ground_truth, 60, 5, 1) != fold).any()


def test_videos_are_matched_by_name():
    turned = TRUTH.video_ids[::-1]
    parts = tpp.Segments.concatenate(
        [*(TRUTH.video(name) for name in turned), tpp.Segments([[0, 9]], [1], unit="second", video_ids=["else"])]
    )
    space = {"margin.scale": [0.1]}
    expected = tune(DATA.videos, TRUTH, RSKP, space)
    assert tune(DATA.videos, parts, RSKP, space) == expected
    assert tune(DATA, TRUTH.replace(video_ids=()), RSKP, space) == expected


def test_options_of_the_evaluation_count():
    space = {"margin.scale": [0.1]}
    spans = tpp.Segments([[0, 1000]], unit="second", video_ids=[DATA.videos[0].id])
    base = tune(DATA.videos, TRUTH, RSKP, space)
    for options in ({"ambiguous": spans}, {"tiou_thresholds": [0.5]}, {"protocol": "wtalc"}):
        found = tune(DATA.videos, TRUTH, RSKP, space, **options)
        assert found.baseline.score != base.baseline.score
        value = {"protocol": "activitynet", **options}
        converted = tpp.mean_average_precision(detections(RSKP), TRUTH, empty_class="zero_ap", **value).average
        assert_allclose(found.baseline.score, converted, rtol=1e-9)
    assert tune(DATA.videos, TRUTH, RSKP, space, folds=3).baseline.per_fold != base.baseline.per_fold
    assert tune(DATA.videos, TRUTH, RSKP, space, num_resamples=7).baseline.std != base.baseline.std
    snippets = tune(DATA.videos, TRUTH, RSKP, space, protocol="wtalc", snippets_per_second=1.0)
    assert snippets.baseline.score < tune(DATA.videos, TRUTH, RSKP, space, protocol="wtalc").baseline.score


@pytest.mark.parametrize("method", ["grid", "random"])
def test_progress_counts_the_settings(method, monkeypatch):
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            bars.append((self, options["disable"]))
            super().__init__(**{**options, "disable": False, "file": io.StringIO()})

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    more = {} if method == "grid" else {"method": method, "evaluations": 4}
    for progress in (True, False):
        tune(DATA.videos, TRUTH, RSKP, SPACE, folds=2, num_resamples=2, progress=progress, **more)
    assert [disable for _, disable in bars] == [None, True]  # None: on a terminal
    assert {(bar.n, bar.total) for bar, _ in bars} == {(6, 6) if method == "grid" else (4, 4)}


def test_results_go_to_json_and_back():
    space = {"stages.0": [SoftNms(), Keep(top=3)], "thresholds.last": [0.0, 0.1], "thresholds.first": [0.01]}
    result = tune(DATA.videos, TRUTH, RSKP, space, folds=2)
    assert result.refused
    text = json.dumps(result.to_dict())
    assert TuningResult.from_dict(json.loads(text)) == result
    assert json.loads(text)["verdict"] == result.verdict
    with pytest.raises(ValueError, match="'more' is missing or unknown"):
        TuningResult.from_dict({**result.to_dict(), "more": 1})
    assert [row.score for row in result.ranked()] == sorted((row.score for row in result.table), reverse=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "guess"}, ValueError, "`method` must be one of"),
        ({"evaluations": 3}, ValueError, "'grid' tries all"),
        ({"method": "random"}, ValueError, "`evaluations` is how many"),
        ({"method": "random", "evaluations": 0}, ValueError, "`evaluations` must be at least 1"),
        ({"folds": 1}, ValueError, "`folds` must be at least 2"),
        ({"folds": 25}, ValueError, "at most the number of videos, 24, got 25"),
        ({"protocol": "mine"}, ValueError, "`protocol` must be one of"),
        ({"cache_bytes": -1}, ValueError, "`cache_bytes` must be at least 0"),
        ({"num_resamples": 1}, ValueError, "`num_resamples` must be at least 2"),
        ({"progress": 1}, TypeError, "`progress` must be True or False"),
        ({"videos": [1]}, TypeError, "`videos` must hold Video"),
        ({"videos": [DATA.videos[0]] * 5}, ValueError, "ids that differ"),
        ({"ground_truth": None}, TypeError, "`ground_truth` must be Segments"),
        ({"ground_truth": tpp.Segments.empty("second", ["x"])}, ValueError, "got none; do the video ids agree"),
        ({"ground_truth": tpp.Segments.empty("second", ["x"]).replace(video_ids=())}, ValueError, "one video for each"),
        ({"pipeline": "rskp"}, TypeError, "see presets.get"),
    ],
)
def test_arguments_that_cannot_be(changes, error, message):
    arguments = {"videos": DATA.videos, "ground_truth": TRUTH, "pipeline": RSKP, "space": SPACE, **changes}
    with pytest.raises(error, match=message):
        tune(**arguments)


# ------------------------------------------------------------------ the picture
@pytest.fixture(scope="module")
def searched():
    space = {"margin.scale": [0.1, 0.2, 0.3], "stages.0.threshold": [0.1, 0.4], "ties": ["first", "last"]}
    return tune(DATA.videos, TRUTH, RSKP, space, folds=2, num_resamples=10)


def test_surface_shows_the_best_of_every_pair(searched, tmp_path):
    pytest.importorskip("matplotlib")
    figure = surface(searched, ["margin.scale", "stages.0.threshold"], size=(700, 400), path=tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert figure.get_size_inches().tolist() == [7.0, 4.0]
    cells = np.asarray(figure.axes[0].images[0].get_array())
    for x, scale in enumerate([0.1, 0.2, 0.3]):
        for y, threshold in enumerate([0.1, 0.4]):
            pair = {"margin.scale": scale, "stages.0.threshold": threshold}.items()
            rows = [row for row in searched.table if pair <= row.setting.items()]
            assert len(rows) == 2
            best = max(row.score for row in rows)
            assert_allclose(cells[y, x], 100 * (best - searched.baseline.score), atol=1e-9)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 6
    assert f"±{100 * searched.table[0].gain_std:.1f}" in "".join(texts)
    assert searched.verdict in figure.axes[0].get_title(loc="left")


def test_surface_of_one_setting_is_a_line_with_a_band(searched):
    pytest.importorskip("matplotlib")
    figure = surface(searched, ["margin.scale"])
    line = next(line for line in figure.axes[0].lines if line.get_label() == "best with this value")
    best = [max(row.score for row in searched.table if row.setting["margin.scale"] == one) for one in (0.1, 0.2, 0.3)]
    assert_allclose(line.get_ydata(), 100 * (np.array(best) - searched.baseline.score), atol=1e-9)
    assert len(figure.axes[0].collections) == 1
    assert surface(searched, "ties").axes[0].get_xticklabels()[1].get_text() == "last"


def test_surface_chooses_the_two_that_matter(searched):
    pytest.importorskip("matplotlib")
    axes = surface(searched).axes[0]
    reach = {}
    for name in ("margin.scale", "stages.0.threshold", "ties"):
        values = dict.fromkeys(row.setting[name] for row in searched.table)
        best = [max(row.score for row in searched.table if row.setting[name] == value) for value in values]
        reach[name] = max(best) - min(best)
    assert [axes.get_xlabel(), axes.get_ylabel()] == sorted(reach, key=lambda name: -reach[name])[:2]


def test_surface_of_ranges_are_dots():
    pytest.importorskip("matplotlib")
    space = {"margin.scale": Range(0.01, 1.0, log=True), "stages.0.threshold": Range(0.1, 0.7)}
    result = tune(DATA.videos, TRUTH, RSKP, space, method="random", evaluations=30, folds=2, num_resamples=2)
    axes = surface(result, ["margin.scale", "stages.0.threshold"]).axes[0]
    assert len(axes.collections[0].get_offsets()) == 30
    assert axes.get_xscale() == "log"
    assert surface(result, ["margin.scale"]).axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["sigma"], "`names` must be one of"), ([], "one or two settings"), (["ties", "ties"], "one or two settings")],
)
def test_surface_refuses(searched, names, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message):
        surface(searched, names)


# ------------------------------------------------------------------ the command
def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def tcams(tmp_path):
    formats.write_tcams(tmp_path / "tcams.npz", DATA.videos, classes=DATA.classes, annotations=DATA.annotations)
    return tmp_path / "tcams.npz"


PLAIN = replace(tpp.presets.get("rskp"), background="none", num_classes=None)
START = ("--preset", "rskp", "--background", "none", "--protocol", "activitynet")


def test_tune_then_detect(tcams, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    tuned, found, space = tmp_path / "tuned.json", tmp_path / "found.json", tmp_path / "space.json"
    space.write_text(json.dumps({"thresholds.last": {"first": 0.0, "last": 0.1, "step": 0.05}}))
    more = "--space", space, "--set", "margin.scale=0.1:0.3:0.1", "--set", "ties=first,last"
    assert run("tune", tcams, *START, *more, "-o", tuned, "--picture", tmp_path / "s.svg", "--show", "ties") == 0
    printed = capsys.readouterr().out
    result = TuningResult.from_dict(json.loads(tuned.read_text()))
    space = {"thresholds.last": [0.0, 0.05, 0.1], "margin.scale": [0.1, 0.2, 0.3], "ties": ["first", "last"]}
    assert result == tune(DATA.videos, TRUTH, PLAIN, space, protocol="activitynet")
    assert f"{100 * result.ranked()[0].score:.2f}" in printed.splitlines()[3]
    assert result.verdict in printed
    assert "protocol 'activitynet', mean over tIoU 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7" in printed
    assert "refused: 6 settings, such as thresholds.last=0.0 margin.scale=0.1" in printed
    assert "<svg" in (tmp_path / "s.svg").read_text()
    assert run("detect", tcams, "--preset", tuned, "-o", found) == 0
    capsys.readouterr()
    assert run("evaluate", found, "--annotations", tcams) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == f"{100 * result.best_score:.2f}"
    assert run("labels", tcams, "--preset", tuned, "-o", tmp_path / "labels.npz") == 0


def test_options_of_tune_reach_the_search(tcams, tmp_path):
    options = ("--method", "random", "--evaluations", 3, "--folds", 3, "--seed", 4, "--tiou", "0.3,0.5", "--threads", 1)
    space = {"margin.scale": Range(0.1, 0.5)}
    assert run("tune", tcams, *START, *options, "--set", "margin.scale=0.1:0.5", "-o", tmp_path / "t.json") == 0
    expected = tune(
        DATA.videos,
        TRUTH,
        PLAIN,
        space,
        protocol="activitynet",
        method="random",
        evaluations=3,
        folds=3,
        seed=4,
        tiou_thresholds=[0.3, 0.5],
    )
    assert TuningResult.from_dict(json.loads((tmp_path / "t.json").read_text())) == expected


def test_annotations_of_their_own_are_matched_by_the_names_of_classes(tcams, tmp_path):
    bare, truth = tmp_path / "bare.npz", tmp_path / "truth.npz"
    videos = [replace(video, maps={"mine": video.maps["cas"]}) for video in DATA.videos]
    formats.write_tcams(bare, videos, classes=DATA.classes)
    turned = DATA.annotations
    labels = 3 - turned.segments.labels
    spans = tpp.Segments([[0, 50]], offsets=[0, *[1] * len(DATA)], unit="second", video_ids=turned.video_ids)
    other = replace(
        turned, segments=turned.segments.replace(labels=labels), classes=turned.classes[::-1], ambiguous=spans
    )
    formats.write_tcams(truth, DATA.videos, classes=other.classes, annotations=other)
    more = ("--annotations", truth, "--map", "cas=mine", "--set", "margin.scale=0.1", "-o", tmp_path / "t.json")
    for option, ambiguous in ((["--keep-ambiguous"], None), ([], formats.read_annotations(truth).ambiguous)):
        assert run("tune", bare, *START, *more, *option) == 0
        result = TuningResult.from_dict(json.loads((tmp_path / "t.json").read_text()))
        options = {"ambiguous": ambiguous, "protocol": "activitynet"}
        assert result == tune(DATA.videos, TRUTH, PLAIN, {"margin.scale": [0.1]}, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to search"),
        (("--set", "ties=last", "--annotations", "none.json"), "none.json"),
        (("--set", "margin.scale"), "--set must look like name=values"),
        (("--set", "margin.scale=[1"), "--set margin.scale=[1: "),
        (("--set", "margin.scale=1:2:x"), "--set margin.scale=1:2:x: "),
        (("--set", "ties=first", "--set", "ties=last"), "--set ties is there twice"),
        (("--set", "ties=middle"), "`Nms.ties` must be one of"),
        (("--set", "ties=first", "--preset", "none.json"), "No such file"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, tcams, tmp_path, capsys):
    assert run("tune", tcams, *START, "-o", tmp_path / "t.json", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "nowhere/t.json"), "there is no folder for nowhere/t.json"),
        (("--picture", "nowhere/s.png"), "there is no folder for nowhere/s.png"),
        (("--picture", "s.bmp"), "`the suffix of --picture` must be one of"),
        (
            ("--picture", "s.png"),
            "--picture needs matplotlib, which is not installed: pip install 'tal_postproc[plot]'",
        ),
    ],
)
def test_what_cannot_be_written_is_said_before_the_search(arguments, message, tcams, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tune_command, "search", None)
    monkeypatch.setattr(tune_command, "find_spec", lambda name: None if "s.png" in arguments else name)
    assert run("tune", tcams, *START, "--set", "ties=first", "-o", tmp_path / "t.json", *arguments) == 2
    assert message in capsys.readouterr().err


def test_several_files_and_one_without_ground_truth(tcams, tmp_path, capsys):
    half = len(DATA) // 2
    for name, some in (("a", slice(0, half)), ("b", slice(half, None))):
        rows = [TRUTH.video(video.id) for video in DATA.videos[some]]
        truth = tpp.Annotations(tpp.Segments.concatenate(rows), DATA.classes)
        formats.write_tcams(tmp_path / f"{name}.npz", DATA.videos[some], classes=DATA.classes, annotations=truth)
    more = ("--set", "margin.scale=0.1", "-o", tmp_path / "t.json")
    assert run("tune", tmp_path / "a.npz", tmp_path / "b.npz", *START, *more) == 0
    both = (tmp_path / "t.json").read_text()
    assert run("tune", tcams, *START, *more) == 0
    assert both == (tmp_path / "t.json").read_text()
    formats.write_tcams(tmp_path / "b.npz", DATA.videos[half:], classes=DATA.classes)
    assert run("tune", tmp_path / "a.npz", tmp_path / "b.npz", *START, *more) == 2
    assert "no ground truth: give --annotations" in capsys.readouterr().err


def test_a_file_without_a_pipeline_is_refused(tcams, tmp_path, capsys):
    (tmp_path / "p.json").write_text("[1]")
    assert run("detect", tcams, "--preset", tmp_path / "p.json", "-o", tmp_path / "f.json") == 2
    assert "p.json holds no pipeline" in capsys.readouterr().err
    (tmp_path / "p.json").write_text(json.dumps(RSKP.to_dict()))
    assert run("detect", tcams, "--preset", tmp_path / "p.json", "-o", tmp_path / "f.json") == 0
