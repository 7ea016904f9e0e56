"""Kinds of errors against a literal oracle, ceilings that must be above, and reports that agree with their parts."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tal_postproc as tpp
from tal_postproc import cli, config, diagnosis, formats, plotting
from tal_postproc.evaluation import PROTOCOLS
from tal_postproc.types import ERROR_KINDS, Segments, UnitError, Video

from .oracles import evaluation as oracle
from .test_bootstrap import FOUND, TRUTH, columns, random_rows


def without(rows, kinds, error):
    return [row for row, kind in zip(rows, kinds) if kind != error]


# ------------------------------------------------------------------ kinds of errors
@pytest.mark.parametrize("seed", range(8))
def test_kinds_equal_the_oracle(seed):
    found, truth = random_rows(np.random.default_rng(seed), num_found=120)
    for threshold, background in [(0.5, 0.1), (0.3, 0.3), (0.75, 0.5)]:
        options = {"tiou_threshold": threshold, "background_threshold": background}
        result = diagnosis.error_breakdown(columns(found), columns(truth), multiples=2, **options)
        kinds, missed = oracle.error_kinds(found, truth, threshold, background)
        assert [None if kind < 0 else ERROR_KINDS[kind] for kind in result.kinds] == kinds

        counts = np.zeros_like(result.counts)
        for k, label in enumerate(result.classes):
            rows = sorted((i for i, d in enumerate(found) if d[1] == label), key=lambda i: -found[i][4])
            number = sum(g[1] == label for g in truth)
            for rank, i in enumerate(rows):
                counts[min(rank // number, 2), k, ERROR_KINDS.index(kinds[i])] += 1
        assert_array_equal(result.counts, counts)

        ap = oracle.activitynet(found, truth, [threshold])
        assert_allclose(result.per_class, [ap[label][0] for label in result.classes], atol=1e-12)
        for e, error in enumerate(ERROR_KINDS[1:]):
            fewer = oracle.activitynet(without(found, kinds, error), truth, [threshold])
            gains = [fewer[label][0] - ap[label][0] for label in result.classes]
            assert_allclose(result.gains[:, e], gains, atol=1e-12)
        assert_allclose(result.average_gains, result.gains.mean(axis=0))

        length = [truth[j][3] - truth[j][2] for j in missed]
        expected = [sum(low < x <= high for x in length) for low, high in [(-1, 3), (3, 6), (6, 99)]]
        assert_array_equal(result.missed["length"].missed.sum(axis=0)[:3], expected)
        assert result.missed["length"].total.sum() == len(truth)


@pytest.mark.parametrize("label", [0, 1])
def test_of_equal_overlaps_the_own_class_counts(label):
    """THUMOS14 annotates every cliff diving as diving, too."""
    twice = {"video": ["a", "a"], "segments": [[0, 10], [0, 10]]}
    found = {**twice, "segments": [[0, 10], [0, 9]], "labels": [label, label], "scores": [0.9, 0.8]}
    assert diagnosis.error_breakdown(found, {**twice, "labels": [0, 1]}).kinds.tolist() == [0, 1]
    found["segments"] = [[0, 10], [0, 3]]
    assert diagnosis.error_breakdown(found, {**twice, "labels": [0, 1]}).kinds.tolist() == [0, 3]


def test_kinds_of_the_other_protocols():
    """Overlaps are those of the protocol: [0, 2.9] covers 2 whole snippets of 4."""
    truth = Segments([[0, 4]], unit="snippet")
    found = Segments([[0.9, 2.9], [0, 2.9]], scores=[0.9, 0.5], unit="snippet")
    kinds = {
        name: diagnosis.error_breakdown(found, truth, protocol=name).kinds.tolist()
        for name in ("activitynet", "wtalc_interpolated")
    }
    assert kinds == {"activitynet": [0, 1], "wtalc_interpolated": [0, 1]}
    strict = {
        name: diagnosis.error_breakdown(found, truth, protocol=name, tiou_threshold=0.6).kinds.tolist()
        for name in ("activitynet", "wtalc_interpolated")
    }
    assert strict == {"activitynet": [3, 0], "wtalc_interpolated": [3, 3]}


def test_bins():
    truth = Segments(
        [[0, 3], [0, 3.5], [10, 28], [0, 18.5], [5, 6]],
        [0, 0, 0, 1, 0],
        offsets=[0, 4, 5, 5],
        unit="second",
        video_ids=["a", "b", "c"],
    )
    nothing = Segments(np.empty((0, 2)), offsets=[0, 0, 0, 0], unit="second", video_ids=["a", "b", "c"])
    result = diagnosis.error_breakdown(nothing, truth, durations=[900.0, np.nan, 5.0])
    assert result.missed["length"].bins == ("XS", "S", "M", "L", "XL")
    assert result.missed["length"].total.tolist() == [[2, 1, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert result.missed["coverage"].total.tolist() == [[3, 0, 0, 0, 0], [0, 1, 0, 0, 0]]  # 18 / 900 is on the end
    assert result.missed["instances"].bins == ("XS", "S", "M", "L")
    assert result.missed["instances"].total.tolist() == [[1, 3, 0, 0], [1, 0, 0, 0]]
    for one in result.missed.values():
        assert_array_equal(one.missed, one.total)
    long = diagnosis.error_breakdown(nothing, truth, bins="activitynet")
    assert long.missed["length"].total.sum(axis=0).tolist() == [5, 0, 0, 0, 0]
    assert list(long.missed) == ["length", "instances"]
    unknown = diagnosis.error_breakdown(nothing, truth, durations=[np.nan] * 3)
    assert list(unknown.missed) == ["length", "instances"]
    snippets = diagnosis.error_breakdown(nothing.to_snippets(0.5), truth.to_snippets(0.5), snippets_per_second=2.0)
    assert_array_equal(snippets.missed["length"].total, result.missed["length"].total)


def test_breakdown_options_reach_the_matching():
    spans = {"video": ["b"], "segments": [[0, 4]]}
    assert diagnosis.error_breakdown(FOUND, TRUTH).kinds.tolist() == [0, 0, 5]
    assert diagnosis.error_breakdown(FOUND, TRUTH, ambiguous=spans).kinds.tolist() == [0, -1, 5]
    assert diagnosis.error_breakdown(FOUND, TRUTH, names=["jump"]).names == ("jump",)
    assert diagnosis.error_breakdown(FOUND, TRUTH).names == ("class 0",)


def test_breakdown_of_nothing():
    nothing = {"video": [], "labels": [], "segments": np.empty((0, 2)), "scores": []}
    result = diagnosis.error_breakdown(nothing, nothing)
    assert result.counts.shape == (11, 0, 6)
    assert (result.average, result.average_gains.tolist()) == (0.0, [0.0] * 5)
    assert "true positive" in result.table()
    assert diagnosis.error_breakdown(nothing, TRUTH).average == 0.0
    assert diagnosis.error_breakdown(FOUND, nothing).kinds.tolist() == [-1, -1, -1]


def test_breakdown_table():
    text = diagnosis.error_breakdown(FOUND, TRUTH).table().splitlines()
    assert text[1].split() == ["true", "positive", "2", "66.7%"]
    assert text[6].split() == ["background", "1", "33.3%", "+0.00"]
    assert text[7] == "missed by length: M 33%"
    assert len(text) == 9
    spans = {"video": [FOUND["video"][0]], "segments": [FOUND["segments"][0]]}
    more = diagnosis.error_breakdown({**FOUND, "labels": [0, 0, 5]}, TRUTH, ambiguous=spans).table().splitlines()
    assert more[7] == "not counted              2: on ambiguous spans, or of a class without instances"
    assert len(more) == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tiou_threshold": 0.0}, ValueError, "`tiou_threshold` must be above 0"),
        ({"background_threshold": 0.6}, ValueError, "`background_threshold` must be at most 0.5, got 0.6"),
        ({"multiples": 0}, ValueError, "`multiples` must be at least 1, got 0"),
        ({"bins": "charades"}, ValueError, "`bins`"),
        ({"durations": [1, 2, 3]}, ValueError, "`durations` need `ground_truth` to be Segments"),
        ({"names": []}, ValueError, "`names` must name every label up to 0, got 0 names"),
    ],
)
def test_breakdown_errors(options, error, message):
    with pytest.raises(error, match=message):
        diagnosis.error_breakdown(FOUND, TRUTH, **options)


def test_relative_units_are_refused():
    with pytest.raises(UnitError, match="`ground_truth` must be in seconds or snippets"):
        diagnosis.error_breakdown({**FOUND, "unit": "relative"}, {**TRUTH, "unit": "relative"})


# ------------------------------------------------------------------ ceilings
def one_map(*columns):
    return Video("v", {"cas": np.array(columns, float).T}, seconds_per_snippet=2.0)


def pipeline(*thresholds, classes=None, stages=()):
    return config.Pipeline(banks=(config.Bank(thresholds=thresholds),), classes=classes, stages=stages)


def averages(result):
    return {name: round(one.average, 6) for name, one in result.results.items()}


def test_ceilings_by_hand():
    """The true run has the lower score; a class that the video does not show is found, too."""
    video = one_map([0.9, 0, 0, 0.6, 0.6, 0, 0, 0], [0.8] * 8)
    truth = Segments([[6, 10]], unit="second", video_ids=["v"])
    result = diagnosis.ceilings([video], truth, pipeline(0.5), tiou_thresholds=[0.5])
    assert averages(result) == {
        "as it is": 0.5,
        "oracle ranking": 1.0,
        "oracle classes": 0.5,
        "oracle boundaries": 0.5,
        "all three": 1.0,
        "best threshold": 0.5,
        "best threshold per class": 0.5,
    }


def test_oracle_classes_searches_what_the_video_shows():
    video = Video("v", {"cas": np.array([[1.0, 1.0], [1.0, 1.0], [0, 0]])}, {"video": np.array([0.9, 0.1])}, 1.0)
    truth = Segments([[0, 2]], [1], unit="second", video_ids=["v"])
    chosen = pipeline(0.5, classes=config.Classes(threshold=0.5))
    result = diagnosis.ceilings([video], truth, chosen, tiou_thresholds=[0.5])
    assert (result.results["as it is"].average, result.results["oracle classes"].average) == (0.0, 1.0)
    assert result.results["oracle classes"].num_detections.tolist() == [1]


def test_oracle_classes_drops_what_the_video_does_not_show():
    maps = {"a": [[0.6, 0.6, 0], [0.9, 0.9, 0]], "b": [[0.8, 0.8, 0], [0.7, 0.7, 0]]}  # every video fires on both
    videos = [Video(name, {"cas": np.array(cas).T}, seconds_per_snippet=1.0) for name, cas in maps.items()]
    truth = Segments([[0, 2], [0, 2]], [0, 1], offsets=[0, 1, 2], unit="second", video_ids=["a", "b"])
    result = diagnosis.ceilings(videos, truth, pipeline(0.5), tiou_thresholds=[0.5])
    assert result.results["as it is"].per_class.tolist() == [[0.5, 0.5]]
    for name in ("oracle classes", "all three"):
        assert result.results[name].per_class.tolist() == [[1.0, 1.0]]
        assert result.results[name].num_detections.tolist() == [1, 1]


def test_oracle_boundaries_move_what_is_near():
    video = one_map([1, 1, 0, 0, 0, 1])
    truth = Segments([[0, 20]], unit="second", video_ids=["v"])  # the runs are [0, 4] and [10, 12]
    for beta, expected in [(0.1, 1.0), (0.3, 0.0)]:
        options = {"background_threshold": beta, "tiou_thresholds": [0.5]}
        result = diagnosis.ceilings([video], truth, pipeline(0.5), **options)
        assert result.results["as it is"].average == 0.0
        assert result.results["oracle boundaries"].average == expected
        assert result.results["all three"].average == expected


def test_best_thresholds():
    video = one_map([0.3, 0.9, 0.9, 0.3, 0, 0], [0.9, 0.4, 0.4, 0.4, 0, 0])
    truth = Segments([[2, 6], [0, 8]], [0, 1], unit="second", video_ids=["v"])
    result = diagnosis.ceilings([video], truth, pipeline(0.2, 0.35, 0.8), tiou_thresholds=[0.6, 0.9])
    assert result.thresholds.tolist() == [0.2, 0.35, 0.8]
    assert result.threshold_per_class.tolist() == [0.35, 0.2]
    assert result.results["best threshold"].per_class.tolist() == [[1, 1], [1, 1]]
    assert result.results["best threshold"].average == 1.0
    other = diagnosis.ceilings([video], truth, pipeline(0.2, 0.8), tiou_thresholds=[0.6])
    assert other.threshold_per_class.tolist() == [0.8, 0.2]
    assert averages(other)["best threshold"] == 0.5
    assert other.results["best threshold per class"].per_class.tolist() == [[1.0, 1.0]]
    assert other.results["best threshold per class"].num_detections.tolist() == [1, 1]


@pytest.mark.parametrize("protocol", ["activitynet", "wtalc_interpolated", "actionformer"])
def test_ceilings_are_above_on_synthetic_videos(protocol):
    data = tpp.synthetic.make_videos(12, seed=1)
    chain = tpp.presets.get("rskp")
    result = diagnosis.ceilings(data.videos, data.ground_truth, chain, protocol=protocol, num_threads=1)
    found = Segments.concatenate(tpp.PostProcessor(chain).process(data.videos))
    plain = found if protocol == "wtalc_interpolated" else found.to_seconds(0.64)
    whole = tpp.mean_average_precision(plain, data.ground_truth, protocol=protocol, empty_class="zero_ap")
    assert_allclose(result.results["as it is"].per_class, whole.per_class, rtol=0, atol=1e-12)
    values = averages(result)
    for name in ("oracle ranking", "oracle boundaries", "all three"):
        assert values[name] > values["as it is"]
    assert values["best threshold per class"] >= values["best threshold"]
    other = diagnosis.ceilings(data.videos, data.ground_truth, chain, protocol=protocol, num_threads=2)
    assert averages(other) == values


def test_ceilings_options_reach_the_evaluation():
    video = one_map([1, 1, 0, 0, 1, 1])
    truth = Segments([[0, 4]], unit="second", video_ids=["v"])
    spans = Segments([[8, 12]], unit="second", video_ids=["v"])
    options = {"ambiguous": spans, "snippets_per_second": 0.5}
    result = diagnosis.ceilings([video], truth, pipeline(0.5), **options)
    assert result.results["as it is"].num_detections.tolist() == [1]
    assert diagnosis.ceilings([video], truth, pipeline(0.5)).results["as it is"].num_detections.tolist() == [2]
    wrong_rate = diagnosis.ceilings([video], truth, pipeline(0.5), protocol="wtalc")
    right_rate = diagnosis.ceilings([video], truth, pipeline(0.5), protocol="wtalc", snippets_per_second=0.5)
    assert wrong_rate.results["as it is"].average < right_rate.results["as it is"].average == 1.0


def test_ceilings_take_the_thresholds_of_the_pipeline_unless_given():
    truth = Segments([[0, 4]], unit="second", video_ids=["v"])
    high = replace(pipeline(0.5), tiou_thresholds=(0.6, 0.8))
    for chain, given, expected in [
        (high, {}, [0.6, 0.8]),
        (high, {"tiou_thresholds": [0.5]}, [0.5]),
        (pipeline(0.5), {}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
    ]:
        result = diagnosis.ceilings([one_map([1, 1, 0])], truth, chain, **given)
        assert {tuple(one.tiou_thresholds) for one in result.results.values()} == {tuple(expected)}


def test_ceilings_table():
    video = one_map([0.9, 0, 0, 0.6, 0.6, 0, 0, 0])
    truth = Segments([[6, 10]], unit="second", video_ids=["v"])
    lines = diagnosis.ceilings([video], truth, pipeline(0.5), tiou_thresholds=[0.3, 0.5]).table().splitlines()
    assert lines[0].split() == ["mAP", "in", "%,", "tIoU", "0.3", "0.5", "avg", "gain"]
    assert lines[2].split() == ["oracle", "ranking", "100.00", "100.00", "100.00", "+50.00"]
    assert len(lines) == 8


def test_ceilings_of_nothing():
    nothing = Segments(np.empty((0, 2)), unit="second", video_ids=["v"])
    result = diagnosis.ceilings([one_map([1, 0])], nothing, pipeline(0.5))
    assert set(averages(result).values()) == {0.0}
    assert diagnosis.ceilings([], nothing, pipeline(0.5)).results["as it is"].average == 0.0


def test_ceilings_errors():
    truth = Segments([[6, 10]], unit="second", video_ids=["v"])
    with pytest.raises(TypeError, match="`ground_truth` must be Segments, got dict"):
        diagnosis.ceilings([], TRUTH, pipeline(0.5))
    with pytest.raises(TypeError, match="`pipeline` must be a config"):
        diagnosis.ceilings([], truth, "rskp")
    with pytest.raises(ValueError, match="`background_threshold` must be above 0"):
        diagnosis.ceilings([], truth, pipeline(0.5), background_threshold=0)
    with pytest.raises(ValueError, match="`protocol`"):
        diagnosis.ceilings([], truth, pipeline(0.5), protocol="x")
    with pytest.raises(ValueError, match="`seconds_per_snippet` is needed"):
        diagnosis.ceilings([Video("v", {"cas": np.ones((3, 1))})], truth, pipeline(0.5))


# ------------------------------------------------------------------ for a paper
def test_report_is_made_of_its_parts():
    found, truth = (columns(rows) for rows in random_rows(np.random.default_rng(6), num_found=200))
    worse = {key: value if key == "unit" else value[::2] for key, value in found.items()}
    options = {"num_resamples": 40, "seed": 3, "level": 0.9, "num_threads": 1}
    spans = {"video": ["v1"], "segments": [[0, 4]]}
    common = {"ambiguous": spans, "snippets_per_second": 2.0, "tiou_thresholds": "0.3:0.7"}
    names = ["actionformer", "wtalc"]
    report = diagnosis.paper_report(found, truth, baseline=worse, protocols=names, **common, **options)
    assert list(report.results) == list(report.spreads) == list(report.comparisons) == names
    for protocol in names:
        one = tpp.mean_average_precision(found, truth, protocol=protocol, **common)
        assert_array_equal(report.results[protocol].per_class, one.per_class)
        pair = tpp.paired_bootstrap(found, worse, truth, protocol=protocol, **common, **options)
        assert_array_equal(report.comparisons[protocol].differences, pair.differences)
        assert report.comparisons[protocol].interval == pair.interval
        assert report.spreads[protocol].std == pair.detections.std
        assert report.averages(protocol) == {"0.3:0.7": one.average_over("0.3:0.7")}
    alone = diagnosis.paper_report(found, truth, protocols=["wtalc"], **common, **options)
    assert alone.comparisons == {}
    assert alone.spreads["wtalc"].std == report.spreads["wtalc"].std


def test_report_covers_every_protocol_and_average():
    report = diagnosis.paper_report(FOUND, TRUTH, num_resamples=2)
    assert list(report.results) == list(PROTOCOLS)
    assert list(report.averages("activitynet")) == ["0.1:0.5", "0.3:0.7", "0.1:0.7"]
    single = diagnosis.paper_report(FOUND, TRUTH, num_resamples=2, tiou_thresholds=[0.5])
    assert single.averages("activitynet") == {"avg": 2 / 3}


def test_latex_row():
    report = diagnosis.paper_report(
        FOUND, TRUTH, num_resamples=2, name="Ours_1 {&}", protocols=["opentad", "wtalc"], tiou_thresholds=[0.5]
    )
    assert report.latex() == r"Ours\_1 \{\&\} & 66.7 & 66.7 \\"
    assert report.latex("wtalc") == report.latex()
    with pytest.raises(ValueError, match="`protocol`"):
        report.latex("activitynet")


def test_report_table():
    same = diagnosis.paper_report(FOUND, TRUTH, baseline=FOUND, protocols=["activitynet"], num_resamples=9)
    head, row, comparison = same.table().splitlines()
    assert head.split()[4:] == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.1:0.5", "0.3:0.7", "0.1:0.7", "std"]
    assert row.split()[:-1] == ["activitynet", *["66.67"] * 10]
    assert comparison == (
        "activitynet: +0.00 against the baseline, 95 % interval +0.00 to +0.00, two-sided p = 1.000; within noise"
    )
    best, none = ({**FOUND, "segments": np.add(TRUTH["segments"], away)} for away in (0, 100))
    better = diagnosis.paper_report(best, TRUTH, baseline=none, protocols=["activitynet"], num_resamples=9)
    assert "within noise" not in better.table()


@pytest.mark.parametrize("protocols", [[], "activitynet"])
def test_report_needs_protocols(protocols):
    with pytest.raises(ValueError, match="`protocols` must be a sequence of at least one name"):
        diagnosis.paper_report(FOUND, TRUTH, protocols=protocols)


# ------------------------------------------------------------------ pictures
@pytest.fixture
def breakdown():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tal_postproc[plot]'")
    data = tpp.synthetic.make_videos(8, seed=0)
    found = Segments.concatenate(tpp.PostProcessor.from_preset("rskp").process(data.videos)).to_seconds(0.64)
    durations = data.annotations.durations
    return diagnosis.error_breakdown(found, data.ground_truth, durations=durations, names=data.classes)


def heights(bars):
    return [bar.get_height() for bar in bars]


def widths(bars):
    return [bar.get_width() for bar in bars]


def drawn_words(figure):
    return [text.get_text() for text in figure.texts]


def test_picture_of_all_classes(breakdown):
    figure = plotting.errors(breakdown)
    profile, gains, missed, classes = figure.axes
    counts = breakdown.counts[:-1].sum(axis=1)
    last = int(np.flatnonzero(counts.sum(axis=1)).max()) + 1
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for kind in range(6):
        assert_allclose(heights(profile.containers[kind])[:last], shares[:last, kind])
    assert_allclose(widths(gains.containers[0]), 100 * breakdown.average_gains)
    of = breakdown.missed["length"]
    total, gone = of.total.sum(axis=0), of.missed.sum(axis=0)
    expected = [100 * gone[b] / total[b] for b in range(5) if total[b]]
    assert_allclose([bar.get_height() for bar in missed.patches][: len(expected)], expected)
    assert missed.get_xticklabels()[0].get_text() == "XS\n≤3"
    worst = np.argsort(breakdown.per_class, kind="stable")[:20]
    assert [tick.get_text() for tick in classes.get_yticklabels()] == [breakdown.names[k] for k in worst]
    best = breakdown.counts[0, worst]
    assert_allclose(widths(classes.containers[0]), 100 * best[:, 0] / np.maximum(best.sum(axis=1), 1))
    assert drawn_words(figure)[0] == "All classes"
    assert f"mAP {100 * breakdown.average:.1f} %" in drawn_words(figure)[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ERROR_KINDS)


def test_picture_of_one_class(breakdown):
    k = 1
    figure = plotting.errors(breakdown, label=int(breakdown.classes[k]))
    assert len(figure.axes) == 3
    assert drawn_words(figure)[0] == breakdown.names[k]
    assert_allclose(widths(figure.axes[1].containers[0]), 100 * breakdown.gains[k])
    first = breakdown.counts[0, k]
    assert_allclose([bars[0].get_height() for bars in figure.axes[0].containers], 100 * first / first.sum())


def test_picture_goes_to_a_file(breakdown, tmp_path):
    plotting.errors(breakdown, size=(900, 700), path=tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (900, 700)


def test_picture_of_nothing(breakdown):
    nothing = {"video": [], "labels": [], "segments": np.empty((0, 2)), "scores": []}
    assert "mAP 0.0 %" in drawn_words(plotting.errors(diagnosis.error_breakdown(nothing, nothing)))[1]
    assert "3 instances" in drawn_words(plotting.errors(diagnosis.error_breakdown(nothing, TRUTH)))[1]


def test_picture_errors(breakdown):
    with pytest.raises(ValueError, match="`label` must be a class of the breakdown, got 99"):
        plotting.errors(breakdown, label=99)
    with pytest.raises(ValueError, match="`size` must be at least 100"):
        plotting.errors(breakdown, size=(10, 600))
    with pytest.raises(TypeError, match="`breakdown` must be an ErrorBreakdown, got dict"):
        plotting.errors({})


# ------------------------------------------------------------------ the command
@pytest.fixture
def files(tmp_path):
    data = tpp.synthetic.make_videos(6, seed=3)
    formats.write_tcams(tmp_path / "tcams.npz", data.videos, classes=data.classes, annotations=data.annotations)
    found = Segments.concatenate(tpp.PostProcessor.from_preset("rskp").process(data.videos)).to_seconds(0.64)
    other = found.select(found.scores > np.median(found.scores))
    for name, rows in (("found", found), ("other", other)):
        formats.write_detections(tmp_path / f"{name}.json", rows, classes=data.classes)
    return tmp_path, data, found, other


def run(folder, *arguments):
    fixed = ["report", folder / "found.json", "--annotations", folder / "tcams.npz", "--resamples", 20]
    return cli.main([str(argument) for argument in (*fixed, *arguments)])


def test_command_prints_the_report(files, capsys):
    folder, data, found, other = files
    assert run(folder, "--baseline", folder / "other.json", "--seed", 4, "--tiou", "0.3:0.7", "--threads", 1) == 0
    expected = diagnosis.paper_report(
        found, data.ground_truth, baseline=other, tiou_thresholds="0.3:0.7", num_resamples=20, seed=4
    )
    assert capsys.readouterr().out == expected.table() + "\n"


def test_command_latex(files, capsys):
    folder, data, found, _ = files
    assert run(folder, "--latex", "--name", "RSKP", "--protocol", "wtalc,activitynet") == 0
    expected = diagnosis.paper_report(found, data.ground_truth, protocols=["wtalc"], name="RSKP", num_resamples=2)
    assert capsys.readouterr().out == expected.latex() + "\n"


def test_command_draws_errors(files, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tal_postproc[plot]'")
    folder, data, found, _ = files
    picture = folder / "errors.png"
    options = ("--protocol", "opentad", "--bins", "activitynet")
    assert run(folder, "--errors", picture, *options, "--snippets-per-second", 2) == 0
    breakdown = diagnosis.error_breakdown(
        found,
        data.ground_truth,
        protocol="opentad",
        bins="activitynet",
        durations=data.annotations.durations,
        snippets_per_second=2,
    )
    assert capsys.readouterr().out.endswith(f"{picture} shows them\n{breakdown.table()}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_command_leaves_out_ambiguous_spans(files, capsys):
    folder, data, *_ = files
    spans = Segments([[0, 60]], offsets=[0, 1, *[1] * 5], unit="second", video_ids=data.annotations.video_ids)
    marked = replace(data.annotations, ambiguous=spans)
    formats.write_tcams(folder / "tcams.npz", data.videos, classes=data.classes, annotations=marked)
    printed = []
    for options in ((), ("--keep-ambiguous",)):
        assert run(folder, "--latex", "--protocol", "activitynet", *options) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] != printed[1]


def test_command_mistakes(files, capsys):
    folder, *_ = files
    assert run(folder, "--protocol", "coco") == 2
    assert "error: `protocol` must be one of" in capsys.readouterr().err
    assert run(folder, "--threads", 0) == 2
    assert "error: `num_threads` must be at least 1, got 0" in capsys.readouterr().err
    assert run(folder, "--errors", folder / "errors.bmp") == 2
    assert "error: `path` must be one of" in capsys.readouterr().err
