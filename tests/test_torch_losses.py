"""Losses against their oracle, finite differences, and numbers that the eye can check."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import tal_postproc as tpp

from .oracles import losses as oracle

torch = pytest.importorskip("torch")
losses = pytest.importorskip("tal_postproc.torch.losses")
torch.set_num_threads(1)  # of tiny tensors

T, C = 7, 4


def leaf(array, dtype=torch.float64):
    return torch.tensor(np.asarray(array), dtype=dtype, requires_grad=True)


@pytest.fixture
def snippets(rng):
    """Logits, delta labels on a coarse grid, weights, and snippets to ignore."""
    logits = 4 * rng.normal(size=(T, C))
    return logits, rng.integers(-2, 3, size=(T, C)) / 4, rng.integers(0, 4, size=T) / 2, np.arange(T) % 3 == 1


# ------------------------------------------------------------------ pseudo labels
@pytest.mark.parametrize("limit", [None, -3.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_pseudo_label_loss_equals_the_oracle(snippets, limit, reduction):
    logits, targets, weights, ignore = snippets
    expected, gradients = oracle.pseudo_label_loss(logits, targets, weights, ignore, limit or -math.inf)
    mine = leaf(logits)
    loss = losses.pseudo_label_loss(
        mine, targets, weights=weights, ignore=ignore, min_log_prob=limit, reduction=reduction
    )
    loss.sum().backward()
    divisor = weights[~ignore].sum() if reduction == "mean" else 1.0
    wanted = expected if reduction == "none" else math.fsum(expected) / divisor
    np.testing.assert_allclose(loss.detach(), wanted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(mine.grad, np.array(gradients) / divisor, rtol=0, atol=1e-14)


def test_every_option_of_pseudo_label_loss_counts(snippets):
    logits, targets, weights, ignore = snippets
    logits = torch.tensor(logits)
    options = ({}, {"weights": weights}, {"ignore": ignore}, {"min_log_prob": -2.0}, {"reduction": "sum"})
    values = {losses.pseudo_label_loss(logits, targets, **kwargs).item() for kwargs in options}
    assert len(values) == len(options)


def test_the_gradient_is_not_the_printed_one():
    """Targets that sum to 0 pull along themselves, whatever the model predicts."""
    for logits in ([0.0, 0.0, 0.0], [9.0, -9.0, 3.0]):
        mine = leaf([logits])
        losses.pseudo_label_loss(mine, [[0.5, -0.75, 0.25]]).backward()
        np.testing.assert_allclose(-mine.grad, [[0.5, -0.75, 0.25]], rtol=0, atol=1e-15)


def test_gradients_of_every_loss_equal_finite_differences(snippets, rng):
    logits, targets, weights, ignore = snippets
    maps, attention = leaf(rng.normal(size=(2, 6, C))), leaf(rng.random((2, 6)))
    late = np.arange(6) >= np.array([[6], [4]])
    labels = [[1, 1, 0, 0], [0, 0, 1, 0]]
    checks = [
        (lambda z: losses.pseudo_label_loss(z, targets, weights=weights, ignore=ignore), leaf(logits)),
        (lambda z: losses.pseudo_label_loss(z, targets, min_log_prob=-3.0), leaf(logits)),
        (lambda z: losses.normalized_cross_entropy(z, labels), leaf(logits[:2])),
        (lambda z: losses.softmax_binary_cross_entropy(z, labels), leaf(logits[:2])),
        (lambda z: losses.softmax_binary_cross_entropy(z, labels), leaf([[0.0, 40.0, 0.0, 0.0], [0.0] * C])),
        (lambda m: losses.top_mean(m, share=2, ignore=late), maps),
        (lambda a: losses.attention_normalization_loss(a, share=2, ignore=late), attention),
        (
            lambda m, a: losses.basnet_loss(m, 2 * m, a, [[1, 1, 0], [0, 0, 1]], share=3, ignore=late).total,
            (maps, attention),
        ),
    ]
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs, check_undefined_grad=False)


def test_descent_without_a_limit_has_no_end_and_with_one_it_has():
    targets = torch.tensor([[0.5, -0.5]], dtype=torch.float64)
    for limit, bounded in ((None, False), (-6.0, True)):
        logits = leaf([[0.0, 0.0]])
        for _ in range(400):
            loss = losses.pseudo_label_loss(logits, targets, min_log_prob=limit)
            (step,) = torch.autograd.grad(loss, logits)
            logits = (logits - step).detach().requires_grad_()
        assert (loss.item() >= -6.0 * 0.5) == bounded  # m times the sum of the negative targets
        assert losses.reaches_min_log_prob(logits, targets, min_log_prob=-6.0).item()
    assert not losses.reaches_min_log_prob(logits, targets, min_log_prob=-6.0, ignore=[True]).item()
    assert not losses.reaches_min_log_prob(logits, targets.abs(), min_log_prob=-6.0).item()


def test_the_clamp_at_equality_lets_the_gradient_pass():
    logits, targets = leaf([[0.0, 0.0]]), [[0.0, -1.0]]
    for limit, expected in ((-math.log(2), [[-0.5, 0.5]]), (np.nextafter(-math.log(2), 0), [[0.0, 0.0]])):
        (gradient,) = torch.autograd.grad(losses.pseudo_label_loss(logits, targets, min_log_prob=limit), logits)
        assert gradient.tolist() == expected


def test_what_is_ignored_may_be_anything(snippets):
    logits, targets, weights, ignore = snippets
    spoilt, bad = logits.copy(), targets.copy()
    spoilt[ignore], bad[ignore], bad_weights = np.nan, np.inf, np.where(ignore, np.nan, weights)
    values = []
    for z, g, w in ((logits, targets, weights), (spoilt, bad, bad_weights)):
        mine = leaf(z)
        loss = losses.pseudo_label_loss(mine, g, weights=w, ignore=ignore, min_log_prob=-1.0)
        loss.backward()
        values.append((loss.item(), mine.grad.tolist()))
    assert values[0] == values[1]
    nothing = losses.pseudo_label_loss(leaf(spoilt), bad, ignore=np.ones(T, bool))
    assert nothing.item() == 0.0
    nothing.backward()
    assert losses.pseudo_label_loss(torch.zeros(0, C), np.zeros((0, C))).item() == 0.0


def test_a_padded_batch_costs_what_its_videos_cost(rng):
    lengths = [5, 9, 1]
    logits, targets, attention = rng.normal(size=(3, 9, C)), rng.normal(size=(3, 9, C)), rng.random((3, 9))
    late = np.arange(9) >= np.array(lengths)[:, None]
    batch = losses.pseudo_label_loss(torch.tensor(logits), targets, ignore=late, reduction="none").sum(-1)
    scores = losses.top_mean(torch.tensor(logits), share=4, ignore=late)
    norms = losses.attention_normalization_loss(torch.tensor(attention), share=4, ignore=late, reduction="none")
    labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    together = losses.basnet_loss(
        torch.tensor(logits), torch.tensor(targets), torch.tensor(attention), labels, share=4, ignore=late
    )
    alone = []
    for i, n in enumerate(lengths):
        expected, _ = oracle.pseudo_label_loss(logits[i, :n], targets[i, :n])
        assert batch[i].item() == pytest.approx(math.fsum(expected), abs=1e-12)
        np.testing.assert_allclose(scores[i], [oracle.top_mean(logits[i, :n, c], 4) for c in range(C)], atol=1e-15)
        assert norms[i].item() == pytest.approx(oracle.attention_normalization_loss(attention[i, :n], 4), abs=1e-15)
        one = [torch.tensor(array[i : i + 1, :n]) for array in (logits, targets, attention)]
        alone.append(losses.basnet_loss(*one, labels[i : i + 1], share=4))
    for part in losses.BasnetLoss._fields:
        mean = sum(getattr(one, part) for one in alone) / 3
        torch.testing.assert_close(getattr(together, part), mean, rtol=0, atol=1e-14)


# ------------------------------------------------------------------ video-level labels and attention
def test_video_level_losses_equal_the_oracle(rng):
    logits, labels = 6 * rng.normal(size=(30, C)), rng.integers(0, 3, size=(30, C))
    labels[:, 0] += labels.sum(axis=1) == 0
    for mine, theirs in (
        (losses.normalized_cross_entropy, oracle.normalized_cross_entropy),
        (losses.softmax_binary_cross_entropy, oracle.softmax_binary_cross_entropy),
    ):
        expected = [theirs(z, y) for z, y in zip(logits, labels)]
        z = torch.tensor(logits)
        np.testing.assert_allclose(mine(z, labels, reduction="none"), expected, rtol=1e-13)
        assert mine(z, labels).item() == pytest.approx(np.mean(expected), rel=1e-13)
        assert mine(z, labels, reduction="sum").item() == pytest.approx(np.sum(expected), rel=1e-13)
    assert losses.normalized_cross_entropy(torch.randn(1, C), torch.zeros(1, C)).item() == 0.0


def test_binary_cross_entropy_is_that_of_torch_where_torch_is_exact(rng):
    logits = torch.tensor(rng.normal(size=(5, C)))
    labels = torch.eye(C, dtype=torch.float64)[[0, 1, 2, 3, 0]]
    expected = torch.nn.functional.binary_cross_entropy(logits.softmax(-1), labels)
    torch.testing.assert_close(losses.softmax_binary_cross_entropy(logits, labels), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("share", [1, 3, 8, 100])
def test_means_of_the_highest_and_lowest_equal_the_oracle(rng, share):
    values = rng.integers(0, 5, size=(20, 3)) / 4  # ties
    scores = losses.top_mean(torch.tensor(values), share=share)
    np.testing.assert_allclose(scores, [oracle.top_mean(column, share) for column in values.T], rtol=1e-15)
    norm = losses.attention_normalization_loss(torch.tensor(values.T), share=share, reduction="none")
    expected = [oracle.attention_normalization_loss(column, share) for column in values.T]
    np.testing.assert_allclose(norm, expected, rtol=0, atol=1e-15)


def test_among_equal_values_the_earlier_snippet_has_the_gradient():
    attention = leaf([0.5, 0.5, 0.5, 0.5])
    maps = leaf([[0.5], [0.5], [0.5]])
    losses.top_mean(maps, share=3).sum().backward()
    assert maps.grad.tolist() == [[1.0], [0.0], [0.0]]
    losses.attention_normalization_loss(attention * torch.tensor([1.0, 1, 2, 2]), share=4).backward()
    assert attention.grad.tolist() == [1.0, 0.0, -2.0, 0.0]


def test_basnet_by_hand():
    """Two classes and the background; the base branch wants (1/2, 0, 1/2), the suppression branch (1, 0, 0)."""
    half = torch.tensor([[0.5]], dtype=torch.float64)
    z = torch.log(torch.tensor([[[0.5, 0.25, 0.25]]], dtype=torch.float64))
    loss = losses.basnet_loss(z, z, half, [[1, 0]], norm_weight=0.1)
    base = -(math.log(0.5) + math.log(0.75) + 0.5 * math.log(0.25) + 0.5 * math.log(0.75)) / 3
    suppressed = -(math.log(0.5) + 2 * math.log(0.75)) / 3
    assert [part.item() for part in loss] == pytest.approx([base + suppressed + 0.05, base, suppressed, 0.5], rel=1e-12)
    first = losses.basnet_loss(z.roll(1, -1), z.roll(1, -1), half, [[1, 0]], background="first")
    assert first.base.item() == pytest.approx(base, rel=1e-12)
    assert first.suppressed.item() == pytest.approx(suppressed, rel=1e-12)


# ------------------------------------------------------------------ numbers and types
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_logits_and_every_dtype(dtype):
    logits = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]]]).to(dtype).requires_grad_()
    labels = [[1.0, 0.0, 0.0]]
    total = (
        losses.pseudo_label_loss(logits, [[[-1.0, 1.0, 0.0], [1.0, 0.0, -0.5]]])
        + losses.normalized_cross_entropy(logits[:, 0], labels)
        + losses.softmax_binary_cross_entropy(logits[:, 0], [[0.0, 1.0, 0.0]])
        + losses.attention_normalization_loss(logits[..., 0])
    )
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    top = float(torch.tensor(1e4, dtype=dtype))
    assert losses.softmax_binary_cross_entropy(logits[:, 0], [[0.0, 1.0, 0.0]]).item() == pytest.approx(top, rel=1e-6)
    total.backward()
    assert logits.grad.dtype == dtype
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()


def test_inputs_stay_as_they_are_and_targets_get_no_gradient(rng):
    logits, targets = leaf(rng.normal(size=(C, T))).T, leaf(rng.normal(size=(T, C)))
    before = logits.detach().clone(), targets.detach().clone()
    losses.pseudo_label_loss(logits, targets, ignore=[True] + [False] * (T - 1), min_log_prob=-1.0).backward()
    assert targets.grad is None
    assert torch.equal(logits.detach(), before[0])
    assert torch.equal(targets.detach(), before[1])


def test_wrong_arguments_are_named():
    z, g, pseudo = torch.zeros(3, 2), torch.zeros(3, 2), losses.pseudo_label_loss
    for error, message, call in (
        (TypeError, "`logits` must be a floating-point tensor, got torch.int64", lambda: pseudo(z.long(), g)),
        (TypeError, "`logits` must be a floating-point tensor, got ndarray", lambda: pseudo(z.numpy(), g)),
        (ValueError, "`logits` must have 2 dimensions at least", lambda: pseudo(z[0], g[0])),
        (ValueError, r"`targets` must have shape \(3, 2\), got shape \(2, 2\)", lambda: pseudo(z, g[:2])),
        (ValueError, "`weights` must have shape", lambda: pseudo(z, g, weights=1.0)),
        (ValueError, "`ignore` must have shape", lambda: pseudo(z, g, ignore=[True])),
        (TypeError, "`ignore` must be boolean", lambda: pseudo(z, g, ignore=[0, 1, 0])),
        (ValueError, "`min_log_prob` must be below 0", lambda: pseudo(z, g, min_log_prob=0.0)),
        (ValueError, "`reduction` must be one of", lambda: pseudo(z, g, reduction="max")),
        (ValueError, "`labels` must have shape", lambda: losses.normalized_cross_entropy(z, [1.0])),
        (ValueError, "`logits` needs 2 classes", lambda: losses.softmax_binary_cross_entropy(z[:, :1], g[:, :1])),
        (ValueError, "`share` must be at least 1", lambda: losses.top_mean(z, share=0)),
        (ValueError, "`norm_weight` must be at least 0", lambda: losses.basnet_loss(z, z, z[0], z, norm_weight=-1.0)),
        (ValueError, "`column` must be one of", lambda: losses.with_background([[1]], 0.0, column="middle")),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_targets_of_the_refresher_go_straight_in():
    """The bank's NumPy maps, float64, against float32 logits of a model."""
    bank = tpp.DeltaPseudoLabels()
    bank.update({"v": [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]})
    bank.update({"v": [[0.25, 0.0], [0.5, 0.25], [0.0, 0.0]]})
    logits = leaf(np.zeros((3, 2)), torch.float32)
    losses.pseudo_label_loss(logits, bank.targets("v"), min_log_prob=-10.0, reduction="sum").backward()
    assert logits.grad.tolist() == [[0.125, -0.125], [0.125, -0.125], [0.0, 0.0]]


def test_the_page_of_tensors_shows_every_loss():
    page = (Path(__file__).parents[1] / "docs" / "api" / "torch.md").read_text(encoding="utf-8")
    shown = re.findall(r"auto(?:function|class):: tal_postproc\.torch\.losses\.(\w+)", page)
    assert sorted(shown) == sorted(losses.__all__)
