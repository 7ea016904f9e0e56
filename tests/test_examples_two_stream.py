"""The two-stream network: Eq. 1 to 8 on cases by hand and against their literal form, the options, and the loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tal_postproc import Annotations, PostProcessor, Segments

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from tal_postproc.examples import data, engine, two_stream  # noqa: E402
from tal_postproc.examples.backbones import Output  # noqa: E402
from tal_postproc.examples.backbones.two_stream import TwoStream  # noqa: E402
from tests.oracles import two_stream as oracle  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size
CPU = torch.device("cpu")
ATTENTION_ONLY = {"branches": "attention", "guide": "none", "semantic": False}


def network(num_features=5, width=4, num_classes=3, **options):
    torch.manual_seed(0)
    return TwoStream(num_features, width, num_classes, **options).double().eval()


def snippets(length=19, num_features=5):
    return torch.randn(length, num_features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def spread(net, scale=4.0):
    """Larger weights, so that attention and p differ from snippet to snippet."""
    with torch.no_grad():
        for layer in (net.attention, net.classifier, net.mil[-1]):
            layer.weight *= scale
    return net


# -------------------------------------------------------------------------------------------------------------- Eq. 1-4


def by_hand(**options):
    """One feature, one class; the first snippet is 1, the second 0."""
    net = network(1, 1, 1, **options)
    with torch.no_grad():
        for layer in (net.attention, net.classifier, net.mil[-1]):
            layer.bias.zero_()
        net.attention.weight.copy_(torch.tensor([[math.log(2)], [0.0], [0.0]]))  # a: 1/2 1/4 1/4, then 1/3 1/3 1/3
        net.classifier.weight.copy_(torch.tensor([[math.log(3) * 5 / 3], [0.0]]))
        net.mil[-1].weight.copy_(torch.tensor([[0.0], [2 * math.log(2)]]))  # p: 0 and 2 log 2, then 0 and 0
    return net(torch.tensor([[1.0], [0.0]], dtype=torch.float64))


def test_the_scores_by_hand():
    att = torch.tensor([3 / 4, 1 / 4], dtype=torch.float64)  # pooled: (1/2) / (1/2 + 1/3) = 3/5, logits log 3 and 0
    mil = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)  # the better of two snippets: 0 and (1/2) 2 log 2
    close = {"rtol": 0, "atol": 1e-7}
    torch.testing.assert_close(by_hand().extra["foreground"], (att + mil) / 2, **close)
    torch.testing.assert_close(by_hand(branches="mil").extra["foreground"], mil, **close)
    torch.testing.assert_close(by_hand(**ATTENTION_ONLY).extra["foreground"], att, **close)
    raised = 3 ** (5 / 7), math.sqrt(2)  # context: pooled 3/7; the better snippet has (1/4) 2 log 2
    expected = (raised[0] / (1 + raised[0]) + 1 / (1 + raised[1])) / 2
    assert by_hand().extra["context"][0].item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("length", [1, 7, 16, 19])
def test_the_scores_are_those_of_the_equations(length):
    net, x = spread(network()), snippets(length)
    output = net(x)
    attention = net.attention(x).softmax(-1)
    torch.testing.assert_close(attention.sum(-1), torch.ones(length, dtype=torch.float64))
    for column, (kind, sigma) in enumerate((("foreground", 8), ("context", 2), ("background", 2))):
        a, p = attention[:, column].tolist(), output.extra["p"].tolist()
        linear = net.classifier.weight.tolist(), net.classifier.bias.tolist()
        _, _, expected = oracle.scores(x.tolist(), a, p, *linear, sigma)
        np.testing.assert_allclose(output.extra[kind].detach().numpy(), expected, rtol=1e-6)


def test_background_is_last_for_other_methods():
    output = network()(snippets())
    p, y = output.extra["p"], output.extra["foreground"]
    assert torch.equal(output.logits, torch.cat([p[:, 1:], p[:, :1]], 1))
    assert torch.equal(output.scores, torch.cat([y[1:], y[:1]]))


def test_the_block_starts_as_nothing_and_sees_its_neighbours():
    net, x = network(), snippets()
    assert torch.equal(net.embed(x), x)
    with torch.no_grad():
        net.residual[-1].weight += 1.0
    changed = x.clone()
    changed[9] += 1.0
    moved = (net.embed(changed) - net.embed(x)).abs().sum(1) > 1e-9
    assert moved.nonzero()[:, 0].tolist() == [7, 8, 9, 10, 11]


def test_dropout_of_the_block_and_of_the_classifier():
    net, x = network(), snippets()
    with torch.no_grad():
        net.residual[-1].weight += 1.0
    torch.testing.assert_close(net.embed(x), net.embed(x))
    assert torch.equal(net.mil(x), net.mil(x))
    net.train()
    assert not torch.allclose(net.embed(x), net.embed(x))
    assert not torch.allclose(net.mil(x), net.mil(x))


# -------------------------------------------------------------------------------------------------------------- Eq. 5-8


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("guide", ["hamnet", "literal", "acm"])
def test_the_losses_are_those_of_the_equations(guide, reduction, normalized):
    net = spread(network(guide=guide, guide_reduction=reduction, normalized_labels=normalized))
    x, labels = snippets(), torch.tensor([True, False, True])
    output = net(x)
    found = net.losses(output, labels)
    p = output.extra["p"].tolist()
    assert len({row.index(max(row)) for row in p}) > 2
    targets = {"foreground": ([0, 1, 0, 1], 1.0), "context": ([1, 1, 0, 1], 0.1), "background": ([1, 0, 0, 0], 0.1)}
    for kind, (target, weight) in targets.items():
        target = [value / sum(target) for value in target] if normalized else target
        expected = weight * oracle.cross_entropy(target, output.extra[kind].tolist())
        assert found[kind].item() == pytest.approx(expected, rel=1e-6)
    times = len(x) if reduction == "sum" else 1
    expected = 2e-3 * times * oracle.guide(output.attention.tolist(), p, guide)
    assert found["guide"].item() == pytest.approx(expected, rel=1e-9)
    expected = 5e-2 * oracle.semantic(x.tolist(), p, net.dictionary.tolist())
    assert found["semantic"].item() == pytest.approx(expected, rel=1e-7)


def test_the_semantic_loss_by_hand():
    """Snippets 3 and 4 away from the centroids of the classes that p says: the norm, not its square."""
    net = network(2, 2, 1, guide="none")
    with torch.no_grad():
        net.dictionary.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    p = torch.tensor([[2.0, 1.0], [-3.0, -2.0]])  # background, then the class
    y = dict.fromkeys(("foreground", "context", "background"), torch.tensor([0.5, 0.5]))
    output = Output(torch.tensor([[0.0, 3.0], [5.0, 1.0]]), torch.ones(2), p, p[0], {"p": p, **y})
    found = net.losses(output, torch.tensor([True]))["semantic"]
    assert found.item() == pytest.approx(0.05 * (3 + 4) / 2)
    found.backward()
    torch.testing.assert_close(net.dictionary.grad, 0.05 / 2 * torch.tensor([[0.0, -1.0], [-1.0, 0.0]]).double())


def test_a_snippet_on_its_centroid_has_a_finite_gradient():
    net = network()
    x = net.dictionary[net.mil(net.dictionary).argmax(-1)].detach()[:1].requires_grad_()
    with torch.no_grad():
        net.dictionary.copy_(x.expand(4, -1))
    net.losses(net(x), torch.tensor([True, False, False]))["semantic"].backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("guide", "flows"), [("hamnet", True), ("literal", True), ("acm", False)])
def test_only_acm_net_keeps_the_guide_from_the_attention(guide, flows):
    """Where p is 0, the background's probability is the same for every attention."""
    net = network(guide=guide)
    with torch.no_grad():
        net.mil[-1].weight.zero_()
        net.mil[-1].bias.zero_()
    net.losses(net(snippets()), torch.tensor([True, False, False]))["guide"].backward()
    assert bool(net.attention.weight.grad.abs().sum() > 1e-9) == flows


def test_the_printed_guide_leaves_sure_background_at_half_a_foreground():
    """What makes it no choice for a default: with softmax(p)_0 = 1 it is 0 at a_fg = 1/2."""
    p = torch.tensor([[50.0, 0.0]])
    for guide, best in (("literal", 0.5), ("hamnet", 0.0)):
        net = network(1, 1, 1, guide=guide)
        found = [net.guide_loss(torch.tensor([a]), p).item() for a in np.linspace(0, 1, 5)]
        assert np.linspace(0, 1, 5)[int(np.argmin(found))] == best


def test_every_weight_learns():
    net, x = spread(network()), snippets()
    with torch.no_grad():
        net.residual[-1].weight += 0.1
    output = net(x)
    torch.stack(list(net.losses(output, torch.tensor([True, False, True])).values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# ------------------------------------------------------------------------------------------------------------ inference


def test_maps_and_pipeline():
    output = network()(snippets())
    maps, scores = network().maps(output)
    expected = output.attention[:, None] * output.extra["p"].softmax(-1)
    torch.testing.assert_close(maps["cas"], expected)
    assert torch.equal(scores["video"], output.extra["foreground"])
    alone = network(**ATTENTION_ONLY)
    torch.testing.assert_close(alone.maps(output)[0]["cas"], output.attention[:, None].expand(-1, 4))
    bank = alone.pipeline.banks[0]
    assert (bank.signal.normalize, bank.score.margin.denominator, bank.score.video_weight) == ("minmax", "fixed", 0.2)
    assert (alone.pipeline.num_classes, alone.pipeline.background, alone.pipeline.classes.threshold) == (
        3,
        "first",
        0.1,
    )
    anet = network(preset="two_stream_anet13").pipeline.banks[0]
    assert (anet.signal.normalize, anet.thresholds[0], len(anet.thresholds)) == ("none", 0.005, 5)


# ----------------------------------------------------------------------------------------------------------------- loop


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


def recipe_of(small, epochs=40, **options):
    profile = engine.Profile(
        width=8, epochs=epochs, learning_rate=2e-3, options={**two_stream.OPTIONS, "length": 50, **options}
    )
    torch.manual_seed(0)
    recipe = two_stream.TwoStreamRecipe(small.train, profile, 0, CPU)
    recipe.networks.eval()  # no Dropout
    return recipe


@pytest.mark.parametrize(
    "options",
    [
        {"length": 49},
        {"branches": "mil"},
        {"context": False},
        {"background": False},
        {"guide": "none"},
        {"guide": "literal"},
        {"guide": "acm"},
        {"guide_reduction": "sum"},
        {"semantic": False},
        {"dictionary": "uniform"},
        {"normalized_labels": True},
        ATTENTION_ONLY,
    ],
)
def test_every_option_counts(small, options):
    video = int(np.flatnonzero(small.train.labels.sum(axis=1) > 0)[0])
    plain, changed = (recipe.losses(9, video) for recipe in (recipe_of(small), recipe_of(small, **options)))
    assert sum(plain.values()) != sum(changed.values())
    dropped = {"context", "background", "guide", "semantic"} - set(changed)
    assert dropped == {name for name, value in options.items() if value in (False, "none")}


def test_the_semantic_loss_warms_up(small):
    recipe = recipe_of(small)
    recipe.generator = lambda epoch, index: np.random.default_rng(0)  # the same snippets in all epochs
    found = [recipe.losses(epoch, 0)["semantic"].item() for epoch in (0, 1, 2, 3, 4, 39)]
    np.testing.assert_allclose(found, [0, found[-1] / 4, found[-1] / 2, found[-1] * 3 / 4, found[-1], found[-1]])
    assert found[-1] > 0


def test_the_dictionary_starts_as_the_means_of_the_classes():
    features = np.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 4.0], [0.0, 8.0]], [[5.0, 6.0], [5.0, 6.0]]], np.float32)
    truth = Segments([[0.0, 1.0]] * 3, [0, 0, 1], offsets=[0, 1, 3, 3], video_ids=("a", "b", "c"), unit="second")
    given = data.FeatureSet(Annotations(truth, ("x", "y", "z"), [1.0] * 3), lambda i: features[i], num_rgb=1)
    found = two_stream.class_means(given)
    np.testing.assert_allclose(found, [[14 / 6, 4.0], [1.0, 3.0], [0.0, 6.0], [0.0, 0.0]], rtol=1e-6)


def test_the_dictionary_of_a_recipe(small):
    means = recipe_of(small).networks.dictionary
    torch.testing.assert_close(means.detach(), two_stream.class_means(small.train))
    uniform = recipe_of(small, dictionary="uniform").networks.dictionary
    assert 0 <= uniform.min() < 0.1 < 0.9 < uniform.max() <= 1
    assert means.requires_grad
    assert uniform.requires_grad


def test_training_draws_other_snippets_in_every_epoch_and_a_test_takes_them_all(small):
    recipe = recipe_of(small)
    drawn = [recipe.losses(epoch, 0)["foreground"].item() for epoch in (5, 6, 5)]
    assert drawn[0] == drawn[2] != drawn[1]
    video = next(recipe.videos(small.test, [1]))
    with torch.no_grad():
        maps, _ = recipe.networks.maps(recipe.networks(recipe.features(small.test, 1)))
    np.testing.assert_array_equal(video.maps["cas"], maps["cas"].double().numpy())


def test_a_test_video_keeps_its_duration(small):
    recipe = recipe_of(small)
    for index in range(len(small.test)):
        video = next(recipe.videos(small.test, [index]))
        length = len(small.test.features(index))
        assert video.maps["cas"].shape == (length, 4)
        assert video.seconds_per_snippet == small.test.seconds_per_snippet(index, length)
    assert list(PostProcessor(recipe.pipeline).process(recipe.videos(small.test)))


def test_the_sizes_of_the_paper():
    paper = two_stream.TwoStreamRecipe.profiles["paper"]
    assert (paper.width, paper.epochs, paper.learning_rate, paper.options["length"]) == (2048, 100, 1e-4, 750)
    assert paper.options["batch_size"] == 16
    assert two_stream.TwoStreamRecipe.reduction == "mean"


def test_what_the_optimiser_gets(small):
    recipe = recipe_of(small, batch_size=5.0)  # numbers of the command line are floats
    assert recipe.batch_size == 5
    others, dictionary = recipe.optimizer.param_groups
    assert others["lr"] == dictionary["lr"] == recipe.profile.learning_rate
    assert (others["weight_decay"], dictionary["weight_decay"]) == (5e-4, 0)
    assert dictionary["params"] == [recipe.networks.dictionary]
    assert len(others["params"]) == len(list(recipe.networks.parameters())) - 1


@pytest.mark.parametrize("name", ["branches", "guide", "guide_reduction", "dictionary", "preset"])
def test_unknown_choices_are_refused(small, name):
    with pytest.raises(ValueError, match=f"option `{name}` must be one of .*, got 'other'"):
        recipe_of(small, **{name: "other"})


@pytest.mark.parametrize("left", [{"guide": "none"}, {"semantic": False}])
def test_attention_alone_has_neither_guide_nor_dictionary(small, left):
    with pytest.raises(ValueError, match="option `branches` 'attention' has no p"):
        recipe_of(small, branches="attention", **left)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small):
    runs = {}
    for name, stops in (("whole", [None]), ("parts", [1, 3, None])):
        for stop in stops:
            run = engine.Run(profile="smoke", output=tmp_path / name, stop_after=stop, resume=stop != stops[0])
            result = engine.train(two_stream.TwoStreamRecipe, small, run)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["recipe"]
        runs[name] = {key: value.numpy().tobytes() for key, value in state["networks"].items()}, result.trained.average
    assert runs["whole"] == runs["parts"]
    assert "dictionary" in runs["whole"][0]


def test_one_video_can_be_learnt_by_heart(small):
    one = data.TrainTest(
        data.synthetic_features(1, 0, num_rgb=8, num_flow=8, num_classes=3, seed=1).train, small.test, ""
    )
    said = []
    engine.train(two_stream.TwoStreamRecipe, one, engine.Run(profile="smoke", epochs=200), said.append)
    first, last = (float(said[row].split("foreground ")[1].split(",")[0]) for row in (0, 199))
    assert one.train.labels.sum() == 1
    assert last < 0.1 * first
