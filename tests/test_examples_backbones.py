"""The plug-in backbones against their formulas, alone, and under RSKP."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from scipy.ndimage import gaussian_filter1d  # noqa: E402

from tal_postproc import PostProcessor, cli, presets  # noqa: E402
from tal_postproc.compat import stpn as published_stpn  # noqa: E402
from tal_postproc.examples import backbones, data, engine, plain, rskp  # noqa: E402
from tal_postproc.examples.backbones.bm import smooth  # noqa: E402
from tests.oracles import backbones as oracle  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size
CPU = torch.device("cpu")
NAMES = ["rskp", "stpn", "bm", "wum", "facnet", "basnet"]
LABELS = torch.tensor([True, False, True])


def made(name, num_features=5, width=4, training=False, length=40, num_classes=3):
    """A backbone in float64, and what its head gets."""
    torch.manual_seed(3)
    backbone = backbones.get(name)(num_features, width, num_classes).double().train(training)
    embedding = torch.rand(length, backbone.width, dtype=torch.float64) * 3 - 0.5
    return backbone, embedding


def arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def attention_of(backbone, x):
    first, _, second, _ = backbone.attention
    return oracle.attention(x, *arrays(first.weight, first.bias, second.weight, second.bias))


def assert_losses(backbone, output, expected):
    found = backbone.losses(output, LABELS[: output.logits.shape[1] - 1])
    assert tuple(found) == backbone.terms
    np.testing.assert_allclose([value.item() for value in found.values()], expected, rtol=1e-9)


# -------------------------------------------------------------------------------------------------------- one by one


def test_stpn_against_its_formulas():
    backbone, embedding = made("stpn")
    output = backbone.head(embedding)
    (x,) = arrays(embedding)
    attention = attention_of(backbone, x)
    cam, scores, losses = oracle.stpn(
        x, attention, *arrays(backbone.classifier.weight, backbone.classifier.bias), LABELS.tolist()
    )
    np.testing.assert_allclose(output.attention.detach(), attention)
    np.testing.assert_allclose(output.logits.detach(), np.pad(cam, ((0, 0), (0, 1))))
    np.testing.assert_allclose(output.scores.detach(), [*scores, 0.0])
    assert_losses(backbone, output, losses)


def test_stpn_is_tested_as_published():
    """Against the functions of the published code, with one stream in place of two."""
    backbone, embedding = made("stpn", length=60)
    with torch.no_grad():
        backbone.attention[2].weight.mul_(20)
        backbone.attention[2].bias.sub_(3)
        maps, _ = backbone.maps(backbone.head(embedding))
    video = plain.Video("v", {key: value.numpy() for key, value in maps.items()}, {"video": np.array([0.9, 0.1, 0.2])})
    (found,) = PostProcessor(backbone.pipeline).process([video])
    logits, attention = maps["logits"].numpy(), maps["attention"].numpy()[:, None]
    chosen = [0, 2]  # 0.1 is not above 0.1
    fine = published_stpn.interpolated_wtCAM(published_stpn.get_wtCAM(logits, logits, attention, 0.5, chosen), 24)
    runs = published_stpn.get_tempseg_list(fine, 2)
    rows = published_stpn.get_temp_proposal(runs, fine, chosen, 24, 400 * 10 / 16)  # a snippet is a second
    expected = sorted((row[0], row[2], row[3], row[1]) for of_class in rows for row in of_class)
    assert len(expected) > 4
    ours = sorted(zip(found.labels, *found.segments.T, found.scores))
    np.testing.assert_allclose(np.array(ours, float), np.array(expected, float), atol=1e-9)


@pytest.mark.parametrize("length", [1, 3, 30])
def test_smoothing_in_time(length):
    values = np.random.default_rng(0).random((length, 3))
    expected = gaussian_filter1d(values, 1.0, axis=0, mode="nearest")
    np.testing.assert_allclose(smooth(torch.from_numpy(values)), expected, rtol=1e-12)
    np.testing.assert_allclose(oracle.gaussian(list(values[:, 0])), expected[:, 0])


def test_bm_against_its_formulas():
    backbone, embedding = made("bm")
    output = backbone.head(embedding)
    (x,) = arrays(embedding)
    attention = attention_of(backbone, x)
    weight, bias, clusters = arrays(backbone.classifier.weight, backbone.classifier.bias, backbone.clusters)
    scores, losses = oracle.bm(x, attention, weight, bias, clusters, LABELS.tolist())
    np.testing.assert_allclose(output.logits.detach(), x @ weight.T)
    np.testing.assert_allclose(output.scores.detach(), scores)
    assert_losses(backbone, output, losses)


def test_bm_takes_features_as_they_are():
    backbone, _ = made("bm", num_features=7, width=4)
    features = torch.rand(3, 7, dtype=torch.float64)
    assert backbone.width == 7
    assert torch.equal(backbone.embed(features), features)


def test_bm_is_tested_on_the_product_of_attention_and_scores_between_its_ends():
    """A bump of 8 snippets on a floor; class 0 has it in the scores, class 1 in the attention."""
    backbone, _ = made("bm", num_classes=2)
    bump = np.where((np.arange(40) >= 16) & (np.arange(40) < 24), 0.9, 0.5)
    cas = np.stack([np.ones(40), 0.1 * np.ones(40), np.zeros(40)], axis=1)  # the last one is background
    video = plain.Video("v", {"cas": cas, "attention": bump}, {"video": np.array([0.1, 0.09, 0.81])})
    (found,) = PostProcessor(backbone.pipeline).process([video])
    assert found.segments.tolist() == [[16, 24]]
    assert found.labels.tolist() == [0]
    assert found.scores.tolist() == [pytest.approx(1.0)]  # inner 1, outer 0: between the ends of the product
    sloped = np.interp(np.arange(40), [0, 20, 39], [0, 1, 0])
    (found,) = PostProcessor(backbone.pipeline).process(
        [plain.Video("v", {"cas": cas, "attention": sloped}, {"video": np.array([0.5, 0.0, 0.5])})]
    )
    longest = found.segments[np.argmax(np.diff(found.segments, axis=1))]
    assert longest.tolist() == [1, 39]  # above 0
    assert backbone.pipeline.banks[0].thresholds == pytest.approx([0.025 * k for k in range(10)])


def test_the_guide_of_bm_teaches_the_attention_alone():
    backbone, embedding = made("bm")
    backbone.losses(backbone.head(embedding), LABELS)["guide"].backward()
    assert backbone.classifier.weight.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.attention.parameters())


@pytest.mark.parametrize("length", [1, 8, 40])
def test_wum_against_its_formulas(length):
    backbone, embedding = made("wum", length=max(length, 2))
    output = backbone.head(embedding)
    (f,) = arrays(embedding)
    attention, scores, losses = oracle.wum(f, *arrays(backbone.classifier.weight), LABELS.double().numpy(), width=4)
    np.testing.assert_allclose(output.attention.detach(), attention, atol=1e-12)
    np.testing.assert_allclose(output.scores.detach(), [*scores, 0.0])
    np.testing.assert_array_equal(output.logits[:, -1].detach(), 0.0)
    assert_losses(backbone, output, losses)


def test_wum_of_one_snippet_has_no_attention():
    backbone, embedding = made("wum", length=1)
    assert backbone.head(embedding).attention.tolist() == [0.0]


def test_wum_by_hand():
    """Nine snippets of lengths 1 to 9, of a network of the published width: the longest is action."""
    torch.manual_seed(0)
    backbone = backbones.get("wum")(1, 2048, 2).eval()
    embedding = torch.zeros(9, 2048)
    embedding[:, 0] = torch.arange(1.0, 10.0)
    output = backbone.head(embedding)  # background: 1 and 2
    torch.testing.assert_close(output.attention, torch.tensor([0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]) / 7.5)
    found = backbone.losses(output, torch.tensor([True, False]))
    assert found["magnitude"].item() == pytest.approx(5e-4 * (100 - 9 + 1.5) ** 2)


def test_wum_chooses_among_the_snippets_that_a_random_mask_leaves():
    """In training, one mask for action and background: what it drops is in neither."""
    backbone = backbones.get("wum")(1, 4, 2).train()
    embedding = torch.zeros(400, 4)
    embedding[:, 0] = torch.linspace(1, 2, 400)
    shares = []
    for seed in range(5):
        torch.manual_seed(seed)
        lengths = backbone.head(embedding).extra["lengths"] / math.sqrt(2048 / 4)
        shares.append(lengths.tolist())
    # 120 of 400 are left, the 44 longest of these are action: about the longest third of all; the 100 shortest of
    # what is left are background: about the shortest five sixths
    action, background = np.mean(shares, axis=0)
    assert action == pytest.approx(2 - 44 / 120 / 2, abs=0.04)
    assert background == pytest.approx(1 + 100 / 120 / 2, abs=0.04)
    assert len({action for action, _ in shares}) == 5


def test_wum_is_tested_by_its_preset():
    backbone, embedding = made("wum")
    maps, scores = backbone.maps(backbone.head(embedding))
    assert maps["cas"].shape == (40, 3)
    torch.testing.assert_close(maps["cas"].sum(-1), torch.ones(40, dtype=torch.float64))
    assert scores["video"].shape == (3,)
    published = presets.get("um_thumos")
    assert (backbone.pipeline.banks, backbone.pipeline.num_classes) == (published.banks, 3)


def test_facnet_against_its_formulas():
    backbone, embedding = made("facnet")
    output = backbone.head(embedding)
    (x,) = arrays(embedding)
    centres, foreground = arrays(backbone.centres, backbone.foreground)
    np.testing.assert_array_equal(foreground[0], -centres[-1])
    logits, scores, losses = oracle.facnet(x, centres, foreground[0], LABELS.tolist())
    np.testing.assert_allclose(output.logits.detach(), logits)
    np.testing.assert_allclose(output.scores.detach(), scores)
    assert_losses(backbone, output, losses)
    maps, _ = backbone.maps(output)
    np.testing.assert_allclose(maps["cas"].detach(), [oracle.softmax(list(row)) for row in logits])
    assert backbone.pipeline.to_dict() == {**presets.get("facnet_thumos").to_dict(), "num_classes": 3}


# ------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_gradients(name):
    torch.manual_seed(0)
    backbone = backbones.get(name)(5, 4, 3)
    output = backbone(torch.rand(30, 5))
    width = backbone.width
    assert output.embedding.shape == (30, width)
    assert output.attention.shape == (30,)
    assert output.logits.shape == (30, 4)
    assert output.scores.shape == (4,)
    for values in (output.attention, output.scores):
        assert ((values >= 0) & (values <= 1)).all()
    assert set(backbone.extra_terms) <= set(backbone.terms)
    torch.stack(list(backbone.losses(output, LABELS).values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())
    for length in (1, 2):  # RSKP asks the head about a few representative snippets
        few = backbone.head(torch.rand(length, width))
        assert all(torch.isfinite(value).all() for value in (few.logits, few.attention, few.scores))


def test_unknown_backbones_are_refused():
    with pytest.raises(ValueError, match=r"option `backbone` must be one of rskp, stpn, .*, got 'i3d'"):
        backbones.get("i3d")


# ------------------------------------------------------------------------------------------------------------- loops


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


def recipe_of(small, kind, name, **options):
    base = kind.profiles["smoke"].options
    torch.manual_seed(0)
    profile = engine.Profile(width=8, epochs=4, options={**base, "backbone": name, **options})
    recipe = kind(small.train, profile, 0, CPU)
    recipe.networks.eval()  # no Dropout
    return recipe


def test_a_recipe_trains_a_backbone_as_published(small):
    trained = {
        name: (
            recipe.batch_size,
            recipe.reduction,
            recipe.optimizer.defaults["betas"][1],
            recipe.optimizer.defaults["weight_decay"],
            {group["lr"] for group in recipe.optimizer.param_groups if group["params"]},
            recipe.backbone.length,
        )
        for name in NAMES
        for recipe in [recipe_of(small, plain.Plain, name)]
    }
    of_features = 1e-3 * 2048 / 16  # of which there are 16
    assert trained == {
        "rskp": (10, "sum", 0.99, 5e-4, {1e-3}, None),
        "stpn": (6, "mean", 0.999, 0.0, {1e-3}, 400),
        "bm": (16, "mean", 0.999, 5e-4, {of_features, 1e-3}, 400),
        "wum": (16, "mean", 0.999, 5e-4, {1e-3}, 750),
        "facnet": (10, "sum", 0.99, 5e-3, {1e-3}, None),
        "basnet": (16, "mean", 0.999, 5e-4, {1e-3}, 750),
    }


def test_random_snippets_in_training_and_regular_ones_in_a_test(small):
    recipe = recipe_of(small, plain.Plain, "stpn")
    recipe.backbone.length = 40  # these videos are short
    length = len(small.train.features(2))
    whole = small.train.features(2)
    row_of = {row.tobytes(): t for t, row in enumerate(whole)}
    regular, first, second, again = (
        [row_of[row.numpy().tobytes()] for row in recipe.snippets(small.train, 2, epoch)] for epoch in (None, 0, 1, 0)
    )
    assert regular == [i * length // 40 for i in range(40)]
    assert first == again
    assert first != second
    edges = np.arange(41) * length // 40
    assert all(a <= t < b for a, t, b in zip(edges, first, edges[1:]))
    (video,) = recipe.videos(small.test, [1])
    original = len(small.test.features(1))
    assert video.maps["cas"].shape == (40, 3)
    assert video.seconds_per_snippet == pytest.approx(small.test.seconds_per_snippet(1, original) * original / 40)
    np.testing.assert_array_equal(recipe_of(small, plain.Plain, "facnet").snippets(small.train, 2, 0), whole)


@pytest.mark.parametrize("name", NAMES)
def test_alone_a_backbone_has_its_own_losses(small, name):
    recipe = recipe_of(small, plain.Plain, name)
    found = recipe.losses(1, 0)
    output = recipe.backbone(recipe.snippets(small.train, 0, 1))
    expected = recipe.backbone.losses(output, recipe.labels[0])
    extra = sum(expected[term].item() for term in recipe.backbone.extra_terms)
    assert found["extra"].item() == pytest.approx(extra)
    assert found["classification"].item() == pytest.approx(
        sum(value.item() for value in expected.values()) - extra, rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_under_rskp_all_branches_share_the_head_and_extra_losses_meet_the_first_alone(small, name):
    recipe = recipe_of(small, rskp.Rskp, name)
    recipe.before_epoch(2, len)
    labels = recipe.labels[0]
    backbone = recipe.backbone
    output = backbone(recipe.snippets(small.train, 0, 2))
    means = rskp.summarize(output.embedding, recipe.means)
    slots = recipe.memory.read(labels.nonzero()[:, 0]).clone()
    assert means.shape[1] == slots.shape[1] == backbone.width
    branches = [
        backbone.head(rskp.random_walk(output.embedding, to, rskp.assign(output.embedding, to)))
        for to in (means, slots)
    ]
    parts = [recipe.of_backbone(branch, labels) for branch in (output, *branches)]
    found = recipe.losses(2, 0)
    expected = sum(weight * part["classification"].item() for weight, part in zip((1, 1, 0.5), parts))
    assert found["classification"].item() == pytest.approx(expected, rel=1e-4)
    assert found["extra"].item() == pytest.approx(parts[0]["extra"].item(), rel=1e-5)
    wanted = torch.softmax((0.8 * branches[0].logits + 0.2 * branches[1].logits) / 0.2, -1)
    wrong = -(wanted * torch.log_softmax(output.logits / 0.2, -1)).sum(-1).mean()
    assert found["pseudo"].item() == pytest.approx(0.5 * wrong.item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_under_rskp_the_backbone_is_tested_as_it_is_alone(small, name):
    recipe = recipe_of(small, rskp.Rskp, name)
    assert recipe.pipeline == recipe_of(small, plain.Plain, name).pipeline
    (video,) = recipe.videos(small.test, [1])
    with torch.no_grad():
        output = recipe.backbone(recipe.snippets(small.test, 1))
        other = recipe.propagated(output, rskp.summarize(output.embedding, recipe.means))
        ours, theirs = recipe.backbone.maps(output)[0], recipe.backbone.maps(other)[0]
    if name == "rskp":  # the map has the attention in it
        np.testing.assert_allclose(
            video.maps["cas"],
            (0.6 * output.logits.softmax(-1) + 0.4 * other.logits.softmax(-1)) * output.attention[:, None],
            rtol=1e-4,
        )
    else:
        np.testing.assert_allclose(video.maps["cas"], 0.6 * ours["cas"] + 0.4 * theirs["cas"], rtol=1e-4)
    for key in {"attention", "magnitude"} & set(ours):
        np.testing.assert_allclose(video.maps[key], output.attention, rtol=1e-4, atol=1e-6)  # never propagated


@pytest.mark.parametrize(("kind", "name"), [(plain.Plain, "wum"), (rskp.Rskp, "stpn")])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small, kind, name):
    runs = {}
    for folder, stops in (("whole", [None]), ("parts", [1, 3, None])):  # before and after the memory is filled
        for stop in stops:
            run = engine.Run(
                profile="smoke",
                output=tmp_path / folder,
                stop_after=stop,
                resume=stop != stops[0],
                options={"backbone": name},
            )
            result = engine.train(kind, small, run)
        state = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["recipe"]["networks"]
        runs[folder] = (
            {key: value.numpy().tobytes() for key, value in state.items()},
            result.detections.scores.tobytes(),
        )
    assert runs["whole"] == runs["parts"]


@pytest.mark.parametrize("name", NAMES)
def test_one_video_can_be_learnt_by_heart(small, name):
    one = data.TrainTest(
        data.synthetic_features(1, 0, num_rgb=8, num_flow=8, num_classes=3, seed=1).train, small.test, ""
    )
    said = []
    engine.train(plain.Plain, one, engine.Run(profile="smoke", epochs=250, options={"backbone": name}), said.append)
    rows = [line for line in said if line.startswith("epoch")]
    first, last = (float(rows[row].split("classification ")[1].split(",")[0]) for row in (0, -1))
    least = {"wum": 0.35, "facnet": 0.6, "rskp": 0.5, "basnet": 0.35}.get(name, 0.2)
    assert last < least * first


def test_the_command(tmp_path, capsys):
    arguments = ["train", "plain", "--profile", "smoke", "--epochs", "1", "-o", str(tmp_path)]
    assert cli.main([*arguments, "--set", "backbone=facnet"]) == 0
    assert "plain, untrained" in capsys.readouterr().out
    assert cli.main([*arguments, "--set", "backbone=resnet"]) == 2
    assert "option `backbone` must be one of" in capsys.readouterr().err
