"""The loop of the examples and their data: what resumes, what is refused, files of exactly the published layouts."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest

from tal_postproc import FormatError, cli

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from tal_postproc.examples import data, engine, mil  # noqa: E402

SMOKE = mil.Mil.profiles["smoke"]


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


# ---------------------------------------------------------------------------------------------------------------- data


def test_features_depend_on_the_seed_and_on_nothing_else(small):
    again = data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)
    fewer = data.synthetic_features(5, 1, num_rgb=8, num_flow=8, num_classes=3)
    other = data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3, seed=1)
    for index in range(5):
        assert np.array_equal(small.train.features(index), again.train.features(index))
        assert np.array_equal(small.train.features(index), fewer.train.features(index))
    assert small.train.features(0).shape != other.train.features(0).shape
    assert np.array_equal(small.train.features(5), fewer.test.features(0))  # the sets are one list, cut
    assert small.train.features(0).dtype == np.float32
    assert small.train.features(0).shape[1] == 16


def test_an_action_shows_in_the_features():
    """Without noise, context and cuts the core of an action differs from the rest of the video, and so do classes."""
    easy = data.Difficulty(noise=0.0, context=0.0, cuts=0.0)
    found = data.synthetic_features(8, 0, num_classes=2, difficulty=easy).train
    for index in range(8):
        features = found.features(index)
        times = (np.arange(len(features)) + 0.5) * found.seconds_per_snippet(index, len(features))
        truth = found.annotations.segments.video(index).segments
        half = found.seconds_per_snippet(index, len(features)) / 2
        inside = ((times[:, None] + half > truth[:, 0]) & (times[:, None] - half < truth[:, 1])).any(axis=1)
        assert np.ptp(features[~inside], axis=0).max() < 1e-6
        assert np.linalg.norm(features[inside] - features[~inside][:1], axis=1).max() > 0.3


@pytest.mark.parametrize("name", ["signal", "rest", "core", "context", "cuts", "noise"])
def test_every_difficulty_counts(name, small):
    changed = data.Difficulty(**{name: 0.7 * getattr(data.Difficulty(), name)})
    other = data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3, difficulty=changed)
    assert not np.array_equal(small.train.features(0), other.train.features(0))


def test_modalities_differ_and_have_their_sizes():
    found = data.synthetic_features(1, 1, num_rgb=8, num_flow=24, num_classes=2).train
    assert found.num_rgb == 8
    assert found.features(0).shape[1] == 32


def test_labels_are_the_classes_of_the_annotations(small):
    for row, truth in zip(small.train.labels, small.train.annotations.segments.split()):
        assert set(np.flatnonzero(row)) == set(truth.labels)


def test_sampling():
    found = data.synthetic_features(1, 0, num_classes=2).train
    whole = found.features(0)
    row_of = {row.tobytes(): t for t, row in enumerate(whole)}

    def chosen(length, rng=None):
        return np.array([row_of[row.tobytes()] for row in found.sample(0, length, rng)])

    assert chosen(10).tolist() == [i * len(whole) // 10 for i in range(10)]
    for length in (10, 2 * len(whole)):  # more snippets than there are repeat them
        drawn = np.stack([chosen(length, np.random.default_rng(k)) for k in range(200)])
        edges = np.arange(length + 1) * len(whole) // length
        assert (drawn >= edges[:-1]).all()
        assert (drawn <= np.maximum(edges[1:] - 1, edges[:-1])).all()
        if length == 10:
            assert (drawn.max(axis=0) > drawn.min(axis=0)).all()


def write_wtalc(root, features, *, dtype=np.float32, protocol=None):
    """Files of the published layout: 3 validation and 2 test videos."""
    folder = root / "Thumos14reduced-Annotations"
    folder.mkdir(parents=True)

    def objects(items):
        out = np.empty(len(items), object)
        out[:] = items
        return out

    names = [b"val_0", b"test_0", b"val_1", b"val_2", b"test_1"]
    np.save(folder / "videoname.npy", np.array(names))
    np.save(folder / "subset.npy", np.array([b"validation" if n.startswith(b"val") else b"test" for n in names]))
    np.save(folder / "segments.npy", objects([[[1.0, 2.0]], [[0.0, 3.0], [4.0, 5.0]], [[2.0, 2.5]], [[0.5, 1.0]], []]))
    np.save(folder / "labels.npy", objects([["Run"], ["Jump", "Run"], ["Jump"], ["Run"], []]))
    np.save(folder / "classlist.npy", np.array([b"Jump", b"Run"]))
    arrays = objects([array.astype(dtype) for array in features])
    path = root / "Thumos14reduced-I3D-JOINTFeatures.npy"
    if protocol is None:
        np.save(path, arrays)
    else:
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (len(arrays),)})
            pickle.dump(arrays, file, protocol=protocol)


@pytest.fixture
def matrices():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, 2048)).astype(np.float32) for length in (5, 9, 1, 4, 3)]


@pytest.mark.parametrize("protocol", [None, 2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_layout_of_wtalc(tmp_path, matrices, protocol, dtype):
    write_wtalc(tmp_path, matrices, protocol=protocol, dtype=dtype)
    found = data.read_wtalc(tmp_path)
    assert found.train.ids == ("val_0", "val_1", "val_2")
    assert found.test.ids == ("test_0", "test_1")
    assert found.train.num_rgb == 1024
    assert found.test.labels.tolist() == [[True, True], [False, False]]
    for part, rows in ((found.train, (0, 2, 3)), (found.test, (1, 4))):
        for index, row in enumerate(rows):
            expected = matrices[row].astype(dtype).astype(np.float32)
            assert part.features(index).dtype == np.float32
            assert np.array_equal(part.features(index), expected)
    assert found.train.seconds_per_snippet(0, 5) == 16 / 25


class Evil:
    def __reduce__(self):
        return (print, ("called",))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Evil()] * 5, r"the name builtins.print is not allowed"),
        ([np.zeros(3, np.float32)] * 5, "no matrix of floats"),
        ([np.zeros((2, 3), np.int64)] * 5, "no matrix of floats"),
        ([[1.0, 2.0]] * 5, "item 0 is no array"),
        ([np.zeros((2, 4), np.float32)] * 4, r"one array per video \(5\), got 4"),
        ([np.zeros((2, 3), np.float32)] * 5, "as many RGB as flow columns, got 3"),
    ],
)
def test_other_features_are_refused(tmp_path, matrices, items, message, capsys):
    write_wtalc(tmp_path, matrices)
    held = np.empty(len(items), object)
    held[:] = items
    np.save(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", held)
    with pytest.raises(FormatError, match=message):
        data.read_wtalc(tmp_path).train.features(0)
    assert capsys.readouterr().out == ""


def test_truncated_and_large_features_are_refused(tmp_path, matrices):
    write_wtalc(tmp_path, matrices)
    path = tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy"
    with pytest.raises(FormatError, match="at most 1000 bytes"):
        data.read_wtalc(tmp_path, max_bytes=1000)
    whole = path.read_bytes()
    for cut in (130, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match="pickle"):
            data.read_wtalc(tmp_path)
    path.write_bytes(whole + b"!")
    with pytest.raises(FormatError, match="1 bytes after the end"):
        data.read_wtalc(tmp_path)


def test_features_that_are_not_finite_are_refused(tmp_path, matrices):
    matrices[2][0, 0] = np.nan
    write_wtalc(tmp_path, matrices)
    with pytest.raises(ValueError, match=r"features of 'val_1' must be finite"):
        data.read_wtalc(tmp_path).train.features(1)


def write_activitynet(root, present):
    database = {
        "a": {"subset": "training", "duration": 20.0, "annotations": [{"segment": [1, 5], "label": "Run"}]},
        "b": {"subset": "validation", "duration": 8.0, "annotations": [{"segment": [1, 2], "label": "Jump"}]},
        "c": {"subset": "training", "duration": 10.0, "annotations": [{"segment": [0, 9], "label": "Jump"}]},
    }
    (root / "anet.json").write_text(json.dumps({"version": "1.3", "database": database}))
    for name, array in present.items():
        np.save(root / f"{name}.npy", array)


def test_the_layout_of_activitynet(tmp_path):
    arrays = {"v_a": np.ones((10, 6)), "b": np.full((4, 6), 2.0), "c": np.full((5, 6), 3.0, np.float16)}
    write_activitynet(tmp_path, arrays)
    found = data.read_activitynet(tmp_path, tmp_path / "anet.json")
    assert (found.train.ids, found.test.ids) == (("a", "c"), ("b",))
    assert found.train.features(0).tolist() == np.ones((10, 6)).tolist()
    assert found.train.features(1).dtype == np.float32
    assert found.train.num_rgb == 3
    assert found.train.seconds_per_snippet(0, 10) == 2.0
    assert found.test.seconds_per_snippet(0, 4) == 2.0


def test_activitynet_leaves_out_videos_without_a_file(tmp_path):
    write_activitynet(tmp_path, {"v_a": np.ones((10, 6)), "b": np.ones((4, 6))})
    assert data.read_activitynet(tmp_path, tmp_path / "anet.json").train.ids == ("a",)
    (tmp_path / "b.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no features of the 1 videos of subset 'validation'"):
        data.read_activitynet(tmp_path, tmp_path / "anet.json")


# -------------------------------------------------------------------------------------------------------------- engine


def bits(recipe_run, folder):
    """Everything that training made, but the clock."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    rows = [row[:-1] for row in csv.reader((folder / "log.csv").read_text().splitlines())]
    weights = {name: value.numpy().tobytes() for name, value in state["recipe"]["networks"].items()}
    return weights, rows, recipe_run.trained.per_threshold.tolist(), recipe_run.detections.scores.tobytes()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small):
    whole = engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path / "whole"))
    engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path / "parts", stop_after=1))
    torch.rand(5)
    engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path / "parts", stop_after=3, resume=True))
    with open(tmp_path / "parts" / "log.csv", "a") as file:  # a row whose checkpoint was never written
        file.write("3,0,0,0\n")
    parts = engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path / "parts", resume=True))
    assert bits(whole, tmp_path / "whole") == bits(parts, tmp_path / "parts")
    other = engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path / "other", seed=1))
    assert bits(whole, tmp_path / "whole")[0] != bits(other, tmp_path / "other")[0]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, small):
    engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path, stop_after=1))
    with pytest.raises(ValueError, match=r"made with other settings \(seed: 0 then, 1 now\)"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path, resume=True, seed=1))
    torch.save({"a": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(FormatError, match="not a checkpoint of these examples"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path, resume=True))


def test_files_of_a_run(tmp_path, small):
    said = []
    result = engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path), said.append)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[-1]["classification"]) < float(rows[0]["classification"])
    assert (tmp_path / "log.txt").read_text().splitlines() == said
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["trained"][-1] == result.trained.average
    assert found["untrained"][-1] == result.untrained.average
    assert json.loads((tmp_path / "detections.json").read_text())["results"]
    engine.train(mil.Mil, small, engine.Run(profile="smoke", output=tmp_path, epochs=2))
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3  # a new run begins new files


def test_what_is_refused(small):
    with pytest.raises(ValueError, match=r"`profile` must be one of smoke, default, paper, got 'huge'"):
        engine.train(mil.Mil, small, engine.Run(profile="huge"))
    with pytest.raises(ValueError, match=r"`options` must be among none, got width"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", options={"width": 3}))
    with pytest.raises(ValueError, match="`device` must be one that torch can use here, got 'abacus': Expected one of"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", device="abacus"))
    with pytest.raises(ValueError, match="`device` must be one that torch can use here, got 'cuda:99'"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", device="cuda:99"))
    with pytest.raises(ValueError, match="`resume` needs `output`"):
        engine.train(mil.Mil, small, engine.Run(profile="smoke", resume=True))


class Broken(mil.Mil):
    def losses(self, epoch, index):
        return {"classification": super().losses(epoch, index)["classification"] * float("nan")}


def test_a_loss_that_is_not_finite_ends_the_training(small):
    with pytest.raises(ValueError, match="a loss is not finite in epoch 0"):
        engine.train(Broken, small, engine.Run(profile="smoke"))


def test_mixed_precision_trains(small):
    plain = engine.train(mil.Mil, small, engine.Run(profile="smoke"))
    mixed = engine.train(mil.Mil, small, engine.Run(profile="smoke", amp=True))
    assert np.isfinite(mixed.detections.scores).all()
    assert not np.array_equal(plain.detections.scores, mixed.detections.scores)


def test_evaluation_mode_during_prediction_and_training_mode_after_it(small):
    recipe = mil.Mil(small.train, SMOKE, 0, torch.device("cpu"))
    recipe.networks.train()
    modes = []
    for _ in recipe.videos(small.train, [1, 0]):
        modes.append(recipe.networks.training)
    assert modes == [False, False]
    assert recipe.networks.training
    assert [video.id for video in recipe.videos(small.train, [1, 0])] == [small.train.ids[1], small.train.ids[0]]


def test_the_sum_and_the_mean_of_gradients(small):
    steps = {}
    for reduction in ("sum", "mean"):
        torch.manual_seed(0)
        recipe = mil.Mil(small.train, SMOKE, 0, torch.device("cpu"))
        recipe.networks.eval()  # no Dropout
        recipe.reduction = reduction
        recipe.optimizer = torch.optim.SGD(recipe.networks.parameters(), 1.0)
        before = [parameter.detach().clone() for parameter in recipe.networks.parameters()]
        recipe.step(0, [0, 1, 2, 3], lambda: torch.autocast("cpu", enabled=False))
        steps[reduction] = [after.detach() - old for after, old in zip(recipe.networks.parameters(), before)]
    for summed, mean in zip(steps["sum"], steps["mean"]):
        torch.testing.assert_close(summed, 4 * mean)


def test_one_video_can_be_learnt_by_heart():
    one = data.synthetic_features(1, 1, num_rgb=8, num_flow=8, num_classes=3)
    said = []
    engine.train(mil.Mil, one, engine.Run(profile="smoke", epochs=600), said.append)
    last = float(next(line for line in said if line.startswith("epoch 600/600")).split("loss ")[1].split()[0])
    assert last < np.log(one.train.labels.sum()) + 0.1  # the least that shared labels allow


def test_the_command(tmp_path, capsys):
    arguments = ["train", "mil", "--profile", "smoke", "--epochs", "1", "-o", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "mil, untrained" in capsys.readouterr().out
    assert cli.main([*arguments, "--learning-rate", "0"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["trained"] == result["untrained"]
    assert result["settings"]["learning_rate"] == 0
    assert cli.main([*arguments, "--set", "nothing=1"]) == 2
    assert "`options` must be among none, got nothing" in capsys.readouterr().err
    assert cli.main([*arguments, "--wtalc", "a", "--activitynet", "b", "c"]) == 2
    assert "give one" in capsys.readouterr().err
    assert cli.main([*arguments, "--set", "nothing"]) == 2
    assert "--set must look like name=value, got 'nothing'" in capsys.readouterr().err
