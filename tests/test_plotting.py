"""The timeline picture: right rows, right size, whole files, and a clear word where matplotlib is missing."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tal_postproc import MissingExtraError, Segments, UnitError, Video
from tal_postproc.plotting import timeline
from tal_postproc.plotting._common import lanes

VIDEO = Video(
    "v",
    {"cas": np.linspace(0, 1, 40).reshape(20, 2), "attention": np.full(20, 0.5), "flat": np.linspace(0, 0.4, 20)},
    seconds_per_snippet=0.5,
)
TRUTH = Segments([[1, 2], [4, 6], [7, 8]], [1, 1, 0], unit="second", video_ids=["v"])
FOUND = {
    "NMS": Segments([[1, 2.5], [1.5, 3], [7, 9]], [1, 1, 0], [0.9, 0.4, 0.99], unit="second", video_ids=["v"]),
    "fusion": Segments([[4, 6]], [1], [0.3], unit="second"),
}


def bars(figure):
    """(left, width) of all bars in the lower part."""
    return sorted((bar.get_x(), bar.get_width()) for bar in figure.axes[1].patches if bar.get_alpha() is None)


def words(figure):
    return [text.get_text() for text in figure.texts]


@pytest.fixture(autouse=True)
def _needs_matplotlib(request):
    if "without" not in request.node.name:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tal_postproc[plot]'")


def test_rows_are_those_of_the_class_with_most_annotations():
    figure = timeline(VIDEO, FOUND, TRUTH)
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == ["ground truth", "NMS", "fusion"]
    assert bars(figure) == [(1, 1), (1, 1.5), (1.5, 1.5), (4, 2), (4, 2)]
    assert words(figure) == ["class 1", "v"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "cas of this class",
        "attention",
        "ground truth",
    ]
    assert figure.axes[1].get_xlim() == (0.0, 10.0)


def test_higher_scores_are_darker():
    figure = timeline(VIDEO, FOUND, TRUTH)
    drawn = [patch for patch in figure.axes[1].patches if hasattr(patch, "get_width")]  # spans are polygons before 3.9
    brightness = {bar.get_x(): sum(bar.get_facecolor()[:3]) for bar in drawn if bar.get_width() == 1.5}
    assert brightness[1] < brightness[1.5]


def test_label_classes_and_the_class_chosen_without_annotations():
    assert words(timeline(VIDEO, FOUND, TRUTH, label=0, classes=["jump", "throw"]))[0] == "jump"
    assert bars(timeline(VIDEO, FOUND, TRUTH, label=0)) == [(7, 1), (7, 2)]
    assert words(timeline(VIDEO, FOUND))[0] == "class 0"  # the best detection has score 0.99
    assert words(timeline(VIDEO, {}))[0] == "class 0"


def test_video_is_picked_by_its_id():
    two = Segments.concatenate([Segments([[0, 9]], [1], unit="second", video_ids=["other"]), TRUTH])
    assert bars(timeline(VIDEO, {}, two)) == bars(timeline(VIDEO, {}, TRUTH)) == [(1, 1), (4, 2)]


def test_best_detections_only():
    assert bars(timeline(VIDEO, FOUND, max_detections=1, label=1)) == [(1, 1.5), (4, 2)]


def test_map_name_and_window():
    figure = timeline(VIDEO, {}, map_name="flat", between=(2, 5))
    assert figure.axes[1].get_xlim() == (2.0, 5.0)
    steps = figure.axes[0].patches[0].get_data()
    assert_array_equal(steps.values, VIDEO.maps["flat"])
    assert_array_equal(steps.edges, np.arange(21) / 2)
    assert_array_equal(timeline(VIDEO, {}, label=1).axes[0].patches[0].get_data().values, VIDEO.maps["cas"][:, 1])


MAPS = {
    "soft": np.linspace(-0.25, 0.5, 40).reshape(20, 2),
    "states": np.repeat([[0, 1], [0, -1], [0, 0]], [8, 2, 10], axis=0).astype(np.int8),
}


def areas(axes):
    """Values of the areas of one axes that are not 0 everywhere, with their colours."""
    drawn = [(patch.get_data().values, patch.get_facecolor()) for patch in axes.patches if hasattr(patch, "get_data")]
    return [(values, colour) for values, colour in drawn if np.any(values)]


def test_label_maps_have_a_row_each_with_their_largest_value():
    figure = timeline(VIDEO, FOUND, TRUTH, label_maps=MAPS)
    soft, states = figure.axes[2:4]
    assert [axes.get_yticklabels()[0].get_text() for axes in (soft, states)] == ["soft", "states"]
    ((values, colour),) = areas(soft)
    assert_array_equal(values, MAPS["soft"][:, 1])
    assert_array_equal(soft.patches[-1].get_data().edges, np.arange(21) / 2)
    assert soft.get_ylim()[0] == values.min()
    assert [text.get_text() for text in soft.texts] == ["0.5"]
    (ignored, pale), (action, dark) = areas(states)
    assert_array_equal(np.flatnonzero(ignored), [8, 9])
    assert_array_equal(np.flatnonzero(action), np.arange(8))
    assert dark == colour
    assert sum(pale) > sum(dark)
    assert not states.texts
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[-2:] == ["pseudo labels", "ignored"]
    assert figure.axes[1].get_xlabel() == ""
    assert states.get_xlabel() == "seconds"
    assert bars(figure) == bars(timeline(VIDEO, FOUND, TRUTH))  # the other rows stay as they are


def test_the_class_with_most_labels_where_nothing_else_says():
    assert words(timeline(VIDEO, {}, label_maps={"a": MAPS["states"]}))[0] == "class 1"
    assert words(timeline(VIDEO, FOUND, label_maps={"a": MAPS["states"]}))[0] == "class 0"
    flat = timeline(VIDEO, {}, label_maps={"a": np.zeros(20)})  # a map that tells no classes apart
    assert words(flat)[0] == "class 0"
    assert flat.legends[0].get_texts()[-1].get_text() == "pseudo labels"


def test_spreads_are_lines_over_both_ends():
    fused = FOUND["fusion"].replace(columns={"start_std": [0.5], "end_std": [1.0]})
    figure = timeline(VIDEO, {"plain": FOUND["NMS"], "fusion": fused}, label=1, spreads=True)
    lines = [path[:, 0].tolist() for lines in figure.axes[1].collections for path in lines.get_segments()]
    assert lines == [[3.5, 4.5], [5.0, 7.0]]
    assert not timeline(VIDEO, {"fusion": fused}, label=1).axes[1].collections


def test_overlapping_rows_go_to_lanes_in_the_order_given():
    segments = np.array([[0, 4], [1, 2], [1, 5], [4, 6], [1, 3.0]])
    assert_array_equal(lanes(segments, np.array([0, 2, 3, 1, 4]), 3), [0, 2, 1, 0, 2])


@pytest.mark.parametrize("most", [1, 4, 50])
def test_lanes_are_the_first_that_are_free(most):
    """A literal loop over all that was placed; segments without length and equal ones, too."""
    rng = np.random.default_rng(most)
    segments = np.sort(rng.integers(0, 25, (60, 2)), axis=1).astype(float)
    order = rng.permutation(60)
    placed = [[] for _ in range(most)]
    wanted = np.empty(60, int)
    for row in order:
        start, end = segments[row]
        free = [all(end <= s or e <= start for s, e in lane) for lane in placed]
        wanted[row] = free.index(True) if any(free) else most - 1
        placed[wanted[row]].append(segments[row])
    assert_array_equal(lanes(segments, order, most), wanted)


@pytest.mark.parametrize("size", [(1200, 600), (640, 480)])
def test_png_has_the_size_asked_for_and_nothing_else_is_left(tmp_path, size):
    from matplotlib.image import imread

    timeline(VIDEO, FOUND, TRUTH, size=size, path=tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == size
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[:2] == size[::-1]
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 20


def test_svg_and_unknown_formats(tmp_path):
    timeline(VIDEO, {}, path=tmp_path / "a.svg")
    assert ">seconds</text>" in (tmp_path / "a.svg").read_text()
    with pytest.raises(ValueError, match="`path` must be one of 'png', 'svg', 'pdf', got 'bmp'"):
        timeline(VIDEO, {}, path=tmp_path / "a.bmp")
    assert [file.name for file in tmp_path.iterdir()] == ["a.svg"]


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, file, **options):
        file.write(b"half")
        raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        timeline(VIDEO, {}, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"detections": {"x": Segments([[1, 2]])}}, UnitError, r"`detections\['x'\]` must be in seconds"),
        ({"ground_truth": TRUTH.replace(unit="snippet")}, UnitError, "`ground_truth` must be in seconds"),
        ({"ground_truth": TRUTH.replace(video_ids=["w"])}, ValueError, "`ground_truth` has no video 'v'"),
        ({"map_name": "tcam"}, ValueError, "`video` has no map 'tcam', got 'cas', 'attention', 'flat'"),
        ({"video": Video("v", {"cas": np.zeros((3, 1))})}, ValueError, "`video` 'v' needs seconds_per_snippet"),
        ({"label": 2}, ValueError, "`label` must be below 2"),
        ({"label_maps": {"a": np.zeros((4, 2))}}, ValueError, r"`label_maps\['a'\]` must have 20 snippets"),
        ({"label_maps": {"a": np.full((20, 2), np.nan)}}, ValueError, r"`label_maps\['a'\]` must be finite"),
        ({"label_maps": {"a": np.zeros((20, 1))}, "label": 1}, ValueError, "`label` must be below 1, the columns of"),
        ({"spreads": 1}, TypeError, "`spreads` must be"),
        ({"label": 1, "classes": ["jump"]}, ValueError, "`classes` must name class 1, got 1 names"),
        ({"between": (5, 5)}, ValueError, "`between` must rise"),
        ({"between": (0, np.nan)}, ValueError, "`between` must rise"),
        ({"max_detections": 0}, ValueError, "`max_detections` must be at least 1"),
        ({"size": (10, 600)}, ValueError, "`size` must be at least 100"),
        ({"video": Video("v", {"cas": np.full((3, 1), np.nan)}, seconds_per_snippet=1)}, ValueError, "must be finite"),
    ],
)
def test_mistakes_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        timeline(**{"video": VIDEO, "detections": {}, **changes})


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"plotting\.timeline needs matplotlib.*tal_postproc\[plot\]"):
        timeline(VIDEO, {})


def test_pyplot_is_never_loaded():
    code = (
        "import sys, numpy as np\n"
        "from tal_postproc import Video, plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plotting.timeline(Video('v', {'cas': np.ones((4, 1))}, seconds_per_snippet=1.0), {})\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
