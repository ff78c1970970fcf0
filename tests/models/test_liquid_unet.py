"""The U-Net of liquid cells: its cells' equations and gradients, and what training draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import solvers
from liquid_ode.models import create_model
from liquid_ode.models.conv_liquid import BoundedRate, ConvLiquidDynamics, NormedMapTarget, tanh_
from solvers import ExponentialEuler, SemilinearField
from tests.models.busy import busy_model


def dynamics(**options: object) -> ConvLiquidDynamics:
    torch.manual_seed(0)
    cell = ConvLiquidDynamics(16, 8, 4, ExponentialEuler(), 3, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(cell.norm.bias, std=0.1)
    return cell.double()


def maps() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 16, 5, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)


def test_the_cell_solves_its_equation() -> None:
    """By exponential Euler, written out as in the docstring."""
    cell, (z, c) = dynamics(), maps()
    d = cell.drive(z)
    logits = cell.tau_drive[:, None, None] * d + cell.tau_condition(c)[..., None, None]
    gate = 0.5 + torch.sigmoid(logits)
    tau = (cell.tau_base[:, None, None] * gate).clamp(0.1, 5.0)
    torch.testing.assert_close(cell.time_constant(z, c), tau)
    h = torch.tanh(d)
    for _ in range(3):
        target = torch.tanh(F.conv2d(cell.norm(h), cell.recurrent, padding=1) + d)
        decay = torch.exp(-1 / (3 * tau))
        h = decay * h + (1 - decay) * target
    torch.testing.assert_close(cell(z, c), h)


def test_time_constants_start_between_a_third_and_five_units() -> None:
    base = dynamics().tau_base
    torch.testing.assert_close(base[[0, -1]], torch.tensor([0.3, 5.0]).to(base))
    assert (base.diff() > 0).all()


def test_gradients_by_hand_are_those_of_finite_differences() -> None:
    cell, (z, c) = dynamics(), maps()
    names = [name for name, _ in cell.named_parameters()]

    def run(z: Tensor, c: Tensor, start: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(cell, parameters, (z, c, start))

    start = torch.rand(2, 8, 5, 6, dtype=torch.float64)
    inputs = [x.detach().clone().requires_grad_() for x in (z, c, start, *cell.parameters())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("base", [0.05, 1.0, 8.0])  # clamped below, free, clamped above
def test_the_rate_and_its_gradient(base: float) -> None:
    torch.manual_seed(0)
    inputs = [torch.full((3,), base), *map(torch.randn, ((3,), (2, 3, 4, 4), (2, 3)))]
    inputs = [x.double().requires_grad_() for x in inputs]
    rule = BoundedRate()
    torch.testing.assert_close(rule(*inputs), rule.plain(*inputs))
    assert torch.autograd.gradcheck(rule, inputs)


@torch.no_grad()
def test_the_hyperbolic_tangent_in_float32() -> None:
    x = torch.linspace(-100, 100, 100_001)
    torch.testing.assert_close(tanh_(x.clone()), torch.tanh(x), rtol=0, atol=2e-7)


def test_other_solvers_agree_where_they_are_accurate() -> None:
    cell, (z, c) = dynamics(), maps()
    cell.steps = 400
    exact = cell(z, c)
    cell.solver = solvers.get("dormand_prince", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(cell(z, c), exact, rtol=0, atol=3e-3)


def test_samples_of_the_field_are_those_of_the_batch() -> None:
    cell, (z, c) = dynamics(), maps()
    target = NormedMapTarget(cell.recurrent, cell.drive(z), cell.norm.weight, cell.norm.bias)
    field = SemilinearField(target, cell.time_constant(z, c))
    h = torch.rand(2, 8, 5, 6, dtype=torch.float64)
    rows = torch.tensor([1])
    torch.testing.assert_close(field.select(rows)(torch.zeros(()), h[rows]), field(0, h)[rows])


def test_sparse_wiring_leaves_channels_apart() -> None:
    model = create_model("liquid_unet", sparsity=0.75)
    cells = [part for group in model.budgets() for part in group]
    assert all((cell.recurrent.abs().sum((2, 3)) > 0).float().mean() < 0.26 for cell in cells)
    busy = busy_model("liquid_unet", sparsity=0.75)
    busy(torch.randn(1, 3, 8, 8), torch.tensor([5])).square().sum().backward()
    for group in busy.budgets():
        for cell in group:
            mask = cell.masks()["recurrent"]
            assert not cell.recurrent.grad[~mask].any()
            assert cell.recurrent.grad[mask].any()


def test_sizes_from_small_to_large() -> None:
    large = {"widths": (128, 256, 256), "blocks": 2, "attention": (1, 2), "conditioning": 256}
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model("liquid_unet", **large).parameters())
    assert count > 10_000_000
    model = busy_model("liquid_unet", widths=(8, 16, 16, 24), blocks=2, attention=(2, 3), steps=2)
    x, t = torch.randn(2, 3, 20, 9), torch.tensor([3, 700])
    model(x, t).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_attention_sees_every_place() -> None:
    model = busy_model("liquid_unet", widths=(8, 8), steps=1, attention=(1,)).double()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    model(x, torch.tensor([3]))[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert x.grad[0, :, -1, -1].any()


def test_states_are_carried_between_evaluations() -> None:
    model = busy_model("liquid_unet", steps=2).eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        alone = model(x, t)
        with model.carrying_states():
            assert torch.equal(model(x, t), alone)  # nothing to start from yet
            assert not torch.allclose(model(x, t), alone)
        assert torch.equal(model(x, t), alone)


def test_carried_states_do_not_pass_to_another_batch() -> None:
    model = busy_model("liquid_unet", steps=2).eval()
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([3, 700, 20])
    with torch.no_grad(), model.carrying_states():
        model(x, t)
        plain = busy_model("liquid_unet", steps=2).eval()
        assert torch.equal(model(x[:2], t[:2]), plain(x[:2], t[:2]))
        narrow = x[:2, :, :, :12]  # as many images and rows, but other maps
        assert torch.equal(model(narrow, t[:2]), plain(narrow, t[:2]))


def test_training_draws_budgets_early_stops_and_warm_starts() -> None:
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([100])

    def outputs(training: bool, **options: object) -> set[float]:
        model = busy_model("liquid_unet", **options).train(training)
        torch.manual_seed(0)
        with torch.no_grad():
            return {round(float(model(x, t).sum()), 4) for _ in range(40)}

    plain = {n: outputs(True, steps=n) for n in (2, 3, 4)}
    assert outputs(True, steps=4, random_steps=(2, 3, 4)) == plain[2] | plain[3] | plain[4]
    assert len(outputs(True, steps=4, early_share=0.5)) == 4  # whole, and after 1, 2 and 3
    assert len(outputs(True, steps=4, warm_share=0.5)) == 2
    shares = {"random_steps": (2, 3), "early_share": 1.0, "warm_share": 1.0}
    assert outputs(False, steps=4, **shares) == plain[4]  # evaluation draws nothing


def test_one_number_stands_for_a_sequence_of_one() -> None:
    # as --model-option attention=2 gives it
    one = {"attention": 2, "random_steps": 3}
    model, same = (
        create_model("liquid_unet", **one),
        create_model("liquid_unet", attention=(2,), random_steps=(3,)),
    )
    assert model.random_steps == same.random_steps == (3,)
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in same.named_parameters()
    }
    names = [name for name, _ in create_model("unet", attention=1).named_parameters()]
    assert {
        name.split(".")[1] for name in names if name.startswith("down") and "attention" in name
    } == {"1"}


def test_bad_options_of_the_liquid_unet() -> None:
    for option, value, message in (
        ("steps", (4, 4), "one number or 3"),
        ("steps", 0, "steps must be a whole number"),
        ("sparsity", 1.0, r"sparsity must lie in \[0, 1\)"),
        ("early_share", 1.5, "early_share must lie"),
        ("random_steps", (0, 4), "random_steps must be"),
        ("random_steps", "true", "random_steps must be"),
        ("attention", 4, "attention must name levels from 0 to 2"),
        ("attention", (3,), "attention must name levels from 0 to 2"),
        ("widths", (12, 24), "multiples of 8"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model("liquid_unet", **{option: value})


def test_the_size_of_a_state_is_bounded_by_one() -> None:
    cell, (z, c) = dynamics(), maps()
    for steps in (1, 3, 50):
        cell.steps, cell.duration = steps, 100.0
        assert cell(10 * z, c).abs().max() <= 1 + math.ulp(1.0)
