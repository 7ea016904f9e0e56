"""Ablations: what a table says is what its runs and the bootstrap say, what is there is not made again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import tal_postproc as tpp
from tal_postproc import cli

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from tal_postproc.examples import _command, ablation, engine, gaufuse, rskp  # noqa: E402
from tal_postproc.examples._tables import TABLES, Row, Table, Trial  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size

PLAIN = Trial(recipe="rskp", options={"representatives": "none"}, paper=(30.0, 40.0))
UNLABELLED = Trial(recipe="gaufuse", options={"labels": "none"}, paper=(20.0, 50.0))
NMS = replace(UNLABELLED, test={"test_instances": "nms"}, paper=(10.0, 45.0))
TABLE = Table(
    title="Of the tests",
    metrics=(0.3, "avg"),
    rows=(Row("plain", (PLAIN,)), Row("fused", (UNLABELLED,), 2), Row("suppressed", (NMS,))),
    note="A note.",
)


def plan_of(folder, **changed):
    return ablation.Plan(**{"folder": folder, "profile": "smoke", "seeds": (0, 1), "resamples": 60, **changed})


def make(plan, table=TABLE, only=""):
    said = []
    return ablation.ablate(["mine"], plan, said.append, only=only, tables={"mine": table}), said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablations")
    return folder, *make(plan_of(folder))


def cells_of(text, label):
    """Of the first line that begins with this cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def result_of(folder, name):
    return json.loads((folder / name / "result.json").read_text())


def test_a_table_says_what_the_runs_say(made):
    folder, text, _ = made
    assert cells_of(text, "mine") == ["0.3", "avg"]
    for label, name, papers in (
        ("plain", "smoke,rskp,representatives=none", ("30", "40")),
        ("fused", "smoke,gaufuse,labels=none", ("20", "50")),
    ):
        found = [result_of(folder, f"{name},seed={seed}") for seed in (0, 1)]
        values = 100 * np.array([[one["trained"][2], one["trained"][-1]] for one in found])
        mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
        cells = [f"{m:.1f} ± {s:.1f} ({paper})" for m, s, paper in zip(mean, std, papers)]
        assert cells_of(text, label) == cells
    assert text.startswith("### Of the tests\n\nProfile smoke, seeds 0, 1, synthetic data; in % (paper). A note.\n")
    assert (folder / "mine.md").read_text() == text


def test_runs_are_shared_and_another_test_needs_no_other_training(made):
    folder, _, said = made
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(
        f"smoke,{kind},seed={seed}" for kind in ("gaufuse,labels=none", "rskp,representatives=none") for seed in (0, 1)
    )
    assert said[0] == "4 runs: 0 are there, 4 to train"
    assert said[1].startswith("  smoke,rskp,representatives=none: 2 to train, 7 epochs of ")  # one epoch was measured
    assert said[2].startswith("  smoke,gaufuse,labels=none: 2 to train, 13 epochs of ")
    assert said[3].endswith("with 1 at a time")


def test_another_test_is_that_of_a_run_with_these_options(made):
    folder, _, _ = made
    run = engine.Run(profile="smoke", seed=1, options={"labels": "none", "test_instances": "nms"})
    whole = engine.train(gaufuse.Gaufuse, None, run)
    path = folder / "smoke,gaufuse,labels=none,seed=1"
    truth = tpp.formats.read_annotations(path / "maps.npz")
    found = tpp.formats.read_detections(path / "detections,test_instances=nms.json", classes=truth.classes)
    own = tpp.formats.read_detections(path / "detections.json", classes=truth.classes)
    assert np.array_equal(found.scores, whole.detections.scores)
    assert np.array_equal(found.segments, whole.detections.segments)
    assert len(own) != len(found)
    job = ablation._job(NMS, plan_of(folder), 1)
    assert job.file("detections", test={"test_instances": "gaussian"}) == path / "detections.json"  # what it has anyway


def test_intervals_are_of_the_mean_over_seeds(made):
    """Each seed has videos of its own, drawn by its number."""
    folder, text, _ = made
    pairs = []
    for seed in (0, 1):
        path = folder / f"smoke,gaufuse,labels=none,seed={seed}"
        truth = tpp.formats.read_annotations(path / "maps.npz")
        ours, theirs = (
            tpp.formats.read_detections(path / f"detections{suffix}.json", classes=truth.classes)
            for suffix in ("", ",test_instances=nms")
        )
        settings = {"protocol": gaufuse.Gaufuse(*of_smoke()).pipeline.protocol, "num_resamples": 60, "seed": seed}
        pairs.append(tpp.paired_bootstrap(ours, theirs, truth.segments, **settings))
    mean = np.mean([pair.differences for pair in pairs], axis=0)
    low, high = 100 * np.quantile(mean, [0.025, 0.975])
    differences = 100 * np.array([pair.difference for pair in pairs])
    assert cells_of(text.split("Differences")[1], "fused")[:3] == [
        "suppressed",
        f"{differences.mean():+.1f} ± {differences.std(ddof=1):.1f}",
        f"{low:+.1f} to {high:+.1f}",
    ]


def of_smoke():
    data = engine.make_data(replace(rskp.Rskp.profiles["smoke"], num_train=2, num_test=1), 0)
    return data.train, gaufuse.Gaufuse.profiles["smoke"], 0, torch.device("cpu")


def test_what_is_there_is_not_trained_again(made, monkeypatch):
    folder, text, _ = made
    monkeypatch.setattr(ablation, "train", None)
    assert make(plan_of(folder)) == (text, ["4 runs: 4 are there, 0 to train"])


def test_an_interrupted_table_goes_on(made, tmp_path):
    """One run broke off after an epoch, one before its test, the others never began."""
    folder, text, _ = made
    first = "smoke,rskp,representatives=none,seed=0"
    run = engine.Run(profile="smoke", options=PLAIN.options, output=tmp_path / first, stop_after=1)
    engine.train(rskp.Rskp, None, run)
    second = "smoke,gaufuse,labels=none,seed=1"
    (tmp_path / second).mkdir()
    for path in (folder / second).iterdir():
        if "nms" not in path.name:
            (tmp_path / second / path.name).write_bytes(path.read_bytes())
    again, said = make(plan_of(tmp_path))
    assert again == text
    assert said[0] == "4 runs: 1 are there, 3 to train"
    assert "2 to train, 7 epochs" in said[1]


@pytest.mark.slow  # every process imports torch
def test_two_processes(made, tmp_path):
    _, text, _ = made
    again, said = make(plan_of(tmp_path, jobs=2))
    assert again == text
    assert said[3].endswith("with 2 at a time")


@pytest.mark.slow
def test_when_the_command_is_killed_its_processes_end(tmp_path):
    command = [sys.executable, "-m", "tal_postproc.cli", "ablate", "rskp-3", "--profile", "smoke", "--jobs", "2"]
    with subprocess.Popen([*command, "-o", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        while not list(tmp_path.glob("*/done.json")):
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.01)
        running.kill()
        running.communicate(timeout=60)  # the pipe is open as long as one of them lives
    assert len(list(tmp_path.glob("*/done.json"))) < 15


def test_runs_of_other_settings_are_refused(made):
    folder, _, _ = made
    with pytest.raises(ValueError, match=r"seed=0: made with other settings \(data\); take another folder"):
        make(plan_of(folder, wtalc="there"))


# -------------------------------------------------------------------------------------------------------------- parts


def test_a_run_is_tested_on_its_way(tmp_path):
    half, whole = replace(PLAIN, until=0.5), replace(PLAIN, until=1.0)
    table = replace(
        TABLE, rows=(Row("half", (half,)), Row("whole", (whole,)), Row("long", (replace(PLAIN, length=1.5),)))
    )
    plan = plan_of(tmp_path, seeds=(0,))
    make(plan, replace(table, rows=table.rows[1:]))  # trained without a stop, so it begins again for the other
    text, _ = make(plan, table)
    found = {}
    for name, changed in (("half", {"stop_after": 2}), ("whole", {}), ("long", {"epochs": 6})):
        run = engine.Run(profile="smoke", options=PLAIN.options, **changed)
        found[name] = 100 * engine.train(rskp.Rskp, None, run).trained.average
    for name, value in found.items():
        assert cells_of(text, name)[1] == f"{value:.1f} (40)"
    assert len({f"{value:.1f}" for value in found.values()}) == 3


def test_metrics_of_the_summary(tmp_path):
    """GauFuse tells about every refresh: the table reads it where `entry` says, after the epoch that `until` says."""
    trial = Trial(recipe="gaufuse", entry=("refreshes", -1), paper=(50.0,))
    rows = (Row("early", (replace(trial, until=5 / 7),)), Row("late", (trial,)))
    table = Table(title="", metrics=("precision", "recall"), headline="recall", rows=rows)
    text, _ = make(plan_of(tmp_path, seeds=(0,)), table)
    history = result_of(tmp_path, "smoke,gaufuse,seed=0")["refreshes"]
    early = [entry for entry in history if entry["epoch"] < 5][-1]
    for name, entry in (("early", early), ("late", history[-1])):
        assert cells_of(text, name) == [f"{100 * entry['precision']:.1f} (50)", f"{100 * entry['recall']:.1f}"]
    assert early != history[-1]


@pytest.mark.parametrize(("of_map", "of_labels", "row"), [("ptlr-3", "ptlr-4", 0), ("ptlr-5", "ptlr-6", 8)])
def test_one_run_has_its_map_and_the_quality_of_its_labels(tmp_path, of_map, of_labels, row):
    plan = plan_of(tmp_path, seeds=(0,))
    by_map = replace(TABLES[of_map], rows=(replace(TABLES[of_map].rows[row], reference=0),))
    text, said = make(plan, by_map)
    (job,) = ablation._jobs([by_map], plan).values()
    (trial,) = by_map.rows[0].trials
    result = json.loads(job.file("result", after=job.end(trial)).read_text())
    assert cells_of(text, by_map.rows[0].label)[4].startswith(f"{100 * result['trained'][4]:.1f} (")
    by_label = replace(TABLES[of_labels], rows=(TABLES[of_labels].rows[0],))
    text, said = make(plan, by_label)
    assert said[0].startswith("1 runs: 1 are there")
    precision = result["labels"][-1 if row == 0 else 1]["precision"]
    assert cells_of(text, by_label.rows[0].label)[0].startswith(f"{100 * precision:.1f} (")


def test_stages_of_a_longer_training_are_those_of_a_shorter_one():
    """Tables V and VI of PTLR test one training of four stages on its way."""
    found = []
    for options, lengths in (({"stages": 4}, {"epochs": 11, "stop_after": 7}), ({"stages": 2}, {"epochs": 7})):
        run = engine.Run(profile="smoke", options=options, **lengths)
        found.append(engine.train(_command.recipe("ilg_ptlr"), None, run))
    assert np.array_equal(found[0].detections.scores, found[1].detections.scores)
    assert found[0].summary == found[1].summary
    assert len(found[0].detections)


def resampled(scores, seed):
    truth = {"video": [0, 1, 2, 3], "labels": [0, 1, 0, 1], "segments": [[0, 10]] * 4}
    found = {**truth, "scores": [0.9, 0.8, 0.7, 0.6], "segments": [[0, 10 * score] for score in scores]}
    return found, truth, tpp.bootstrap_map(found, truth, num_resamples=50, seed=seed)


def test_pooled_differences_are_those_of_the_paired_bootstrap():
    (ours, truth, one), (theirs, _, base) = resampled([1, 0.2, 1, 0.6], 3), resampled([0.5, 0.2, 0.2, 0.6], 3)
    pair = tpp.paired_bootstrap(ours, theirs, truth, num_resamples=50, seed=3)
    mine = tpp.types.PairedBootstrap(ablation.pooled([one], "avg"), ablation.pooled([base], "avg"))
    assert mine.difference == pytest.approx(pair.difference)
    np.testing.assert_allclose(mine.differences, pair.differences)
    assert mine.interval == pytest.approx(pair.interval)
    assert mine.p_value == pair.p_value
    _, _, other = resampled([1, 1, 0.2, 0.2], 4)
    both = ablation.pooled([one, other], 0.5)
    assert both.value == pytest.approx((one.point[4].mean() + other.point[4].mean()) / 2)
    np.testing.assert_allclose(both.averages, (one.per_threshold[:, 4] + other.per_threshold[:, 4]) / 2)


def test_differences_and_orderings_by_hand():
    papers = {"a": (10.0,), "b": (30.0,), "c": (20.0,), "d": (20.0,), "e": ()}
    rows = tuple(Row(name, (Trial(recipe="rskp", paper=paper),), 1) for name, paper in papers.items())
    table = Table(title="By hand", metrics=("avg",), rows=rows, groups=("all",))
    values = [[1.0, 2.0], [3.0, 5.0], [4.0, 4.0], [0.0, 1.0], [9.0, 9.0]]
    found = [[ablation.Measured(values=np.array(row)[:, None])] for row in values]
    text = ablation._written("mine", table, found, plan_of("x"))
    _, differences, orderings = text.split("\n\n", 2)[2].split("\n\n", 2)
    assert differences == "Differences in avg, all:"
    lines = orderings.splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:6]] == [
        ["a", "b", "-2.5 ± 0.7", "", ""],
        ["c", "b", "+0.0 ± 1.4", "", ""],
        ["d", "b", "-3.5 ± 0.7", "", ""],
        ["e", "b", "+5.0 ± 1.4", "", ""],
    ]
    assert lines[7] == "3 of 5 pairs of rows stand in the paper's order; not so:"
    assert lines[9:] == ["- b > c (paper 30 > 20): here +0.0 ± 1.4", "- d > a (paper 20 > 10): here -1.0 ± 0.0"]


def test_only_some_groups(made):
    folder, _, _ = made
    groups = replace(TABLE, groups=("first", "second"), rows=(Row("both", (PLAIN, UNLABELLED)), Row("x", (PLAIN, NMS))))
    whole, some = (make(plan_of(folder), groups, only)[0] for only in ("", "sec"))
    assert "first avg" in whole
    assert "first" not in some
    assert "second avg" in some
    with pytest.raises(ValueError, match=r"`only` must be in the name of a group of columns \(first, second\)"):
        make(plan_of(folder), groups, "third")


def test_a_figure(made):
    pytest.importorskip("matplotlib")
    folder, _, _ = made
    figure = replace(TABLE, rows=(Row("0.1", (NMS,)), Row("0.2", (UNLABELLED,))), groups=("one",), figure=True)
    make(plan_of(folder), figure)
    assert (folder / "mine.png").read_bytes().startswith(b"\x89PNG")
    from tal_postproc.plotting._curves import curves

    values = np.array([[1.0, 3.0], [5.0, 5.0]])
    (axes,) = curves([0.1, 0.2], {"one": values}, x_label="x", y_label="y").axes
    (line,) = (line for line in axes.get_lines() if line.get_linestyle() == "-")
    assert line.get_xydata().tolist() == [[0.1, 2.0], [0.2, 5.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "0.2"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": ()}, "`seeds` must be one or more different numbers"),
        ({"seeds": (1, 1)}, "`seeds` must be one or more different numbers"),
        ({"jobs": 0}, "`jobs` must be at least 1, got 0"),
        ({"profile": "big"}, "`profile` must be one of smoke, default, paper, got 'big'"),
    ],
)
def test_plans_that_cannot_work(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        make(plan_of(tmp_path, **changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"device": "abacus"}, ValueError, "`device` must be one that torch can use here, got 'abacus'"),
        ({"wtalc": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"activitynet": ("nowhere", "here.json")}, FileNotFoundError, "here.json"),
    ],
)
def test_data_and_device_are_those_of_the_plan(tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        make(plan_of(tmp_path, **changed))


# -------------------------------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def small():
    return engine.make_data(replace(rskp.Rskp.profiles["smoke"], num_train=2, num_test=1), 0)


@pytest.mark.parametrize("name", list(TABLES))
def test_the_rows_of_a_table_can_be_trained_and_differ(name, small):
    table = TABLES[name]
    assert table.headline in table.metrics
    plan = plan_of("x", seeds=(0,))
    trials = [trial for row in table.rows for trial in row.trials]
    wanted = set()
    for trial in trials:
        job = ablation._job(trial, plan, 0)
        wanted.add((job.file("detections", after=job.end(trial), test=trial.test), str(trial.entry)))
        for options in (trial.options, {**trial.options, **trial.test}):
            profile = engine._profile(job.base, engine.Run(epochs=job.epochs(), options=options))
            recipe = _command.recipe(trial.recipe)(small.train, profile, 0, torch.device("cpu"))
        assert recipe.pipeline is not None
        assert len(trial.paper) in (0, 2, len(table.metrics))
    assert len(wanted) == len(trials)
    assert all(0 <= row.reference < len(table.rows) and len(row.trials) == len(table.groups) for row in table.rows)
    for path in {job.folder for job in ablation._jobs([table], plan_of("x", profile="default")).values()}:
        assert path.name.startswith("default,")


@pytest.mark.parametrize(
    ("one", "other"),
    [("gaufuse-4", "gaufuse-3"), ("gaufuse-figure-3", "gaufuse-4"), ("rskp-5", "rskp-3"), ("ptlr-6", "ptlr-5")],
)
def test_tables_share_runs(one, other):
    runs = [set(ablation._jobs([TABLES[name]], plan_of("x"))) for name in (one, other)]
    assert runs[0] & runs[1]


def test_the_command(made, capsys, monkeypatch):
    folder, text, _ = made
    monkeypatch.setitem(TABLES, "mine", TABLE)
    arguments = ["ablate", "mine", "--profile", "smoke", "--seeds", "0", "1", "--resamples", "60", "-o", str(folder)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"4 runs: 4 are there, 0 to train\n{text}"
    assert cli.main([*arguments, "--only", "x"]) == 2
    assert cli.main(["ablate", "table-1", "-o", str(folder)]) == 2
    assert "a table must be one of gaufuse-3, " in capsys.readouterr().err


def test_every_argument_of_the_command_arrives(monkeypatch):
    got = []
    monkeypatch.setattr(ablation, "ablate", lambda *args, **more: got.extend([*args[:2], more]) or "")
    arguments = "ablate a b --profile paper --seeds 3 4 --jobs 5 --only x --device cpu:0 --resamples 7 -o there"
    assert cli.main([*arguments.split(), "--wtalc", "w", "--activitynet", "v", "j"]) == 0
    plan = ablation.Plan(
        folder="there",
        profile="paper",
        seeds=(3, 4),
        jobs=5,
        device="cpu:0",
        wtalc="w",
        activitynet=["v", "j"],
        resamples=7,
    )
    assert got == [["a", "b"], plan, {"only": "x"}]
    got.clear()
    assert cli.main(["ablate", "a", "-o", "there"]) == 0
    assert got == [["a"], ablation.Plan(folder="there"), {"only": ""}]
