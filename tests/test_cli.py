"""The command line as a user types it: output, files, exit codes, and one clear line for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tal_postproc import Annotations, PostProcessor, Segments, cli, formats, mean_average_precision, synthetic


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "missing.npz", "--preset", "rskp", "-o", "o.json"], "missing.npz"),
        (["detect", "TCAMS", "--preset", "rskpp", "-o", "o.json"], "`name` must be one of"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "nowhere/o.json"], "nowhere"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "o.json", "--map", "cas"], "--map must look like"),
        (["detect", "TCAMS", "--preset", "rskp", "-o", "o.json", "--threads", "0"], "`num_threads` must be at least 1"),
        (["evaluate", "broken.json", "--annotations", "TCAMS"], "broken.json"),
        (["evaluate", "empty.json", "--annotations", "TCAMS", "--protocol", "coco"], "`protocol`"),
        (["evaluate", "empty.json", "--annotations", "TCAMS", "--tiou", "half"], "`tiou_thresholds`"),
        (["evaluate", "empty.json", "--annotations", "nothing"], "nothing"),
        (["presets", "nothing"], "`name` must be one of"),
        (["demo", "--videos", "-1"], "`num_videos`"),
        (["demo", "--videos", "0"], "at least 1 video"),
        (["demo", "--protocol", "coco", "--videos", "2"], "`protocol`"),
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
    for command in ("demo", "detect", "evaluate", "presets"):
        with pytest.raises(SystemExit, match="0"):
            run(command, "--help")
        assert f"example:\n  tal-postproc {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run("fly")


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
