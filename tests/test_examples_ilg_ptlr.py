"""ILG and PTLR: networks and losses by hand, labels against their definition, and the stages of Algorithm 1."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from tal_postproc import presets  # noqa: E402
from tal_postproc.examples import data, engine, ilg_ptlr  # noqa: E402
from tal_postproc.examples.backbones.basnet import Basnet  # noqa: E402
from tal_postproc.examples.backbones.ptlr import UNUSED, FrameNetwork, NetworkOts, NetworkRts  # noqa: E402
from tests.oracles import ptlr as oracle  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size
CPU = torch.device("cpu")
OPTIONS = ilg_ptlr.IlgPtlr.profiles["smoke"].options


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


def recipe_of(small, epochs=9, **options):
    torch.manual_seed(0)
    profile = engine.Profile(width=8, epochs=epochs, options={**OPTIONS, "frame_width": 4, **options})
    recipe = ilg_ptlr.IlgPtlr(small.train, profile, 0, CPU)
    recipe.networks.eval()  # no Dropout
    return recipe


# -------------------------------------------------------------------------------------------------------------- BaS-Net


def basnet_by_hand():
    """One feature, one class: convolutions pass positive values on, logits (2 x, -x), all weights 1/2."""
    network = Basnet(1, 1, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for layer in (0, 2):
            network.convolutions[layer].weight[0, 0, 1] = 1.0
        network.classifier.weight.copy_(torch.tensor([[2.0], [-1.0]]))
    return network.eval()


def test_basnet_by_hand():
    network = basnet_by_hand()
    output = network(torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(output.extra["base"], torch.tensor([[2.0, -1.0], [6.0, -3.0]]))
    torch.testing.assert_close(output.attention, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(output.logits, torch.tensor([[1.0, -0.5], [3.0, -1.5]]))
    # the best snippet of every class: 3 and -0.5, and 6 and -1
    torch.testing.assert_close(output.scores, torch.tensor([3.0, -0.5]).softmax(0))
    found = network.losses(output, torch.tensor([True]))
    supposed = -math.log(1 / (1 + math.exp(-3.5)))  # labels (1, 0): both terms are -log P_0
    assert found["suppression"].item() == pytest.approx(supposed, rel=1e-5)
    p = 1 / (1 + math.exp(-7))  # labels (1/2, 1/2)
    assert found["base"].item() == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2, rel=1e-4)
    assert found["norm"].item() == pytest.approx(1e-4 * (0.5 + 0.5))
    maps, scores = network.maps(output)
    assert torch.equal(maps["cas"], output.logits)
    assert torch.equal(scores["video"], output.scores)
    torch.testing.assert_close(network.suppressed(output.embedding), output.logits)
    network.norm_weight = 0.5
    assert network.losses(output, torch.tensor([True]))["norm"].item() == pytest.approx(0.5)


def test_basnet_shapes_and_gradients():
    torch.manual_seed(0)
    network = Basnet(5, 8, 3)
    output = network(torch.rand(20, 5))
    assert [tuple(value.shape) for value in (output.embedding, output.attention, output.logits, output.scores)] == [
        (20, network.width),
        (20,),
        (20, 4),
        (4,),
    ]
    torch.stack(list(network.losses(output, torch.tensor([True, False, True])).values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert network.pipeline.num_classes == 3
    assert len(network(torch.rand(1, 5)).logits) == 1


# -------------------------------------------------------------------------------------------------------------- PTLR


class Given(FrameNetwork):
    """Branches whose probabilities are known."""

    def __init__(self, steps, *branches):
        super().__init__()
        self.steps, self.given = steps, branches

    def branches(self, features):
        return [torch.tensor(branch).log().requires_grad_() for branch in self.given]


def test_the_example_of_the_paper():
    """Sec. III-D: two of the eight snippets are discarded at reduced scale, three at the original one."""
    reduced = Given((2,), [[p, 1 - p] for p in (0.7, 0.6, 0.7, 0.8)])
    cas = reduced(torch.zeros(8, 1)).detach()
    torch.testing.assert_close(cas[:, 0], torch.tensor([0.7, 0.7, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8]))
    rounded = np.round(cas.double().numpy(), 6)
    assert oracle.refined_labels(rounded, [True], 0.7) == [0, 0, None, None, 0, 0, 0, 0]
    original = [[p, 1 - p] for p in (0.7, 0.6, 0.6, 0.5, 0.7, 0.5, 0.8, 0.7)]
    assert oracle.refined_labels(original, [True], 0.7) == [0, None, None, None, 0, None, 0, 0]


def drawn_branches(num_snippets, steps, num_columns=3):
    rng = np.random.default_rng(num_snippets)
    return [rng.dirichlet(np.ones(num_columns), -(-num_snippets // step)).astype(np.float32) for step in steps]


@pytest.mark.parametrize("num_snippets", [1, 2, 7, 8, 9])
def test_branches_are_copied_up_and_averaged(num_snippets):
    steps = (2, 4, 8)
    branches = drawn_branches(num_snippets, steps)
    found = Given(steps, *branches)(torch.zeros(num_snippets, 1))
    expected = np.mean([oracle.copied_up(b, s, num_snippets) for b, s in zip(branches, steps)], axis=0)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [(1,), (2, 4, 8)])
def test_the_loss_is_that_of_the_selected_snippets(steps):
    labels = [0, None, 2, None, 1, 2, None, 0, None, None, 1]
    branches = drawn_branches(len(labels), steps)
    codes = torch.tensor([UNUSED if label is None else label for label in labels])
    found = Given(steps, *branches).loss(torch.zeros(len(labels), 1), codes)
    expected = np.mean([oracle.branch_loss(b, labels, s) for b, s in zip(branches, steps)])
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_selected_snippets_the_loss_is_0_and_so_is_its_gradient():
    network = NetworkRts(2, 3, 2)
    loss = network.loss(torch.rand(9, 2), torch.full((9,), UNUSED))
    loss.backward()
    assert loss.item() == 0.0
    assert all(not parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(("kind", "reach"), [(NetworkOts, [2]), (NetworkRts, [2, 4, 8])])
def test_what_a_row_of_a_branch_sees(kind, reach):
    """Row t of branch m is about snippet t * 2^m: it sees as much before as after it."""
    torch.manual_seed(0)
    network = kind(2, 16, 2).eval()
    features = torch.rand(64, 2, requires_grad=True)
    for logits, step, each_side in zip(network.branches(features), network.steps, reach):
        assert logits.shape == (64 // step, 3)
        (gradient,) = torch.autograd.grad(logits[24 // step].square().sum(), features, retain_graph=True)
        seen = gradient.abs().sum(dim=1).nonzero()[:, 0].tolist()
        assert (seen[0], seen[-1]) == (24 - each_side, 24 + each_side)


@pytest.mark.parametrize("kind", [NetworkOts, NetworkRts])
def test_shapes_gradients_and_dropout(kind):
    torch.manual_seed(0)
    network = kind(5, 8, 3)
    for length in (1, 2, 21):
        cas = network(torch.rand(length, 5))
        assert cas.shape == (length, 4)
        torch.testing.assert_close(cas.sum(dim=1), torch.ones(length))
    features = torch.rand(21, 5)
    network.loss(features, torch.arange(21) % 4).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert not torch.equal(network(features), network(features))
    network.eval()
    assert torch.equal(network(features), network(features))


# ----------------------------------------------------------------------------------------------------------------- ILG


@pytest.mark.parametrize(("length", "factor"), [(2, 2.0), (4, 0.5), (7, 1.3), (5, 1.0), (1, 2.0), (3, 0.5), (1, 0.3)])
def test_rescaling(length, factor):
    values = torch.rand(length, 2, generator=torch.Generator().manual_seed(length))
    found = ilg_ptlr.rescale(values, factor)
    expected = np.stack([oracle.rescaled(column, factor) for column in values.double().T.numpy()], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rescaling_by_hand():
    assert ilg_ptlr.rescale(torch.tensor([[0.0], [1.0]]), 2.0)[:, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_the_terms_of_eq_5():
    torch.manual_seed(0)
    network = ilg_ptlr.Ilg((2, 3), 8, 2).eval()
    features, labels = torch.rand(20, 5), torch.tensor([True, False])
    found = network.losses(features, labels, cross_stream=True, factor=0.7)
    rgb, flow = network.streams
    outputs = rgb(features[:, :2]), flow(features[:, 2:])
    own = sum(sum(net.losses(o, labels).values()) for net, o in zip(network.streams, outputs))
    assert found["basnet"].item() == pytest.approx(own.item(), rel=1e-5)
    cas = [output.logits.softmax(-1).detach().double().numpy() for output in outputs]
    assert found["cross_stream"].item() == pytest.approx(0.5 * oracle.distance(*cas), rel=1e-5)
    expected = 0.0
    for net, part, of_stream in zip(network.streams, (features[:, :2], features[:, 2:]), cas):
        scaled = np.stack([oracle.rescaled(column, 0.7) for column in part.double().T.numpy()], axis=1)
        again = net(torch.tensor(scaled, dtype=torch.float32)).logits.softmax(-1).detach().double().numpy()
        moved = np.stack([oracle.rescaled(column, 0.7) for column in of_stream.T], axis=1)
        expected += 0.5 * oracle.distance(moved, again)
    assert found["multi_resolution"].item() == pytest.approx(expected, rel=1e-4)
    assert set(network.losses(features, labels, cross_stream=False, factor=None)) == {"basnet"}
    mixed, scores = network(features)
    np.testing.assert_allclose(mixed.detach(), 0.4 * cas[0] + 0.6 * cas[1], rtol=1e-5)
    torch.testing.assert_close(scores, 0.4 * outputs[0].scores + 0.6 * outputs[1].scores)


def test_both_sides_of_a_consistency_learn():
    torch.manual_seed(0)
    network = ilg_ptlr.Ilg((2, 2), 4, 2).eval()
    found = network.losses(torch.rand(16, 4), torch.tensor([True, False]), cross_stream=True, factor=1.5)
    found["cross_stream"].backward()
    assert all(stream.classifier.weight.grad.abs().sum() > 0 for stream in network.streams)


# -------------------------------------------------------------------------------------------------------------- labels


def phase_of(recipe, stage, name):
    recipe.phase = [phase[:2] for phase in recipe.plan].index((stage, name))
    return recipe


class Says(torch.nn.Module):
    """A network that has made up its mind."""

    def __init__(self, cas, stage):
        super().__init__()
        self.cas, self.stage = cas, stage

    def forward(self, features):
        cas = torch.as_tensor(self.cas[len(features)])
        return cas if self.stage else (cas, None)


@pytest.mark.parametrize(
    ("stage", "name", "rule"),
    [
        (0, "initial", "video"),
        (0, "initial", "all"),
        *((n, name, t) for n, t in zip((1, 2, 3, 4), (0.7, 0.65, 0.6, 0.55)) for name in ("ots", "rts")),
    ],
)
def test_labels(small, stage, name, rule):
    """`rule` is what makes background: whose scores are summed, or the threshold of the stage."""
    options = {} if stage else {"summed": rule}
    recipe = phase_of(recipe_of(small, epochs=11, stages=4, **options), stage, name)
    rng = np.random.default_rng(0)
    cas = {}
    for index in range(len(small.train)):
        length = len(small.train.features(index))
        cas[length] = np.round(rng.dirichlet(np.full(4, 0.15), length), 2)  # many at a threshold exactly
    recipe.parts[name] = Says(cas, stage)
    for index, codes in enumerate(recipe.label()):
        known = small.train.labels[index]
        rows = cas[len(codes)]
        expected = (oracle.refined_labels if stage else oracle.first_labels)(rows, known, rule)
        found = [None if label == UNUSED else label for label in ilg_ptlr._selected(codes).tolist()]
        assert found == expected
        assert None in found


def test_an_undecided_snippet_is_background_of_the_first_labels(small):
    """Equal scores of 20 classes and background: 1 / 21 for the one class of the video, but 20 / 21 for all."""
    uniform, one = np.full((2, 21), 1 / 21), np.arange(20) == 7
    assert oracle.first_labels(uniform, one, "video") == [20, 20]
    assert oracle.first_labels(uniform, one, "all") == [None, None]
    assert recipe_of(small).profile.options["summed"] == "video"


def test_precision_and_recall_as_the_paper_counts():
    """Two snippets of 1 s act, of five; labels: action right, action of another class, background right, none, none."""
    found = data.synthetic_features(1, 0, num_classes=2).train
    truth = found.annotations.segments.replace(
        segments=np.array([[0.0, 2.0], [9.0, 12.0]]),  # the second lies beyond the features
        labels=np.array([0, 1]),
        scores=np.ones(2),
        offsets=np.array([0, 2]),
    )
    annotations = data.Annotations(truth, found.annotations.classes, found.annotations.durations)
    five = data.FeatureSet(annotations, lambda i: np.zeros((5, 4), np.float32), num_rgb=2, seconds_per_snippet=1.0)
    recipe = recipe_of(data.TrainTest(five, five, ""))
    codes = np.array([[1, 0], [0, 1], [0, 0], [-1, -1], [-1, -1]], np.int8)
    row = recipe.quality([codes])
    assert (row["stage"], row["network"]) == (0, "initial")
    assert row["precision"] == pytest.approx(2 / 3)  # of the selected snippets
    assert row["recall"] == pytest.approx(2 / 5)  # of all
    assert row["recall_of_action"] == pytest.approx(1 / 2)
    told = ilg_ptlr._told(row)
    assert told == "labels, first: precision 66.7, recall 40.0 of all snippets, 50.0 of action; of 2 classes"


# ---------------------------------------------------------------------------------------------------------------- loop


def begins(epochs, **options):
    plan = ilg_ptlr._plan(engine.Profile(epochs=epochs, options={**ilg_ptlr.OPTIONS, **options}))
    return [phase.begin for phase in plan]


def test_the_sizes_of_the_paper():
    paper = ilg_ptlr.IlgPtlr.profiles["paper"]
    assert (paper.width, paper.learning_rate, paper.options["batch_size"]) == (2048, 1e-4, 16)
    assert (paper.options["frame_width"], paper.options["frame_rate"], paper.options["weight_decay"]) == (
        512,
        1e-3,
        5e-4,
    )
    batches = math.ceil(200 / 16)
    assert begins(360)[1] * batches == pytest.approx(1500, rel=0.05)
    assert 40 * batches == pytest.approx(500, rel=0.05)


def test_when_networks_take_turns():
    assert begins(45) == [0, 15, 20, 25, 30, 35, 40]
    assert begins(360) == [0, 120, 160, 200, 240, 280, 320]
    assert begins(30, networks="rts") == [0, 15, 20, 25]  # a network learns as long whether there is another or not
    assert begins(15, stages=0) == [0]
    assert begins(55, stages=4)[:7] == begins(45)  # what a shorter run does, a longer one begins with
    plan = ilg_ptlr._plan(engine.Profile(epochs=45, options=ilg_ptlr.OPTIONS))
    assert [phase[:2] for phase in plan] == [
        (0, "initial"),
        *((stage, name) for stage in (1, 2, 3) for name in ("ots", "rts")),
    ]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("initial", "ILG", "ilg, cross_stream, multi_resolution, two_streams, basnet"),
        ("summed", "both", "video, all"),
        ("networks", "all", "both, ots, rts"),
        ("stages", 5, "0, 1, 2, 3, 4"),
        ("stages", 1.5, "0, 1, 2, 3, 4"),
    ],
)
def test_unknown_choices_are_refused(small, name, value, allowed):
    with pytest.raises(ValueError, match=f"option `{name}` must be one of {allowed}, got {value!r}"):
        recipe_of(small, **{name: value})


def test_every_network_needs_an_epoch(small):
    with pytest.raises(ValueError, match="`epochs` must leave some for each of 7 networks in turn, got 4"):
        recipe_of(small, epochs=4)


@pytest.mark.parametrize(
    ("initial", "terms"),
    [
        ("ilg", ["basnet", "cross_stream", "multi_resolution"]),
        ("cross_stream", ["basnet", "cross_stream"]),
        ("multi_resolution", ["basnet", "multi_resolution"]),
        ("two_streams", ["basnet"]),
        ("basnet", ["basnet"]),
    ],
)
def test_what_makes_the_first_labels(small, initial, terms):
    recipe = recipe_of(small, initial=initial, stages=0)
    assert list(recipe.losses(0, 0)) == terms
    assert recipe.initial.sizes == ((16,) if initial == "basnet" else (8, 8))
    (video,) = recipe.videos(small.test, [1])
    with torch.no_grad():
        cas, scores = recipe.initial(recipe.features(small.test, 1))
    np.testing.assert_allclose(video.maps["cas"], cas, rtol=1e-6)
    np.testing.assert_allclose(video.scores["video"], scores, rtol=1e-6)
    np.testing.assert_allclose(cas.sum(dim=1), 1.0, rtol=1e-5)
    (bank,), (basnet,) = recipe.pipeline.banks, presets.get("basnet").banks
    assert bank.thresholds == tuple(round(0.025 * k, 3) for k in range(21))  # Sec. IV-A
    assert replace(bank, thresholds=basnet.thresholds) == basnet


@pytest.mark.parametrize("he_start", [True, False])
def test_the_start_that_keeps_the_scale(small, he_start):
    recipe = recipe_of(small, he_start=he_start)
    fan_in = 3 * 8
    for stream in recipe.initial.streams:
        expected = math.sqrt(2 / fan_in) if he_start else 1 / math.sqrt(3 * fan_in)
        assert stream.convolutions[2].weight.std().item() == pytest.approx(expected, rel=0.25)
        assert bool((stream.convolutions[2].bias == 0).all()) == he_start
    recipe = recipe_of(small, he_start=he_start, frame_width=32)
    for epoch, name in ((3, "ots"), (4, "rts")):
        recipe.before_epoch(epoch, len)
        biases = [value for key, value in recipe.parts[name].named_parameters() if key.endswith("bias")]
        assert all(bool((bias == 0).all()) == he_start for bias in biases)


def test_the_factor_differs_between_videos_and_epochs(small, monkeypatch):
    recipe, used = recipe_of(small), []
    monkeypatch.setattr(
        recipe.initial, "losses", lambda features, labels, cross_stream, factor: used.append(factor) or {}
    )
    for epoch in range(100):
        for index in (0, 1):
            recipe.losses(epoch, index)
    assert len(set(used)) == 200
    assert 0.5 <= min(used) < 0.55
    assert 1.9 < max(used) <= 2.0


@pytest.mark.parametrize(("networks", "names"), [("both", ["ots", "rts"]), ("ots", ["ots"]), ("rts", ["rts"])])
def test_a_test_video(small, networks, names):
    recipe = recipe_of(small, networks=networks)
    (video,) = recipe.videos(small.test, [1])
    assert list(video.maps) == names
    for name in names:
        with torch.no_grad():
            np.testing.assert_allclose(video.maps[name], recipe.parts[name](recipe.features(small.test, 1)), rtol=1e-6)
    best = [np.sort(cas, axis=0)[-(len(cas) // 8) :].mean(axis=0) for cas in video.maps.values()]
    np.testing.assert_allclose(video.scores["video"], np.mean(best, axis=0), rtol=1e-5)
    published = presets.get("ptlr")
    assert [bank.signal.mix for bank in recipe.pipeline.banks] == [((name, 1.0),) for name in names]
    assert set(recipe.pipeline.banks) <= set(published.banks)
    assert recipe.pipeline.stages == published.stages
    assert (recipe.pipeline.background, recipe.pipeline.num_classes) == ("last", 3)


def run_through(recipe, epochs):
    """As the engine does, with one video per epoch."""
    said = []
    for epoch in epochs:
        recipe.before_epoch(epoch, said.append)
        recipe.networks.train()
        recipe.step(epoch, [epoch % 6], lambda: torch.autocast("cpu", enabled=False))
        recipe.after_epoch(epoch, said.append)
    return said


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_every_stage_begins_with_new_weights_and_trains_one_network(small):
    recipe = recipe_of(small)
    for turn, (begin, name) in enumerate(zip([0, 3, 4, 5, 6, 7, 8], ["initial", *3 * ["ots", "rts"]])):
        before = {key: weights(recipe.parts[key]) for key in recipe.parts}
        recipe.before_epoch(begin, len)
        assert recipe.phase == turn
        for key in recipe.parts:
            same = all(torch.equal(*pair) for pair in zip(before[key], weights(recipe.parts[key])))
            assert same == (key != name or turn == 0)
        trained = {id(p) for group in recipe.optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in recipe.parts[name].parameters()}
        said = run_through(recipe, range(begin, begin + 3 if turn == 0 else begin + 1))
        assert len(said) == 1
    assert [row["stage"] for row in recipe.summary()["labels"]] == [0, 1, 1, 2, 2, 3, 3]


def test_rates_and_widths(small):
    recipe = recipe_of(small, frame_rate=0.5, frame_width=6, weight_decay=0.25, batch_size=3, norm_weight=0.125)
    assert recipe.optimizer.defaults["lr"] == 1e-3  # the profile's
    assert recipe.optimizer.defaults["weight_decay"] == 0.25
    assert recipe.batch_size == 3
    assert recipe.reduction == "mean"
    assert [stream.norm_weight for stream in recipe.initial.streams] == [0.125, 0.125]
    recipe.before_epoch(3, len)
    assert recipe.optimizer.defaults["lr"] == 0.5
    assert recipe.optimizer.defaults["weight_decay"] == 0.25
    assert [recipe.parts[name](torch.zeros(5, 16)).shape for name in ("ots", "rts")] == [(5, 4)] * 2
    assert recipe.parts["ots"].layers[0][0].out_channels == recipe.parts["rts"].shared[0].out_channels == 6


def test_the_next_network_learns_the_labels_of_the_one_before(small):
    recipe = recipe_of(small)
    index = 2
    codes = torch.arange(len(small.train.features(index))) % 5 - 1
    recipe.before_epoch(3, len)
    recipe.labels_of = [codes if i == index else None for i in range(6)]
    found = recipe.losses(3, index)
    assert list(found) == ["labels"]
    recipe.networks.eval()
    expected = recipe.parts["ots"].loss(recipe.features(small.train, index), codes)
    assert recipe.losses(3, index)["labels"].item() == expected.item()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small, monkeypatch):
    monkeypatch.setattr(ilg_ptlr, "SURE", 0.25)  # so that there are labels after so few steps
    monkeypatch.setattr(ilg_ptlr, "IDLE", 0.75)
    monkeypatch.setattr(ilg_ptlr, "THRESHOLDS", (0.25, 0.25, 0.25))
    runs = {}
    for name, stops in (("whole", [None]), ("parts", [2, 3, 4, 6, None])):  # within and between networks
        for stop in stops:
            run = engine.Run(
                profile="smoke", output=tmp_path / name, stop_after=stop, resume=stop != stops[0], epochs=9
            )
            result = engine.train(ilg_ptlr.IlgPtlr, small, run)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["recipe"]
        runs[name] = (
            {key: value.numpy().tobytes() for key, value in state["networks"].items()},
            [value.tolist() for value in state["extra"]["labels"]],
            result.trained.average,
            result.summary,
            [line.rsplit(",", 1)[0] for line in (tmp_path / name / "log.csv").read_text().splitlines()],
        )
    assert runs["whole"] == runs["parts"]
    assert len(runs["whole"][3]["labels"]) == 7
    assert any(label >= 0 for labels in runs["whole"][1] for label in labels)
    assert float(runs["whole"][4][-1].split(",")[-1]) > 0  # there were labels to learn


def test_one_video_can_be_learnt_by_heart(small):
    """Its classes by the first network, and its labels, once there are some, by every other one."""
    one = data.TrainTest(
        data.synthetic_features(1, 0, num_rgb=8, num_flow=8, num_classes=3, seed=1).train, small.test, ""
    )
    said = []
    run = engine.Run(profile="smoke", epochs=225, options={"frame_rate": 0.01})
    engine.train(ilg_ptlr.IlgPtlr, one, run, said.append)
    rows = [line for line in said if line.startswith("epoch")]

    def term(row, name):
        return float(rows[row].split(f"{name} ")[1].split(",")[0].rstrip(")"))

    assert term(74, "basnet") < 0.5 * term(0, "basnet")
    for first in range(75, 225, 25):
        assert term(first + 24, "labels") < 0.4 * term(first, "labels")
