"""Jobs in shards: the same bytes as in one piece, however they are cut, run, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tal_postproc import FormatError, Segments, Video, _jobs, cli, formats, plotting, presets, synthetic

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data():
    return synthetic.make_videos(9, seed=3)


@pytest.fixture
def tcams(tmp_path, data):
    """The same videos in one file, in three, and in a folder with a file for each; the last one deflated."""
    write(tmp_path / "all.npz", data, range(9))
    for name, rows in (("a", range(2)), ("b", range(2, 3)), ("c", range(3, 9))):
        write(tmp_path / f"{name}.npz", data, rows)
    (tmp_path / "each").mkdir()
    for row in range(9):
        write(tmp_path / "each" / f"{row}.npz", data, [row], compressed=True)
    return {
        "one file": [tmp_path / "all.npz"],
        "three files": [tmp_path / f"{name}.npz" for name in "abc"],
        "a folder": [tmp_path / "each"],
    }


def write(path, data, rows, **options):
    rows = list(rows)
    truth = data.annotations
    names = [data[row].id for row in rows]
    parts = [Segments.concatenate([segments.video(name) for name in names]) for segments in [truth.segments]]
    some = replace(truth, segments=parts[0], durations=truth.durations[rows], subsets=("",) * len(rows))
    formats.write_tcams(path, [data[row] for row in rows], classes=data.classes, annotations=some, **options)


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def job_of(tcams, output, kind="detect", **options):
    pipeline = presets.get("rskp") if kind == "detect" else presets.for_labels("rskp")
    return _jobs.plan(kind, tcams["one file"], pipeline, output, **options)


def table(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if " s: " not in line and "shards" not in line]


# ------------------------------------------------------------------------------------------- the same bytes in any cut


@pytest.mark.parametrize("command", ["detect", "labels"])
@pytest.mark.parametrize("source", ["one file", "three files", "a folder"])
def test_every_cut_gives_the_same_bytes(command, source, tmp_path, tcams, capsys):
    assert run(command, tmp_path / "all.npz", "--preset", "rskp", "-o", tmp_path / "whole") == 0
    printed = capsys.readouterr().out
    for number in (1, 2, 4, 1000):
        options = ["--preset", "rskp", "-o", tmp_path / f"{number}", "--shard-videos", number]
        assert run(command, *tcams[source], *options) == 0
        assert (tmp_path / f"{number}").read_bytes() == (tmp_path / "whole").read_bytes()
        assert not (tmp_path / f"{number}.shards").exists()
        assert table(capsys.readouterr().out) == table(printed)
    assert "9 videos in" in printed


def test_the_whole_is_what_the_library_makes(tmp_path, data, tcams):
    assert run("labels", *tcams["a folder"], "--preset", "rskp", "-o", tmp_path / "l.npz", "--shard-videos", 2) == 0
    found = formats.read_tcams(tmp_path / "l.npz")
    maps = [replace(video, maps={"labels": one.maps["labels"]}, scores={}) for video, one in zip(data, found)]
    formats.write_tcams(tmp_path / "again.npz", maps, classes=data.classes, compressed=True)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "l.npz").read_bytes()
    assert any(video.maps["labels"].any() for video in found)


@pytest.mark.parametrize("command", ["detect", "labels"])
def test_processes_and_threads_give_the_same_bytes(command, tmp_path, tcams):
    for name, options in (("one", ["--threads", 1]), ("two", ["--processes", 2]), ("three", ["--threads", 3])):
        output = ["--shard-videos", 3, "-o", tmp_path / name]
        assert run(command, *tcams["three files"], "--preset", "rskp", *output, *options) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


def test_a_shard_is_made_by_a_plain_function(tmp_path, tcams):
    job = job_of(tcams, tmp_path / "o.json", shard_videos=4)
    with _jobs.opened(job) as work:
        for shard in reversed(work.unfinished()):
            _jobs.run_shard(job, shard, num_threads=1)
        assert work.unfinished() == []
        assert len(formats.read_detections(job.path(job.shards[2]), classes=job.classes).video_ids) == 1
        work.merge(tmp_path / "o.json")
    assert run("detect", *tcams["one file"], "--preset", "rskp", "-o", tmp_path / "whole.json") == 0
    assert (tmp_path / "o.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_shards_may_be_the_result(tmp_path, data, tcams, capsys):
    options = ["--preset", "rskp", "-o", tmp_path / "l.npz", "--shard-videos", 4]
    assert run("labels", *tcams["one file"], *options, "--no-merge") == 0
    folder = tmp_path / "l.npz.shards"
    assert capsys.readouterr().out.rstrip().endswith(f"s: 3 shards in {folder}")
    assert not (tmp_path / "l.npz").exists()
    parts = [formats.read_tcams(path) for path in sorted(folder.glob("shard-*.npz"))]
    assert [video.id for part in parts for video in part] == [video.id for video in data]
    assert run("labels", *tcams["one file"], *options) == 0  # the same command without --no-merge
    assert "3 of 3 shards were finished before" in capsys.readouterr().out
    assert not folder.exists()
    assert len(formats.read_tcams(tmp_path / "l.npz")) == 9


def test_the_picture_is_that_of_the_whole(tmp_path, tcams, monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "timeline", lambda video, found, truth, **options: drawn.append((video, options)))
    for number in (2, 1000):
        for extra in ([], ["--video", "synthetic_00004"]):
            options = ["--preset", "rskp", "-o", tmp_path / "l.npz", "--shard-videos", number, "--picture", "p.png"]
            assert run("labels", *tcams["three files"], *options, *extra) == 0
    assert drawn[0][0].id == drawn[2][0].id != "synthetic_00004" == drawn[1][0].id == drawn[3][0].id
    np.testing.assert_array_equal(drawn[0][1]["label_maps"]["LinPro"], drawn[2][1]["label_maps"]["LinPro"])
    assert drawn[0][1]["label_maps"]["LinPro"].any()


@pytest.mark.parametrize("number", [2, 1000])
def test_it_writes_to_a_pipe(number, tmp_path, tcams):
    assert run("detect", *tcams["one file"], "--preset", "rskp", "-o", tmp_path / "o.json") == 0
    arguments = ["detect", *tcams["one file"], "--preset", "rskp", "-o", "/dev/stdout", "--shard-videos", number]
    done = subprocess.run(
        [sys.executable, "-m", "tal_postproc.cli", *map(str, arguments)], capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith((tmp_path / "o.json").read_bytes())


def test_summaries_are_joined():
    one = _jobs.Summary(3, 10, 1, 2, 3, 4, 5, 60, 70, 1e-9, 0.5, (2, 40, 1))
    two = _jobs.Summary(4, 1, 1, 1, 1, 1, 1, 1, 1, 2e-9, 0.25, (2, 40, 4))
    joined = _jobs.Summary(7, 11, 2, 3, 4, 5, 6, 61, 71, 2e-9, 0.5, (2, 40, 1))
    assert _jobs.Summary.join([one, two]) == joined
    assert _jobs.Summary.join([]) == _jobs.Summary()


def test_no_videos(tmp_path, capsys):
    formats.write_tcams(tmp_path / "none.npz", [], classes=["a"])
    for number in (1, 2):
        assert run("detect", tmp_path / "none.npz", "--preset", "rskp", "-o", tmp_path / "o.json", "--restart") == 0
        assert formats.read_detections(tmp_path / "o.json", classes=["a"]).video_ids == ()
        assert "0 detections of 0 videos" in capsys.readouterr().out, number
        (tmp_path / "o.json.shards").mkdir(exist_ok=True)  # the second time through a folder


# ----------------------------------------------------------------------------------------------------- interruption


def command_of(arguments) -> list[str]:
    return [sys.executable, "-m", "tal_postproc.cli", *map(str, arguments)]


def wait_for(condition, seconds=120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("command", "extra"),
    [("detect", ["--threads", 1]), pytest.param("labels", ["--processes", 2], marks=pytest.mark.slow)],
)
def test_killed_in_the_middle_it_goes_on(command, extra, tmp_path):
    data = synthetic.make_videos(150, seed=4)
    formats.write_tcams(tmp_path / "t.npz", data)
    arguments = [command, tmp_path / "t.npz", "--preset", "rskp", "--shard-videos", 1]
    folder = tmp_path / "o.shards"

    def shards():
        return {path.name: path.stat() for path in folder.glob("shard-*")}

    running = subprocess.Popen(
        command_of([*arguments, *extra, "-o", tmp_path / "o"]), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with running:
        wait_for(lambda: len(shards()) >= 3 or running.poll() is not None)
        running.send_signal(signal.SIGKILL)
        running.communicate()  # also waits for its worker processes, which hold the pipe
    assert running.returncode == -signal.SIGKILL
    before = shards()
    assert 3 <= len(before) < 150
    assert not (tmp_path / "o").exists()

    (folder / ".tal_postproc-0123456789abcdef.tmp").write_text("half a sha")
    done = subprocess.run(
        command_of([*arguments, "-o", tmp_path / "o", "--no-merge"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == f"{len(before)} of 150 shards were finished before"
    after = shards()
    assert len(after) == 150
    for name, one in before.items():
        assert (after[name].st_ino, after[name].st_mtime_ns) == (one.st_ino, one.st_mtime_ns), name
    assert not list(folder.glob(".tal_postproc*"))

    assert run(*arguments, "-o", tmp_path / "o") == 0
    assert not folder.exists()
    assert run(*arguments[:-1], 1000, "-o", tmp_path / "whole") == 0
    assert (tmp_path / "o").read_bytes() == (tmp_path / "whole").read_bytes()


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, tcams, capsys, monkeypatch):
    arguments = ["detect", *tcams["one file"], "--preset", "rskp", "-o", tmp_path / "o.json", "--shard-videos", 3]
    real = _jobs.Worker.run

    def stops(self, shard, *rest, **options):
        if shard.number == 2:
            raise KeyboardInterrupt
        return real(self, shard, *rest, **options)

    monkeypatch.setattr(_jobs.Worker, "run", stops)
    assert run(*arguments) == 130
    assert "stopped 2 of 3 shards are finished in" in capsys.readouterr().err
    monkeypatch.setattr(_jobs.Worker, "run", real)
    assert run(*arguments) == 0
    assert capsys.readouterr().out.startswith("2 of 3 shards were finished before\n")


def test_ctrl_c_ends_processes_cleanly(tmp_path):
    formats.write_tcams(tmp_path / "t.npz", synthetic.make_videos(1500, seed=4))
    arguments = ["detect", tmp_path / "t.npz", "--preset", "rskp", "--shard-videos", 1, "-o", tmp_path / "o"]
    running = subprocess.Popen(
        command_of([*arguments, "--processes", 2]),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell without job control ignores the signal for what it runs in the background, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with running:  # more shards than it makes while this process is late to look
        wait_for(lambda: len(list(tmp_path.glob("o.shards/shard-*"))) >= 3 or running.poll() is not None)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: the workers, too
        _, errors = running.communicate()
    assert running.returncode == 130
    assert errors.count("\n") == 1
    assert "of 1500 shards are finished in" in errors


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of children")
def test_a_process_that_dies_is_one_line(tmp_path):
    formats.write_tcams(tmp_path / "t.npz", synthetic.make_videos(1500, seed=4))
    arguments = ["detect", tmp_path / "t.npz", "--preset", "rskp", "--shard-videos", 1, "-o", tmp_path / "o"]
    running = subprocess.Popen(
        command_of([*arguments, "--processes", 2]), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        wait_for(lambda: len(list(tmp_path.glob("o.shards/shard-*"))) >= 3 or running.poll() is not None)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        workers = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        os.kill(int(workers[0]), signal.SIGKILL)
        _, errors = running.communicate()
    assert running.returncode == 2
    assert errors.count("\n") == 1
    assert "a process ended before its shard was finished" in errors
    assert len(list(tmp_path.glob("o.shards/shard-*"))) >= 3


def test_a_bad_video_leaves_the_shards_before_it(tmp_path, data, capsys):
    videos = list(data)
    videos[5] = replace(videos[5], maps={**videos[5].maps, "cas": np.full((4, 20), np.nan), "logits": np.zeros((4, 20)),
                                         "attention": np.zeros(4)})  # fmt: skip
    formats.write_tcams(tmp_path / "t.npz", videos)
    arguments = ["detect", tmp_path / "t.npz", "--preset", "rskp", "-o", tmp_path / "o.json", "--shard-videos"]
    assert run(*arguments, 3) == 2
    assert "must be finite" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("o.json.shards/*")) == [
        "manifest.json",
        "shard-000000.json",
        "summary-000000.json",
    ]
    (tmp_path / "o.json.shards" / "shard-000000.json").unlink()
    assert run(*arguments, 9) == 2  # another manifest, but nothing is finished; and then nothing is left
    assert not (tmp_path / "o.json.shards").exists()


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture
def begun(tmp_path, tcams):
    """A job of which shards are finished."""
    arguments = ["detect", *tcams["one file"], "--preset", "rskp", "-o", tmp_path / "o.json", "--shard-videos", 4]
    assert run(*arguments, "--no-merge") == 0
    return arguments


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (["--shard-videos", 5], "shard_videos, shards"),
        (["--preset", "cola"], "pipeline.banks"),
        (["--background", "last"], "pipeline.num_classes"),
        (["--seconds-per-snippet", 0.5], "seconds_per_snippet"),
        (["--map", "cas=logits"], "maps"),
    ],
)
def test_another_job_is_refused_or_begun_anew(options, differs, begun, tmp_path, capsys):
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("o.json.shards/*")}
    assert run(*begun, *options) == 2
    error = capsys.readouterr().err
    assert differs in error
    assert "give --restart to make them anew, or another output" in error
    assert {path.name: path.stat().st_ino for path in tmp_path.glob("o.json.shards/*")} == before
    assert run(*begun, *options, "--restart") == 0
    assert "finished before" not in capsys.readouterr().out
    assert run(*begun[:5], tmp_path / "new.json", *options) == 0
    assert (tmp_path / "o.json").read_bytes() == (tmp_path / "new.json").read_bytes()


def test_a_changed_input_is_another_job(begun, data, capsys):
    os.utime(begun[1], (1, 1))
    assert run(*begun) == 2
    assert "differs in inputs" in capsys.readouterr().err


def test_what_labels_depend_on_is_in_the_manifest(tmp_path, tcams, data):
    formats.write_annotations(tmp_path / "t.json", data.annotations)
    plain = job_of(tcams, tmp_path / "o", "labels").manifest()
    for options in ({"all_classes": True}, {"annotations": tmp_path / "t.json"}, {"shard_videos": 3}):
        assert job_of(tcams, tmp_path / "o", "labels", **options).manifest() != plain
    rule = replace(presets.for_labels("rskp").labels, selection="vertex")
    pipeline = replace(presets.for_labels("rskp"), labels=rule)
    assert _jobs.plan("labels", tcams["one file"], pipeline, tmp_path / "o").manifest() != plain
    assert job_of(tcams, tmp_path / "another", "labels").manifest() == plain


def test_the_summary_is_there_before_the_shard(tcams, tmp_path, monkeypatch):
    """A shard that is there is finished, whenever the process was killed."""
    job = job_of(tcams, tmp_path / "o.json", shard_videos=4)
    Path(job.folder).mkdir()

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_jobs, "write_detections", killed)
    with pytest.raises(KeyboardInterrupt):
        _jobs.run_shard(job, job.shards[1])
    assert [path.name for path in Path(job.folder).iterdir()] == ["summary-000001.json"]


def test_a_broken_manifest_and_a_broken_summary(begun, tmp_path, capsys):
    folder = tmp_path / "o.json.shards"
    (folder / "summary-000001.json").write_text("{}")
    assert run(*begun) == 2
    assert "not a summary of a shard; begin anew with --restart" in capsys.readouterr().err
    (folder / "manifest.json").write_text("[")
    assert run(*begun) == 2
    assert "manifest.json: not the manifest of a job: give --restart" in capsys.readouterr().err
    assert run(*begun, "--restart") == 0


def test_one_run_at_a_time(begun, tcams, tmp_path):
    job = job_of(tcams, tmp_path / "o.json", shard_videos=4)
    with _jobs.opened(job), pytest.raises(ValueError, match="another run is working there"), _jobs.opened(job):
        pass
    another = job_of(tcams, tmp_path / "another.json")
    with _jobs.opened(job) as work, _jobs.opened(another) as other:  # elsewhere they may
        assert (work.unfinished(), other.unfinished()) == ([], another.shards)


def test_a_file_that_changes_during_the_job_is_refused(tcams, tmp_path):
    job = job_of(tcams, tmp_path / "o.json", shard_videos=4)
    os.utime(tcams["one file"][0], (1, 1))
    (tmp_path / "o.json.shards").mkdir()
    with pytest.raises(ValueError, match=r"all\.npz: the file has changed since the job began"):
        _jobs.run_shard(job, job.shards[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all.npz", "a.npz"], "a.npz: 2 of its videos are in other inputs, too"),
        (["all.npz", "all.npz"], "9 of its videos are in other inputs, too"),
        (["a.npz", "other.npz"], "other.npz: other classes (2) than in "),
        (["empty"], "no npz file in the folder"),
        (["all.npz", "--shard-videos", "0"], "`shard_videos` must be at least 1"),
        (["all.npz", "--shard-videos", "10001"], "`shard_videos` must be at most 10000"),
        (["all.npz", "--processes", "0"], "`processes` must be at least 1"),
        (["all.npz", "-o", "each"], "Is a directory"),
        (["all.npz", "--shard-videos", "2", "--threads", "0"], "`num_threads` must be at least 1"),
    ],
)
def test_mistakes(arguments, message, tmp_path, tcams, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    formats.write_tcams("other.npz", [Video("v", {"cas": np.zeros((3, 2))})], classes=["a", "b"])
    before = sorted(tmp_path.rglob("*"))
    assert run("detect", "--preset", "rskp", "-o", "o.json", *arguments, "--seconds-per-snippet", 1) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_maps_of_another_width_are_refused(tmp_path, capsys):
    for name, width in (("a", 3), ("b", 4)):
        formats.write_tcams(
            tmp_path / f"{name}.npz", [Video(name, {"cas": np.eye(5)[:, :width]}, {"video": np.ones(width)})]
        )
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    assert run("labels", *files, "--preset", "rskp", "--all-classes", "-o", tmp_path / "o", "--shard-videos", 1) == 2
    assert "video 'b' has maps of 4 columns, not 3" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", '{"version": "VERSION 1.3", "results": {', "x" * 90])
def test_merge_refuses_what_is_no_shard(content, tmp_path):
    (tmp_path / "part.json").write_text(content)
    with pytest.raises(FormatError, match="like a file of detections"):
        formats.merge_detections(tmp_path / "o.json", [tmp_path / "part.json"])
    assert not (tmp_path / "o.json").exists()


# ------------------------------------------------------------------------------------------------------------- memory

PEAK = """
import json, sys
from tal_postproc import cli
assert cli.main(sys.argv[1:]) == 0
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(peak))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of the peak memory")
@pytest.mark.parametrize("command", ["detect", pytest.param("labels", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_shards(command, tmp_path):
    """20 MB of maps in a shard: 15 shards more would be seen."""
    rng = np.random.default_rng(0)
    peaks = []
    for count in (5, 20):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for shard in range(count):
            cas = rng.random((5000, 500)).astype(np.float32)
            maps = [Video(f"{shard}-{v}", {"cas": cas[100 * v : 100 * v + 100]}, {"video": np.r_[1.0, np.zeros(499)]},
                          seconds_per_snippet=1.0) for v in range(50)]  # fmt: skip
            formats.write_tcams(folder / f"{shard:03}.npz", maps)
        options = ["--preset", "rskp", "--threads", "1", "--shard-videos", "50", "-o", tmp_path / f"{count}.out"]
        options += ["--all-classes"] if command == "labels" else []
        done = subprocess.run(
            [sys.executable, "-c", PEAK, command, str(folder), *map(str, options)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 15_000  # kB
