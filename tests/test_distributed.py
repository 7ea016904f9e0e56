"""Arrow tables hold what videos hold, and the chain gives the same bytes however the rows are cut and ordered."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench_fleet, common
from tal_postproc import (
    FormatError,
    LabelRefresher,
    MissingExtraError,
    PostProcessor,
    Segments,
    Video,
    _jobs,
    _threads,
    cli,
    distributed,
    formats,
    linpro_label_map,
    presets,
    synthetic,
)
from tal_postproc.distributed import Detect, Labels, detections_to_segments, videos_from_arrow, videos_to_arrow

pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def data():
    return synthetic.make_videos(7, seed=5)


@pytest.fixture(scope="module")
def table(data):
    return videos_to_arrow(data)


def same(one: Video, other: Video) -> bool:
    def parts(video):
        arrays = {**video.maps, **{f"score {name}": value for name, value in video.scores.items()}}
        found = {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()}
        warp = None if video.warp is None else [axis.tobytes() for axis in video.warp]
        return video.id, found, video.seconds_per_snippet, video.duration, warp

    return parts(one) == parts(other)


# --------------------------------------------------------------------------------------------------------------- tables


def cut(table):
    """The same rows in chunks of their own, of which one is empty."""
    return pa.concat_tables([table[:3], table[3:3], table[3:]])


def through_parquet(table):
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return parquet.read_table(pa.BufferReader(sink.getvalue()))


@pytest.mark.parametrize("way", [lambda table: table, cut, through_parquet], ids=["as is", "cut", "parquet"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i8", "u1", "?"])
def test_videos_come_back_as_they_went(rng, way, dtype):
    native = np.dtype(dtype).newbyteorder("=")
    videos = [
        Video(
            f"v{i}",
            {"cas": (2 * rng.random((t, 3))).astype(native), "attention": rng.random(t)},
            {"video": rng.random(3), "rgb": rng.random(4)},
            seconds_per_snippet=None if i == 1 else 0.5,
            duration=None if i == 2 else 9.25,
            warp=None if i < 3 else (np.array([0.0, 2.0, 3.0]), np.array([0.0, 1.0, 3.0])),
        )
        for i, t in enumerate([4, 0, 1, 5, 2])
    ]
    given = [replace(video, maps={**video.maps, "cas": video.maps["cas"].astype(dtype)}) for video in videos]
    made = way(videos_to_arrow(given))
    assert all(map(same, videos_from_arrow(made), videos))
    assert all(map(same, videos_from_arrow(made[2:4]), videos[2:4]))
    assert all(map(same, videos_from_arrow(made[2:4].to_batches()[0]), videos[2:3]))


def test_what_is_read_equals_what_python_reads(table):
    for video, row in zip(videos_from_arrow(table), table.to_pylist()):
        assert (video.id, video.seconds_per_snippet) == (row["video"], row["seconds_per_snippet"])
        assert {name: value.tolist() for name, value in video.maps.items()} == row["maps"]
        assert {name: value.tolist() for name, value in video.scores.items()} == row["scores"]


def test_maps_are_views_of_the_buffers(table):
    video = videos_from_arrow(cut(table))[3]
    buffer = np.frombuffer(table["maps"].chunk(0).field("cas").values.values.buffers()[1], np.uint8)
    assert np.shares_memory(video.maps["cas"], buffer)
    assert not video.maps["cas"].flags.writeable


CAS = [[[0.0, 0.5], [1.0, 0.25], [0.5, 0.5]], [[0.0, 0.5], [0.25, 0.75], [1.0, 1.0]]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64())),
        pa.large_list(pa.large_list(pa.float32())),
        pa.list_(pa.list_(pa.float32(), 2), 3),
        pa.list_(pa.list_(pa.float64(), 2)),
    ],
    ids=str,
)
def test_lists_of_any_kind_are_taken(kind):
    maps = pa.StructArray.from_arrays([pa.array(CAS, kind)], ["cas"])
    whole = pa.table({"video": ["a", "b"], "maps": maps, "note": [{"x": 1}, None]})
    assert [video.maps["cas"].tolist() for video in videos_from_arrow(whole)] == CAS
    assert [video.maps["cas"].tolist() for video in videos_from_arrow(whole[1:])] == CAS[1:]


def test_a_null_map_is_one_that_the_video_does_not_have():
    one = {"cas": [[0.5]], "attention": None}
    both = videos_from_arrow(pa.table({"video": ["a", "b"], "maps": [one, None]}))
    assert [sorted(video.maps) for video in both] == [["cas"], []]


def test_what_is_not_known_is_null_nan_or_left_out():
    rows = {"video": ["a", "b", "c"], "maps": [{"cas": [[0.5]]}] * 3}
    steps = {"seconds_per_snippet": [0.25, None, float("nan")], "duration": [None, 8.0, float("nan")]}
    known = videos_from_arrow(pa.table({**rows, **steps}))
    assert [(video.seconds_per_snippet, video.duration) for video in known] == [(0.25, None), (None, 8.0), (None, None)]
    known = videos_from_arrow(pa.table({**rows, **steps}), seconds_per_snippet=0.5)
    assert [video.seconds_per_snippet for video in known] == [0.25, 0.5, 0.5]
    assert videos_from_arrow(pa.table(rows))[0].seconds_per_snippet is None


@pytest.mark.parametrize(
    ("column", "bad", "words"),
    [
        ("maps", {"cas": [[0.5, None]]}, r"video 'b': `maps\['cas'\]` must not hold nulls, got 1 of 2"),
        ("maps", {"cas": [[0.5, 0.5], None]}, r"video 'b': `maps\['cas'\]` must not hold nulls, got 1 of 2"),
        ("maps", {"cas": [[0.5, 0.5], [0.5]]}, r"video 'b': `maps\['cas'\]` must have rows of one length, got 1 to 2"),
        (
            "maps",
            {"cas": [[0.5]], "attention": [0.5, 0.5]},
            r"video 'b': .*must have . snippets like the other maps",
        ),
        ("scores", {"video": [0.5, float("nan")]}, r"video 'b': `scores\['video'\]` must be finite; row 1"),
        ("seconds_per_snippet", -1.0, "video 'b': `seconds_per_snippet` must be above 0, got -1"),
        ("duration", 0.0, "video 'b': `duration` must be above 0, got 0"),
        ("warp", {"knots": [0.0, 1.0], "times": [1.0, 0.0]}, r"video 'b': `warp\[1\]` must never decrease"),
        ("video", None, "'video' must be text without nulls, got string with 1 nulls"),
    ],
)
def test_errors_name_the_video(column, bad, words):
    good = {
        "video": "a",
        "maps": {"cas": [[0.5, 0.5]], "attention": [0.5]},
        "scores": {"video": [0.5, 0.5]},
        "seconds_per_snippet": 0.5,
        "duration": 5.0,
        "warp": None,
    }
    with pytest.raises(FormatError, match=words):
        videos_from_arrow(pa.Table.from_pylist([good, {**good, "video": "b", column: bad}]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"name": ["a"]}, "table: must have one column 'video', got .*name"),
        ({"video": [1]}, "'video' must be text without nulls, got int64"),
        ({"video": ["a"], "maps": [{"cas": 0.5}]}, r"video 'a': `maps\['cas'\]` must be a list of numbers, got double"),
        ({"video": ["a"], "maps": [{"cas": ["x"]}]}, r"video 'a': `maps\['cas'\]` must hold real numbers, got string"),
        ({"video": ["a"], "maps": [{"cas": [[[0.5]]]}]}, r"video 'a': .*must have shape \(T,\) or \(T, K\)"),
        ({"video": ["a"], "warp": [{"knots": [0.0, 1.0]}]}, r"video 'a': `warp` must be a pair \(knots, times\)"),
    ],
)
def test_what_is_no_table_of_tcams_is_refused(rows, words):
    with pytest.raises(FormatError, match=words):
        videos_from_arrow(pa.table(rows))


def test_what_is_no_table_is_refused():
    with pytest.raises(TypeError, match=r"`table` must be a pyarrow.Table or RecordBatch, got dict"):
        videos_from_arrow({"video": ["a"]})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"maps": {"tcam": np.eye(2)}}, r"video 'b': `maps` must be \['cas'\] as before, got \['tcam'\]"),
        ({"maps": {"cas": np.eye(3)}}, r"`maps\['cas'\]` must be float64 \('T', 2\) as before, got float64 \('T', 3\)"),
        ({"maps": {"cas": np.eye(2, dtype="f4")}}, r"video 'b': `maps\['cas'\]` must be float64 .* got float32"),
        ({"scores": {"video": [0.5]}}, r"video 'b': `scores` must be \[\] as before, got \['video'\]"),
        ({"proposals": Segments([[0, 1]])}, "video 'b': `videos` must not carry proposals"),
    ],
)
def test_videos_that_do_not_share_a_layout_are_refused(other, words):
    first = Video("a", {"cas": np.eye(2)})
    with pytest.raises(ValueError, match=words):
        videos_to_arrow([first, replace(first, id="b", **other)])


def test_no_videos_are_an_empty_table():
    assert videos_to_arrow([]).num_rows == 0
    assert videos_from_arrow(videos_to_arrow([])) == ()


# ----------------------------------------------------------------------------------------------------------- detections


def expected(data, preset, **changes):
    """One video after the other, without a table."""
    process = PostProcessor.from_preset(preset, **changes)
    parts = [process(video) for video in data]
    steps = [video.seconds_per_snippet for video in data]
    return [part if part.unit == "second" else part.to_seconds(step) for part, step in zip(parts, steps)]


def equal(one: Segments, other: Segments) -> bool:
    def parts(rows):
        return [array.tobytes() for array in (rows.segments, rows.labels, rows.scores, rows.offsets)]

    return (parts(one), one.unit, one.video_ids) == (parts(other), other.unit, other.video_ids)


@pytest.mark.parametrize("preset", ["rskp", "gaufuse", "basnet"])  # the last ends in seconds
def test_detections_are_those_of_the_loop(data, table, preset):
    found = detections_to_segments(Detect(preset)(table))
    assert len(found) > 20
    assert equal(found, Segments.concatenate(expected(data, preset)))
    assert equal(found, detections_to_segments(Detect(presets.get(preset))(table)))


def test_batches_may_be_cut_anywhere_and_come_in_any_order(data, table):
    detect = pickle.loads(pickle.dumps(Detect("gaufuse")))  # as a worker gets it
    parts = [detect(table[start : start + 2]) for start in (4, 0, 6, 2)]
    parts.insert(1, detect(table[:0]))
    assert {part.schema for part in parts} == {detect(table).schema}
    found = pa.concat_tables(parts)
    assert found["video"].to_pylist() != [video.id for video in data]
    ordered = detections_to_segments(found, order=[video.id for video in data])
    assert equal(ordered, Segments.concatenate(expected(data, "gaufuse")))


def test_the_callables_are_small_and_use_one_thread(data, table, monkeypatch):
    def refuse(*_):
        raise RuntimeError("threads were asked for")

    monkeypatch.setattr(_threads, "_over_threads", refuse)
    for call in (Detect("rskp"), Labels("rskp", len(data.classes), all_classes=True)):
        assert len(pickle.dumps(call)) < 4096
        assert call(table).num_rows == len(data)


def test_a_step_that_is_not_known_is_an_error_or_given(data):
    unknown = videos_to_arrow([replace(video, seconds_per_snippet=None) for video in data])
    with pytest.raises(ValueError, match=f"video '{data[0].id}': `seconds_per_snippet` must be in the table or given"):
        Detect("rskp")(unknown)
    found = detections_to_segments(Detect("rskp", seconds_per_snippet=2.0)(unknown))
    twice = [replace(video, seconds_per_snippet=2.0) for video in data]
    assert equal(found, Segments.concatenate(expected(twice, "rskp")))


def test_a_map_that_is_not_finite_names_the_video():
    good = Video("a", {"cas": np.ones((2, 1))}, {"video": [1.0]}, 1.0)
    bad = videos_to_arrow([good, replace(good, id="b", maps={"cas": np.array([[0.5], [np.nan]])})])
    with pytest.raises(ValueError, match=r"video 'b': .*must be finite; snippet 1 is"):
        Detect("rskp")(bad)


def test_detections_of_no_videos_are_empty(table):
    found = detections_to_segments(Detect("rskp")(table[:0]))
    assert (len(found), found.num_videos, found.unit) == (0, 0, "second")


ROWS = {"video": ["a", "b"], "start": [[1.0], []], "end": [[2.0], []], "label": [[3], []], "score": [[0.5], []]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": [[0.5], None]}, r"video 'b': `table\['score'\]` must not be null"),
        ({"score": [[0.5], [0.5]]}, r"video 'b': start, end, label, score must be equally long, got \[0, 0, 0, 1\]"),
        ({"start": [[None], []]}, r"video 'a': `table\['start'\]` must not hold nulls, got 1 of 1"),
        ({"start": [1.0, 2.0]}, r"video 'a': `table\['start'\]` must be a list of numbers, got double"),
        ({"start": [[3.0], []]}, "needs start <= end; row 0 is"),
        ({"video": ["a", "a"]}, "`video_ids` must differ, 'a' stands 2 times"),
    ],
)
def test_what_is_no_table_of_detections_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        detections_to_segments(pa.table({**ROWS, **changes}))
    with pytest.raises(FormatError, match="table: must have the columns start, end, label, score"):
        detections_to_segments(pa.table({"video": ["a"]}))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (["a"], "must name the 2 videos of the table, each once, got 1 names; 'b' stands on one side only"),
        (["a", "c"], r"got 2 names; 'b' stands on one side only \(2 such ids\)"),
        (["a", "b", "a"], "each once, got 3 names$"),
    ],
)
def test_an_order_of_other_videos_is_refused(order, words):
    with pytest.raises(ValueError, match=words):
        detections_to_segments(pa.table(ROWS), order=order)


# --------------------------------------------------------------------------------------------------------------- labels


@pytest.fixture(scope="module")
def known(data):
    return {video.id: np.unique(data.ground_truth.video(video.id).labels).tolist() for video in data}


@pytest.mark.parametrize("preset", ["gaufuse", "basnet"])
def test_labels_are_those_of_a_refresh(data, table, known, preset):
    count = len(data.classes)
    refresher = LabelRefresher(preset, count, known_labels=known, total_epochs=20)
    report = refresher.refresh(19, data)
    named = table.append_column("known_labels", pa.array([known[video.id] for video in data]))
    masks = [[label in known[video.id] for label in range(count)] for video in data]
    for batch in (named, table.append_column("known_labels", pa.array(masks))):
        made = pa.concat_tables([Labels(preset, count)(part) for part in (batch[4:], batch[:0], batch[:4])])
        assert sum(made["uncertified"].to_pylist()) == report.num_uncertified
        maps = {video.id: video for video in videos_from_arrow(made)}
        for video in data:
            labels = maps[video.id].maps["labels"]
            np.testing.assert_array_equal(labels, refresher.bank.labels(video.id))
            assert maps[video.id].seconds_per_snippet == video.seconds_per_snippet
        assert sum(video.maps["labels"].any() for video in maps.values()) > 3


def test_labels_of_all_classes_follow_the_preset(data, table):
    count = len(data.classes)
    refresher = LabelRefresher("rskp", count, known_labels=None, total_epochs=20)
    refresher.refresh(19, data)
    for video in videos_from_arrow(Labels("rskp", count, all_classes=True)(table)):
        np.testing.assert_array_equal(video.maps["labels"], refresher.bank.labels(video.id))


def test_what_is_not_proven_is_counted(data, table, monkeypatch):
    def unsure(*arguments, **options):
        return replace(linpro_label_map(*arguments, **options), uncertified=2)

    monkeypatch.setattr(distributed, "linpro_label_map", unsure)
    made = Labels("rskp", len(data.classes), all_classes=True)(table)
    assert made["uncertified"].to_pylist() == [2] * len(data)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (None, "table: must have a column 'known_labels', or give all_classes=True; got .*maps"),
        ([None], r"video 'v': `table\['known_labels'\]` must not be null"),
        ([[2]], r"video 'v': `known_labels` must lie in \[0, 2\)"),
        ([[0.5]], "video 'v': `known_labels` must hold whole numbers"),
    ],
)
def test_labels_need_to_know_the_classes(column, words):
    table = videos_to_arrow([Video("v", {"cas": np.ones((4, 2))}, {"video": [1.0, 1.0]})])
    if column is not None:
        table = table.append_column("known_labels", pa.array(column, pa.list_(pa.float64())))
    with pytest.raises(ValueError, match=words):
        Labels("rskp", 2)(table)


def test_instances_in_seconds_need_a_way_back():
    table = videos_to_arrow([Video("v", {"cas": np.ones((4, 1)), "attention": np.ones(4)}, {"video": [1.0]})])
    with pytest.raises(ValueError, match=r"video 'v': .*seconds_per_snippet"):
        Labels("basnet", 1, all_classes=True)(table)
    assert Labels("basnet", 1, all_classes=True, seconds_per_snippet=0.5)(table).num_rows == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Detect("nothing"), "`name` must be one of"),
        (lambda: Detect(3), r"`pipeline` must be a config.Pipeline"),
        (lambda: Detect("rskp", seconds_per_snippet=0.0), "`seconds_per_snippet` must be above 0"),
        (lambda: Labels("rskp", 0), "`num_classes` must be at least 1"),
        (lambda: Labels("rskp", 1, all_classes=1), "`all_classes` must be True or False"),
    ],
)
def test_arguments_are_checked_before_the_work(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"videos_to_arrow needs pyarrow.*tal_postproc\[ray\]"):
        distributed.videos_to_arrow([])


# -------------------------------------------------------------------------------------------------------------- cluster


@pytest.mark.slow  # with the other tests that need Ray
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_does_not_answer_is_named():
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        list(distributed.over_ray(len, ["a"], address="127.0.0.1:1"))


def test_shards_that_this_machine_does_not_see_are_an_error(tmp_path, monkeypatch):
    asked = {}

    def elsewhere(make, shards, **where):
        asked.update(where, threads=make.keywords)
        return ((shard, None) for shard in shards)

    monkeypatch.setattr(distributed, "over_ray", elsewhere)
    formats.write_tcams(tmp_path / "tcams.npz", [Video("v", {"cas": np.eye(2)}, {}, 1.0)])
    job = _jobs.plan("detect", [tmp_path / "tcams.npz"], presets.get("rskp"), tmp_path / "found.json")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards were made where this machine does not see them"):
        _jobs.execute(job, tmp_path / "found.json", over=distributed.on_ray("ray://head:10001", 3))
    assert asked == {"address": "ray://head:10001", "processes": 3, "threads": {"num_threads": 1}}


def test_a_cluster_is_joined_or_started_as_asked(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # set where it is not, and then put back
    asked = []
    fake = SimpleNamespace(init=lambda *where, **how: asked.append((*where, how.get("num_cpus"))))
    distributed._join(fake, "auto", None)
    distributed._join(fake, None, 3)
    distributed._join(fake, None, None)
    assert asked == [("auto", None), ("local", 3), ("local", _threads.default_threads())]


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs ray.*tal_postproc\[ray\]"):
        list(distributed.over_ray(len, ["a"]))


def test_the_page_has_the_figures_of_the_benchmark():
    root = Path(__file__).parents[1]
    report = json.loads((root / "benchmarks" / "results" / "fleet.json").read_text())
    found = {(row["job"], row["who"]): np.median(row["values"]) for row in report["rows"]}
    stated: dict[str, dict[str, float]] = {}
    exec(re.findall(r"```python\n(measured.*?)```", (root / "docs/howto/fleet.md").read_text(), re.S)[0], {}, stated)
    for kind, figures in stated["measured"].items():
        for name, value in figures.items():
            who = {"bytes in": "npz", "bytes out": "JSON"}.get(name, "ours, 1 thread")
            factor = 1e3 if name.startswith("bytes") else 1.0
            assert value == pytest.approx(factor * found[f"{kind}, {name}", who], rel=0.01)
    assert stated["handing_over"] == pytest.approx(found["empty shard", "tasks"], rel=0.01)


def test_the_benchmark_measures_every_stage(monkeypatch):
    monkeypatch.setattr(bench_fleet, "_ray", lambda *_: None)
    report = bench_fleet.run(num_videos=3, repeats=2)
    stages = ["plan", "read", "detect", "write", "whole shard", "merge"]
    stages += ["detect, Arrow to Arrow", "bytes in", "bytes out"]
    assert [row.job for row in report.rows] == [f"{kind}, {stage}" for kind in bench_fleet.KINDS for stage in stages]
    assert all(value > 0 for row in report.rows for value in row.values)
    assert set(report.skipped) <= {"Ray"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_the_benchmark_compares_tasks_with_ray_data():
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    report = common.Report("fleet", "", {})
    bench_fleet._ray(report, ray, repeats=1, shards=3)
    who = ["tasks", "Ray Data", "Ray Data, no reserves"]
    assert [row.who for row in report.rows] == [*who, *who, "start", "end"]
    assert min(report.rows[3].values) > bench_fleet.SLEEP / 3
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def ray():
    """A cluster of two workers, which `over_ray` finds and leaves as it is."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    distributed._join(ray, None, 2)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
class TestOnRay:
    def test_ray_data_gives_the_same_bytes(self, ray, data, table):
        rows = table.append_column("known_labels", pa.array([[0, 1, 2]] * len(data)))
        source = ray.data.from_arrow([rows[start : start + 2] for start in range(0, len(data), 2)])
        for call in (Detect("gaufuse"), Labels("gaufuse", len(data.classes))):
            batches = source.map_batches(call, batch_format="pyarrow", batch_size=3).iter_batches(
                batch_format="pyarrow", batch_size=None
            )
            found = pa.concat_tables(batches).sort_by("video")
            assert found.equals(call(rows).sort_by("video"))

    def test_what_killed_workers_had_is_done_again(self, ray, tmp_path):
        def work(number):
            mark = tmp_path / str(number)
            if number % 5 == 0 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number**2

        found = list(distributed.over_ray(work, range(20)))
        assert len(list(tmp_path.iterdir())) == 4  # so many were killed
        assert sorted(found) == [(number, number**2) for number in range(20)]
        assert ray.is_initialized()

    def test_more_items_than_are_handed_over_at_once(self, ray, monkeypatch):
        monkeypatch.setattr(distributed, "WINDOW", 3)
        taken = []

        def items():
            for number in range(20):
                taken.append(number)
                yield number

        for done, (number, result) in enumerate(distributed.over_ray(lambda number: -number, items())):
            assert result == -number
            assert len(taken) <= done + 3
        assert len(taken) == 20

    def test_errors_come_back_as_they_were(self, ray):
        def wrong(name):
            raise FormatError(f"video {name!r}: no good")

        def absent(name):
            with open(name):
                pass

        def deadly(name):
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(FormatError, match=r"^video 'a': no good$"):
            list(distributed.over_ray(wrong, ["a"]))
        with pytest.raises(FileNotFoundError, match=r"/nowhere/b.npz.*machine .* does not see it: files must"):
            list(distributed.over_ray(absent, ["/nowhere/b.npz"]))
        with pytest.raises(OSError, match=r"^c\.npz: given up after 4 workers died of it"):
            list(distributed.over_ray(deadly, ["c.npz"]))

    def test_machines_with_another_version_are_refused(self, ray, monkeypatch):
        monkeypatch.setattr(distributed, "__version__", "0.0.1")
        with pytest.raises(ValueError, match=r"has tal_postproc .*, this job was started with 0\.0\.1"):
            list(distributed.over_ray(len, ["a"]))


# ----------------------------------------------------------------------------------------------------- the command line


def command(*arguments) -> list[str]:
    line = [sys.executable, "-m", "tal_postproc.cli", *arguments, "--preset", "gaufuse", "--shard-videos", "2"]
    return list(map(str, line))


def command_line(process: int) -> str:
    """What a process says it is; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def descendants(process: int) -> set[int]:
    """The processes below one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(), {process}
    while new:
        new = {one for one, parent in parents.items() if parent in new} - found
        found |= new
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two inputs of 600 videos together, and the outputs of both commands on one machine without interruption."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("job")
    data = synthetic.make_videos(600, seed=2)
    truth = folder / "truth.json"
    formats.write_annotations(truth, data.annotations)
    for name, videos in (("a.npz", data.videos[:333]), ("b.npz", data.videos[333:])):
        formats.write_tcams(folder / name, videos, classes=data.classes)
    inputs = (folder / "a.npz", folder / "b.npz")
    subprocess.run(command("detect", *inputs, "-o", folder / "one.json"), check=True)
    subprocess.run(command("labels", *inputs, "-o", folder / "one.npz", "--annotations", truth), check=True)
    return folder, inputs


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_kill_in_the_middle_loses_nothing(job, victim):
    folder, inputs = job
    output, shards = folder / f"{victim}.json", folder / f"{victim}.json.shards"
    line = command("detect", *inputs, "-o", output, "--engine", "ray", "--processes", "2")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        busy: list[int] = []
        while process.poll() is None and not busy:
            time.sleep(0.002)
            if list(shards.glob("shard-*")):
                busy = [one for one in descendants(process.pid) if command_line(one).startswith("ray::_in_worker")]
        before = {path: path.stat().st_mtime_ns for path in shards.glob("shard-*")}
        os.kill(busy[0] if victim == "worker" else process.pid, signal.SIGKILL)
        printed, errors = process.communicate(timeout=120)
    assert 0 < len(before) < 300
    assert len(busy) in (1, 2)
    if victim == "worker":
        assert process.returncode == 0, errors
        assert "of 600 videos in" in printed
    else:
        assert process.returncode == -signal.SIGKILL
        assert not output.exists()
        deadline = time.monotonic() + 60
        while any(map(command_line, busy)) and time.monotonic() < deadline:
            time.sleep(0.1)  # the cluster sees that nobody needs it
        before = {path: path.stat().st_mtime_ns for path in shards.glob("shard-*")}
        done = subprocess.run([*line, "--no-merge"], capture_output=True, text=True, check=True)
        assert f"{len(before)} of 300 shards were finished before" in done.stdout
        assert {path: path.stat().st_mtime_ns for path in before} == before
        subprocess.run(command("detect", *inputs, "-o", output), check=True)  # one process goes on where Ray was
    assert output.read_bytes() == (folder / "one.json").read_bytes()
    assert not shards.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_running_cluster_makes_the_same_bytes(ray, job):
    folder, inputs = job
    address = ray.get_runtime_context().gcs_address
    where = ["--engine", "ray", "--address", address]
    subprocess.run(command("detect", *inputs, "-o", folder / "there.json", *where), check=True)
    truth = ["--annotations", folder / "truth.json"]
    subprocess.run(command("labels", *inputs, "-o", folder / "there.npz", *where, *truth), check=True)
    for kind in ("json", "npz"):
        assert (folder / f"there.{kind}").read_bytes() == (folder / f"one.{kind}").read_bytes()
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "auto"], "--address is for --engine ray"),
        (["--engine", "ray", "--threads", "2"], "--threads is for one process"),
        (["--engine", "ray", "--address", "auto", "--processes", "2"], "--processes is for a cluster of this machine"),
        (["--engine", "ray", "--processes", "0"], "`processes` must be at least 1, got 0"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, capsys, options, words):
    formats.write_tcams(tmp_path / "tcams.npz", [Video("v", {"cas": np.eye(2)}, {}, 1.0)])
    arguments = ["detect", tmp_path / "tcams.npz", "--preset", "rskp", "-o", tmp_path / "found.json", *options]
    assert cli.main(list(map(str, arguments))) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tcams.npz"]
