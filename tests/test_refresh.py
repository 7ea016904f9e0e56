"""LabelRefresher: the chain by hand, schedules, interrupted refreshes, several processes, workers, checkpoints."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import (
    DeltaPseudoLabels,
    FormatError,
    LabelRefresher,
    PostProcessor,
    RefreshReport,
    Segments,
    Video,
    gaussian_label_map,
    linpro_label_map,
    presets,
    refresh,
    score_label_map,
)
from tal_postproc.config import Classes, LinPro, RefreshSchedule
from tal_postproc.label_bank import read_file, write_file
from tal_postproc.types import LabelCollapseWarning

CLASSES = 3
SCHEDULE = RefreshSchedule(refreshes=(2, 4, 7), delta_scales=((5, 2.0), (8, 2.5)), unit="epoch")
LENGTHS = (40, 25, 33, 60, 12, 7, 50, 31, 18, 44, 29, 36)
KNOWN = {f"v{i:02d}": [i % CLASSES] if i % 4 else [0, 2] for i in range(len(LENGTHS))}
METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads about, 3.12


def tcams(epoch: int, background: int = 0) -> list[Video]:
    """The training set as a model sees it at an epoch."""
    rng = np.random.default_rng(epoch)
    videos = []
    for name, length in zip(KNOWN, LENGTHS):
        waves = np.sin(np.arange(length)[:, None] / rng.uniform(1, 3, CLASSES + background) + rng.uniform(0, 6))
        tcam = np.clip(waves, 0, 1) * rng.uniform(0.02, 0.3, CLASSES + background)
        videos.append(Video(name, {"cas": tcam}, {"video": rng.uniform(0, 0.4, CLASSES + background)}))
    return videos


def make(folder=None, **options) -> LabelRefresher:
    options = {"known_labels": KNOWN, "schedule": SCHEDULE, "total_epochs": 10, **options}
    return LabelRefresher(
        options.pop("pipeline", "gaufuse"), options.pop("num_classes", CLASSES), folder=folder, **options
    )


def by_hand(videos, make_labels=None, known=KNOWN) -> dict[str, np.ndarray]:
    """The label maps of a refresh, step by step."""
    pipeline = presets.for_labels("gaufuse")
    maps = {}
    for video in videos:
        found = PostProcessor(replace(pipeline, classes=None))(video)
        rows = [row for row in range(len(found)) if found.labels[row] in known[video.id]]
        found = Segments(found.segments[rows], found.labels[rows], found.scores[rows])
        if make_labels is None:
            rule = pipeline.labels
            options = {name: getattr(rule, name) for name in rule.__dataclass_fields__}
            maps[video.id] = linpro_label_map(found, video.num_snippets, CLASSES, **options).labels
        else:
            maps[video.id] = make_labels(found, video.num_snippets, CLASSES)
    return maps


def content(refresher: LabelRefresher) -> dict[str, object]:
    return refresher.state_dict()


def names(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------------ the whole chain
@pytest.mark.parametrize("background", ["none", "first", "last"])
@pytest.mark.parametrize("with_folder", [False, True])
def test_targets_equal_the_chain_by_hand(background, with_folder, tmp_path):
    refresher = make(tmp_path / "new" / "labels" if with_folder else None, background=background)
    maps: list[dict[str, np.ndarray]] = []
    for epoch in range(10):
        assert refresher.due(epoch) == (epoch in (2, 4, 7))
        if refresher.due(epoch):
            report = refresher.refresh(epoch, iter(tcams(epoch)))
            maps.append(by_hand(tcams(epoch)))
            assert (report.epoch, report.number, refresher.epoch) == (epoch, len(maps), epoch)
        if not maps:
            assert refresher.epoch is None
            continue
        scale = None if epoch < 5 else 2.0 if epoch < 8 else 2.5
        for video_id, now in maps[-1].items():
            wanted = now if scale is None else scale * (now - maps[-2][video_id])
            zeros = np.zeros((len(now), 1))
            columns = {"none": [wanted], "first": [zeros, wanted], "last": [wanted, zeros]}[background]
            found = refresher.targets(video_id, epoch)
            assert found.dtype == np.float64
            assert_array_equal(found, np.concatenate(columns, axis=1))
    assert any(m.any() for m in maps[-1].values())
    if with_folder:
        assert names(tmp_path / "new" / "labels") == ["labels.npz"]


def test_differences_begin_with_the_second_refresh():
    """The schedule of the paper: the labels themselves before."""
    refresher = make(schedule=RefreshSchedule(refreshes=(2, 4), unit="epoch"))
    refresher.refresh(2, tcams(2))
    first, second = by_hand(tcams(2)), by_hand(tcams(4))
    assert_array_equal(refresher.targets("v03", 3), first["v03"])
    refresher.refresh(4, tcams(4))
    assert_array_equal(refresher.targets("v03", 4), second["v03"] - first["v03"])


def test_labels_alone_without_factors():
    refresher = make(schedule=RefreshSchedule(refreshes=(2, 4), delta_scales=(), unit="epoch"))
    for epoch in (2, 4):
        refresher.refresh(epoch, tcams(epoch))
    assert_array_equal(refresher.targets("v03", 9), by_hand(tcams(4))["v03"])


def test_known_classes_take_the_place_of_the_class_rule():
    """No video score reaches 1, and none is even needed."""
    strict = replace(presets.for_labels("gaufuse"), classes=Classes(threshold=1.0))
    videos = [Video(video.id, video.maps) for video in tcams(2)]
    refresher = make(pipeline=strict)
    refresher.refresh(2, videos)
    for video_id, labels in by_hand(tcams(2)).items():
        assert_array_equal(refresher.bank.labels(video_id), labels)
        assert set(np.flatnonzero(labels.any(axis=0))) <= set(KNOWN[video_id])


def test_all_columns_that_pass_the_threshold_as_released():
    refresher = make(known_labels=None, num_classes=CLASSES + 1)
    videos = tcams(2, background=1)
    refresher.refresh(2, videos)
    pipeline = presets.for_labels("gaufuse")
    for video in videos:
        found = PostProcessor(pipeline)(video)
        assert set(found.labels) <= set(np.flatnonzero(video.scores["video"] >= 0.16))
        options = {name: getattr(pipeline.labels, name) for name in pipeline.labels.__dataclass_fields__}
        wanted = linpro_label_map(found, video.num_snippets, CLASSES + 1, **options).labels
        assert_array_equal(refresher.bank.labels(video.id), wanted)
    assert any(refresher.bank.labels(video.id)[:, CLASSES].any() for video in videos)
    with pytest.raises(ValueError, match=r"video 'v\d\d': `num_classes` is 3, and the pipeline found class 3"):
        make(known_labels=None).refresh(2, videos)


def test_masks_and_indices_are_one():
    masks = {name: np.isin(np.arange(CLASSES), labels) for name, labels in KNOWN.items()}
    refreshers = make(), make(known_labels=masks), make(known_labels={**KNOWN, "another": []})
    for refresher in refreshers:
        refresher.refresh(2, tcams(2))
    assert content(refreshers[0]) == content(refreshers[1])
    assert refreshers[0].bank.state_dict() == refreshers[2].bank.state_dict()


def test_the_rule_of_the_pipeline_makes_the_labels():
    capped = replace(presets.for_labels("gaufuse"), labels=LinPro(upper_bound=0.001))
    refresher = make(pipeline=capped)
    report = refresher.refresh(2, tcams(2))
    assert report.num_relaxed > 0
    assert max(refresher.bank.labels(video_id).max() for video_id in KNOWN) == 0.001
    plain = make(pipeline=replace(capped, labels=None))
    plain.refresh(2, tcams(2))
    usual = make(pipeline=replace(capped, labels=LinPro()))
    usual.refresh(2, tcams(2))
    assert content(plain) == content(usual)


def test_a_pipeline_for_every_refresh():
    """The last one serves all that are left, and the place in the schedule decides, not how often labels were made."""
    cold = presets.for_labels("gaufuse")
    warm = replace(cold, stages=(replace(cold.stages[0], temperature=5.0),), labels=LinPro(normalization="sum"))
    alone = {name: make(pipeline=one) for name, one in (("cold", cold), ("warm", warm))}
    both, late = make(pipeline=[cold, warm]), make(pipeline=["gaufuse", warm])
    for epoch, name in ((2, "cold"), (4, "warm"), (7, "warm")):
        for refresher in (*alone.values(), both):
            refresher.refresh(epoch, tcams(epoch))
        for video_id in KNOWN:
            assert_array_equal(both.bank.labels(video_id), alone[name].bank.labels(video_id))
    late.refresh(5, tcams(7))  # that of 2 was left out
    assert any((late.bank.labels(name) != alone["cold"].bank.labels(name)).any() for name in KNOWN)
    for video_id in KNOWN:
        assert_array_equal(late.bank.labels(video_id), both.bank.labels(video_id))
    with pytest.raises(ValueError, match="labels"):
        alone["cold"].load_state_dict(both.state_dict())
    again = make(pipeline=[cold, warm])
    again.load_state_dict(both.state_dict())
    assert content(again) == content(both)


@pytest.mark.parametrize("maker", [score_label_map, functools.partial(gaussian_label_map, width=0.3)])
def test_other_makers_of_labels(maker):
    refresher = make(make_labels=maker)
    report = refresher.refresh(2, tcams(2))
    for video_id, labels in by_hand(tcams(2), maker).items():
        assert_array_equal(refresher.bank.labels(video_id), labels)
    assert report.solved == {}
    assert "LinPro" not in str(report)


def test_a_maker_gets_what_is_known():
    given = {}

    def keep(instances, num_snippets, num_classes, *, known_labels):
        given[num_snippets] = known_labels
        assert known_labels[instances.labels].all()
        with pytest.raises(ValueError, match="read-only"):
            known_labels[0] = True
        return np.full((num_snippets, num_classes), 0.5)

    with pytest.warns(LabelCollapseWarning):
        make(make_labels=keep).refresh(2, tcams(2))
    assert {length: np.flatnonzero(mask).tolist() for length, mask in given.items()} == dict(
        zip(LENGTHS, KNOWN.values())
    )


def test_instances_in_seconds_become_labels():
    """A chain that ends in seconds gives what its snippets give."""
    videos = [replace(video, seconds_per_snippet=0.5) for video in tcams(2)]
    chain = replace(presets.get("rskp"), background="none", labels=LinPro())
    from tal_postproc.config import Seconds

    seconds = replace(chain, stages=(*chain.stages, Seconds()))
    plain, timed = make(pipeline=chain), make(pipeline=seconds)
    plain.refresh(2, videos)
    timed.refresh(2, videos)
    for video_id in KNOWN:
        assert_array_equal(plain.bank.labels(video_id), timed.bank.labels(video_id))
    with pytest.raises(ValueError, match="video 'v00': instances in seconds need `seconds_per_snippet`"):
        make(pipeline=seconds).refresh(2, [replace(video, warp=([0, 1], [0, 2])) for video in videos])


# ---------------------------------------------------------------------------------------------- threads, streams, order
def test_the_same_bytes_however_it_is_run(tmp_path):
    states = []
    for threads, folder, step in ((1, None, 1), (2, None, -1), (3, tmp_path / "a", 1), (1, tmp_path / "b", -1)):
        refresher = make(folder, num_threads=threads)
        reports = [refresher.refresh(epoch, tcams(epoch)[::step]) for epoch in (2, 4)]
        states.append((json.dumps(content(refresher)), reports))
    assert all(state == states[0] for state in states)
    assert (tmp_path / "a" / "labels.npz").read_bytes() == (tmp_path / "b" / "labels.npz").read_bytes()


def test_videos_are_read_as_they_are_needed():
    read = 0

    def stream():
        nonlocal read
        for video in tcams(2) * 20:
            read += 1
            yield replace(video, id=f"{video.id}-{read}")

    done = []

    def watch(instances, num_snippets, num_classes, *, known_labels):
        done.append(read)
        return np.zeros((num_snippets, num_classes))

    refresher = make(known_labels=None, make_labels=watch, num_threads=1)
    with pytest.warns(LabelCollapseWarning):
        refresher.refresh(2, stream())
    assert len(done) == 240
    assert max(ahead - number for number, ahead in enumerate(done)) <= 9


@pytest.mark.parametrize("progress", [False, True])
def test_a_bar_is_for_terminals(progress, monkeypatch, capsys):
    import tqdm

    bars = []
    real = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda *args, **options: bars.append(options) or real(*args, **options))
    make().refresh(2, tcams(2), progress=progress)
    assert bars == ([{"total": 12, "unit": "video", "disable": None}] if progress else [])
    assert capsys.readouterr().err == ""


def test_threads_are_shared_among_ranks(monkeypatch, tmp_path):
    monkeypatch.setattr("tal_postproc._threads.default_threads", lambda: 8)
    assert make()._threads is None
    assert make(tmp_path, rank=0, world_size=3)._threads == 2
    assert make(tmp_path, rank=0, world_size=30)._threads == 1
    assert make(tmp_path, rank=0, world_size=3, num_threads=5)._threads == 5


# ----------------------------------------------------------------------------------------------------------- the report
def test_report():
    pipeline = replace(presets.for_labels("gaufuse"), labels=LinPro(margin_scale=1.0, upper_bound=0.1))
    refresher = make(pipeline=pipeline)
    first = refresher.refresh(2, tcams(2))
    assert first.churn.num_compared == 0
    assert "relative change" not in str(first)
    second = refresher.refresh(4, tcams(4))
    pipeline = replace(pipeline, classes=None)
    rule = {name: getattr(pipeline.labels, name) for name in pipeline.labels.__dataclass_fields__}
    solved = {"closed_form": 0, "simplex": 0, "highs": 0}
    instances = relaxed = 0
    gap = 0.0
    for video in tcams(4):
        found = PostProcessor(pipeline)(video)
        made = linpro_label_map(found, video.num_snippets, CLASSES, known_labels=KNOWN[video.id], **rule)
        solved = {name: count + made.solved[name] for name, count in solved.items()}
        relaxed += made.status.count("relaxed")
        instances += int(np.isin(found.labels, KNOWN[video.id]).sum())
        gap = max(gap, made.gap.max())
    assert min(relaxed, solved["closed_form"], solved["simplex"], gap) > 0
    assert (second.num_instances, second.solved, second.num_relaxed) == (instances, solved, relaxed)
    assert (second.worst_gap, second.num_uncertified) == (gap, 0)
    assert second.seconds > 0
    changes = [np.abs(refresher.bank.labels(name) - refresher.bank.previous(name)).sum() for name in KNOWN]
    assert_allclose(second.churn.change, sum(changes), rtol=1e-12)
    assert second.churn.num_matched is not None
    lines = str(second).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"refresh 2 at epoch 4: 12 videos, {instances} instances, ")
    for part in ("relative change 0.", "(scores 0.", "boundaries 0.", "appeared 0.", "vanished 0.", "elsewhere 0."):
        assert part in lines[0]
    assert lines[1].startswith(f"LinPro: {sum(solved.values())} components (closed_form {solved['closed_form']}, ")
    assert f"{relaxed} classes relaxed, 0 components uncertified, worst gap " in lines[1]


def test_collapse_is_warned_of_at_the_line_of_the_user():
    with pytest.warns(LabelCollapseWarning, match="the labels of all 12 videos are 0") as caught:
        make(known_labels=dict.fromkeys(KNOWN, ())).refresh(2, tcams(2))
    assert caught[0].filename == __file__


def test_no_videos_and_no_snippets():
    refresher = make(known_labels=None)
    report = refresher.refresh(2, [])
    assert (report.churn.num_videos, report.num_instances, refresher.epoch) == (0, 0, 2)
    refresher.refresh(4, [Video("v", {"cas": np.empty((0, CLASSES))}, {"video": np.ones(CLASSES)})])
    assert refresher.targets("v", 4).shape == (0, CLASSES)


# ---------------------------------------------------------------------------------------------------- epochs and errors
def test_a_refresh_that_was_left_out_is_still_due():
    refresher = make()
    assert [refresher.due(epoch) for epoch in (0, 1, 2, 3, 9)] == [False, False, True, True, True]
    refresher.refresh(5, tcams(5))
    assert [refresher.due(epoch) for epoch in (5, 6, 7, 9)] == [False, False, True, True]


@pytest.mark.parametrize("call", ["due", "targets", "todo", "refresh"])
def test_epochs_do_not_go_back(call):
    refresher = make()
    refresher.refresh(4, tcams(4))
    arguments = {"due": (3,), "targets": ("v00", 3), "todo": (3, []), "refresh": (3, [])}[call]
    with pytest.raises(ValueError, match="`epoch` must not come before the last refresh, at 4, got 3; to go back"):
        getattr(refresher, call)(*arguments)


def test_refreshes_that_are_not_due():
    refresher = make()
    with pytest.raises(ValueError, match=r"got 1; they are at \(2, 4, 7\), there was none yet"):
        refresher.refresh(1, tcams(1))
    with pytest.raises(ValueError, match="got 0; they are at"):
        refresher.todo(0, KNOWN)
    refresher.refresh(2, tcams(2))
    with pytest.raises(ValueError, match=r"got 3; they are at .*, the last one was at 2"):
        refresher.refresh(3, tcams(3))
    with pytest.raises(TypeError, match="`epoch` must be a whole number"):
        refresher.due(2.0)


def test_targets_that_are_not_there():
    refresher = make()
    with pytest.raises(ValueError, match="`epoch` must not come before the first refresh, due at 2, got 1"):
        refresher.targets("v00", 1)
    refresher.refresh(2, tcams(2))
    with pytest.raises(KeyError, match="no video 'x' among the 12"):
        refresher.targets("x", 2)


def longer(video: Video) -> Video:
    return Video(video.id, {"cas": np.ones((len(video.maps["cas"]) + 1, CLASSES))})


BROKEN = {
    "twice": (lambda v: [*v, v[0]], ValueError, "`videos` must hold every video once, 'v00' stands twice"),
    "unknown": (lambda v: [replace(v[0], id="x")], ValueError, "`known_labels` must know every video, 'x' is missing"),
    "missing": (
        lambda v: v[2:],
        ValueError,
        r"`videos` must bring every video .*, 'v00' is missing \(2 of 12 videos\)",
    ),
    "no video": (lambda v: [*v, "v00"], TypeError, "`videos` must hold Video .*, got str"),
    "no text": (lambda v: [replace(v[0], id=3)], TypeError, "`videos` must hold Video with ids .*, got 3"),
    "NUL": (lambda v: [replace(v[0], id="a\0")], TypeError, "without NUL"),
    "one video": (lambda v: v[0], TypeError, "`videos` must be an iterable of Video, got Video"),
    "longer": (
        lambda v: [*v[:4], longer(v[4])],
        ValueError,
        r"video 'v04': `labels` must have the shape it had .*\(13, 3\)",
    ),
    "not finite": (
        lambda v: [*v[:4], Video("v04", {"cas": np.full((12, CLASSES), np.nan)})],
        ValueError,
        "video 'v04': `maps",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("with_folder", [False, True])
def test_an_error_names_the_video_and_changes_nothing(case, with_folder, tmp_path):
    change, error, message = BROKEN[case]
    refresher = make(tmp_path if with_folder else None)
    refresher.refresh(2, tcams(2))
    before = content(refresher)
    with pytest.raises(error, match=message):
        refresher.refresh(4, change(tcams(4)))
    assert content(refresher) == before
    refresher.refresh(4, tcams(4))
    wanted = by_hand(tcams(4))
    assert all(np.array_equal(refresher.bank.labels(video_id), wanted[video_id]) for video_id in KNOWN)


def test_a_map_of_another_shape_is_refused():
    refresher = make(make_labels=lambda found, length, classes, known_labels: np.zeros((length, classes + 1)))
    with pytest.raises(
        ValueError, match=r"video 'v00': `make_labels` must give a map of shape \(40, 3\), got \(40, 4\)"
    ):
        refresher.refresh(2, tcams(2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pipeline": "gaufusion"}, ValueError, "`name` must be one of"),
        ({"pipeline": 3}, TypeError, "`pipeline` must be the name of a preset, a config.Pipeline, or a sequence of at"),
        ({"pipeline": []}, TypeError, r"a sequence of at least one of them, got \[\]"),
        ({"pipeline": ["gaufuse", 3]}, TypeError, "`pipeline` must be a config.Pipeline"),
        ({"num_classes": 0}, ValueError, "`num_classes` must be at least 1"),
        ({"total_epochs": 7}, ValueError, "`total` must be above the last refresh"),
        ({"schedule": (1, 2)}, TypeError, "`schedule` must be a config.RefreshSchedule, got tuple"),
        ({"background": "both"}, ValueError, "`background` must be one of"),
        ({"make_labels": 3}, TypeError, "`make_labels` must be callable, got int"),
        (
            {"known_labels": [[0]]},
            TypeError,
            "`known_labels` must be a mapping of video ids to labels, or None, got list",
        ),
        ({"known_labels": {"v": None}}, TypeError, "`known_labels` must hold ids and masks or indices, got 'v': None"),
        ({"known_labels": {3: [0]}}, TypeError, "`known_labels` must hold ids"),
        ({"known_labels": {"v": [3]}}, ValueError, r"`known_labels\['v'\]` must lie in \[0, 3\)"),
        ({"num_threads": 0}, ValueError, "`num_threads` must be at least 1"),
        ({"timeout": -1}, ValueError, "`timeout` must be at least 0"),
        ({"rank": 0}, ValueError, "`rank` and `world_size` must be given together"),
        ({"rank": 2, "world_size": 2}, ValueError, "`rank` must be below `world_size`, 2, got 2"),
        ({"rank": 0, "world_size": 0}, ValueError, "`world_size` must be at least 1"),
        ({"rank": 0, "world_size": 2}, ValueError, "`folder` must be given for 2 processes"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_known_labels_have_to_be_spoken_about():
    with pytest.raises(TypeError, match="known_labels"):
        LabelRefresher("gaufuse", CLASSES, total_epochs=350)


def test_progress_is_a_flag():
    with pytest.raises(TypeError, match="`progress` must be True or False"):
        make().refresh(2, tcams(2), progress=1)


# ------------------------------------------------------------------------------------------------ interrupted refreshes
def interrupted(refresher: LabelRefresher, epoch: int, after: int) -> None:
    def stream():
        yield from tcams(epoch)[:after]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        refresher.refresh(epoch, stream())


def counting(maker, calls):
    @functools.wraps(maker)
    def wrapped(*args, **options):
        calls.append(args[1])
        return maker(*args, **options)

    return wrapped


@pytest.mark.parametrize("leave_out", [False, True])
def test_an_interrupted_refresh_goes_on(leave_out, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(refresh, "_PART_VIDEOS", 3)
    calls: list[int] = []
    maker = counting(score_label_map, calls)
    refresher = make(tmp_path, make_labels=maker)
    refresher.refresh(2, tcams(2))
    interrupted(refresher, 4, 8)
    assert len(names(tmp_path)) == 1 + 1 + 3  # labels, folder, parts of 3, 3 and 2
    calls.clear()

    again = make(tmp_path, make_labels=maker)
    assert (again.epoch, again.due(4)) == (2, True)
    assert again.todo(4, KNOWN) == list(KNOWN)[8:]
    videos = tcams(4)
    with caplog.at_level(logging.INFO, "tal_postproc"):
        report = again.refresh(4, videos[8:] if leave_out else videos)
    assert "the refresh at epoch 4 goes on: 8 videos are done" in caplog.text
    assert sorted(calls) == sorted(LENGTHS[8:])
    assert names(tmp_path) == ["labels.npz"]

    whole = make(make_labels=maker)
    assert [whole.refresh(epoch, tcams(epoch)) for epoch in (2, 4)][1] == report
    assert content(whole) == content(again)


def test_parts_go_to_disk_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr(refresh, "_PART_SECONDS", 0.0)
    seen = []

    def stream():
        for video in tcams(2) * 3:
            seen.append(len(names(tmp_path)))
            yield replace(video, id=f"{video.id}-{len(seen)}")

    make(tmp_path, known_labels=None, num_threads=1).refresh(2, stream())
    assert seen[0] == 0
    assert seen[10] > 2


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make().refresh(2, tcams(2))
    assert names(tmp_path) == []


SCRIPT = """
    import os, signal, sys
    from dataclasses import replace
    from tests.test_refresh import make, tcams

    def stream():
        for number in range(9):
            for video in tcams(2):
                yield replace(video, id=f"{number}-{video.id}")
        os.kill(os.getpid(), signal.SIGKILL)

    make(sys.argv[1], known_labels=None, num_threads=1).refresh(2, stream())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
def test_a_killed_refresh_goes_on(tmp_path):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (tmp_path / "epoch-000002" / ".tal_postproc-0123.tmp").write_bytes(b"a part that was being written")

    videos = [replace(video, id=f"{number}-{video.id}") for number in range(9) for video in tcams(2)]
    again = make(tmp_path, known_labels=None)
    left = again.todo(2, [video.id for video in videos])
    assert 8 < len(left) <= 108 - 64
    assert left == [video.id for video in videos[-len(left) :]]
    again.refresh(2, [video for video in videos if video.id in left])
    assert names(tmp_path) == ["labels.npz"]
    whole = make(known_labels=None)
    whole.refresh(2, videos)
    assert content(whole) == content(again)


def test_parts_of_another_refresh_are_no_parts_of_this_one(tmp_path):
    refresher = make(tmp_path)
    interrupted(refresher, 2, 5)
    assert refresher.todo(3, KNOWN) == list(KNOWN)
    refresher.refresh(3, tcams(3))
    wanted = by_hand(tcams(3))
    assert all(np.array_equal(refresher.bank.labels(video_id), wanted[video_id]) for video_id in KNOWN)
    assert names(tmp_path) == ["labels.npz"]


def test_other_peoples_files_stay(tmp_path):
    refresher = make(tmp_path)
    interrupted(refresher, 2, 5)
    (tmp_path / "epoch-000002" / "notes.txt").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")
    refresher.refresh(2, tcams(2))
    assert names(tmp_path) == ["epoch-000002", "epoch-000002/notes.txt", "labels.npz", "notes.txt"]


OTHER = {
    "pipeline": {"pipeline": "gaufuse_nms"},
    "labels": {"pipeline": replace(presets.for_labels("gaufuse"), labels=LinPro())},
    "known_labels": {"known_labels": {**KNOWN, "v00": [1]}},
    "num_classes": {"num_classes": CLASSES + 1},
}


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_refused(name, tmp_path):
    refresher = make(tmp_path)
    interrupted(refresher, 2, 5)
    changed = make(tmp_path, **OTHER[name])
    with pytest.raises(ValueError, match=rf"part-.*: the labels there were made with other settings \(.*{name}"):
        changed.refresh(2, tcams(2))
    with pytest.raises(ValueError, match="other settings"):
        changed.todo(2, KNOWN)
    refresher.refresh(2, tcams(2))
    with pytest.raises(ValueError, match=rf"labels.npz: the labels there were made with other settings \(.*{name}"):
        make(tmp_path, **OTHER[name])
    with pytest.raises(ValueError, match=rf"state: the labels there were made with other settings \(.*{name}"):
        make(**OTHER[name]).load_state_dict(refresher.state_dict())


def test_makers_are_told_apart_by_name_and_options(tmp_path):
    make(tmp_path, make_labels=functools.partial(gaussian_label_map, width=0.3)).refresh(2, tcams(2))
    make(tmp_path, make_labels=functools.partial(gaussian_label_map, width=0.3))
    for other in (None, gaussian_label_map, functools.partial(gaussian_label_map, width=0.4)):
        with pytest.raises(ValueError, match=r"other settings \(labels\)"):
            make(tmp_path, make_labels=other)


def test_what_does_not_change_labels_may_change(tmp_path):
    make(tmp_path).refresh(2, tcams(2))
    schedule = RefreshSchedule(refreshes=(2, 8), unit="epoch")
    other = make(tmp_path, schedule=schedule, total_epochs=20, background="last", num_threads=2)
    assert other.targets("v00", 3).shape == (40, CLASSES + 1)


def test_an_existing_folder_is_picked_up(tmp_path):
    refresher = make(tmp_path)
    for epoch in (2, 4):
        refresher.refresh(epoch, tcams(epoch))
    again = make(str(tmp_path))
    assert (again.epoch, again.due(4), again.due(7)) == (4, False, True)
    assert_array_equal(again.targets("v00", 6), refresher.targets("v00", 6))
    assert content(again) == content(refresher)
    assert "refresh 2 at epoch 4, 12 videos, 3 classes" in repr(again)
    assert "no refresh yet, 0 videos" in repr(make())
    assert DeltaPseudoLabels.load(tmp_path / "labels.npz").state_dict() == refresher.bank.state_dict()
    again.refresh(7, tcams(7))
    assert refresher.epoch == 7


def test_a_folder_may_come_later_and_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refresher = make("labels")
    monkeypatch.chdir("/")
    refresher.refresh(2, tcams(2))
    assert names(tmp_path) == ["labels", "labels/labels.npz"]
    (tmp_path / "labels" / "labels.npz").unlink()
    assert refresher.targets("v00", 2).shape == (40, CLASSES)


# ---------------------------------------------------------------------------------------------------------- checkpoints
def test_state_dict_is_plain_and_comes_back():
    refresher = make()
    fresh = content(refresher)
    refresher.refresh(2, tcams(2))
    state = json.loads(json.dumps(refresher.state_dict()))
    assert state == refresher.state_dict()
    refresher.refresh(4, tcams(4))
    targets = refresher.targets("v00", 6)
    other = make()
    other.load_state_dict(json.loads(json.dumps(refresher.state_dict())))
    assert_array_equal(other.targets("v00", 6), targets)
    assert other.refresh(7, tcams(7)) == refresher.refresh(7, tcams(7))
    refresher.load_state_dict(state)
    assert (refresher.epoch, refresher.due(4)) == (2, True)
    refresher.load_state_dict(fresh)
    assert refresher.epoch is None
    assert refresher.due(2)


def test_torch_reads_the_state(tmp_path):
    torch = pytest.importorskip("torch")
    refresher = make()
    refresher.refresh(2, tcams(2))
    torch.save(refresher.state_dict(), tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == refresher.state_dict()


def test_a_checkpoint_takes_its_folder_back(tmp_path, caplog):
    refresher = make(tmp_path)
    fresh = refresher.state_dict()
    refresher.refresh(2, tcams(2))
    checkpoint = refresher.state_dict()
    refresher.refresh(4, tcams(4))
    wanted = refresher.state_dict()

    again = make(tmp_path)  # after a crash: the checkpoint is of epoch 3
    with pytest.raises(ValueError, match="must not come before the last refresh, at 4, got 3"):
        again.due(3)
    with caplog.at_level(logging.WARNING, "tal_postproc"):
        again.load_state_dict(checkpoint)
    assert "the labels of epoch 4 make way for those of the checkpoint, of epoch 2" in caplog.text
    assert (again.epoch, refresher.epoch, make(tmp_path).epoch) == (2, 2, 2)
    assert_array_equal(again.targets("v00", 3), by_hand(tcams(2))["v00"])
    again.refresh(4, tcams(4))
    assert content(again) == wanted
    again.load_state_dict(fresh)
    assert make(tmp_path).epoch is None
    caplog.clear()
    again.load_state_dict(wanted)  # and forward: nothing is lost
    assert make(tmp_path).epoch == 4
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "more": 1}, "state: must be 'tal_postproc.LabelRefresher 1' with"),
        (lambda s: {**s, "format": "2"}, "state: must be"),
        (lambda s: [], "state: must be"),
        (lambda s: {**s, "epoch": 2.0}, "`epoch` and `number` do not fit together"),
        (lambda s: {**s, "epoch": True}, "`epoch` and `number` do not fit together"),
        (lambda s: {**s, "epoch": -1}, "`epoch` and `number` do not fit together"),
        (lambda s: {**s, "number": 0}, "`epoch` and `number` do not fit together"),
        (lambda s: {**s, "epoch": -1, "number": 0}, "must not hold 12 videos of 3 classes"),
        (lambda s: {**s, "bank": {}}, "state: must have format"),
        (lambda s: {**s, "bank": None}, "state: must have format"),
    ],
)
def test_states_that_are_not_whole(change, message, tmp_path):
    refresher = make(tmp_path)
    refresher.refresh(2, tcams(2))
    before = content(refresher)
    with pytest.raises(FormatError, match=message):
        refresher.load_state_dict(change(before))
    assert content(refresher) == before
    assert content(make(tmp_path)) == before


def test_files_that_are_not_ours(tmp_path):
    refresher = make(tmp_path)
    refresher.refresh(2, tcams(2))
    path = tmp_path / "labels.npz"
    videos, text = read_file(path)
    note = json.loads(text)
    for broken, message in [
        (None, "`note` must be a JSON object"),
        ("{", "`note` must be a JSON object"),
        ("[]", "`note` must be a JSON object"),
        (json.dumps({**note, "epoch": "2"}), "`epoch` and `number` do not fit"),
        (json.dumps({**note, "report": {"epoch": 2}}), "`report` must be that of a refresh"),
        (json.dumps({**note, "report": {**note["report"], "churn": {}}}), "`report` must be that of a refresh"),
    ]:
        write_file(path, videos, broken)
        with pytest.raises(FormatError, match=message):
            make(tmp_path)
    write_file(path, videos, json.dumps({key: note[key] for key in ("epoch", "number")}))
    with pytest.raises(ValueError, match="other settings"):
        make(tmp_path)
    write_file(path, videos, text)
    assert make(tmp_path).epoch == 2


def test_parts_that_are_not_ours(tmp_path):
    refresher = make(tmp_path)
    interrupted(refresher, 2, 5)
    (path,) = (tmp_path / "epoch-000002").glob("part-*")
    videos, text = read_file(path)
    note = json.loads(text)
    row = note["counts"]["v00"]
    for broken, message in [
        ({**note, "epoch": 3}, "`note` must be that of a part of the refresh at epoch 2"),
        ({**note, "counts": {"v00": row}}, "`note` must be that of a part"),
        ({**note, "counts": None}, "`note` must be that of a part"),
        ({**note, "counts": {**note["counts"], "v00": row[:6]}}, "must be 6 counts and a gap"),
        ({**note, "counts": {**note["counts"], "v00": [*row[:6], "0"]}}, "must be 6 counts and a gap"),
        ({**note, "counts": {**note["counts"], "v00": 3}}, "must be 6 counts and a gap"),
    ]:
        write_file(path, videos, json.dumps(broken))
        with pytest.raises(FormatError, match=message):
            refresher.refresh(2, tcams(2))


def test_a_part_with_another_length_is_refused(tmp_path):
    refresher = make(tmp_path)
    refresher.refresh(2, [longer(tcams(2)[0]), *tcams(2)[1:]])
    state = refresher.state_dict()
    refresher.load_state_dict(make().state_dict())
    interrupted(refresher, 4, 5)  # parts beside an empty bank
    refresher.load_state_dict(state)
    with pytest.raises(ValueError, match=r"`videos` must keep their shapes, 'v00' had \(41, 3\), got \(40, 3\)"):
        refresher.refresh(4, tcams(4)[5:])


# ---------------------------------------------------------------------------------------------------- several processes
def work_of_rank(folder, rank, world_size, how, queue):
    """What a training process does; runs in a process of its own."""
    warnings.simplefilter("error")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size))
    refresher = make(folder, timeout=60.0)
    reports = []
    for epoch in (2, 4):
        videos = {video.id: video for video in tcams(epoch)}
        if how == "todo":
            share = refresher.todo(epoch, videos)
        elif how == "padded":  # as a sampler that gives all ranks equally many
            share = [*videos, *list(videos)[: -len(videos) % world_size]][rank::world_size]
        else:
            share = list(videos) if rank == world_size - 1 else []
        time.sleep(0.1 * (rank if epoch == 2 else world_size - rank))
        reports.append(refresher.refresh(epoch, (videos[video_id] for video_id in share)))
    queue.put((rank, reports, json.dumps(content(refresher))))


def processes(method, target, arguments):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        started = [context.Process(target=target, args=(*row, queue)) for row in arguments]
        for process in started:
            process.start()
    found = []
    while len(found) < len(started) and not any(process.exitcode for process in started):
        with contextlib.suppress(Empty):
            found.append(queue.get(timeout=0.2))
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    return sorted(found)


@pytest.mark.parametrize(
    ("method", "world_size", "how"),
    [("fork", 2, "todo"), ("fork", 5, "padded"), ("fork", 2, "last"), ("spawn", 3, "todo")],
)
def test_ranks_together_are_one(method, world_size, how, tmp_path):
    if method not in METHODS:
        pytest.skip(f"this platform has no {method}")
    whole = make(tmp_path / "one")
    wanted = [whole.refresh(epoch, tcams(epoch)) for epoch in (2, 4)], json.dumps(content(whole))
    folder = tmp_path / "many"
    arguments = [(folder, rank, world_size, how) for rank in range(world_size)]
    found = processes(method, work_of_rank, arguments)
    assert [(row[1], row[2]) for row in found] == [wanted] * world_size
    assert names(folder) == ["labels.npz"]
    assert (folder / "labels.npz").read_bytes() == (tmp_path / "one" / "labels.npz").read_bytes()


def test_a_killed_refresh_goes_on_with_other_ranks(tmp_path):
    """Two ranks are interrupted, one of them after its share; three go on."""
    first = [make(tmp_path / "many", rank=rank, world_size=2, timeout=0.0) for rank in range(2)]
    interrupted(first[0], 2, 2)
    with pytest.raises(TimeoutError):
        first[1].refresh(2, tcams(2)[1::2])
    whole = make()
    wanted = [whole.refresh(epoch, tcams(epoch)) for epoch in (2, 4)], json.dumps(content(whole))
    arguments = [(tmp_path / "many", rank, 3, "todo") for rank in range(3)]
    found = processes("fork", work_of_rank, arguments)
    assert [(row[1], row[2]) for row in found] == [wanted] * 3


def test_the_lowest_rank_counts(tmp_path):
    ranks = [make(tmp_path, rank=rank, world_size=3, timeout=0.0) for rank in range(3)]
    for rank, epoch in ((2, 5), (1, 4)):
        with pytest.raises(TimeoutError):
            ranks[rank].refresh(2, tcams(epoch))
        for path in (tmp_path / "epoch-000002").glob("part-*"):  # so that the next rank has them not done
            path.rename(tmp_path / path.name)
    for path in tmp_path.glob("part-*"):
        path.rename(tmp_path / "epoch-000002" / path.name)
    done = ranks[0]._folder.read_parts(2)
    assert list(done) == list(KNOWN)
    lone = make()
    lone.refresh(2, tcams(4))
    for video_id, (entry, _) in done.items():
        assert_array_equal(entry.current.values, lone.bank._videos[video_id].current.values)


def test_who_is_waited_for(tmp_path):
    ranks = [make(tmp_path, rank=rank, world_size=4, timeout=0.0) for rank in range(4)]
    with pytest.raises(TimeoutError, match=r"epoch 2: rank 1 of 4 has waited 0 s \(`timeout`\) in .* for rank 0$"):
        ranks[1].refresh(2, tcams(2)[:3])
    with pytest.raises(TimeoutError, match=r"rank 0 of 4 has waited .* for rank 1, 2, 3$"):
        ranks[0].refresh(2, tcams(2)[3:6])
    with pytest.raises(TimeoutError, match=r"rank 2 of 4 has waited .* for rank 1, 3$"):
        ranks[2].refresh(2, tcams(2)[6:9])
    for rank in (1, 3):
        with pytest.raises(TimeoutError):
            ranks[rank].refresh(2, tcams(2)[9:] if rank == 3 else [])
    with pytest.raises(TimeoutError, match=r"rank 2 of 4 has waited .* for rank 0$"):
        ranks[2].refresh(2, [])


def test_what_an_interrupted_rank_said_does_not_count(tmp_path):
    """Rank 1 was ready before; its share of today is another one, so rank 0 has to wait for it again."""
    ranks = [make(tmp_path, rank=rank, world_size=2, timeout=0.0) for rank in range(2)]
    with pytest.raises(TimeoutError):
        ranks[0].refresh(2, tcams(2)[:3])
    with pytest.raises(TimeoutError):
        ranks[1].refresh(2, tcams(2)[3:6])
    with pytest.raises(TimeoutError, match="for rank 1"):
        ranks[0].refresh(2, tcams(2)[6:9])


def test_a_rank_that_was_early_is_heard_again(tmp_path):
    """Rank 1 answers what is left of an interrupted refresh, then rank 0 begins anew."""
    with pytest.raises(TimeoutError):
        make(tmp_path, rank=0, world_size=2, timeout=0.0).refresh(2, tcams(2)[:3])
    early, late = (make(tmp_path, rank=rank, world_size=2, timeout=30.0) for rank in (1, 0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(early.refresh, 2, tcams(2)[3:7])
        while not (tmp_path / "epoch-000002" / "ready-000001.json").exists():
            assert not waiting.done()
            time.sleep(0.01)
        assert late.refresh(2, tcams(2)[7:]) == waiting.result()
    assert content(early) == content(late)
    assert set(late.bank.video_ids) == set(KNOWN)


def test_todo_is_a_share(tmp_path):
    shares = [make(tmp_path, rank=rank, world_size=3).todo(2, KNOWN) for rank in range(3)]
    assert shares == [list(KNOWN)[rank::3] for rank in range(3)]
    interrupted(make(tmp_path, rank=1, world_size=3), 2, 5)
    again = [make(tmp_path, rank=rank, world_size=3).todo(2, iter(KNOWN)) for rank in range(3)]
    assert again == [[video_id for video_id in share if video_id >= "v05"] for share in shares]


def test_ranks_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert make(tmp_path).todo(2, ["a", "b", "c"]) == ["a", "b", "c"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert make(tmp_path).todo(2, ["a", "b", "c"]) == ["b"]
    assert make(tmp_path, rank=0, world_size=1).todo(2, ["a", "b", "c"]) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="`folder` must be given for 2 processes"):
        make()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="RANK and WORLD_SIZE must be whole numbers, got '1', 'two'"):
        make(tmp_path)


# ----------------------------------------------------------------------------------------------------- worker processes
def read_targets(refresher, asked, answers):
    """A persistent DataLoader worker."""
    for video_id, epoch in iter(asked.get, None):
        try:
            answers.put(refresher.targets(video_id, epoch).tolist())
        except ValueError as error:
            answers.put(str(error))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("with_folder", [False, True])
def test_persistent_workers_see_new_labels(method, with_folder, tmp_path):
    refresher = make(tmp_path if with_folder else None)
    refresher.refresh(2, tcams(2))
    first = refresher.targets("v03", 3).tolist()
    context = multiprocessing.get_context(method)
    asked, answers = context.Queue(), context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        worker = context.Process(target=read_targets, args=(refresher, asked, answers))
        worker.start()
    try:
        for epoch in (3, 4, 9):
            if refresher.due(epoch):
                refresher.refresh(epoch, tcams(epoch))
            asked.put(("v03", epoch))
            wanted = refresher.targets("v03", epoch).tolist() if with_folder else first
            assert answers.get(timeout=60) == wanted
        if with_folder:
            asked.put(("v03", 3))
            assert "must not come before the last refresh, at 9, got 3" in answers.get(timeout=60)
    finally:
        asked.put(None)
        worker.join(60)
    assert worker.exitcode == 0


def refresh_in_worker(folder, queue):
    from tal_postproc import _threads

    refresher = make(folder)
    refresher.refresh(2, tcams(2))
    queue.put((_threads.default_threads(), json.dumps(content(refresher))))


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_process_has_one_thread_and_the_same_labels(method, tmp_path):
    whole = make()
    whole.refresh(2, tcams(2))
    assert processes(method, refresh_in_worker, [(tmp_path,)]) == [(1, json.dumps(content(whole)))]


def test_pickles():
    refresher = make()
    refresher.refresh(2, tcams(2))
    copy = pickle.loads(pickle.dumps(refresher))
    assert content(copy) == content(refresher)
    copy.refresh(4, tcams(4))
    assert (copy.epoch, refresher.epoch) == (4, 2)


def test_labels_are_read_once_per_refresh(tmp_path, monkeypatch):
    refresher, other = make(tmp_path), make(tmp_path)
    reads = []
    monkeypatch.setattr("tal_postproc._label_folder.read_file", lambda path: reads.append(path) or read_file(path))
    for epoch in (2, 4):
        refresher.refresh(epoch, tcams(epoch))
        reads.clear()
        for _ in range(5):
            refresher.targets("v00", epoch)
            other.targets("v00", epoch)
        assert len(reads) == 1


def test_reports_are_plain_values():
    report = make().refresh(2, tcams(2))
    assert isinstance(report, RefreshReport)
    assert replace(report, seconds=9.0) == report
    assert replace(report, num_relaxed=999) != report


def test_an_error_ends_the_threads_at_once():
    """Even while somebody holds its traceback."""
    before = set(threading.enumerate())
    videos = tcams(0)
    bad = Video(videos[-1].id, {"cas": np.full((5, CLASSES), np.nan)}, videos[-1].scores)
    with pytest.raises(ValueError, match=bad.id) as error:
        make(num_threads=2).refresh(2, [bad, *videos[:-1]])
    assert set(threading.enumerate()) <= before
    assert error.tb is not None
