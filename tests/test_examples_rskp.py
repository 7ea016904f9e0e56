"""RSKP: the walk against its equations, the head and memory on cases that were worked out by hand, and the loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tal_postproc[torch]'")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tal_postproc.examples import data, engine, rskp  # noqa: E402
from tal_postproc.examples.backbones import Backbone, Output  # noqa: E402
from tal_postproc.examples.backbones.rskp import RskpHead, assign, random_walk, summarize  # noqa: E402
from tests.oracles import training as oracle  # noqa: E402

torch.set_num_threads(1)  # two threads only wait for each other on tensors of this size
CPU = torch.device("cpu")


def drawn(length, width=6, means=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(length, width, generator=generator, dtype=dtype)
    centres = torch.randn(means, width, generator=generator, dtype=dtype)
    return features, centres, assign(features, centres)


# ------------------------------------------------------------------------------------------------- summarize, propagate


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("length", [1, 2, 7, 200])
def test_the_walk_equals_the_inverse_and_the_limit_of_its_steps(length, weight):
    given = drawn(length)
    found = random_walk(*given, weight=weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, oracle.walk_by_inverse(*given, weight), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, oracle.walk_step_by_step(*given, weight, 300), rtol=1e-5, atol=1e-5)


def test_the_walk_in_float64_is_exact():
    given = drawn(50, dtype=torch.float64)
    torch.testing.assert_close(random_walk(*given), oracle.walk_by_inverse(*given, 0.5), rtol=1e-12, atol=1e-12)


def test_the_walk_with_a_mean_that_nobody_belongs_to():
    features, means, _ = drawn(5)
    assignment = torch.zeros(5, 8)
    assignment[:, 0] = 1.0
    found = random_walk(features, means, assignment)
    torch.testing.assert_close(found, oracle.walk_by_inverse(features, means, assignment, 0.5))


def test_the_gradient_of_the_walk():
    given = [value.requires_grad_() for value in drawn(6, 3, 4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *args: random_walk(*args, weight=0.5), given)


class Largest(TorchDispatchMode):
    """The size of the largest tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return out


def test_the_walk_never_makes_a_matrix_of_all_pairs():
    given = drawn(400, 5)
    with Largest() as watch:
        random_walk(*given)
    assert watch.size <= 400 * 8
    with Largest() as watch:
        oracle.walk_by_inverse(*given, 0.5)
    assert watch.size == 400 * 400  # so the test above can fail


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_em(iterations):
    features, means, _ = drawn(9, 4, 3)
    found = summarize(features, means, iterations=iterations, sharpness=2.0)
    torch.testing.assert_close(found, oracle.em(features, means, iterations, 2.0))


def test_snippets_of_two_kinds_have_two_representatives():
    features = torch.tensor([[4.0, 0.0]] * 3 + [[0.0, 2.0]] * 5)
    means = summarize(features, torch.tensor([[1.0, 0.5], [0.5, 1.0]]), iterations=20, sharpness=50.0)
    torch.testing.assert_close(means, torch.tensor([[4.0, 0.0], [0.0, 2.0]]), atol=1e-4, rtol=0)


# ----------------------------------------------------------------------------------------------------------------- head


def head_of(centres, foreground):
    head = RskpHead(2, 2, len(centres) - 1)
    with torch.no_grad():
        head.centres.copy_(torch.tensor(centres))
        head.foreground.copy_(torch.tensor([foreground]))
    return head.eval()


def test_the_head_by_hand():
    """Two snippets along the axes; centres: class 0 along x, background along y; foreground along x."""
    head = head_of([[1.0, 0.0], [0.0, 3.0]], [2.0, 0.0])
    output = head.head(torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(output.logits, torch.tensor([[20.0, 0.0], [0.0, 20.0]]))
    torch.testing.assert_close(output.attention, torch.tensor([1 / (1 + math.exp(-20)), 0.5]))
    # class-agnostic: (1 * (5, 0) + 0.5 * (0, 1)) / 1.5 -> direction (10, 1)
    norm = math.hypot(10, 1)
    torch.testing.assert_close(output.extra["agnostic"], torch.tensor([200 / norm, 20 / norm]), rtol=1e-4, atol=1e-4)
    # class-wise: for class 0 weights sigmoid(20) = 1 and sigmoid(0) = 0.5, the same sum; background the reverse
    classwise = torch.tensor([200 / norm, 20 * 1 / math.hypot(2.5, 1)])
    torch.testing.assert_close(output.extra["classwise"], classwise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.scores, output.extra["agnostic"].softmax(0))
    maps, scores = head.maps(output)
    torch.testing.assert_close(maps["cas"], output.logits.softmax(-1) * output.attention[:, None])
    assert torch.equal(scores["video"], output.scores)


def test_the_losses_by_hand():
    output = Output(
        torch.zeros(8, 2),
        torch.tensor([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        torch.zeros(8, 3),
        torch.zeros(3),
        {"agnostic": torch.tensor([1.0, 2.0, 0.0]), "classwise": torch.tensor([0.5, 0.0, 1.5])},
    )
    found = head_of([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, 0.0]).losses(output, torch.tensor([True, True]))
    log = np.log(np.exp([1.0, 2.0, 0.0]).sum()), np.log(np.exp([0.5, 0.0, 1.5]).sum())
    assert found["agnostic"].item() == pytest.approx(log[0] - (1.0 + 2.0) / 2)  # labels (1/2, 1/2, 0)
    assert found["classwise"].item() == pytest.approx(0.2 * (log[1] - (0.5 + 0.0 + 1.5) / 3))
    assert found["attention"].item() == pytest.approx(0.1 * (0.1 - 0.9))


def test_the_foreground_starts_opposite_to_the_background():
    torch.manual_seed(0)
    head = RskpHead(4, 3, 2)
    assert torch.equal(head.foreground, -head.centres[-1:])
    assert head.foreground.requires_grad


def test_shapes_and_gradients():
    torch.manual_seed(0)
    head = RskpHead(4, 3, 2)
    output = head(torch.rand(5, 4))
    assert [tuple(value.shape) for value in (output.embedding, output.attention, output.logits, output.scores)] == [
        (5, 3),
        (5,),
        (5, 3),
        (3,),
    ]
    torch.stack(list(head.losses(output, torch.tensor([True, False])).values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


# --------------------------------------------------------------------------------------------------------------- memory


def test_the_memory_keeps_the_best():
    memory = rskp.Memory(2, 1, slots=2)
    only_first = torch.tensor([0])
    assert memory.read(only_first).shape == (0, 1)
    memory.offer(only_first, torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.5, 0.9], [0.7, 0.9], [0.6, 0.9]]))
    assert memory.read(only_first)[:, 0].tolist() == [2.0, 3.0]
    assert memory.read(torch.tensor([1])).shape == (0, 1)  # a class of the video alone
    memory.offer(only_first, torch.tensor([[4.0], [5.0]]), torch.tensor([[0.6, 0.0], [0.65, 0.0]]))
    assert memory.read(only_first)[:, 0].tolist() == [2.0, 5.0]
    memory.offer(only_first, torch.tensor([[6.0]]), torch.tensor([[0.65, 0.0]]))  # a tie: the old one stays
    assert memory.read(only_first)[:, 0].tolist() == [2.0, 5.0]


# ----------------------------------------------------------------------------------------------------------------- loop


@pytest.fixture(scope="module")
def small():
    return data.synthetic_features(6, 4, num_rgb=8, num_flow=8, num_classes=3)


def recipe_of(small, **options):
    profile = engine.Profile(width=8, epochs=4, options={**rskp.OPTIONS, **options})
    torch.manual_seed(0)
    recipe = rskp.Rskp(small.train, profile, 0, CPU)
    recipe.networks.eval()  # no Dropout
    return recipe


@pytest.mark.parametrize(
    "options",
    [
        {"representatives": "none"},
        {"representatives": "features"},
        {"propagation": "once"},
        {"propagation": "scores"},
        {"propagation": "unclassified"},
        {"pseudo_labels": False},
        {"memory": False},
        {"num_means": 3},
    ],
)
def test_every_option_counts(small, options):
    plain, changed = recipe_of(small), recipe_of(small, **options)
    for recipe in (plain, changed):
        recipe.before_epoch(2, len)
    assert sum(plain.losses(2, 0).values()) != sum(changed.losses(2, 0).values())


def test_the_losses_of_all_branches(small):
    recipe = recipe_of(small)
    recipe.before_epoch(0, len)
    x, labels = recipe.features(small.train, 0), recipe.labels[0]
    backbone = recipe.backbone
    plain = backbone(x)
    means = summarize(plain.embedding, recipe.means)
    assignment = assign(plain.embedding, means)
    intra = backbone.head(oracle.walk_by_inverse(plain.embedding, means, assignment, 0.5))

    def classified(output):
        found = backbone.losses(output, labels)
        return (found["agnostic"] + found["classwise"]).item()

    def taught(logits):
        target = (logits / 0.2).softmax(-1)
        return -(target * (plain.logits / 0.2).log_softmax(-1)).sum(-1).mean().item()

    early = recipe.losses(0, 0)
    assert early["classification"].item() == pytest.approx(classified(plain) + classified(intra), rel=1e-4)
    assert early["extra"].item() == pytest.approx(backbone.losses(plain, labels)["attention"].item())
    assert early["pseudo"].item() == pytest.approx(taught(intra.logits), rel=1e-4)

    recipe.before_epoch(2, len)
    slots = recipe.memory.read(labels.nonzero()[:, 0]).clone()
    assert len(slots) == 5 * int(labels.sum())
    late = recipe.losses(2, 0)
    inter = backbone.head(oracle.walk_by_inverse(plain.embedding, slots, assign(plain.embedding, slots), 0.5))
    both = classified(plain) + classified(intra) + 0.5 * classified(inter)
    assert late["classification"].item() == pytest.approx(both, rel=1e-4)
    assert late["pseudo"].item() == pytest.approx(0.5 * taught(0.2 * inter.logits + 0.8 * intra.logits), rel=1e-4)


def test_no_gradient_flows_into_pseudo_labels_and_memory(small):
    recipe = recipe_of(small)
    recipe.before_epoch(2, len)
    assert not recipe.memory.features.requires_grad
    recipe.losses(2, 0)["pseudo"].backward()
    assert recipe.means.grad is None  # they reach the pseudo labels, which are given


def test_the_map_of_a_test_video(small):
    recipe = recipe_of(small)
    (video,) = recipe.videos(small.test, [1])
    with torch.no_grad():
        plain = recipe.backbone(recipe.features(small.test, 1))
        other = recipe.propagated(plain, summarize(plain.embedding, recipe.means))
        mixed = 0.6 * plain.logits.softmax(-1) + 0.4 * other.logits.softmax(-1)
        np.testing.assert_allclose(video.maps["cas"], (mixed * plain.attention[:, None]).numpy(), rtol=1e-5)
        np.testing.assert_allclose(video.scores["video"], (0.6 * plain.scores + 0.4 * other.scores).numpy(), rtol=1e-5)
    assert video.maps["cas"].dtype == np.float64
    assert isinstance(recipe.backbone, Backbone)


@pytest.mark.parametrize(("name", "value"), [("representatives", "k-means"), ("propagation", "twice")])
def test_unknown_choices_are_refused(small, name, value):
    with pytest.raises(ValueError, match=f"option `{name}` must be one of .*, got '{value}'"):
        recipe_of(small, **{name: value})


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, small):
    runs = {}
    for name, stops in (("whole", [None]), ("parts", [1, 3, None])):  # before and after the memory is filled
        for stop in stops:
            run = engine.Run(profile="smoke", output=tmp_path / name, stop_after=stop, resume=stop != stops[0])
            result = engine.train(rskp.Rskp, small, run)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["recipe"]
        runs[name] = {key: value.numpy().tobytes() for key, value in state["networks"].items()}, result.trained.average
    assert runs["whole"] == runs["parts"]
    assert "memory.features" in runs["whole"][0]


def test_one_video_can_be_learnt_by_heart(small):
    one = data.TrainTest(
        data.synthetic_features(1, 0, num_rgb=8, num_flow=8, num_classes=3, seed=1).train, small.test, ""
    )
    said = []
    engine.train(rskp.Rskp, one, engine.Run(profile="smoke", epochs=300, options={"memory": False}), said.append)
    first, last = (float(said[row].split("classification ")[1].split(",")[0]) for row in (0, 299))
    assert last < 0.15 * first
