"""The benchmarks run, their comparisons can fail, and a clone is loaded by its path."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    bench_chain,
    bench_evaluation,
    bench_gpu,
    bench_growth,
    bench_jobs,
    bench_labels,
    bench_memory,
    bench_segments,
    bench_start,
    bench_tuning,
    common,
    contenders,
    pictures,
)
from tal_postproc import synthetic

TESTS = Path(__file__).parent


def who(report):
    return {(row.job, row.who) for row in report.rows}


# ----------------------------------------------------------------------------------------------- every benchmark runs


def test_chain_compares_and_times_everybody():
    report = bench_chain.run(num_videos=3, repeats=2, slow_repeats=1)
    for preset in ("gaufuse", "rskp"):
        whole = {row.who: row for row in report.rows if row.job == f"{preset}, TCAM to detections"}
        assert set(whole) == {"ours, 1 thread", "ours, all threads", "literal Python", "floor: gather and write"}
        assert whole["literal Python"].agreement.endswith("detections equal within 1e-06")
        assert int(whole["literal Python"].agreement.split()[0]) > 20
        assert whole["literal Python"].reached == (whole["literal Python"].ratio >= bench_chain.GOAL)
        assert len(whole["ours, 1 thread"].values) == 2
        assert (f"{preset}, suppression", "literal Python") in who(report)
    to_map = [row for row in report.rows if row.job == "rskp, TCAM to mAP at 7 tIoU"]
    assert [row.who for row in to_map] == ["ours, 1 thread", "ours, all threads", "literal Python"]
    assert to_map[2].agreement.endswith("values equal within 1e-09")
    assert not report.skipped


def test_evaluation_compares_and_times_everybody():
    pytest.importorskip("pandas")
    report = bench_evaluation.run(num_detections=150, num_videos=6, repeats=2, slow_repeats=1, many=300)
    pandas = next(row for row in report.rows if row.who == "literal pandas")
    assert pandas.agreement.endswith("values equal within 1e-09")
    assert pandas.reached == (pandas.ratio >= 500)
    many = report.rows[-1]
    assert 200 < int(many.job.split(", ")[1].split()[0]) <= 300  # without the classes that the ground truth lacks
    assert (many.goal, many.reached) == ("below 2 s", True)
    assert {row.job for row in report.rows if row.who == "ours"} >= {"activitynet", "wtalc", "mmaction"}


def test_batches_of_tensors_are_compared_and_timed():
    torch = pytest.importorskip("torch")
    report = bench_gpu.run(**bench_gpu.QUICK)
    for job in ("THUMOS-like, TCAM to detections", "THUMOS-like, TCAM to labels", "THUMOS-like, instances to labels"):
        rows = {row.who: row for row in report.rows if row.job == job}
        batched = rows[f"batched on {'cuda' if torch.cuda.is_available() else 'cpu'}"]
        assert int(batched.agreement.split()[0]) > 20
        assert 0 < rows[bench_gpu.FLOOR].median < rows[bench_gpu.CORE].median
    assert {"torch loop", bench_gpu.CORE} <= {row.who for row in report.rows if row.job == "NMS in one group"}
    assert {row.job for row in report.rows if row.goal} == set(bench_gpu.GOALS)
    kept = np.arange(3)
    with pytest.raises(common.Disagreement, match="2 other rows than the 3"):
        bench_gpu._equal_rows(kept, torch.arange(2), "another")


def test_without_torch_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert bench_gpu.run(**bench_gpu.QUICK).skipped == {"everything": "not installed (pip install torch)"}


def test_memory_is_measured_in_fresh_processes(monkeypatch):
    monkeypatch.setattr(bench_memory, "WORKERS", ("ours, 1 thread", "literal Python"))
    report = bench_memory.run(num_videos=2, repeats=1)  # compares how much the workers found
    whole, _, added, _ = report.rows
    assert (whole.job, added.job, whole.unit) == ("whole process", "added by the chain", "MB")
    assert 30 < whole.median < 2000  # Python, NumPy and numba
    assert 0 <= added.median < whole.median


def test_a_worker_that_fails_is_an_error(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "no such luck")
    monkeypatch.setattr(bench_memory.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="'ours' failed: no such luck"):
        bench_memory._worker_process("ours", Path("absent.npz"))


def test_jobs_are_compared_and_streamed(monkeypatch, tmp_path):
    for path in ("nowhere.json", ""):  # without the annotations, and with them where they are
        if path:
            monkeypatch.setenv("TAL_POSTPROC_ANET", str(tmp_path / path))
        else:
            monkeypatch.delenv("TAL_POSTPROC_ANET")
        report = bench_jobs.run(**{**bench_jobs.QUICK, "repeats": 1})
        rows = {row.who: row for row in report.rows}
        assert rows["in shards of 3"].agreement == rows["in one piece"].agreement
        assert int(rows["in one piece"].agreement.split()[0]) > 20
        assert rows["reading the TCAMs"].ratio < 1
        assert len(rows["seconds per video, all tenths"].values) == bench_jobs.TENTHS
        assert 30 < rows["peak memory after a tenth"].median <= rows["peak memory after all tenths"].median < 2000
        assert len(report.notes) == 2


def test_jobs_that_differ_stop_the_benchmark(monkeypatch):
    monkeypatch.setattr(bench_jobs, "_copy", lambda source, result, target: target.write_text("another"))
    with pytest.raises(common.Disagreement, match="outputs of the jobs differ"):
        bench_jobs.run(**bench_jobs.QUICK)
    failed = subprocess.CompletedProcess([], 1, "", "no such luck")
    monkeypatch.setattr(bench_jobs.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="failed: no such luck"):
        bench_jobs._worker_process(Path("in"), Path("out"), 3)


def test_start_is_measured_in_fresh_processes():
    report = bench_start.run(repeats=1, cold_repeats=0, jobs=("import",))
    assert [(row.job, row.who) for row in report.rows] == [("import", "warm cache")]
    assert 0.01 < report.rows[0].median < 60


def test_tuning_is_timed_and_a_part_of_the_grid_compared_with_the_whole():
    report = bench_tuning.run(videos=10, held_out=8, seeds=3, repeats=1, step=4)
    timed = {row.who: row for row in report.rows if row.job.endswith("preset rskp")}
    assert set(timed) == {"reuse", "everything anew", "reuse, one thread"}
    assert timed["reuse"].goal == "below 120 s"
    regret = [row for row in report.rows if row.job.startswith("regret")]
    assert [row.who for row in regret] == [who for who in ("random", "optuna") if who not in report.skipped]
    assert all(len(row.values) == 3 and "standard error" in row.goal for row in regret)
    of_grid = {row.who: row.median for row in report.rows if row.job == "mAP on held-out videos"}
    assert all(max(row.values) <= of_grid["best of the grid"] for row in regret)
    assert of_grid["starting pipeline"] <= of_grid["best there"]


def test_searches_that_differ_stop_the_benchmark(monkeypatch):
    found = iter(range(10))
    monkeypatch.setattr(bench_tuning, "tune", lambda *_, **__: next(found))
    with pytest.raises(common.Disagreement, match="another result than with reuse"):
        bench_tuning.run(videos=6, held_out=1, seeds=1, repeats=1, step=4)


def test_a_process_that_fails_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setitem(bench_start.JOBS, "import", ("-c", "raise SystemExit('no such luck')"))
    with pytest.raises(RuntimeError, match="no such luck"):
        bench_start._seconds("import", tmp_path)


def test_labels_are_compared_and_timed():
    pytest.importorskip("scipy")
    report = bench_labels.run(**{**bench_labels.QUICK, "num_videos": 3, "repeats": 2})
    rows = {(row.job, row.who): row for row in report.rows}
    for solver, goal in (("auto", 50), ("highs", 10)):
        for normalization in ("sum", "mean"):
            job = f"refresh, {normalization}: {solver}, min_norm"
            published = rows[job, "as published"]
            assert published.goal == f"at least {goal} times"
            assert published.reached == (published.ratio >= goal)
            assert published.agreement.endswith("systems solved, 0 NaN")
            assert len(rows[job, "ours, 1 thread"].values) == 2
            assert ", 0 relaxed, within" in rows[job, "ours, all threads"].agreement
    dense = "dense, mean: auto, min_norm"
    assert rows[dense, "as published"].agreement == "0 systems solved, 2 NaN"
    assert rows[dense, "ours, 1 thread"].agreement.startswith("0 systems met, 2 relaxed, within")
    steps = [row for row in report.rows if row.job == "refresh, sum: where the time goes"]
    assert np.isclose(sum(np.array(row.values) for row in steps[1:]), steps[0].values).all()
    assert ("n = 150 instances", "ours, hanging together, vertex") in rows
    assert ("10 instances, T = 1000", "np.zeros(T)") in rows
    change = rows["one boundary moves, sum: mean change", "ours, auto, min_norm"]
    assert change.unit == "%"
    assert len(change.values) == 2
    assert 0 < change.median < 100


def test_loops_over_segments_are_compared_and_timed():
    report = bench_segments.run(**bench_segments.QUICK)
    rows = {(row.job, row.who): row for row in report.rows if row.size in (200, 300)}
    for job, who in (
        ("NMS", "dead-mask loop"),
        ("NMS", "kept-list loop"),
        ("NMS, threshold 0", "kept-list loop"),
        ("soft-NMS", "compacting loop"),
        ("fusion", "compacting loop"),
        ("voting", "plain loop"),
        ("weighted fusion", "plain loop"),
    ):
        for name in (job, f"{job}, all overlap"):
            assert rows[name, who].agreement.endswith(("within 0", "within 1e-12", "within 1e-06"))
            assert rows[name, "ours"].ratio == 1
    for who, jobs in {
        "torch loop": ("NMS", "soft-NMS"),
        "torchvision": ("NMS",),
        "ensemble-boxes": ("NMS", "weighted fusion"),
    }.items():
        for job in jobs:
            timed = [row for row in report.rows if row.who == who and row.job.startswith(job)]
            reason = report.skipped.get(f"{who} ({job})", "")
            assert bool(timed) != reason.startswith(("not installed (pip install ", "does not load: "))


def test_everybody_over_segments_checks_the_arguments():
    makers = [bench_segments._nms, bench_segments._touch, bench_segments._soft, bench_segments._fuse]
    makers += [bench_segments._vote, bench_segments._weighted, lambda *rows: bench_segments._boxes(*rows, 5)]
    makers += [
        lambda *rows, prepare=prepare: {"other": prepare(*rows)[0]}
        for job in ("NMS", "soft-NMS")
        for prepare, _ in bench_segments._others(job, {}).values()
    ]
    count = 0
    for make in makers:
        segments, scores = bench_segments.make_rows(50)
        try:
            calls = make(segments, scores)
        except common.Unavailable:
            continue
        scores[7] = np.nan
        for call in calls.values():
            count += 1
            with pytest.raises(ValueError, match=r"`scores.* must be finite"):
                call()
    assert count >= 13


def boxes_nms(boxes, scores, threshold):
    """Plain NMS of boxes, as a package might have it."""
    boxes, keep = np.asarray(boxes), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for row in np.argsort(-np.asarray(scores)):
        shared = np.minimum(boxes[row, 2:], boxes[keep, 2:]) - np.maximum(boxes[row, :2], boxes[keep, :2])
        shared = np.prod(np.maximum(shared, 0), axis=1)
        if not (shared / (area[row] + area[keep] - shared) > threshold).any():
            keep.append(row)
    return np.array(keep)


def test_packages_get_boxes_and_must_agree(monkeypatch):
    tensors = SimpleNamespace(from_numpy=np.array, set_num_threads=lambda number: None)
    packages = {"torch": tensors, "torchvision.ops": SimpleNamespace(nms=boxes_nms)}

    def package(module, package):
        if module not in packages:
            raise common.Unavailable("not here")
        return packages[module]

    monkeypatch.setattr(bench_segments, "_package", package)
    monkeypatch.setattr(bench_segments, "_torch_nms", bench_segments._boxes_nms)
    segments, scores = bench_segments.make_rows(200)
    call, compared = bench_segments._torchvision_nms(segments, scores)
    ours = bench_segments._nms(segments, scores)["ours"]()
    assert common.require_equal_values(ours, compared(call()), "torchvision", 0.0)
    packages["torchvision.ops"] = SimpleNamespace(nms=lambda *given: boxes_nms(*given)[1:])
    with pytest.raises(common.Disagreement, match="NMS, n = 100: torchvision: shape"):
        bench_segments.run(**bench_segments.QUICK)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("no such module"), "not installed (pip install somebody)"),
        (RuntimeError("operator torchvision::nms does not exist"), "does not load: operator torchvision::nms does not"),
    ],
)
def test_a_package_that_is_missing_is_skipped_with_the_reason(monkeypatch, error, reason):
    def fail(name):
        raise error

    monkeypatch.setattr(bench_segments, "importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(common.Unavailable, match=re.escape(reason)):
        bench_segments._package("somebody", "somebody")
    monkeypatch.setattr(common, "time_together", lambda calls, turns: dict.fromkeys(calls, (1.0,)))
    report = bench_segments.run(**bench_segments.QUICK)
    packages = {"ensemble-boxes (NMS)", "torchvision (NMS)", "torch loop (NMS)", "torch loop (soft-NMS)"}
    assert set(report.skipped) == {*packages, "ensemble-boxes (weighted fusion)"}
    assert all(why.startswith(reason.split(" (")[0].split(":")[0]) for why in report.skipped.values())
    assert {row.who for row in report.rows} == {
        "ours",
        "dead-mask loop",
        "kept-list loop",
        "compacting loop",
        "plain loop",
    }


def test_growth_is_measured_and_drawn(tmp_path):
    report = bench_growth.run(**bench_growth.QUICK)
    lines = {
        (row.job, row.who): sorted(one.size for one in report.rows if one.job == row.job and one.who == row.who)
        for row in report.rows
    }
    assert {who for job, who in lines if job == bench_growth.TIME} == set(bench_growth.FUNCTIONS)
    assert all(lines[bench_growth.TIME, who] == [100, 1_000] for who in bench_growth.FUNCTIONS)
    for preset in ("gaufuse", "rskp"):
        assert lines["chain against T", preset] == [100, 200]
        assert lines["chain against thresholds", preset] == [5, 10]
        assert lines["chain against classes", preset] == [1, 2]
        assert lines["chain against videos", preset] == [2, 4]
        assert lines["chain against threads, short videos", preset] == [1, 2]
    assert "memory" in report.skipped or lines[bench_growth.MEMORY, "nms"] == [100, 1_000]
    pytest.importorskip("matplotlib")
    common.write_json(report, tmp_path)
    saved = common.read_reports(tmp_path, ["growth"])[0]
    paths = pictures.draw(saved, tmp_path / "images")
    assert {path.name for path in paths} >= {"growth_time.png", "growth_chain.png", "growth_threads.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    again = pictures.draw({**saved, "pictures": saved["pictures"][:1]}, tmp_path / "again")  # from the JSON alone
    assert [path.read_bytes() for path in again] == [paths[0].read_bytes()]
    for path in paths:
        assert f"(images/{path.name})" in common.markdown(saved)


def test_memory_is_what_the_call_adds(monkeypatch):
    def allocate(n):
        return lambda: np.ones(n)

    monkeypatch.setitem(bench_growth.FUNCTIONS, "nms", allocate)
    monkeypatch.setattr(bench_growth.subprocess, "run", lambda *_, **__: pytest.fail("not in this process"))
    out = io.StringIO()
    with redirect_stdout(out):
        bench_growth.worker("nms", 4_000_000)
    if out.getvalue() != "null\n":
        assert 28 < float(out.getvalue()) < 40  # 32 MB


def test_memory_is_skipped_where_no_process_can_reset_its_peak(monkeypatch):
    done = subprocess.CompletedProcess([], 0, "null\n", "")
    monkeypatch.setattr(bench_growth.subprocess, "run", lambda *_, **__: done)
    report = bench_growth.run(**{**bench_growth.QUICK, "sizes": (100,)})
    assert "reset its peak" in report.skipped["memory"]
    assert "growth_memory.png" not in {picture.file for picture in report.pictures}


# ------------------------------------------------------------------------------------------------ comparisons can fail


def test_a_wrong_loop_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_segments, "_kept_list_loop", lambda segments, order, threshold: order)
    monkeypatch.setattr(common, "time_together", lambda *_: pytest.fail("timed before it was compared"))
    with pytest.raises(common.Disagreement, match="NMS, n = 100: kept-list loop"):
        bench_segments.run(**bench_segments.QUICK)


def broken(name, change):
    """`contenders.contenders`, of which one gives changed results."""
    real = contenders.contenders

    def changed(task, clones):
        return [
            replace(one, prepare=lambda job, one=one: lambda: change(one.prepare(job)())) if one.name == name else one
            for one in real(task, clones)
        ]

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "detections instead of"),
        (lambda rows: rows + np.array([0, 0, 2e-6, 0, 0]), "differ by 2e-06"),
        (lambda rows: rows + np.array([0, 0, 0, 0, 2e-6]), "differ by 2e-06"),
        (lambda rows: rows * [1, 1, 1, 1, np.nan], "differ by nan"),
        (lambda rows: rows + np.array([1, 0, 0, 0, 0]), "detections instead of"),
        (lambda rows: np.concatenate([rows, rows[-1:] + np.array([1, 0, 0, 0, 0])]), "1 detections instead of 0"),
    ],
)
def test_a_wrong_chain_is_not_timed(monkeypatch, change, message):
    monkeypatch.setattr(contenders, "contenders", broken("literal Python", change))
    monkeypatch.setattr(common, "time_together", lambda *_: pytest.fail("timed before it was compared"))
    with pytest.raises(common.Disagreement, match=rf"literal Python \(rskp\).*{message}"):
        bench_chain.run(num_videos=2, names=["rskp"], repeats=1, slow_repeats=1)


def test_the_order_of_rows_is_no_difference(monkeypatch):
    monkeypatch.setattr(contenders, "contenders", broken("literal Python", lambda rows: rows[::-1]))
    assert bench_chain.run(num_videos=2, names=["rskp"], repeats=1, slow_repeats=1).rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ap: ap + 2e-9, "differ by 2e-09"),
        (lambda ap: ap[:, 1:], "shape"),
        (lambda ap: ap * np.nan, "differ by nan"),
    ],
)
def test_a_wrong_evaluator_is_not_timed(monkeypatch, change, message):
    pytest.importorskip("pandas")
    monkeypatch.setattr(contenders, "contenders", broken("literal pandas", change))
    with pytest.raises(common.Disagreement, match=f"literal pandas.*{message}"):
        bench_evaluation.run(num_detections=100, num_videos=4, repeats=1, slow_repeats=1, many=100)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ours, auto, vertex, 1 thread", lambda one: one + 1e-5, "instead of"),
        ("ours, highs, min_norm, all threads", lambda one: np.zeros_like(one), "sum 0 instead of"),
        ("ours, auto, min_norm, 1 thread", lambda one: one * np.nan, "sum nan instead of"),
        ("as published", lambda one: one * np.nan, "sum nan instead of"),
        ("linprog alone", lambda one: one * 1.01, "instead of"),
    ],
)
def test_wrong_labels_are_not_timed(monkeypatch, name, change, message):
    pytest.importorskip("scipy")
    monkeypatch.setattr(contenders, "contenders", broken(name, lambda maps: [change(one) for one in maps]))
    monkeypatch.setattr(common, "time_together", lambda *_: pytest.fail("timed before it was compared"))
    with pytest.raises(common.Disagreement, match=rf"{name}: class \d+ of video \d+: .*{message}"):
        bench_labels.run(**{**bench_labels.QUICK, "num_videos": 2})


def test_a_moved_boundary_stays_in_the_video():
    job = bench_labels.make_job(3)
    for before, after, length in zip(job.found, bench_labels._moved(job, 0), job.lengths):
        step = np.abs(after.segments - before.segments)
        for label in np.unique(before.labels):
            own = step[before.labels == label]
            assert np.isclose(own[own > 0], 1).all()
            assert (own > 0).sum() <= 1
        changed = after.segments[(step > 0).any(axis=1)]
        assert len(changed)
        assert (changed[:, 0] >= 0).all()
        assert (np.diff(changed) >= 1).all()
        assert changed.max() <= length + 1


def test_nothing_to_compare_is_no_agreement():
    with pytest.raises(common.Disagreement, match="nothing to compare"):
        common.require_equal_rows(np.empty((0, 5)), np.empty((0, 5)), "x")
    with pytest.raises(common.Disagreement, match="nothing to compare"):
        common.require_equal_values(np.zeros((2, 3)), np.zeros((2, 3)), "x", 1e-9)


# --------------------------------------------------------------------------------------------------- clones by path

CHAIN = """
import numpy as np
import a_package_that_is_not_installed.layers as layers
import utils.helpers as helpers

WIDTH = np.float(1)  # a name that NumPy has dropped


def getActLoc(vid_preds, frm_preds, vid_lens, act_thresh_cas, annotation_path, args):
    print("a line nobody asked for")
    labels = np.load(annotation_path + "/labels.npy")
    subset = np.load(annotation_path + "/subset.npy")
    classes = [name.decode("utf-8") for name in np.load(annotation_path + "/classlist.npy")]
    assert all(one.decode("utf-8") == "test" for one in subset) and len(subset) == len(frm_preds)
    assert [len(one) for one in frm_preds] == [one[0] for one in vid_lens]
    present = sorted(set(name for row in labels for name in row))
    by_class = [[] for _ in present]
    for i, (scores, maps) in enumerate(zip(vid_preds, frm_preds)):
        for c, start, end, score in helpers.rskp(
            maps, scores, thresholds=act_thresh_cas, class_threshold=args.class_threshold, **helpers.{numbers}
        ):
            by_class[int(c)].append([i, start, end, score])
    return [np.array(by_class[classes.index(name)]) for name in present]
"""
NUMBERS = "\nRSKP = {}\nGAUFUSE = {'ratio': 0.0785, 'power': 0.9, 'nms_threshold': 0.25, 'temperature': 0.2}\n"
EVALUATOR = """
import json
import numpy as np
from joblib import Parallel, delayed
from .helpers import activitynet


class ANETdetection(object):
    def __init__(self, ground_truth_filename, prediction_filename, subset, tiou_thresholds, verbose, check_status):
        assert not check_status
        self.thresholds = tiou_thresholds
        self.activity_index, self.truth, self.found = {}, [], []
        for video, entry in json.load(open(ground_truth_filename))["database"].items():
            for one in entry["annotations"] * (entry["subset"] == subset):
                label = self.activity_index.setdefault(one["label"], len(self.activity_index))
                self.truth.append((video, label, *one["segment"]))
        for video, rows in json.load(open(prediction_filename))["results"].items():
            self.found += [(video, self.activity_index[one["label"]], *one["segment"], one["score"]) for one in rows]

    def evaluate(self):
        columns = Parallel(n_jobs=20)(
            delayed(activitynet)(
                [row for row in self.found if row[1] == k],
                [row for row in self.truth if row[1] == k],
                self.thresholds,
            )
            for k in self.activity_index.values()
        )
        self.ap = np.array([column[k] for k, column in enumerate(columns)]).T.astype(np.float)
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def clone(tmp_path):
    """A folder like a clone of RSKP, of GauFuse and of BaS-Net, out of our own oracles."""
    for preset in ("rskp", "gaufuse"):
        write(tmp_path / preset / "evaluation" / "detectionMAP.py", CHAIN.replace("{numbers}", preset.upper()))
        chain = (TESTS / "oracles" / "pipelines.py").read_text()
        write(tmp_path / preset / "utils" / "helpers.py", chain + NUMBERS)
    write(tmp_path / "anet" / "eval" / "eval_detection.py", EVALUATOR)
    write(tmp_path / "anet" / "eval" / "helpers.py", (TESTS / "oracles" / "evaluation.py").read_text())
    return {name: tmp_path / name for name in ("rskp", "gaufuse", "anet")}


def test_clones_are_contenders(clone):
    before = list(sys.path), set(sys.modules), sys.argv, np.load, set(vars(np))
    report = bench_chain.run(clones=clone, num_videos=3, repeats=1, slow_repeats=1)
    for preset in ("rskp", "gaufuse"):
        row = next(row for row in report.rows if row.who == f"clone of {preset}")
        assert row.job == f"{preset}, TCAM to detections"
        assert "equal within" in row.agreement
    assert report.skipped == {
        "clone of rskp (gaufuse)": "it publishes rskp, not gaufuse",
        "clone of gaufuse (rskp)": "it publishes gaufuse, not rskp",
    }
    report = bench_evaluation.run(clones=clone, num_detections=150, num_videos=6, repeats=1, slow_repeats=1, many=100)
    assert any(row.who == "clone of anet" and "equal within" in row.agreement for row in report.rows)
    assert "a_package_that_is_not_installed" not in sys.modules
    assert (list(sys.path), sys.argv, np.load, set(vars(np))) == (before[0], *before[2:])
    assert not {name for name in set(sys.modules) - before[1] if name.split(".")[0] in ("utils", "eval", "evaluation")}


def test_a_clone_that_differs_stops_the_run(clone):
    path = clone["rskp"] / "evaluation" / "detectionMAP.py"
    path.write_text(path.read_text().replace("[i, start, end, score]", "[i, start, end, score + 1e-5]"))
    with pytest.raises(common.Disagreement, match="clone of rskp"):
        bench_chain.run(clones={"rskp": clone["rskp"]}, num_videos=2, names=["rskp"], repeats=1, slow_repeats=1)


def test_a_built_extension_is_a_contender(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    with pytest.raises(common.Unavailable, match="nms_1d_cpu does not load"):
        bench_segments._clone_nms(tmp_path, np.zeros((1, 2)), np.zeros(1))
    write(
        tmp_path / "nms_1d_cpu.py",
        "import torch\n\n\ndef nms(segments, scores, iou_threshold):\n"
        "    assert segments.dtype == scores.dtype == torch.float32\n"
        "    keep = []\n"
        "    for row in scores.argsort(descending=True).tolist():\n"
        "        shared = torch.minimum(segments[row, 1], segments[keep, 1])\n"
        "        shared = (shared - torch.maximum(segments[row, 0], segments[keep, 0])).clamp(min=0)\n"
        "        lengths = segments[:, 1] - segments[:, 0]\n"
        "        if not (shared / (lengths[row] + lengths[keep] - shared) >= iou_threshold).any():\n"
        "            keep.append(row)\n"
        "    return torch.tensor(keep)\n",
    )
    before = list(sys.path)
    report = bench_segments.run(clones={"nms1d": tmp_path}, **bench_segments.QUICK)
    monkeypatch.delitem(sys.modules, "nms_1d_cpu")
    assert sys.path == before
    rows = [row for row in report.rows if row.who == "clone of nms_1d_cpu"]
    assert [(row.job, row.size) for row in rows] == [("NMS", 100), ("NMS", 300)]
    assert all(row.agreement.endswith("values equal within 0") for row in rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "has no evaluation/detectionMAP.py"),
        (lambda path: path.write_text("x = 1"), "has no getActLoc"),
        (lambda path: path.write_text("1 / 0"), "does not load: ZeroDivisionError"),
    ],
)
def test_a_clone_that_cannot_run_is_skipped_with_the_reason(clone, change, reason):
    change(clone["rskp"] / "evaluation" / "detectionMAP.py")
    report = bench_chain.run(clones={"rskp": clone["rskp"]}, num_videos=2, names=["rskp"], repeats=1, slow_repeats=1)
    assert reason in report.skipped["clone of rskp (rskp)"]


def test_a_folder_that_is_not_there_is_skipped_with_the_reason(tmp_path):
    job = contenders.ChainJob(synthetic.make_videos(1).videos, "rskp")
    with pytest.raises(common.Unavailable, match="does not exist"):
        contenders.clone_chain(job, "rskp", tmp_path / "nowhere")
    with pytest.raises(common.Unavailable, match="ANETdetection"):
        contenders.clone_map(bench_evaluation.make_job(20, 2), tmp_path)


# -------------------------------------------------------------------------------------------------------------- output


EMPTY_PAGE = f"{common.SUMMARY_BEGIN}\nold\n{common.SUMMARY_END}\n{common.BEGIN}\nold\n{common.END}"


def report_of(name="chain"):
    rows = [
        common.Row("all", "ours", (0.002, 0.001, 0.003)),
        common.Row("all", "theirs", (0.2, 0.3), ratio=125.0, goal="at least 300 times", reached=False),
        common.Row("memory", "ours", (12.34,), unit="MB"),
    ]
    return common.Report(name, "Everything", {"videos": 3}, rows, {"somebody": "not installed"}, ["A note."])


def test_json_and_the_page_are_rewritten(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{EMPTY_PAGE}\nafter\n".replace("old", "old table"))
    for _ in range(2):
        common.write_json(report_of(), tmp_path / "results")
        common.write_docs(tmp_path / "results", page, ["absent", "chain"])
    saved = json.loads((tmp_path / "results" / "chain.json").read_text())
    assert set(saved["machine"]) >= {"cpu", "cores", "python", "numpy", "numba", "date"}
    assert saved["rows"][1]["values"] == [0.2, 0.3]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old table" not in text
    assert "| all | ours | 2 ms | 1 ms to 3 ms | 3 |  |  |  |" in text
    assert "| 125 | at least 300 times: **not reached** |" in text
    assert "12.3 MB" in text
    assert "* Skipped: somebody: not installed." in text
    assert text.count("### Everything") == 1
    summary = text.split(common.SUMMARY_BEGIN)[1].split(common.SUMMARY_END)[0]
    assert "0 of 1 goals are reached, 1 not." in summary
    assert "| chain | all | theirs | 125 times | at least 300 times | **no** |" in summary
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="has lost its markers"):
        common.write_docs(tmp_path, page, ["chain"])
    assert page.read_text() == "nothing here\n"


def test_the_page_of_the_project_has_its_markers():
    text = common.DOCS.read_text()
    for marker in (common.BEGIN, common.END, common.SUMMARY_BEGIN, common.SUMMARY_END):
        assert text.count(marker) == 1


def test_goals_that_are_not_reached_come_first():
    rows = [
        common.Row("a", "they", (1.0,), ratio=5432.1, goal="at least 300 times", reached=True),
        common.Row("b", "ours", (3.0, 2.5, 4.0), goal="below 2 s", reached=False, size=1_000),
        common.Row("c", "they", (1.0,), ratio=1.0),
    ]
    text = common.summary([common.Report("x", "X", {}, rows).to_dict()])
    lines = [line for line in text.splitlines() if line.startswith("| x ")]
    assert lines == [
        "| x | b, n = 1,000 | ours | 3 s | below 2 s | **no** |",
        "| x | a | they | 5,432 times | at least 300 times | yes |",
    ]
    assert text.startswith("1 of 2 goals are reached, 1 not.")


def test_growth_is_read_along_a_line():
    rows = [common.Row("time", "f", (1e-3 * n**1.5,), size=n) for n in (1, 10, 100, 1_000)]
    rows += [
        common.Row("memory", "f", (value,), unit="MB", size=n) for n, value in ((10, 0.01), (100, 1.0), (1_000, 10.0))
    ]
    assert common.exponent(rows[:4]) == pytest.approx(1.5)
    assert common.exponent([replace(rows[0], values=(1e6,)), *rows[1:4]]) == pytest.approx(1.5)  # two decades only
    assert common.exponent(rows[4:]) == pytest.approx(1.0)  # without what a process cannot tell
    assert common.exponent(rows[:1]) is None
    text = common.markdown(common.Report("x", "X", {}, rows).to_dict())
    assert "| memory | 10 | 100 | 1,000 | exponent |" in text
    assert "| f | 0.0 MB (0.0 MB to 0.0 MB) | 1.0 MB (1.0 MB to 1.0 MB) | 10.0 MB (10.0 MB to 10.0 MB) | 1.00 |" in text


@pytest.mark.parametrize(("power", "ends"), [(1, [5e-4, 5e-2]), (-1, [1e-3, 1e-5])])
def test_a_panel_has_a_line_with_its_exponent_for_everybody_and_one_to_compare_with(power, ends):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    rows = [common.Row("job", "we", (0.9e-3 * n, 1e-3 * n, 1.2e-3 * n), size=n) for n in (100, 1, 10)]
    rows += [common.Row("job", "they", (1e-3 * n**2,), size=n) for n in (1, 10, 100)]
    axes = figure.add_subplot()
    pictures._panel(axes, common.Panel("job", "videos", power), rows)
    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    assert set(lines) == {"we  (1.00)", "they  (2.00)", f"slope {power}"}
    assert np.allclose(lines["we  (1.00)"], [(1, 1e-3), (10, 1e-2), (100, 1e-1)])
    assert np.allclose(lines[f"slope {power}"][:, 1], sorted(ends) if power < 0 else ends)
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", "videos")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


def test_what_a_process_cannot_tell_is_not_drawn():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    rows = [common.Row("job", "f", (value,), unit="MB", size=n) for n, value in ((10, 0.02), (100, 1.0), (1_000, 10.0))]
    axes = figure.add_subplot()
    pictures._panel(axes, common.Panel("job", "rows"), rows)
    assert axes.get_lines()[0].get_xdata().tolist() == [100, 1_000]
    assert axes.get_xlim()[0] < 10
    assert axes.texts[0].get_text().startswith("below 0.1 MB")


def test_a_picture_without_rows_is_an_error(tmp_path):
    pytest.importorskip("matplotlib")
    report = report_of()
    report.pictures.append(common.Picture("all.png", "All", (common.Panel("nothing", "n"),)))
    with pytest.raises(ValueError, match=r"all\.png: there are no rows of the job 'nothing'"):
        pictures.draw(report.to_dict(), tmp_path)


def test_contenders_take_turns():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(2e-3)

    seconds = common.time_together({"a": lambda: calls.append("a"), "slow": slow}, {"a": 3, "slow": 2})
    assert calls == ["a", "slow", "a", "a", "slow", "a", "a"]  # a short one once untimed, too
    assert [len(values) for values in seconds.values()] == [3, 2]


def test_command_runs_the_named_benchmarks(monkeypatch, capsys, tmp_path):
    seen = []
    monkeypatch.setattr(bench_chain, "run", lambda **given: seen.append(given) or report_of())
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    command.main([], ["chain", "--quick", "--rskp", "somewhere"])
    assert seen == [{"clones": {"rskp": Path("somewhere")}, **bench_chain.QUICK}]
    assert "### Everything" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    page = tmp_path / "page.md"
    page.write_text(EMPTY_PAGE)
    monkeypatch.setattr(common, "DOCS", page)
    command.main(["chain"], [])
    assert (tmp_path / "chain.json").exists()
    assert "### Everything" in page.read_text()
    page.write_text(EMPTY_PAGE)
    command.main([], ["--redraw"])
    assert "### Everything" in page.read_text()
    assert len(seen) == 2  # nothing was measured again
    with pytest.raises(SystemExit):
        command.main([], ["nothing"])
