"""The command line as a user types it: output, files, exit codes, and one clear line for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from tal_postproc import (
    Annotations,
    PostProcessor,
    Segments,
    cli,
    formats,
    linpro_label_map,
    mean_average_precision,
    plotting,
    presets,
    synthetic,
)


@pytest.fixture(scope="module")
def data():
    return synthetic.make_videos(6, seed=3)


@pytest.fixture
def tcams(tmp_path, data):
    path = tmp_path / "tcams.npz"
    formats.write_tcams(path, data.videos, classes=data.classes, annotations=data.annotations)
    return path


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_detect_then_evaluate(tmp_path, data, tcams, capsys):
    output = tmp_path / "found.json"
    assert run("detect", tcams, "--preset", "rskp", "-o", output) == 0
    assert "detections of 6 videos in" in capsys.readouterr().out
    found = formats.read_detections(output, classes=data.classes)
    process = PostProcessor.from_preset("rskp")
    expected = Segments.concatenate([process(video).to_seconds(video.seconds_per_snippet) for video in data.videos])
    np.testing.assert_array_equal(found.segments, expected.segments)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)

    assert run("evaluate", output, "--annotations", tcams, "--tiou", "0.3,0.5") == 0
    printed = capsys.readouterr().out
    result = mean_average_precision(expected, data.ground_truth, tiou_thresholds=[0.3, 0.5])
    cells = [f"{100 * value:.2f}" for value in (*result.per_threshold, result.average)]
    assert printed.splitlines()[0].split() == ["mAP", "in", "%,", "tIoU", "0.3", "0.5", "avg"]
    assert printed.splitlines()[2].split() == ["activitynet", *cells]
    assert 0.0 < result.average < 1.0


def test_evaluate_under_all_protocols(tmp_path, tcams, capsys):
    output = tmp_path / "found.json"
    assert run("detect", tcams, "--preset", "rskp", "-o", output, "--threads", 2) == 0
    capsys.readouterr()
    assert run("evaluate", output, "--annotations", tcams, "--protocol", "all") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:9]]
    assert names == [
        "activitynet",
        "activitynet_snippet",
        "wtalc",
        "wtalc_interpolated",
        "actionformer",
        "opentad",
        "mmaction",
    ]


def test_demo_prints_a_table_and_writes_files(tmp_path, capsys):
    assert run("demo", "--videos", 4, "--seed", 1, "-o", tmp_path / "out", "--threads", 1) == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # no bar in a pipe
    methods = ["NMS", "soft-NMS", *(f"fusion, {name}" for name in ("gaussian", "exponential", "student_t", "uniform"))]
    rows = [line for line in printed.out.splitlines() if line.startswith(("NMS", "soft-NMS", "fusion"))]
    assert len(rows) == len(methods)
    assert all(row.startswith(method) for row, method in zip(rows, methods))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len([name for name in files if name.startswith("detections_")]) == 6
    assert json.loads((tmp_path / "out" / "detections_NMS.json").read_text())["results"]
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out" / "timeline.png").read_bytes()[:4] == b"\x89PNG"


def test_demo_without_matplotlib_says_so(tmp_path, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run("demo", "--videos", 2, "-o", tmp_path / "out") == 0
    assert "no picture: " in capsys.readouterr().out
    assert not (tmp_path / "out" / "timeline.png").exists()


def test_demo_over_real_annotations(tmp_path, tcams, capsys):
    assert run("demo", "--annotations", tcams, "-o", tmp_path / "out", "--protocol", "actionformer") == 0
    printed = capsys.readouterr().out
    assert "annotations of tcams.npz, TCAMs simulated with seed 0: 6 videos" in printed
    assert "protocol 'actionformer'" in printed


@pytest.fixture
def judged(tmp_path):
    """Detections and ground truth in which every option of `evaluate` moves the mAP."""
    names, classes = ["a", "b"], ["Diving"]
    truth = Annotations(
        Segments([[0, 10], [0, 10]], offsets=[0, 1, 2], unit="second", video_ids=names),
        classes,
        [40.0, 40.0],
        ["test", "validation"],
        Segments([[20, 30]], offsets=[0, 1, 1], unit="second", video_ids=names),
    )
    found = Segments([[0, 9], [21, 29]], scores=[0.5, 0.9], offsets=[0, 2, 2], unit="second", video_ids=names)
    formats.write_annotations(tmp_path / "truth.json", truth)
    formats.write_detections(tmp_path / "found.json", found, classes=classes)
    return "evaluate", tmp_path / "found.json", "--annotations", tmp_path / "truth.json", "--tiou", "0.5"


@pytest.mark.parametrize(
    ("options", "percent", "counts"),
    [
        ([], "50.00", "2 instances of 2 videos, 1 ambiguous spans left out"),
        (["--keep-ambiguous"], "25.00", "2 instances of 2 videos, 0 ambiguous spans left out"),
        (["--subset", "test"], "100.00", "1 instances of 1 videos, 1 ambiguous spans left out"),
        (["--subset", "test", "--keep-ambiguous"], "50.00", "1 instances of 1 videos, 0 ambiguous spans left out"),
        (["--protocol", "wtalc"], "50.00", "2 instances of 2 videos"),
        (["--protocol", "wtalc", "--snippets-per-second", "0.1"], "0.00", "2 instances of 2 videos"),  # range(0, 0)
        (["--tiou", "0.95"], "0.00", "2 instances of 2 videos"),
    ],
)
def test_options_of_evaluate_move_the_map(judged, options, percent, counts, capsys):
    assert run(*judged, *options) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[2].split()[1:] == [percent, percent]
    assert counts in printed


def test_evaluate_names_the_subsets_that_there_are(judged, capsys):
    assert run(*judged, "--subset", "train") == 2
    assert "`subset` must be one of ['test', 'validation']" in capsys.readouterr().err


def test_demo_draws_by_its_seed(tmp_path, capsys):
    written = {}
    for name, seed in (("default", ()), ("zero", ("--seed", 0)), ("seven", ("--seed", 7))):
        assert run("demo", "--videos", 2, "--threads", 1, "-o", tmp_path / name, *seed) == 0
        what, counts = capsys.readouterr().out.splitlines()[0].split(": 2 videos, ")
        assert what == f"synthetic data, seed {seed[1] if seed else 0}"
        written[name] = counts, (tmp_path / name / "detections_NMS.json").read_text()
    assert written["default"] == written["zero"]
    assert written["seven"][0] != written["zero"][0]  # other instances
    assert written["seven"][1] != written["zero"][1]


def test_demo_over_annotations_takes_subset_and_seed(tmp_path, judged, capsys):
    truth, written = judged[3], set()
    for seed in (0, 7):
        options = ("--annotations", truth, "--subset", "validation", "--seed", seed)
        assert run("demo", *options, "-o", tmp_path / str(seed)) == 0
        assert f"simulated with seed {seed}: 1 videos, 1 instances" in capsys.readouterr().out
        written.add((tmp_path / str(seed) / "detections_NMS.json").read_text())
    assert len(written) == 2


def test_presets_are_listed_and_shown(capsys):
    assert run("presets") == 0
    listed = capsys.readouterr().out
    for name in ("gaufuse_thumos", "rskp_thumos", "two_stream_anet13", "ptlr_thumos"):
        assert name in listed
    assert run("presets", "--table") == 0
    printed = capsys.readouterr().out.splitlines()
    begun = [line.split()[0] for line in printed[1:] if line[0] != " "]  # a second bank stands below
    assert begun == [*presets.names(), *presets.elsewhere()]
    assert "> max - 0.5 (max - min)" in next(line for line in printed if line.startswith("wtalc"))
    assert run("presets", "gaufuse") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["type"] == "Pipeline"
    assert shown["stages"][0]["temperature"] == 0.2


def test_background_and_map_options_reach_the_pipeline(tmp_path, data, capsys):
    path, output = tmp_path / "t.npz", tmp_path / "o.json"
    videos = synthetic.make_videos(2, seed=3, background="first").videos
    formats.write_tcams(path, videos, classes=data.classes)
    assert run("detect", path, "--preset", "rskp", "-o", output, "--background", "first") == 0
    found = formats.read_detections(output, classes=data.classes)
    process = PostProcessor.from_preset("rskp", background="first", num_classes=None)
    expected = np.concatenate([process(video).labels for video in videos])
    np.testing.assert_array_equal(found.labels, expected)
    assert run("detect", path, "--preset", "ptlr", "-o", output, "--map", "ots=cas", "--map", "rts=cas") == 0
    capsys.readouterr()
    assert run("detect", path, "--preset", "ptlr", "-o", output, "--map", "ots=rgb") == 2
    assert "error: --map: the file has no map 'rgb'" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- labels


def labels_of(*arguments) -> dict[str, np.ndarray]:
    """Run `labels`; the maps that it wrote, by video."""
    assert run("labels", *arguments) == 0
    output = arguments[arguments.index("-o") + 1]
    return {video.id: video.maps["labels"] for video in formats.read_tcams(output)}


def summary(printed: str) -> dict[str, str]:
    """Rows of the table: name to value."""
    rows = [line.rsplit("  ", 1) for line in printed.splitlines()[2 : printed.splitlines().index("")]]
    return {name.strip(): value.strip() for name, value in rows}


@pytest.fixture
def wide(tmp_path, data):
    """TCAMs with a background column, the last one."""
    videos = []
    for video in data.videos:
        cas = np.c_[video.maps["cas"], 1.0 - video.maps["cas"].max(axis=1)]
        videos.append(replace(video, maps={"cas": cas}, scores={"video": np.r_[video.scores["video"], 0.5]}))
    formats.write_tcams(tmp_path / "wide.npz", videos, classes=data.classes, annotations=data.annotations)
    return tmp_path / "wide.npz"


def test_labels_are_linpro_of_the_instances_of_the_known_classes(tmp_path, data, wide, capsys):
    found = labels_of(wide, "--preset", "gaufuse", "-o", tmp_path / "labels.npz")
    printed = summary(capsys.readouterr().out)
    pipeline = presets.for_labels("gaufuse")
    process = PostProcessor(replace(pipeline, classes=None))
    instances, solved, nonzero, used = 0, 0, 0, 0
    for video in formats.read_tcams(wide):
        rows = process(video)
        known = data.ground_truth.video(video.id).labels
        expected = linpro_label_map(
            rows, video.num_snippets, 21, known_labels=np.unique(known), **asdict(pipeline.labels)
        )
        np.testing.assert_array_equal(found[video.id], expected.labels)
        assert not expected.labels[:, 20].any()
        instances += int(np.isin(rows.labels, known).sum())
        solved += sum(expected.solved.values())
        nonzero += np.count_nonzero(expected.labels)
        used += video.num_snippets * int(expected.labels.any(axis=0).sum())
    assert printed["videos"] == "6"
    assert printed["instances"] == str(instances)
    assert printed["components"] == str(solved)
    assert sum(int(printed[f"by {name}"]) for name in ("closed form", "simplex", "HiGHS")) == solved
    assert printed["uncertified components"] == "0"
    assert printed["snippets with a label, of classes that have any"] == f"{100 * nonzero / used:.1f} %"
    back = formats.read_tcams(tmp_path / "labels.npz")
    assert back.classes == data.classes
    assert [video.seconds_per_snippet for video in back] == [video.seconds_per_snippet for video in data.videos]


def test_label_maps_have_the_columns_of_the_tcams(tmp_path, data, tcams, wide, monkeypatch):
    """Also where the preset takes the background column away; the labels of that column are 0."""
    plain = labels_of(tcams, "--preset", "rskp", "-o", tmp_path / "plain.npz")
    last = labels_of(wide, "--preset", "rskp", "-o", tmp_path / "last.npz")
    videos = [
        replace(video, maps={"cas": np.roll(video.maps["cas"], 1, axis=1)}, scores={})
        for video in formats.read_tcams(wide)
    ]
    formats.write_tcams(tmp_path / "turned.npz", videos, annotations=data.annotations)
    drawn = {}
    monkeypatch.setattr(plotting, "timeline", lambda video, *rest, **options: drawn.update(options, video=video))
    options = ["--preset", "rskp", "--background", "first", "-o", tmp_path / "first.npz", "--picture", "a.png"]
    first = labels_of(tmp_path / "turned.npz", *options)
    for name, labels in plain.items():
        assert labels.shape[1] == 20
        np.testing.assert_array_equal(last[name], np.pad(labels, ((0, 0), (0, 1))))
        np.testing.assert_array_equal(first[name], np.pad(labels, ((0, 0), (1, 0))))
    chosen = drawn["video"].id
    np.testing.assert_array_equal(drawn["video"].maps["cas"], data[chosen].maps["cas"])  # the columns of the classes
    np.testing.assert_array_equal(drawn["label_maps"]["LinPro"], plain[chosen])


def test_labels_of_all_classes_follow_the_published_choice(tmp_path, wide):
    """Whatever reaches the class threshold, the background too."""
    found = labels_of(wide, "--preset", "gaufuse", "-o", tmp_path / "labels.npz", "--all-classes")
    for video in formats.read_tcams(wide):
        searched = video.scores["video"] >= 0.16
        assert not found[video.id][:, ~searched].any()
        assert found[video.id][:, 20].any()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "LinPro, sum, min_norm"),
        (["--normalization", "mean"], "LinPro, mean, min_norm"),
        (["--selection", "vertex"], "LinPro, sum, vertex"),
        (["--solver", "highs"], "LinPro, sum, min_norm"),
        (["--threads", "1"], "LinPro, sum, min_norm"),
    ],
)
def test_options_of_labels(options, line, tmp_path, tcams, capsys):
    usual = labels_of(tcams, "--preset", "gaufuse", "-o", tmp_path / "usual.npz")
    capsys.readouterr()
    found = labels_of(tcams, "--preset", "gaufuse", "-o", tmp_path / "labels.npz", *options)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[0].strip() == line
    assert (int(summary(printed.out)["by simplex"]) == 0) == ("highs" in options)
    differ = max(np.abs(found[name] - usual[name]).max() for name in usual)
    if "mean" in options or "vertex" in options:
        assert differ > 1e-3
    elif "highs" in options:
        assert differ < 1e-7
    else:
        assert (tmp_path / "usual.npz").read_bytes() == (tmp_path / "labels.npz").read_bytes()


def test_known_labels_may_come_from_a_file_of_annotations(tmp_path, data, tcams, capsys):
    usual = labels_of(tcams, "--preset", "rskp", "-o", tmp_path / "usual.npz")
    bare = _written(tmp_path, data)
    assert run("labels", bare, "--preset", "rskp", "-o", tmp_path / "o.npz") == 2
    assert "give --annotations, or --all-classes" in capsys.readouterr().err

    truth = replace(data.annotations, subsets=("test",) + ("train",) * 5)
    formats.write_annotations(tmp_path / "truth.json", truth)
    options = ["--preset", "rskp", "-o", tmp_path / "o.npz", "--annotations", tmp_path / "truth.json"]
    found = labels_of(bare, *options)
    for name, labels in usual.items():
        np.testing.assert_array_equal(found[name], labels)
    assert run("labels", bare, *options, "--subset", "train") == 2
    assert "the annotations do not know video 'synthetic_00000' (1 of 6 videos)" in capsys.readouterr().err


def test_labels_of_a_preset_in_seconds(tmp_path, data, tcams, capsys):
    found = labels_of(tcams, "--preset", "cola", "-o", tmp_path / "labels.npz")
    video = data.videos[2]
    pipeline = presets.for_labels("cola")
    rows = PostProcessor(replace(pipeline, classes=None))(video).to_snippets(video.seconds_per_snippet)
    known = np.unique(data.ground_truth.video(video.id).labels)
    expected = linpro_label_map(rows, video.num_snippets, 20, known_labels=known)
    np.testing.assert_array_equal(found[video.id], expected.labels)

    knots = np.array([0.0, 100.0])
    warped = [replace(video, warp=(knots, knots / 2)) for video in data.videos]
    formats.write_tcams(tmp_path / "warped.npz", warped, classes=data.classes, annotations=data.annotations)
    capsys.readouterr()
    assert run("labels", tmp_path / "warped.npz", "--preset", "cola", "-o", tmp_path / "o.npz") == 2
    assert "has a time warp, and the preset ends in seconds" in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()


def test_labels_draws_a_picture(tmp_path, data, tcams, capsys):
    pytest.importorskip("matplotlib")
    drawn = []
    for extra in ([], ["--video", data.videos[3].id]):
        picture = tmp_path / f"picture{len(extra)}.png"
        labels_of(tcams, "--preset", "gaufuse", "-o", tmp_path / "labels.npz", "--picture", picture, *extra)
        assert picture.read_bytes()[:4] == b"\x89PNG"
        drawn.append(capsys.readouterr().out.splitlines()[-1])
        assert drawn[-1].endswith(f": {picture}")
    assert drawn[1].startswith(f"picture of {data.videos[3].id}: ")
    assert not drawn[0].startswith(f"picture of {data.videos[3].id}: ")


def test_labels_of_no_videos(tmp_path, capsys):
    formats.write_tcams(tmp_path / "none.npz", [], classes=["a"])
    assert run("labels", tmp_path / "none.npz", "--preset", "rskp", "-o", tmp_path / "o.npz", "--all-classes") == 0
    assert summary(capsys.readouterr().out)["worst gap"] == "0.0e+00"
    assert len(formats.read_tcams(tmp_path / "o.npz")) == 0


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "missing.npz", "--preset", "rskp", "-o", "o.json"], "missing.npz"),
        (["detect", "TCAMS", "--preset", "rskpp", "-o", "o.json"], "`name` must be one of"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "nowhere/o.json"], "nowhere"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "o.json", "--map", "cas"], "--map must look like"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "o.json", "--threads", "0"], "`num_threads` must be at least 1"),
        (["labels", "TCAMS", "--preset", "rskpp", "-o", "o.npz"], "`name` must be one of"),
        (["labels", "TCAMS", "--preset", "rskp", "-o", "nowhere/o.npz"], "nowhere"),
        (["labels", "TCAMS", "--preset", "rskp", "-o", "o.npz", "--annotations", "empty.json"], "'database'"),
        (["labels", "TCAMS", "--preset", "rskp", "-o", "o.npz", "--video", "v"], "--video says what --picture shows"),
        (["labels", "TCAMS", "--preset", "rskp", "-o", "o.npz", "--picture", "a.png", "--video", "v"], "no video 'v'"),
        (["labels", "TCAMS", "--preset", "ptlr", "-o", "o.npz"], "the pipeline needs the map 'ots'"),
        (["labels", "TCAMS", "--preset", "rskp", "-o", "o.npz", "--map", "cas=attention"], "the maps have 1 classes"),
        (["evaluate", "broken.json", "--annotations", "TCAMS"], "broken.json"),
        (["evaluate", "empty.json", "--annotations", "TCAMS", "--protocol", "coco"], "`protocol`"),
        (["evaluate", "empty.json", "--annotations", "TCAMS", "--tiou", "half"], "`tiou_thresholds`"),
        (["evaluate", "empty.json", "--annotations", "nothing"], "nothing"),
        (["presets", "nothing"], "`name` must be one of"),
        (["demo", "--videos", "-1"], "`num_videos`"),
        (["demo", "--videos", "0"], "at least 1 video"),
        (["demo", "--protocol", "coco", "--videos", "2"], "`protocol`"),
        (["bench", "--videos", "0"], "at least 1 video and 1 repeat, got 0 and 5"),
        (["bench", "--repeats", "0"], "at least 1 video and 1 repeat, got 200 and 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path, tcams, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"results": {')
    (tmp_path / "empty.json").write_text('{"results": {}}')
    before = {path.name for path in tmp_path.iterdir()}
    assert run(*[tcams if argument == "TCAMS" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= before | {"tal_postproc_demo"}


def test_missing_timing_is_explained(tmp_path, data, capsys):
    path = tmp_path / "t.npz"
    with np.load(_written(tmp_path, data)) as arrays:
        np.savez(path, **{key: value for key, value in arrays.items() if key != "seconds_per_snippet"})
    output = tmp_path / "o.json"
    assert run("detect", path, "--preset", "rskp", "-o", output) == 2
    assert "give --seconds-per-snippet" in capsys.readouterr().err
    assert run("detect", path, "--preset", "rskp", "-o", output, "--seconds-per-snippet", 0.64) == 0


def _written(folder, data):
    formats.write_tcams(folder / "all.npz", data.videos, classes=data.classes)
    return folder / "all.npz"


def test_help_has_an_example_for_every_command(capsys):
    for command in ("demo", "detect", "labels", "evaluate", "presets", "bench"):
        with pytest.raises(SystemExit, match="0"):
            run(command, "--help")
        assert f"example:\n  tal-postproc {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run("fly")


def test_bench_times_what_it_says(capsys, monkeypatch):
    calls = []
    process = PostProcessor.process

    def counted(self, videos, num_threads=None, **more):
        calls.append((len(videos), num_threads))
        return process(self, videos, num_threads, **more)

    monkeypatch.setattr(PostProcessor, "process", counted)
    assert run("bench", "--videos", "3", "--repeats", "2", "--threads", "2") == 0
    assert calls.count((3, 1)) == 2 * (1 + 2)  # two presets, once before they are timed
    assert calls.count((3, 2)) == 2 * (1 + 2) + 1  # and the detections that are judged
    out = capsys.readouterr().out
    assert "2 runs" in out
    rows = [line for line in out.splitlines() if line.startswith(("NMS", "rskp", "gaufuse", "mAP"))]
    assert len(rows) == 3 + 4 + 1
    for row in rows:
        median, least, most = map(float, row.split()[-3:])
        assert 0 < least <= median <= most
    assert run("bench", "--videos", "1", "--repeats", "1", "--threads", "1") == 0
    assert capsys.readouterr().out.count("rskp") == 1


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "tal_postproc.cli", "presets", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tal-postproc presets: error: ")
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_is_one_line_too(capsys):
    for arguments in (["fly"], ["detect"], ["demo", "--videos", "many"], ["evaluate", "x.json", "--protocoll", "all"]):
        with pytest.raises(SystemExit, match="2"):
            run(*arguments)
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("tal-postproc")
    assert run("demo", "--subset", "test", "--videos", 2) == 2
    assert "--subset test needs --annotations" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m tal_postproc.cli presets | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("preset")
    assert done.stderr == ""


def test_the_missing_folder_is_named(tcams, tmp_path, capsys):
    assert run("detect", tcams, "--preset", "rskp", "-o", tmp_path / "nowhere" / "o.json") == 2
    assert capsys.readouterr().err.rstrip().endswith(f"No such file or directory: '{tmp_path / 'nowhere'}'")


def test_detections_of_unknown_classes_are_left_out_and_counted(tmp_path, tcams, capsys):
    path = tmp_path / "found.json"
    path.write_text('{"results": {"synthetic_00000": [{"label": "Flying", "score": 0.5, "segment": [0, 1]}]}}')
    assert run("evaluate", path, "--annotations", tcams) == 0
    printed = capsys.readouterr()
    assert "1 of 1 detections are left out" in printed.err
    assert "0 detections, " in printed.out
