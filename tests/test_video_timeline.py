"""Video timelines: the right rows in the right place, the same scene as figure and as page, and nothing but text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import (
    MissingExtraError,
    PostProcessor,
    Segments,
    Trace,
    UnitError,
    Video,
    cli,
    formats,
    fuse_segments,
    plotting,
    synthetic,
)
from tal_postproc.config import Bank, Fuse, Pipeline, Seconds
from tal_postproc.plotting import video_page, video_timeline
from tal_postproc.plotting._strips import Strip, columns_of, scene_of

TCAM = np.zeros((20, 3))
TCAM[2:6, 1], TCAM[10:14, 1], TCAM[3:5, 2] = 0.8, 0.5, 0.4
TCAM[3:5, 1] = 0.9
VIDEO = Video("v", {"cas": TCAM}, seconds_per_snippet=0.5)
TRUTH = Segments([[1, 3], [8, 9], [0, 1]], [1, 1, 0], unit="second", video_ids=["v"])
CHAIN = Pipeline(banks=(Bank(thresholds=(0.3, 0.85)),), stages=(Fuse(threshold=0.4, temperature=0.2),))
TRACE = PostProcessor(CHAIN).trace(VIDEO)
DEFAULTS = {
    "label_maps": None,
    "labels": None,
    "top": 3,
    "classes": None,
    "map_name": "cas",
    "tiou_threshold": 0.5,
}


def scene(*given, **options):
    return scene_of(*given, *[None] * (4 - len(given)), **{**DEFAULTS, **options})


def data_of(page: str):
    """What the script of a page reads."""
    (found,) = re.findall(r'<script type="application/json" id="scene">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def named(made, style):
    """(start, end) of the rectangles of a style."""
    return sorted((x0, x1) for x0, x1, _, _, one, _ in made.rects if one.rstrip("0123456789") == style)


def rows(made):
    return [words for _, words, kind in made.texts if kind == "row"]


@pytest.fixture(autouse=True)
def _needs_matplotlib(request):
    if not {"figure", "pictures"}.isdisjoint(request.node.name.split("[")[0].split("_")):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tal_postproc[plot]'")


# ------------------------------------------------------------------ what is shown, and where
def test_every_row_of_a_class_is_where_it_belongs():
    made = scene(VIDEO, TRACE, {"theirs": Segments([[8, 9]], [1], [0.4], unit="second")}, TRUTH, labels=[1])
    assert rows(made) == ["cas", "thresholds", "ground truth", "proposals", "detections", "theirs"]
    assert named(made, "score") == [(1.0, 3.0), (1.5, 2.5), (5.0, 7.0)]
    assert named(made, "member") == named(made, "score")
    (first, second) = TRACE.detections.segments[TRACE.detections.labels == 1] * 0.5
    assert named(made, "matched") == sorted([tuple(first), (8.0, 9.0)])
    assert named(made, "false") == [tuple(second)]
    assert named(made, "truth") == [(1.0, 3.0), (8.0, 9.0)]
    assert named(made, "shade") == named(made, "truth")
    assert len(named(made, "threshold")) == 2
    spread = TRACE.detections.columns["start_std"][0] * 0.5
    assert named(made, "spread")[0] == (first[0] - spread, first[0] + spread)
    (counts,) = (words.split("\n")[1] for _, words, kind in made.texts if kind == "class")
    assert counts == "2 instances; 2 detections, 1 matched; 1 of theirs, 1 matched; 3 proposals"


def test_an_instance_that_nobody_finds_is_missed():
    assert named(scene(VIDEO, TRACE, None, TRUTH, labels=[1]), "missed") == [(8.0, 9.0)]
    assert named(scene(VIDEO, None, None, TRUTH, labels=[1]), "missed") == []  # nobody searched
    assert named(scene(VIDEO, TRACE, None, None, labels=[1]), "plain")  # nothing to match with
    assert named(scene(VIDEO, TRACE, None, TRUTH, labels=[1], tiou_threshold=0.99), "matched") == []


def test_members_and_detections_know_each_other():
    made = scene(VIDEO, TRACE, labels=[1])
    found = [item for item in made.items if item.get("detection")]
    for detection, item in enumerate(found):
        wanted = TRACE.proposals.segments[TRACE.members(detection)] * 0.5
        assert_array_equal([[made.items[one]["start"], made.items[one]["end"]] for one in item["members"]], wanted)
        assert {made.items[one]["of"] for one in item["members"]} == {made.items.index(item)}
    assert sum(len(item["members"]) for item in found) == len(TRACE.proposals.select(TRACE.proposals.labels == 1))


def test_thresholds_stand_on_the_signal():
    """A line at 0.3 is at the height that the area has where its value is 0.3."""
    made = scene(VIDEO, TRACE, labels=[1])
    (area,) = (strip for strip in made.strips if strip.kind == "activation")
    assert_array_equal(area.values, TCAM[:, 1])
    lines = sorted(y + h / 2 for _, _, y, h, style, _ in made.rects if style == "threshold")
    wanted = [area.y + area.height * (1 - level / 0.9) for level in (0.85, 0.3)]
    assert_allclose(lines, wanted)
    assert [(words, y) for y, words, kind in made.texts if words in ("0.3", "0.85")] == [
        ("0.3", pytest.approx(wanted[1])),
        ("0.85", pytest.approx(wanted[0])),
    ]


def test_rows_of_a_class_do_not_overlap():
    data = synthetic.make_videos(2, seed=1)
    for video in data.videos:
        trace = PostProcessor.from_preset("rskp").trace(video)
        made = scene(video, trace, {"again": Segments.empty("second")}, data.ground_truth, top=20)
        heights = [y for y, _, kind in made.texts if kind != "value"]
        assert (np.diff(heights) >= 11.0).all()
        bars = [(y, y + h) for _, _, y, h, style, _ in made.rects if style in ("matched", "false", "plain")]
        strips = [(one.y, one.y + one.height) for one in made.strips]
        assert all(end <= low or high <= start for start, end in bars for low, high in strips)
        assert max(y + h for _, _, y, h, _, _ in made.rects) <= made.height


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"ground_truth": TRUTH}, ["class 1", "class 0"]),
        ({"ground_truth": TRUTH, "top": 1}, ["class 1"]),
        ({"ground_truth": TRUTH, "trace": TRACE}, ["class 1", "class 0", "class 2"]),
        ({"trace": TRACE}, ["class 1", "class 2"]),
        ({}, ["class 1"]),
        ({"labels": [2, 0]}, ["class 2", "class 0"]),
        ({"labels": []}, []),
        ({"labels": [1], "classes": ["a", "b", "c"]}, ["b"]),
    ],
)
def test_classes_that_are_shown(given, wanted):
    head = [given.get(name) for name in ("trace", "detections", "ground_truth")]
    rest = {name: value for name, value in given.items() if name in DEFAULTS}
    assert scene(VIDEO, *head, **rest).classes == wanted


def test_label_maps_have_a_row_each():
    soft, states = np.where(TCAM > 0.6, TCAM, -0.1), np.zeros((20, 3), np.int8)
    states[4:6, 1], states[6, 1] = 1, -1
    made = scene(VIDEO, labels=[1], label_maps={"soft": soft, "states": states, "flat": np.full(20, 0.5)})
    strips = {(strip.kind, strip.name): strip for strip in made.strips}
    assert_array_equal(strips["labels", "soft"].values, soft[:, 1])
    assert (strips["labels", "soft"].low, strips["labels", "soft"].high) == (-0.1, 0.9)
    assert_array_equal(np.flatnonzero(strips["labels", "states"].values), [4, 5])
    assert_array_equal(np.flatnonzero(strips["ignored", "states"].values), [6])
    assert_array_equal(strips["labels", "flat"].values, np.full(20, 0.5))


def test_time_warps_and_given_seconds():
    warped = replace(VIDEO, warp=(np.array([0.0, 10.0]), np.array([0.0, 20.0])))
    made = scene(warped, TRACE, labels=[1])
    assert (5.0, 7.0) in named(scene(VIDEO, TRACE, labels=[1]), "score")
    assert (10.0, 14.0) in named(made, "score")
    assert made.strips[0].edges[-1] == made.length == 20.0
    seconds = PostProcessor(replace(CHAIN, stages=(Seconds(clamp=False), *CHAIN.stages))).trace(VIDEO)
    assert named(scene(VIDEO, seconds, labels=[1]), "plain") == named(scene(VIDEO, TRACE, labels=[1]), "plain")


def test_several_banks_have_a_row_each():
    banks = (Bank(thresholds=(0.3,)), Bank(thresholds=(0.5,), relative="below_max", upsample=4))
    trace = PostProcessor(replace(CHAIN, banks=banks)).trace(VIDEO)
    made = scene(VIDEO, trace, labels=[1])
    assert rows(made)[1:3] == ["thresholds, bank 1", "thresholds, bank 2"]
    assert len(made.strips[2].edges) == 81
    assert made.strips[2].edges[-1] == 10.0


def test_a_fusion_of_ones_own():
    proposals = Segments([[1, 3], [1.5, 3], [7, 9]], [1, 1, 1], [0.9, 0.8, 0.3], unit="second")
    fused = fuse_segments(proposals.segments, proposals.scores, tiou_threshold=0.5, temperature=0.1)
    made = scene(VIDEO, Trace.of_fusion(proposals, fused), labels=[1])
    assert named(made, "plain") == sorted(map(tuple, fused.segments.tolist()))
    assert rows(made) == ["cas", "activation", "proposals", "detections"]


@pytest.mark.parametrize("count", [1, 7, 20, 64])
def test_no_peak_is_lost(count):
    """The largest value of all steps that a part touches, by a loop; nothing where there is no snippet."""
    rng = np.random.default_rng(0)
    edges = np.sort(rng.uniform(0, 10, 21))
    strip = Strip("heat", "", 0.0, 1.0, edges, rng.uniform(size=20), 0.0, 1.0)
    bounds = np.linspace(-1.0, 11.0, count + 1)
    for value, low, high in zip(columns_of(strip, -1.0, 11.0, count), bounds, bounds[1:]):
        inside = [v for v, a, b in zip(strip.values, edges, edges[1:]) if a < high and b > low]
        assert value == max(inside) if inside else np.isnan(value)


# ------------------------------------------------------------------ figure
def test_figure_has_the_width_asked_for_and_all_words():
    figure = video_timeline(VIDEO, TRACE, None, TRUTH, classes=["run", "$x^2$", "throw"], width=900, between=(1, 4))
    assert figure.get_size_inches()[0] * figure.dpi == pytest.approx(900)
    words = [text.get_text() for text in figure.texts]
    assert {"v", "run", "$x^2$", "throw", "detections"} <= set(words)
    assert not any(text.get_parse_math() for text in figure.texts)
    assert figure.axes[0].get_xlim() == (1.0, 4.0)
    assert len(figure.axes[0].images) == 3


@pytest.mark.parametrize("width", [400, 600, 1200])
def test_words_of_a_figure_lie_apart(tmp_path, width):
    long = "Name" * 40
    given = {long: Segments.empty("second"), "b" * 60: Segments.empty("second")}
    figure = video_timeline(
        replace(VIDEO, id=long),
        TRACE,
        given,
        TRUTH.replace(video_ids=()),
        classes=["x", "M" + long, "y"],
        label_maps={long: TCAM},
        width=width,
        path=tmp_path / "drawn.png",
    )
    boxes = [text.get_window_extent() for text in [*figure.texts, *figure.legends[0].get_texts()] if text.get_text()]
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figure_files_have_the_same_bytes_and_small_svg_text(tmp_path, suffix):
    for name in "ab":
        video_timeline(VIDEO, TRACE, None, TRUTH, path=tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert len(content) < 60_000
    if suffix == "svg":
        assert b">class 1</text>" in content


@pytest.mark.parametrize("snippets", [0, 1, 3000])
def test_figure_and_page_of_little_and_of_much(tmp_path, snippets):
    video = Video("v", {"cas": np.full((snippets, 2), 0.5)}, seconds_per_snippet=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = PostProcessor(CHAIN).trace(video)
        video_timeline(video, trace, {}, TRUTH, path=tmp_path / "drawn.png")
        assert data_of(video_page(video, trace, {}, TRUTH))["length"] == snippets / 2


# ------------------------------------------------------------------ page
def test_page_holds_the_scene():
    made = scene(VIDEO, TRACE, None, TRUTH)
    data = data_of(video_page(VIDEO, TRACE, None, TRUTH))
    assert data["classes"] == made.classes
    assert len(data["rects"]["x0"]) == len(made.rects)
    shades = data["rects"]["shades"]
    assert [data["rects"]["names"][i] for i in data["rects"]["style"][:shades]] == ["shade"] * shades == ["shade"] * 3
    assert len(data["items"]) == len(made.items)
    assert {len(data["rects"][name]) for name in ("x1", "y", "h", "style", "item")} == {len(made.rects)}


def test_page_is_one_file_without_a_network_and_with_equal_bytes(tmp_path):
    page = video_page(VIDEO, TRACE, None, TRUTH, path=tmp_path / "v.html")
    assert (tmp_path / "v.html").read_text(encoding="utf-8") == page == video_page(VIDEO, TRACE, None, TRUTH)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|src=|href=|@import|url\(|fetch\(|XMLHttp", page)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img onerror=x>', "</script><!--", "@SCENE@", "\ud800"]
)
def test_page_takes_names_as_text(name):
    video = replace(VIDEO, id=name)
    page = video_page(video, TRACE, {name: Segments.empty("second")}, classes=[name, name + "1", name + "2"])
    assert len(re.findall("<script", page)) == 2
    assert len(re.findall("</script", page)) == 2
    assert "<img" not in page
    assert "<!--" not in page
    data = data_of(page)
    assert data["title"] == name
    assert data["classes"][0] == name + "1"
    page.encode("utf-8")


def test_page_of_a_long_video_stays_below_two_megabytes():
    """2,000 snippets, 20 classes, 5,000 proposals, what they become, and a signal of 25 steps per snippet."""
    rng = np.random.default_rng(0)
    cas = np.abs(np.cumsum(rng.normal(size=(2000, 20)), axis=0) * 0.02) % 1
    video = Video("v", {"cas": cas, "attention": cas[:, 0]}, {"video": np.ones(20)}, seconds_per_snippet=0.64)
    whole = PostProcessor.from_preset("cola", classes=None).trace(video)
    rows = whole.proposals.select(np.sort(rng.choice(len(whole.proposals), 5000, replace=False)))
    fused = fuse_segments(rows.segments, rows.scores, tiou_threshold=0.3, temperature=0.1, idxs=rows.labels)
    page = video_page(video, replace(Trace.of_fusion(rows, fused), signals=whole.signals), labels=range(20))
    assert len(data_of(page)["classes"]) == 20
    assert len(page) < 2_000_000


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here to run the script")
def test_page_draws_what_it_should(tmp_path):
    """The script runs on a canvas that writes down what is filled: every proposal, once, where it is in time."""
    page = video_page(VIDEO, TRACE, None, TRUTH, labels=[1])
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    stage = Path(__file__).with_name("canvas.js").read_text(encoding="utf-8")
    scene_text = json.dumps(data_of(page))
    (tmp_path / "run.js").write_text(f"const SCENE = {json.dumps(scene_text)};\n{stage}\n{script}\nreport();\n")
    done = subprocess.run(["node", tmp_path / "run.js"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    drawn = json.loads(done.stdout)
    wide = 1200 - 158 - 84
    data = data_of(page)
    places = {name: place for place, name in enumerate(data["rects"]["names"])}
    for at in ("whole", "zoomed"):
        (low, high) = (0.0, 10.0) if at == "whole" else drawn["window"]
        for name in ("matched", "false"):
            fill = data["styles"][name][0]
            ends = zip(*(data["rects"][column] for column in ("x0", "x1", "style")))
            spans = [(x0, x1) for x0, x1, style in ends if style == places[name] and x0 < high and x1 > low]
            across = 158 + (np.array(spans) - low) / (high - low) * wide
            across = np.clip(across, 156, 160 + wide)  # what is outside is cut
            wanted = np.column_stack([across[:, 0], np.diff(across)])
            found = [[x, w] for colour, x, _, w, _ in drawn[at] if colour == fill]
            assert_allclose(found, wanted, atol=1e-6)
    assert "made of 2 proposals:" in drawn["tip"]


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"map_name": "tcam"}, ValueError, "`video` has no map 'tcam', got 'cas'"),
        ({"video": Video("v", {"cas": TCAM})}, ValueError, "`video` 'v' needs seconds_per_snippet"),
        ({"trace": TRACE.detections}, TypeError, "`trace` must be a Trace"),
        ({"detections": {"x": Segments([[1, 2]])}}, UnitError, r"`detections\['x'\]` must be in seconds"),
        ({"ground_truth": TRUTH.replace(video_ids=["w"])}, ValueError, "`ground_truth` has no video 'v'"),
        ({"label_maps": {"a": np.zeros((4, 3))}}, ValueError, r"`label_maps\['a'\]` must have 20 snippets"),
        ({"label_maps": {"a": np.full((20, 3), np.nan)}}, ValueError, "must be finite"),
        ({"label_maps": {"a": np.zeros((20, 1))}}, ValueError, r"`label_maps\['a'\]` must have a column for class 1"),
        ({"labels": [3]}, ValueError, "`labels` must be below 3, the columns of 'cas', got 3"),
        ({"labels": [1], "classes": ["a"]}, ValueError, "`classes` must name class 1, got 1 names"),
        ({"top": 0}, ValueError, "`top` must be at least 1"),
        ({"tiou_threshold": 0}, ValueError, "`tiou_threshold` must be above 0"),
        ({"path": "v.bmp"}, ValueError, "`path` must be one of"),
    ],
)
@pytest.mark.parametrize("draw", [video_timeline, video_page])
def test_mistakes_of_a_figure_and_a_page_are_named(draw, changes, error, message):
    with pytest.raises(error, match=message):
        draw(**{"video": VIDEO, **changes})


@pytest.mark.parametrize(("changes", "message"), [({"between": (5, 5)}, "`between`"), ({"width": 10}, "`width`")])
def test_mistakes_of_a_figure_alone_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        video_timeline(VIDEO, **changes)


def test_without_matplotlib_there_is_still_a_page(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"plotting\.video_timeline needs matplotlib.*tal_postproc\[plot\]"):
        video_timeline(VIDEO)
    assert video_page(VIDEO).startswith("<!DOCTYPE html>")


# ------------------------------------------------------------------ command
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos, detections of one preset and labels of another."""
    here = tmp_path_factory.mktemp("plot")
    formats.write_tcams(here / "t.npz", synthetic.make_videos(3, seed=2))
    assert cli.main(["detect", str(here / "t.npz"), "--preset", "rskp", "-o", str(here / "rskp.json")]) == 0
    assert cli.main(["labels", str(here / "t.npz"), "--preset", "gaufuse", "-o", str(here / "linpro.npz")]) == 0
    return here


def page_of(folder, *options):
    assert cli.main(["plot", str(folder / "t.npz"), *map(str, options), "-o", str(folder / "v.html")]) == 0
    return data_of((folder / "v.html").read_text(encoding="utf-8"))


def test_command_shows_what_the_chain_did(folder, capsys):
    given = "--detections", folder / "rskp.json", "--labels", folder / "linpro.npz"
    data = page_of(folder, "--video", "synthetic_00001", "--preset", "gaufuse", *given)
    assert "picture of synthetic_00001" in capsys.readouterr().out
    videos = formats.read_tcams(folder / "t.npz")
    trace = PostProcessor.from_preset("gaufuse").trace(videos[1])
    first = videos.classes.index(data["classes"][0])
    assert sum(item["kind"] == "proposal" and item["class"] == 0 for item in data["items"]) == int(
        (trace.proposals.labels == first).sum()
    )
    assert {"thresholds", "proposals", "detections", "ground truth", "linpro"} <= {
        words for _, words, _ in data["texts"]
    }
    theirs = formats.read_detections(folder / "rskp.json", classes=videos.classes).video("synthetic_00001")
    assert sum(item["kind"] == "rskp" for item in data["items"]) == int(
        np.isin(theirs.labels, [videos.classes.index(name) for name in data["classes"]]).sum()
    )


def test_command_chooses_classes_and_threshold(folder):
    videos = formats.read_tcams(folder / "t.npz")
    assert page_of(folder, "--classes", f"{videos.classes[4]},2")["classes"] == [videos.classes[4], videos.classes[2]]
    assert len(page_of(folder, "--preset", "gaufuse", "--top", "1")["classes"]) == 1
    assert "tIoU of at least 0.3" in page_of(folder, "--preset", "gaufuse", "--tiou", "0.3")["subtitle"]
    assert page_of(folder)["title"] == "synthetic_00000"
    other = formats.read_annotations(folder / "t.npz")
    moved = other.segments.replace(segments=np.minimum(other.segments.segments, 1.0))
    formats.write_annotations(folder / "other.json", replace(other, segments=moved))
    data = page_of(folder, "--annotations", folder / "other.json")
    assert max(item["end"] for item in data["items"] if item["kind"] == "instance") <= 1.0


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_command_writes_pictures(folder, suffix):
    out = folder / f"v.{suffix}"
    assert cli.main(["plot", str(folder / "t.npz"), "--between", "2,8", "-o", str(out)]) == 0
    assert out.stat().st_size > 1000


def test_command_drops_a_background_column(tmp_path):
    tcam = np.concatenate([np.full((20, 1), 0.99), TCAM], axis=1)
    formats.write_tcams(tmp_path / "t.npz", [replace(VIDEO, maps={"cas": tcam})])
    data = page_of(tmp_path, "--background", "first")
    assert data["classes"] == ["class 1"]
    assert data["strips"][0]["high"] == 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video", "nobody"], "no video 'nobody'"),
        (["--classes", "Nothing"], "--classes: no class 'Nothing'"),
        (["--classes", "20"], "--classes: no class '20' among 20"),
        (["-o", "v.bmp"], "the suffix of --output` must be one of '.png', '.svg', '.pdf', '.html', got '.bmp'"),
        (["--between", "1,2"], "--between is for pictures"),
        (["--labels", "t.npz"], "no map 'labels', it has"),
    ],
)
def test_command_names_mistakes(folder, options, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["plot", "t.npz", "-o", "x.html", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["5", "1,b", "1,2,3"])
def test_command_explains_between(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["plot", "t.npz", "-o", "x.png", "--between", text])
    assert f"two seconds with a comma between them, 20,60 say, got '{text}'" in capsys.readouterr().err


def test_public_list():
    assert set(plotting.__all__) >= {"timeline", "video_page", "video_timeline"}
