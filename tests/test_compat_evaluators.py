"""ActivityNet's evaluator and its copies: published mAPs, literal walks down the overlaps, files and attributes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import acmnet, anet, asmloc, basnet, co2net, cola, hamnet, lacp, pmil, stpn, um

from .oracles import evaluation as oracle

pd = pytest.importorskip("pandas")

SEVEN, TEN = np.linspace(0.1, 0.7, 7), np.linspace(0.5, 0.95, 10)
COLUMNS = ["video-id", "t-start", "t-end", "label"]


# ------------------------------------------------------------------ files
def write_json(folder, detections, ground_truth, others=()):
    """Ground truth and predictions in the format of ActivityNet; `others` are instances of another subset."""
    database = {}
    for subset, rows in (("test", ground_truth), ("training", others)):
        for video, label, start, end in rows:
            entry = database.setdefault(f"{subset}_{video}", {"subset": subset, "annotations": []})
            entry["annotations"].append({"label": label, "segment": [start, end]})
    labels = sorted({row[1] for row in ground_truth})
    numbers = {str(number): label for number, label in enumerate(labels)}
    truth = {"database": database, "taxonomy": [], "version": "1.3", "class-list": numbers}
    results = {}
    for video, label, start, end, score in detections:
        one = {"label": label, "segment": [start, end], "score": score}
        results.setdefault(f"test_{video}", []).append(one)
    found = {"results": results, "version": "1.3", "external_data": {}, "method": "x"}
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    return folder / "gt.json", folder / "found.json"


def write_wtalc(folder, ground_truth, classes, subset="test"):
    """A folder as W-TALC has it: names as bytes, segments and labels as pickled lists."""
    folder.mkdir()
    ground_truth = [*ground_truth, ("other", classes[0], 0.0, 9.0)]  # in another subset
    videos = [*dict.fromkeys(row[0] for row in ground_truth), "without"]
    segments, labels = (np.empty(len(videos), object) for _ in range(2))
    for v, video in enumerate(videos):
        segments[v] = [[row[2], row[3]] for row in ground_truth if row[0] == video]
        labels[v] = [row[1] for row in ground_truth if row[0] == video]
    np.save(folder / "segments.npy", segments)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "videoname.npy", np.array(videos, "S"))
    np.save(folder / "subset.npy", np.array(["train" if video == "other" else subset for video in videos], "S"))
    np.save(folder / "classlist.npy", np.array(classes, "S"))
    return folder


def problem(rng, num_classes=3):
    """Half-unit times, few scores: equal overlaps, equal scores, empty intervals, thresholds met exactly."""
    names = [f"class {c}" for c in range(num_classes)]

    def rows(count):
        starts = rng.integers(0, 20, count) / 2
        ends = starts + rng.integers(0, 9, count) / 2
        videos, labels = rng.choice(["b", "a", "c"], count), rng.choice(names, count)
        return [(str(v), str(c), float(s), float(e)) for v, c, s, e in zip(videos, labels, starts, ends)]

    truth = rows(12)
    found = [(*row, float(score)) for row, score in zip(rows(30), rng.integers(0, 9, 30) / 8)]
    known = {row[1] for row in truth}
    by_video = [sorted(rows, key=lambda row: row[0]) for rows in (found, truth)]  # as files have them: ties hang on it
    return [row for row in by_video[0] if row[1] in known], by_video[1]


def assert_equals(evaluator, expected, index):
    for label, number in index.items():
        assert_allclose(evaluator.ap[:, number], expected.get(label, np.zeros(len(evaluator.ap))), rtol=0, atol=1e-12)
    assert_allclose(evaluator.mAP, evaluator.ap.mean(axis=1), atol=1e-15)


# ------------------------------------------------------------------ the official one
def test_the_official_evaluator_equals_its_loop(rng, tmp_path):
    nonzero = 0
    for _ in range(10):
        detections, truth = problem(rng)
        files = write_json(tmp_path, detections, truth, others=[("z", "class 0", 0.0, 9.0)])
        evaluator = anet.ANETdetection(*files, tiou_thresholds=SEVEN, subset="test", check_status=False)
        assert evaluator.ap is None
        assert evaluator.evaluate() is None
        expected = oracle.activitynet(detections, truth, SEVEN)
        assert_equals(evaluator, expected, evaluator.activity_index)
        order = [label for _, entry in json.loads(files[0].read_text())["database"].items() if entry["subset"] == "test"
                 for label in (one["label"] for one in entry["annotations"])]  # fmt: skip
        assert evaluator.activity_index == {label: i for i, label in enumerate(dict.fromkeys(order))}
        assert evaluator.ap.shape == (7, len(expected))
        assert evaluator.average_mAP == evaluator.mAP.mean()
        assert list(evaluator.ground_truth.columns) == COLUMNS
        assert list(evaluator.prediction.columns) == [*COLUMNS, "score"]
        assert evaluator.ground_truth["label"].dtype == np.int64
        assert evaluator.video_lst == evaluator.ground_truth["video-id"].tolist()
        assert (len(evaluator.ground_truth), len(evaluator.prediction)) == (len(truth), len(detections))
        nonzero += int((evaluator.ap > 0).sum())
        one = anet.compute_average_precision_detection(
            evaluator.ground_truth[evaluator.ground_truth["label"] == 0],
            evaluator.prediction[evaluator.prediction["label"] == 0],
        )
        label = next(iter(evaluator.activity_index))
        assert_allclose(one, oracle.activitynet(detections, truth, TEN)[label], atol=1e-12)
    assert nonzero > 50


@pytest.mark.parametrize("ious", ["a", "b"])
@pytest.mark.parametrize("name", ["rskp", "jitter"])
def test_published_map(golden, tmp_path, name, ious):
    arrays = golden("evaluation")
    names = arrays["classes"].tolist()
    seconds = arrays["gt_seconds"].tolist()
    truth = [(f"v{v}", names[c], s, e) for v, c, (s, e) in zip(arrays["gt_video"], arrays["gt_class"], seconds)]
    rows = arrays[f"{name}__detections"]
    found = [(f"v{int(v)}", names[int(c)], s * 0.64, e * 0.64, score) for v, c, s, e, score in rows]
    files = write_json(tmp_path, found, truth)
    thresholds, expected = arrays[f"iou_{ious}_linspace"], arrays[f"{name}__anet_{ious}_ap"]
    for evaluator in (
        anet.ANETdetection(*files, tiou_thresholds=thresholds, subset="test", check_status=False),
        hamnet.ANETdetection(*files, tiou_thresholds=thresholds, subset="test"),
        asmloc.ANETDetection(*files, tiou_thresholds=thresholds, subset="test"),
    ):
        evaluator.evaluate()
        columns = [evaluator.activity_index[label] for label in names]
        assert_allclose(evaluator.ap[:, columns], expected, rtol=0, atol=1e-9)

    folder = write_wtalc(tmp_path / "folder", truth, names)
    frame = pd.DataFrame(rows, columns=["video-id", "label", "t-start", "t-end", "score"])
    frame["video-id"] = [f"v{int(v)}" for v in rows[:, 0]]
    args = SimpleNamespace(path_dataset=str(tmp_path))
    thresholds, expected = arrays[f"iou_{ious}"], arrays[f"{name}__anet_snippet_{ious}_ap"]
    for evaluator in (
        co2net.ANETdetection("folder", thresholds, args=args),
        pmil.ANETdetection(str(folder), thresholds, subset="test"),
    ):
        evaluator.prediction = frame
        evaluator.evaluate()
        assert_allclose(evaluator.ap, expected, rtol=0, atol=1e-9)


# ------------------------------------------------------------------ what each copy does
def test_nothing_is_fetched(tmp_path):
    files = write_json(tmp_path, [("a", "x", 0.0, 1.0, 0.5)], [("a", "x", 0.0, 1.0)])
    with pytest.warns(UserWarning, match="blocked videos is not fetched"):
        evaluator = anet.ANETdetection(*files, subset="test")  # check_status=True is the default
    assert (evaluator.check_status, evaluator.blocked_videos) == (True, [])
    asmloc.ANETDetection(*files, subset="test")  # which never fetched anything, and warns of nothing


def test_labels_that_the_ground_truth_lacks(tmp_path, capsys):
    detections = [("a", "x", 0.0, 1.0, 0.5), ("a", "unknown", 0.0, 1.0, 0.9)]
    files = write_json(tmp_path, detections, [("a", "x", 0.0, 1.0)])
    for kind in (anet.ANETdetection, acmnet.ANETDetection, hamnet.ANETdetection):
        with pytest.raises(KeyError, match=r"'unknown' is not a label of the ground truth \(1 such labels\)"):
            kind(*files, subset="test", check_status=False)
    evaluator = asmloc.ANETDetection(*files, subset="test")
    assert len(evaluator.prediction) == 1
    assert evaluator.evaluate() == 1.0


def test_files_must_have_their_fields(tmp_path):
    truth, found = write_json(tmp_path, [], [("a", "x", 0.0, 1.0)])
    with pytest.raises(OSError, match="`ground_truth_filename` must be a ground truth file"):
        anet.ANETdetection()
    with pytest.raises(OSError, match="`prediction_filename` must be a prediction file"):
        anet.ANETdetection(truth)
    with pytest.raises(OSError, match=r"`prediction_filename` must have the fields .* 'results' is missing"):
        anet.ANETdetection(truth, truth, check_status=False)
    with pytest.raises(OSError, match=r"must have the fields \['nothing'\]"):
        anet.ANETdetection(truth, found, ["nothing"], check_status=False)
    (tmp_path / "short.json").write_text(json.dumps({"results": {}}))
    assert (
        len(anet.ANETdetection(truth, tmp_path / "short.json", None, ["results"], check_status=False).prediction) == 0
    )


@pytest.mark.parametrize("empty", ["predictions", "everything", "one class"])
def test_nothing_to_evaluate(tmp_path, empty):
    truth = [] if empty == "everything" else [("a", "x", 0.0, 1.0), ("a", "y", 0.0, 1.0)]
    detections = [("a", "x", 0.0, 1.0, 0.5)] if empty == "one class" else []
    evaluator = anet.ANETdetection(*write_json(tmp_path, detections, truth), subset="test", check_status=False)
    evaluator.evaluate()
    assert evaluator.ap.shape == (10, len(truth))
    assert_array_equal(evaluator.mAP, np.full(10, 0.5 if empty == "one class" else 0.0))


def test_verbose_prints(tmp_path, capsys):
    files = write_json(tmp_path, [("a", "x", 0.0, 1.0, 0.5)], [("a", "x", 0.0, 1.0)])
    anet.ANETdetection(*files, subset="test", check_status=False).evaluate()
    assert capsys.readouterr().out == ""
    anet.ANETdetection(*files, subset="test", check_status=False, verbose=True).evaluate()
    assert "test: 1 instances, 1 predictions" in (printed := capsys.readouterr().out)
    assert "Average-mAP: 1.0" in printed


def test_asmloc_and_acmnet(rng, tmp_path, capsys):
    detections, truth = problem(rng)
    files = write_json(tmp_path, detections, truth, others=[("z", "class 0", 0.0, 9.0)])
    nine = np.arange(0.1, 1.0, 0.1)

    class Logger(list):
        write = list.append

        def flush(self):
            self.append("flushed")

    logger = Logger()
    evaluator = asmloc.ANETDetection(*files, tiou_thresholds=nine, subset="test", dataset="THUMOS", logger=logger)
    average = evaluator.evaluate()
    assert_equals(evaluator, oracle.activitynet(detections, truth, nine), evaluator.activity_index)
    assert average == evaluator.average_mAP == evaluator.mAP[:7].mean() != evaluator.mAP.mean()
    for label, value in evaluator.ap_dict.items():
        assert value == pytest.approx(evaluator.ap[:7, evaluator.activity_index[label]].mean())
    assert list(evaluator.ap_dict.values()) == sorted(evaluator.ap_dict.values(), reverse=True)
    assert evaluator.activity_count == {
        label: sum(row[1] == label for row in truth) for label in evaluator.activity_index
    }
    assert logger[0] == capsys.readouterr().out
    assert f"Average-mAP: {average:.4f}" in logger[0]
    assert logger[1] == "flushed"
    assert len(asmloc.ANETDetection(*files, subset="full").ground_truth) == len(truth) + 1
    other = acmnet.ANETDetection(*files, tiou_thresholds=nine, subset="test")
    assert other.evaluate() == other.average_mAP == evaluator.mAP.mean()
    assert other.verbose
    assert len(asmloc.ANETDetection(*files, subset="test").tiou_thresholds) == 9


def test_the_basnet_family(rng, tmp_path):
    detections, truth = problem(rng)
    files = write_json(tmp_path, detections, truth)
    assert um.ANETdetection is lacp.ANETdetection is stpn.ANETdetection is basnet.ANETdetection
    for kind in (basnet.ANETdetection, cola.ANETdetection):
        evaluator = kind(*files, tiou_thresholds=SEVEN, subset="test")
        mean, average = evaluator.evaluate()
        assert_equals(evaluator, oracle.activitynet(detections, truth, SEVEN), evaluator.activity_index)
        assert mean is evaluator.mAP
        assert average == evaluator.average_mAP
    found = json.loads(files[1].read_text())
    files[1].write_text(json.dumps({"method": "[CoLA]", "results": found["results"]}))
    assert len(cola.ANETdetection(*files, subset="test").prediction) == len(detections)
    with pytest.raises(OSError, match="'version' is missing"):
        basnet.ANETdetection(*files, subset="test")


def test_hamnet(rng, tmp_path):
    detections, truth = problem(rng)
    truth_file, found = write_json(tmp_path, detections, truth)
    data = json.loads(truth_file.read_text())
    labels = [*sorted({row[1] for row in truth}), "never seen"]
    data["database"] = dict(reversed(data["database"].items()))
    data["class-list"] = {str(number): label for number, label in reversed([*enumerate(labels)])}
    truth_file.write_text(json.dumps(data))
    evaluator = hamnet.ANETdetection(truth_file, json.loads(found.read_text()), tiou_thresholds=SEVEN, subset="test")
    mean, average, frame = evaluator.evaluate()
    assert_equals(evaluator, oracle.activitynet(detections, truth, SEVEN), dict(zip(labels, range(9))))
    assert mean is evaluator.mAP
    assert average == evaluator.average_mAP
    assert evaluator.ground_truth["video-id"].is_monotonic_increasing
    assert evaluator.prediction["video-id"].is_monotonic_increasing
    assert list(frame.columns) == ["Name", *SEVEN, "mean"]
    assert list(frame.index) == [*range(len(labels)), "mean"]
    assert_allclose(frame.loc["mean", [*SEVEN]].to_numpy(float), 100 * mean)
    assert_allclose(frame.loc[0, "mean"], 100 * evaluator.ap[:, 0].mean())
    assert frame.loc["mean", "mean"] == pytest.approx(100 * average)
    assert frame.loc[0, "Name"].strip() == labels[0]


@pytest.mark.parametrize("codebase", [co2net, pmil])
def test_snippets(rng, tmp_path, codebase):
    """Times of the ground truth are rounded, half to even; the class in the middle has no instances."""
    names = ["class 0", "class 1", "class 2"]
    for case in range(5):
        detections, truth = problem(rng)
        truth = [(v, c, 0.64 * s, 0.64 * e) for v, c, s, e in truth if c != "class 1"]
        detections = [row for row in detections if row[1] != "class 1"]
        folder = write_wtalc(tmp_path / f"folder{case}", truth, names)
        (folder / "Ambiguous_test.txt").write_text("a  1.0 2.0\n")
        frame = pd.DataFrame(detections, columns=["video-id", "label", "t-start", "t-end", "score"])
        frame["label"] = frame["label"].map(names.index).astype(float)
        expected = oracle.activitynet_snippet(detections, truth, SEVEN)
        known = sorted({row[1] for row in truth})
        if codebase is co2net:
            evaluator = co2net.ANETdetection(str(folder), SEVEN)
            assert evaluator.activity_index == {i: names.index(label) for i, label in enumerate(known)}
            assert evaluator.templabelidx == [names.index(label) for label in known]
            assert evaluator.classlist.tolist() == names
            assert evaluator.ambilist == [["a", "1.0", "2.0"]]
            assert evaluator.videoname.tolist() == list(dict.fromkeys(row[0] for row in truth))
        else:
            evaluator = pmil.ANETdetection(str(folder), SEVEN, subset="test")
            assert evaluator.activity_index == dict(zip(names, range(3)))
        evaluator.prediction = frame
        result = evaluator.evaluate()
        columns = dict(zip(known, range(9))) if codebase is co2net else evaluator.activity_index
        assert_equals(evaluator, expected, columns)
        if codebase is co2net:
            assert result is evaluator.mAP
        else:
            assert result[0] is evaluator.mAP
            assert result[1] is evaluator.ap
        assert evaluator.ground_truth[["t-start", "t-end"]].dtypes.eq(np.int64).all()
    with pytest.raises(OSError, match="`annotation_path` must be a folder"):
        pmil.ANETdetection()
