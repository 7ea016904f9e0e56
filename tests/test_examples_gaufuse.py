"""GauFuse in training: schedules, losses and labels against what paper and code say, and the loop."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

import tal_postproc as tpp  # noqa: E402
from tal_postproc.examples import backbones, data, engine, gaufuse, rskp  # noqa: E402
from tal_postproc.examples.backbones.rskp import assign, random_walk  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


def recipe_of(small, *, epochs=7, **options):
    profile = engine.Profile(width=8, epochs=epochs, options={**gaufuse.OPTIONS, **options})
    torch.manual_seed(0)
    recipe = gaufuse.Gaufuse(small.train, profile, 0, CPU)
    recipe.networks.eval()  # no Dropout
    return recipe


def refreshed(small, up_to=5, said=None, **options):
    """Before epoch `up_to` of 7; the paper's refreshes come before the epochs 4, 5 and 6."""
    recipe = recipe_of(small, **options)
    for epoch in range(up_to + 1):
        recipe.before_epoch(epoch, len if said is None else said.append)
        recipe.networks.eval()
        with torch.no_grad():  # something has to change between the refreshes
            recipe.backbone.centres += 0.05 * torch.cos(torch.arange(recipe.backbone.centres.numel())).view(-1, 8)
    return recipe


# ------------------------------------------------------------------------------------------------------------ schedules


def test_the_weight_of_the_labels_is_that_of_the_code(small):
    recipe = recipe_of(small, epochs=350)
    for epoch in (200, 215, 240, 247, 248, 349):
        assert recipe.label_weight(epoch) == pytest.approx(min(10 * 1.035 ** (epoch - 200), 50), rel=0.01)
    assert recipe.label_weight(349) == 50


@pytest.mark.parametrize(("schedule", "last"), [("paper", 0.5), ("code", 1)])
def test_memory_and_pseudo_labels_over_a_whole_training(small, schedule, last):
    recipe = recipe_of(small, epochs=350, schedule=schedule)
    assert [recipe.uses_memory(epoch) for epoch in (99, 100)] == [False, True]
    assert [recipe.pseudo_weight(epoch) for epoch in (0, 99, 100, 199, 200, 349)] == [1, 1, 0.5, 0.5, last, last]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("paper", [1] * 8), ("code", [1, 0.8, 0.8, 0.4096, 0.4096, 0.01024, 0.01024, 0.00512])],
)
def test_the_learning_rate(small, schedule, factors):
    recipe = recipe_of(small, epochs=350, schedule=schedule, labels="none", memory=False)
    found = []
    for epoch in (79, 80, 199, 200, 244, 245, 259, 260):
        recipe.before_epoch(epoch, len)
        found.append(recipe.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(found, np.array(factors) * recipe.profile.learning_rate, rtol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "epochs", "labels", "test"),
    [
        ("paper", [200, 215, 230, 245, 270, 290], [0.1], 0.03),
        ("code", [200, 230, 245, 260, 275, 300], [0.02, 0.02, 0.02, 0.002, 0.002, 0.0016], 0.2),
    ],
)
def test_refreshes_and_temperatures(small, schedule, epochs, labels, test):
    recipe = recipe_of(small, epochs=350, schedule=schedule)
    assert list(recipe.refresher.schedule.epochs(350)) == epochs
    assert [one.stages[0].temperature for one in recipe.label_pipelines()] == labels
    assert recipe.pipeline.stages[0].temperature == test
    fixed = recipe_of(small, schedule=schedule, label_temperature=0.5, test_temperature=0.25)
    assert [one.stages[0].temperature for one in fixed.label_pipelines()] == [0.5]
    assert fixed.pipeline.stages[0].temperature == 0.25


@pytest.mark.parametrize(
    ("schedule", "delta", "scales"),
    [("paper", True, [1, 1, 1]), ("code", True, [None, 2, 2.15]), ("paper", False, [None] * 3)],
)
def test_factors_of_the_differences(small, schedule, delta, scales):
    rule = recipe_of(small, schedule=schedule, delta=delta).refresher.schedule
    assert [rule.delta_scale(epoch, 350) for epoch in (249, 250, 300)] == scales


# ------------------------------------------------------------------------------------------------------------ pipelines


@pytest.mark.parametrize("how", ["uniform", "exponential", "student_t", "gaussian"])
@pytest.mark.parametrize("schedule", ["paper", "code"])
def test_instances_are_fused_as_the_options_say(small, schedule, how):
    recipe = recipe_of(small, schedule=schedule, instances=how)
    assert recipe.label_pipelines()[0].stages[0].distribution == how
    assert recipe.pipeline.stages[0].distribution == "gaussian"
    tested = recipe_of(small, schedule=schedule, test_instances=how)
    assert tested.label_pipelines()[0].stages[0].distribution == "gaussian"
    assert tested.pipeline.stages[0].distribution == how


def test_instances_of_nms(small):
    for schedule, name in (("paper", "rskp"), ("code", "gaufuse_nms")):
        nms = tpp.presets.get(name).stages
        assert recipe_of(small, schedule=schedule, instances="nms").label_pipelines()[0].stages == nms
        assert recipe_of(small, schedule=schedule, test_instances="nms").pipeline.stages == nms


def test_the_rest_of_the_pipeline(small):
    for schedule, proposals, name in (("paper", "rskp", "gaufuse_paper"), ("code", "gaufuse", "gaufuse")):
        recipe = recipe_of(small, schedule=schedule)
        assert recipe.pipeline.banks == tpp.presets.get(proposals).banks
        assert recipe.label_pipelines()[0].banks == tpp.presets.get(proposals).banks
        assert recipe.pipeline.stages == tpp.presets.get(name).stages
        assert recipe.label_pipelines()[0].labels == tpp.presets.for_labels(name).labels
        assert recipe.pipeline.num_classes == 3


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_are_linpro_of_the_fused_instances_of_the_mixed_map(small):
    recipe = recipe_of(small)
    recipe.before_epoch(4, len)
    x, name = recipe.features(small.train, 1), small.train.ids[1]
    with torch.no_grad():
        plain = recipe.backbone(x)
        other = recipe.propagated(plain, recipe._representatives(plain.embedding))
        mixed = (0.8 * plain.logits.softmax(-1) + 0.2 * other.logits.softmax(-1)) * plain.attention[:, None]
    banks, stages = tpp.presets.get("rskp").banks, tpp.presets.for_labels("gaufuse_paper").stages
    process = tpp.PostProcessor(tpp.config.Pipeline(banks=banks, stages=stages, background="last"))
    (found,) = process.process([tpp.Video(name, {"cas": mixed.double().numpy()})])
    found = found.select(np.isin(found.labels, np.flatnonzero(small.train.labels[1])))
    labels = tpp.linpro_label_map(found, len(x), 3, normalization="sum", upper_bound=None).labels
    np.testing.assert_allclose(recipe.refresher.bank.labels(name), labels, rtol=1e-4, atol=1e-6)  # maps are float32
    assert labels.max() > 0
    assert not recipe.refresher.targets(name, 4)[:, 3].any()  # the background


def test_labels_of_classes_that_were_found(small):
    def targets_of(recipe):
        recipe.before_epoch(4, len)
        return [recipe.refresher.targets(name, 4) for name in small.train.ids]

    found = targets_of(recipe_of(small, known_classes=False))
    assert any(targets[:, :3][:, ~known].any() for targets, known in zip(found, small.train.labels))
    recipe = recipe_of(small, known_classes=False)
    with torch.no_grad():  # features are positive, so all of them look like it
        recipe.backbone.centres[3] = 1.0
    assert all(targets.shape[1] == 4 and targets[:, 3].any() for targets in targets_of(recipe))


@pytest.mark.filterwarnings("ignore::tal_postproc.types.LabelCollapseWarning")  # it has learnt nothing yet
@pytest.mark.parametrize("backbone", ["stpn", "facnet", "bm"])
def test_another_backbone_learns_from_its_own_instances(small, backbone):
    recipe = recipe_of(small, backbone=backbone, schedule="code")
    recipe.before_epoch(4, len)
    own = backbones.get(backbone)(16, 8, 3).pipeline
    assert recipe.pipeline.banks == own.banks
    assert [type(stage).__name__ for stage in recipe.pipeline.stages] == ["Fuse"]
    assert recipe.pipeline.stages[0].weights == "scores"
    assert recipe_of(small, backbone=backbone, test_instances="nms").pipeline.stages == own.stages
    found = recipe.losses(4, 0)
    assert set(found) == {"classification", "extra", "labels"}
    assert found["labels"].requires_grad
    assert 0 < recipe.history[0]["recall"] <= 1
    rows = recipe.backbone.length or len(small.train.features(0))
    assert recipe.refresher.targets(small.train.ids[0], 4).shape == (rows, 4)
    assert not recipe.uses_memory(4)
    own = [group["lr"] for group in recipe.backbone.parameter_groups(recipe.profile.learning_rate)]
    rates = [group["lr"] for group in recipe.optimizer.param_groups]
    assert rates == pytest.approx([0.4096 * rate for rate in (*own, recipe.profile.learning_rate)])


def test_labels_of_the_largest_score(small):
    recipe = recipe_of(small, labels="score")
    recipe.before_epoch(4, len)
    recipe.map_parts = 0.8, 0.2
    labels = recipe.refresher.bank.labels(small.train.ids[1])
    (found,) = tpp.PostProcessor(recipe.label_pipelines()[0]).process(recipe.videos(small.train, [1]))
    known = small.train.labels[1]
    np.testing.assert_array_equal(labels, tpp.score_label_map(found, *labels.shape, known_labels=known))
    assert labels.any()


@pytest.mark.filterwarnings("ignore::tal_postproc.types.LabelCollapseWarning")  # it has learnt nothing yet
@pytest.mark.parametrize("backbone", ["rskp", "stpn"])
def test_quality_is_counted_against_the_truth_of_the_training_set(small, backbone):
    recipe = recipe_of(small, backbone=backbone)
    recipe.before_epoch(4, len)
    labelled = correct = truth = 0
    for index, known in enumerate(small.train.annotations.segments.split()):
        labels = recipe.refresher.bank.labels(small.train.ids[index]) > 0
        step = tpp.synthetic.SECONDS_PER_SNIPPET * len(small.train.features(index)) / len(labels)
        middles = (np.arange(len(labels)) + 0.5) * step
        acts = np.zeros(labels.shape, bool)
        for (start, end), label in zip(known.segments, known.labels):
            rows = np.flatnonzero((start <= middles) & (middles < end))
            acts[rows if len(rows) else int((start + end) / 2 / step), label] = True
        labelled, correct, truth = labelled + labels.sum(), correct + (labels & acts).sum(), truth + acts.sum()
    (entry,) = recipe.history
    assert entry["precision"] == pytest.approx(correct / labelled)
    assert entry["recall"] == pytest.approx(correct / truth)
    assert recipe.summary() == {"refreshes": [entry]}


# --------------------------------------------------------------------------------------------------------------- losses


class Given:
    """Targets that someone thought of."""

    epoch = 4

    def __init__(self, targets):
        self.given = targets

    def targets(self, name, epoch):
        return np.array(self.given)


def test_the_loss_by_hand(small):
    recipe = recipe_of(small, epochs=350, min_log_prob=-2.0)
    recipe.refresher = Given([[0.5, -0.25, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    s = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0625, 0.5, 0.25, 0.1875]]))
    sa = torch.log(torch.full((2, 4), 0.25))
    # in the second snippet log 0.0625 = -2.77 is below the limit
    on_s = (-0.5 * np.log(0.5) + 0.25 * np.log(0.25) + 1.0 * -2.0) / 2
    on_sa = (-0.5 * np.log(0.25) + 0.25 * np.log(0.25) + 1.0 * np.log(0.25)) / 2
    found = recipe.more_losses(340, 0, [s, sa])["labels"]
    assert found.item() == pytest.approx(50 * (0.8 * on_s + 0.2 * on_sa), rel=1e-5)
    assert recipe.more_losses(340, 0, [s])["labels"].item() == pytest.approx(50 * on_s, rel=1e-5)
    said = []
    recipe.history = [{}]
    recipe.after_epoch(340, said.append)
    assert said == ["50.00 % of the labelled snippets reach `min_log_prob`"]
    assert recipe.history == [{"reached": 0.5}]
    assert not any(recipe.seen.values())


def test_all_losses_of_rskp_stay(small):
    recipe = refreshed(small)
    plain = rskp.Rskp(small.train, engine.Profile(width=8, epochs=7, options=rskp.OPTIONS), 0, CPU)
    plain.networks.load_state_dict(recipe.networks.state_dict())
    plain.networks.eval()
    ours, theirs = recipe.losses(5, 0), plain.losses(5, 0)
    assert set(ours) == {*theirs, "labels"}
    assert ours["classification"] == theirs["classification"]
    assert ours["pseudo"] == theirs["pseudo"]


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "code"},
        {"labels": "score"},
        {"labels": "none"},
        {"delta": False},
        {"instances": "nms"},
        {"label_temperature": 0.9},
        {"known_classes": False},
        {"min_log_prob": -0.1},
        {"min_log_prob": 0},
        {"as_released": True},
        {"representatives": "none"},
    ],
)
def test_every_option_of_the_training_counts(small, options):
    plain, changed = refreshed(small, min_log_prob=-1.0), refreshed(small, **{"min_log_prob": -1.0, **options})
    pairs = [[sum(recipe.losses(5, index).values()).item() for recipe in (plain, changed)] for index in range(6)]
    assert any(ours != theirs for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("schedule", "mine"), ("labels", "hard"), ("instances", "soft-nms"), ("test_instances", 3)],
)
def test_unknown_choices_are_refused(small, name, value):
    with pytest.raises(ValueError, match=f"option `{name}` must be one of .*, got {value!r}"):
        recipe_of(small, **{name: value})


# ---------------------------------------------------------------------------------------------------------- as released


def test_a_new_teacher_fills_a_new_memory(small):
    recipe = refreshed(small, 3)
    recipe.memory.features += 7.0  # something old
    recipe.before_epoch(4, len)
    filled = recipe.memory.features.clone()
    recipe.memory.features.zero_()
    recipe.memory.scores.fill_(-1.0)
    recipe.fill_memory()
    torch.testing.assert_close(filled, recipe.memory.features, rtol=0, atol=0)
    assert filled.any()


def test_as_released_all_videos_share_the_slots_of_class_0(small):
    labels = torch.tensor([False, True, True])
    assert recipe_of(small).slots_of(labels).tolist() == [1, 2]
    assert recipe_of(small, as_released=True).slots_of(labels).tolist() == [0, 0]


def test_as_released_the_memory_is_zero_after_a_refresh(small):
    recipe = refreshed(small, 4, as_released=True)
    assert not recipe.memory.features.any()
    slots = recipe.memory.read(torch.tensor([0]))
    assert len(slots) == 5  # zeros, but there
    features = torch.randn(9, 8)
    spread = random_walk(features, slots, assign(features, slots))
    torch.testing.assert_close(spread, 0.5 * features + features.mean(dim=0) / 6)
    recipe.losses(4, 0)
    assert recipe.memory.features[0].any()
    assert not recipe.memory.features[1:].any()


def test_as_released_the_teacher_is_in_training_mode(small):
    for released in (False, True):
        recipe = recipe_of(small, as_released=released)
        modes = []
        recipe.backbone.embedding.register_forward_hook(lambda module, *_, modes=modes: modes.append(module.training))
        recipe.refresher.refresh(4, recipe._teacher())
        assert modes == [released] * 6
        assert recipe.map_parts == (0.85, 0.15)  # as in a test again


# ----------------------------------------------------------------------------------------------------------------- loop


@pytest.mark.parametrize("options", [{}, {"schedule": "code", "as_released": True, "known_classes": False}])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small, options):
    runs = {}
    for name, stops in (("whole", [None]), ("parts", [1, 4, 5, 6, None])):  # before and after refreshes
        for stop in stops:
            run = engine.Run(
                profile="smoke", output=tmp_path / name, stop_after=stop, resume=stop != stops[0], options=options
            )
            result = engine.train(gaufuse.Gaufuse, small, run)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["recipe"]
        weights = {key: value.numpy().tobytes() for key, value in state["networks"].items()}
        runs[name] = weights, state["extra"], result.trained.average, result.summary
    assert runs["whole"] == runs["parts"]
    assert [entry["epoch"] for entry in runs["whole"][3]["refreshes"]] == [4, 5, 6]
    assert all("reached" in entry for entry in runs["whole"][3]["refreshes"])


def test_labels_of_another_temperature_come_back(small):
    recipe = recipe_of(small, epochs=350, schedule="code", memory=False)
    for epoch in (200, 230, 245, 260):  # from the fourth refresh on at a lower temperature
        recipe.before_epoch(epoch, len)
        with torch.no_grad():
            recipe.backbone.centres += 0.05 * torch.cos(torch.arange(32)).view(4, 8)
    again = recipe_of(small, epochs=350, schedule="code", memory=False)
    again.load_state(recipe.state())
    name = small.train.ids[0]
    np.testing.assert_array_equal(again.refresher.targets(name, 260), recipe.refresher.targets(name, 260))
    assert recipe.refresher.targets(name, 260).any()
    for one in (recipe, again):
        one.before_epoch(275, len)
    assert again.history == recipe.history


def test_one_video_can_be_learnt_by_heart(small):
    one = data.TrainTest(
        data.synthetic_features(1, 0, num_rgb=8, num_flow=8, num_classes=3, seed=1).train, small.test, ""
    )
    said = []
    with pytest.warns(tpp.LabelCollapseWarning):  # there is nothing that the labels could leave out
        engine.train(gaufuse.Gaufuse, one, engine.Run(profile="smoke", epochs=200), said.append)
    losses = [line for line in said if line.startswith("epoch")]
    first, last = (float(losses[row].split("classification ")[1].split(",")[0]) for row in (0, 199))
    assert last < 0.25 * first  # of one branch and a half more
