"""ASM-Loc and ACM-Net under their own names: against published output, and against literal loops."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import acmnet, asmloc

from .oracles import compat_asmloc as oracle
from .oracles import compat_attention, pipelines

CAS, ATTENTION = np.arange(0.15, 0.25, 0.05), np.arange(0.1, 0.925, 0.025)


def detections_of(cas, attention, scores, t_factor, sums, duration):
    """The loop of the original's `test`, with our functions in it: rows [class, score, start, end]."""
    classes = np.where(scores > 0.25)[0] if scores.max() > 0.25 else np.array([np.argmax(scores)])
    fine = asmloc.upgrade_resolution(cas[:, classes][:, :, None], 20)
    act = asmloc.upgrade_resolution(np.repeat(attention[:, None, None], len(classes), axis=1), 20)
    by_class = {}
    for own, thresholds in ((fine, CAS), (act, ATTENTION)):
        for threshold in thresholds:
            zeroed = np.where(own < threshold, 0, own)
            found = [np.where(zeroed[:, i] >= threshold) for i in range(len(classes))]
            scored = zeroed if own is fine else fine
            options = {"dynamic_segment_weights_cumsum": sums, "vid_duration": duration}
            for rows in asmloc.get_proposal_oic(found, scored, classes, scores, t_factor, 0.2, 0.0, **options):
                if len(rows):
                    by_class.setdefault(rows[0][0], []).extend(rows)
    return [row for rows in by_class.values() for row in asmloc.nms(rows, 0.45)]


@pytest.mark.parametrize("part", ["plain_", "warp_"])
def test_published_detections(golden, part):
    inputs, arrays = golden("tcams"), golden("asmloc")
    fragile = arrays[f"{part}fragile_pairs"].tolist()
    compared = 0
    for v in range(len(inputs["names"])):
        here = slice(*inputs["offsets"][v : v + 2])
        length, v_len = here.stop - here.start, arrays["v_len"][v]
        sums = arrays["warp_cumsum"][slice(*arrays["warp_offsets"][v : v + 2])] if part == "warp_" else None
        found = np.array(
            detections_of(
                inputs["tcam"][here, :20],
                inputs["attention"][here],
                inputs["video_scores"][v, :20],
                16 * v_len / (25 * 20 * length),
                sums,
                16 * v_len / 25,
            )
        ).reshape(-1, 4)
        expected = arrays[f"{part}detections"][slice(*arrays[f"{part}det_offsets"][v : v + 2]), 1:]
        for c in range(20):
            mine, theirs = (rows[rows[:, 0] == c] for rows in (found, expected))
            if [v, c] not in fragile:
                mine, theirs = (rows[np.lexsort(rows.round(6).T)] for rows in (mine, theirs))  # duplicates, ties
                assert_allclose(mine, theirs, rtol=0, atol=1e-6, err_msg=str(inputs["names"][v]))
                compared += len(theirs)
    assert compared > 1000


@pytest.mark.parametrize("options", [{}, {"lamb": 0.5}, {"gamma": 0.7}])
def test_proposals_equal_their_loop(rng, options):
    for length in (1, 2, 3, 30, 80):
        scores = rng.normal(size=(length, 4, 1))
        final, c_pred = rng.random(6), np.array([1, 5, 0, 2])
        found = [np.where(scores[:, c] > level) for c, level in enumerate((-0.2, 0.4, -9, 9))]
        found[2] = (np.zeros(1, np.int64),)  # a run of step 0 alone
        sums = np.cumsum(np.append(0.0, 1 + rng.random(9)))
        before, renamed = scores.copy(), {"lambda_": options.get("lamb", 0.25), "gamma": options.get("gamma", 0.2)}
        for warp in (None, oracle.warp(sums.tolist(), 0.5 * length)):  # the last steps lie beyond its end
            given = {} if warp is None else {"dynamic_segment_weights_cumsum": sums, "vid_duration": 0.5 * length}
            mine = asmloc.get_proposal_oic(found, scores, c_pred, final, 0.64, **options, **given)
            theirs = compat_attention.proposals(found, scores, final, c_pred, 0.64, min_length=2, warp=warp, **renamed)
            assert [len(rows) for rows in mine] == [len(rows) for rows in theirs]
            for ours, expected in zip(mine, theirs):
                assert_allclose(np.reshape(ours, (-1, 4)), np.reshape(expected, (-1, 4)), rtol=0, atol=1e-12)
                assert all(isinstance(x, np.float64) for row in ours for x in row[1:])
        assert_array_equal(scores, before)
        plain = asmloc.get_proposal_oic(found, scores, c_pred, final, 0.64, **options)
        assert acmnet.get_proposal_oic(found, scores[:, :, 0], c_pred, final, 0.64, *renamed.values()) == plain
        mine = asmloc.get_temp_proposal(found, scores, c_pred, final[:4], 0.64)
        theirs = oracle.temp_proposals(found, scores[:, :, 0], c_pred, final[:4], 0.64)
        assert len(mine) == len(theirs) == 4
        for ours, expected in zip(mine, theirs):
            assert_allclose(np.reshape(ours, (-1, 4)), np.reshape(expected, (-1, 4)), rtol=0, atol=1e-12)
    assert asmloc.get_proposal_oic([], np.zeros((3, 0, 1)), [], [], 1.0) == []
    with pytest.raises(ValueError, match="`vid_duration` is needed"):
        asmloc.get_proposal_oic([(np.array([1, 2]),)], scores[:, :1], [0], [1.0], 1.0, 0.2, 0.0, sums)


# ------------------------------------------------------------------------------------------------- training
NAMES = ["Diving", "HighJump", "Shotput"]


def arguments(tmp_path, dataset="THUMOS", **others):
    numbers = {"cls_threshold": 0.25, "nms_thresh": 0.45, "alpha": 0.7, "delta": 0.5, "gamma": 6}
    return SimpleNamespace(
        dataset=dataset,
        device="cpu",
        save_dir=str(tmp_path),
        action_cls_num=3,
        test_upgrade_scale=20,
        segment_frames_num=16,
        frames_per_sec=25,
        class_name_lst=NAMES,
        **(numbers | others),
    )


def bumps(rng, length, width):
    steps = rng.normal(size=(length, width)).cumsum(axis=0)
    return np.clip((steps - steps.min(axis=0)) / np.ptp(steps, axis=0) + rng.normal(scale=0.02, size=steps.shape), 0, 1)


@pytest.mark.parametrize(("dataset", "warped"), [("THUMOS", False), ("THUMOS", True), ("ActivityNet", True)])
def test_pseudo_segments_equal_the_loop(rng, tmp_path, dataset, warped):
    torch = pytest.importorskip("torch")
    if dataset == "THUMOS":
        chain, numbers = pipelines.asmloc, {}
        thresholds = {"cas_thresholds": [], "attention_thresholds": np.arange(0.4, 0.925, 0.025)}
    else:
        chain, numbers = pipelines.asmloc_anet, {"cls_threshold": 0.1, "nms_thresh": 0.9}
        thresholds = {"cas_thresholds": np.arange(0.1, 0.305, 0.005), "attention_thresholds": []}
    outputs, batches = {}, []
    for v, length in enumerate((20, 33, 50)):
        maps = bumps(rng, length, 5)
        scores = rng.random(4) * (0.2 if v == 1 else 1.0)  # one video without a class above the threshold
        sums = np.cumsum(np.append(0.0, 1 + rng.random(length))) if warped else None
        outputs[f"video_validation_{v}"] = maps, scores
        nothing = torch.zeros(1)
        batches.append(
            [[f"video_validation_{v}"], torch.zeros(1, length, 2), nothing, [length + 3], nothing, [0], 0, [sums]]
        )

    class Model:
        def eval(self):
            self.evaluates = True

        def __call__(self, feature, **options):
            maps, scores = outputs[options["vid_name"][0]]
            cas, attention = torch.tensor(maps[None, :, :4]), torch.tensor(maps[None, :, 4:])
            return torch.tensor(scores[None]), None, attention, None, cas, None, None

    model, args = Model(), arguments(tmp_path, dataset, **numbers)
    found = asmloc.generate_pseudo_segment(args, model, batches, step=2)
    assert model.evaluates
    assert json.loads((tmp_path / "pseudo_proposals_step2.json").read_text()) == found
    assert set(found) == {"version", "results", "class_score", "external_data"}
    for (name, (maps, scores)), batch in zip(outputs.items(), batches):
        end, sums = 16 * batch[3][0] / 25, batch[7][0]
        warp = None if sums is None else (sums / sums[-1] * end, np.linspace(0, end, len(sums)))
        rows = chain(
            maps[:, :4],
            maps[:, 4],
            scores[:3].tolist(),
            end / len(maps),
            **thresholds,
            warp=warp,
        )
        mine = [[NAMES.index(one["label"]), *one["segment"], one["score"]] for one in found["results"][name]]
        assert_allclose(np.reshape(mine, (-1, 4)), rows, rtol=0, atol=1e-9)


def predictions(rng, count):
    starts = rng.random(count) * 60
    return [
        {"label": NAMES[rng.integers(3)], "score": float(p), "segment": [float(s), float(s + l)]}
        for s, l, p in zip(starts.round(1), (rng.random(count) * 6).round(1), rng.random(count))
    ]


@pytest.mark.parametrize("others", [{}, {"alpha": 0.3, "delta": 0, "gamma": 10}])
def test_sampling_weights_equal_their_loop(rng, tmp_path, others):
    args = arguments(tmp_path, **others)
    shown = [{"label": name, "segment": [0.0, 1.0]} for name in NAMES[:2]]
    results, lengths = {}, {"video_validation_1": 90, "video_test_1": 70, "video_test_2": 5}
    entry = {"annotations": shown}
    args.gt_dict = dict.fromkeys(lengths, entry)
    for part, name in (("train", "video_validation_1"), ("test", "video_test_1"), ("test", "video_test_2")):
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", np.zeros((lengths[name], 2), np.float32))
        results[name] = predictions(rng, 0 if name == "video_test_2" else 25)
    asmloc.generate_dynamic_segment_weights(args, {"results": results}, 3, data_dir=str(tmp_path / "data"))
    raised = 0
    for name, rows in results.items():
        kept = []
        for label in NAMES[:2] if "validation" in name else NAMES:
            mine = [[*one["segment"], one["score"]] for one in rows if one["label"] == label]
            kept += oracle.selected(mine, args.alpha) if mine else []
        found = np.load(tmp_path / "dynamic_segment_weights_pred_step3" / f"{name}.npy")
        assert_allclose(found, oracle.weights(kept, lengths[name], args.delta, args.gamma), rtol=0, atol=1e-12)
        raised += int((found > 1).sum())
    assert raised > 5
    with pytest.raises(FileNotFoundError, match="`data_dir` must have the features of 'video_test_1'"):
        asmloc.generate_dynamic_segment_weights(args, {"results": {"video_test_1": []}}, 3, data_dir=str(tmp_path))


def test_segments_of_the_data_set(rng):
    names = ["video_validation_1", "video_test_1", "video_other"]
    shown = {"annotations": [{"label": "HighJump", "segment": [1, 2]}], "subset": "train"}
    dataset = SimpleNamespace(
        data_list=names,
        gt_dict=dict.fromkeys(names, shown),
        dataset="THUMOS",
        action_class_num=3,
        action_class_idx_dict={name: i for i, name in enumerate(NAMES)},
    )
    results = {name: predictions(rng, 40) for name in names}
    for rows in results.values():
        for one in rows[:20]:
            one["segment"][0] = float(
                int(one["segment"][0] / 9) * 9
            )  # equal starts, of which the later row counts first
    results[names[0]].append(results[names[0]][0] | {"score": 0.1})
    asmloc.get_proposals(dataset, {"results": results})
    for name, labels in zip(names, (["HighJump"], NAMES, [])):
        rows = [
            row
            for label in labels
            for row in sorted(
                [[*one["segment"], one["score"], label] for one in results[name] if one["label"] == label],
                key=lambda row: -row[2],
            )
        ]
        assert dataset.pseudo_segment_dict_all[name] == rows
        assert dataset.pseudo_segment_dict_att[name] == oracle.outermost(rows)
        assert dataset.label_dict[name].tolist() == [0, 1, 0]
        assert dataset.gt_action_dict[name] == [[1, 2, 1.0, "HighJump"]]
    dataset.dataset = "ActivityNet"
    asmloc.get_proposals(dataset, {"results": results})
    assert {row[3] for row in dataset.pseudo_segment_dict_all["video_test_1"]} == {"HighJump"}


@pytest.mark.parametrize("with_sums", [False, True])
def test_painted_labels_equal_their_loop(rng, with_sums):
    index = {name: i for i, name in enumerate(NAMES)}
    for vid_len, output_len in ((60, 60), (75, 40), (3, 8)):
        rows = [[*one["segment"], one["score"], one["label"]] for one in predictions(rng, 20)]
        rows = [[s * vid_len / 100, e * vid_len / 100, score, label] for s, e, score, label in rows]
        for length in (vid_len, vid_len + 1):  # sums of another length count as none
            sums = np.cumsum(np.append(0.0, 1 + rng.random(length))) if with_sums else None
            found = asmloc.pseudo_instance_label(rows, np.array([1, 0, 1.0]), output_len, vid_len, index, sums)
            expected = oracle.painted(
                rows, [1, 0, 1], output_len, vid_len, index, None if sums is None else sums.tolist()
            )
            assert_allclose(found, expected, rtol=0, atol=1e-6)
            assert found.dtype == np.float32
    assert asmloc.pseudo_instance_label([], [1, 0, 0], 4, 4, index).tolist() == [[0, 0, 0, 1]] * 4
