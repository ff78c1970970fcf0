"""Problems solved one after the other: as by solving each, with the gradient in one sweep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from solvers import (
    DormandPrince,
    Euler,
    ExponentialEuler,
    Heun,
    QuasilinearField,
    SemiImplicitEuler,
    SemilinearField,
    SolverError,
    TorchDiffEq,
    Uniform,
)
from solvers.gradients import cache_chunks as chunks
from tests.solvers.fields import Saturating, Saturation, is_taped

RELAXATIONS = [Euler(steps=3), Euler(steps=3, step_size=Uniform()), ExponentialEuler(steps=2)]
RELAXATIONS += [SemiImplicitEuler(steps=3)]
OTHERS = [Heun(steps=2), DormandPrince(), TorchDiffEq("rk4", steps=3)]
B, H, T = 5, 4, 3


def tensors() -> tuple[Tensor, ...]:
    """A weight that all share, biases and rates of each, and y0."""
    torch.manual_seed(0)
    shapes = ((H, H), (T, B, H), (T, B, H), (B, H))
    drawn = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    drawn[2] = 0.2 + drawn[2].abs()
    return tuple(tensor.requires_grad_() for tensor in drawn)


def fields_of(kind: type, weight: Tensor, bias: Tensor, rate: Tensor) -> list[solvers.VectorField]:
    each = zip(bias.unbind(), rate.unbind(), strict=True)
    if kind is LiquidField:
        return [LiquidField(weight, *own) for own in each]
    return [Saturating(weight, *own) for own in each]


def one_by_one(solver: solvers.Solver, fields: list, y0: Tensor) -> Tensor:  # type: ignore[type-arg]
    ends = []
    for field in fields:
        y0 = solver.solve(field, y0, (0.0, 0.7)).y
        ends.append(y0)
    return torch.stack(ends)


@pytest.mark.parametrize("kind", [LiquidField, Saturating])
@pytest.mark.parametrize("solver", [*RELAXATIONS, *OTHERS], ids=repr)
def test_a_chain_is_the_problems_one_by_one(solver: solvers.Solver, kind: type) -> None:
    weight, bias, rate, y0 = tensors()
    found = []
    for solve in (one_by_one, lambda s, f, y: s.solve_chain(f, y, (0.0, 0.7))):
        ends = solve(solver, fields_of(kind, weight, bias, rate), y0)
        grads = torch.autograd.grad(ends.sin().sum(), (weight, bias, rate, y0))
        found.append([ends, *grads])
    assert found[1][0].shape == (T, B, H)
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        ends = solver.solve_chain(fields_of(kind, weight, bias, rate), y0, (0.0, 0.7))
    torch.testing.assert_close(ends, found[0][0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [LiquidField, Saturating])
@pytest.mark.parametrize("solver", RELAXATIONS[1:], ids=repr)
def test_gradient_of_a_chain_by_finite_differences(solver: solvers.Solver, kind: type) -> None:
    def solve(weight: Tensor, bias: Tensor, rate: Tensor, y0: Tensor) -> Tensor:
        return solver.solve_chain(fields_of(kind, weight, bias, rate), y0)

    assert is_taped(solve(*tensors()))
    assert torch.autograd.gradcheck(solve, tensors())
    assert torch.autograd.gradgradcheck(solve, tensors(), fast_mode=True)


def anew() -> Tensor:
    """Restarts of two samples, one of them before the first problem."""
    found = torch.zeros(T, B, 1, dtype=torch.bool)
    found[0, 1] = found[2, 3] = found[1, 3] = True
    return found


def one_by_one_anew(solver: solvers.Solver, fields: list, y0: Tensor) -> Tensor:  # type: ignore[type-arg]
    ends = []
    for field, zero in zip(fields, anew(), strict=True):
        y0 = solver.solve(field, torch.where(zero, 0.0, y0), (0.0, 0.7)).y
        ends.append(y0)
    return torch.stack(ends)


@pytest.mark.parametrize("kind", [LiquidField, Saturating])
@pytest.mark.parametrize("solver", [*RELAXATIONS, *OTHERS], ids=repr)
def test_samples_that_start_from_zero(solver: solvers.Solver, kind: type) -> None:
    weight, bias, rate, y0 = tensors()
    found = []
    for solve in (one_by_one_anew, lambda s, f, y: s.solve_chain(f, y, (0.0, 0.7), anew())):
        ends = solve(solver, fields_of(kind, weight, bias, rate), y0)
        grads = torch.autograd.grad(ends.sin().sum(), (weight, bias, rate, y0))
        found.append([ends, *grads])
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-12)
    assert torch.equal(found[1][-1][1], torch.zeros(H, dtype=torch.float64))
    with torch.no_grad():
        ends = solver.solve_chain(fields_of(kind, weight, bias, rate), y0, (0.0, 0.7), anew())
    torch.testing.assert_close(ends, found[0][0], rtol=1e-11, atol=1e-12)
    for single in (0, 1):  # problem
        field = fields_of(kind, weight, bias, rate)[single : single + 1]
        ends = solver.solve_chain(field, y0, restarts=anew()[single : single + 1])
        expected = solver.solve(field[0], torch.where(anew()[single], 0.0, y0)).y
        torch.testing.assert_close(ends[0], expected)


@pytest.mark.parametrize("solver", RELAXATIONS[1:], ids=repr)
def test_gradient_with_restarts_by_finite_differences(solver: solvers.Solver) -> None:
    def solve(weight: Tensor, bias: Tensor, rate: Tensor, y0: Tensor) -> Tensor:
        return solver.solve_chain(fields_of(LiquidField, weight, bias, rate), y0, restarts=anew())

    assert is_taped(solve(*tensors()))
    assert torch.autograd.gradcheck(solve, tensors())
    assert torch.autograd.gradgradcheck(solve, tensors(), fast_mode=True)


def test_restarts_of_one_system() -> None:
    fields = [lambda t, y: -y, lambda t, y: -2 * y]
    y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for restarts in ([False, True], [True, False], [False, False]):
        ends = Heun(3).solve_chain(fields, y0, restarts=torch.tensor(restarts).unsqueeze(1))
        first = Heun(3).solve(fields[0], y0 * (not restarts[0])).y
        torch.testing.assert_close(ends[0], first)
        torch.testing.assert_close(ends[1], Heun(3).solve(fields[1], first * (not restarts[1])).y)


def test_restarts_are_batched_by_vmap() -> None:
    weight, bias, rate, y0 = tensors()

    def solve(restarts: Tensor) -> Tensor:
        fields = fields_of(LiquidField, weight, bias, rate)
        return ExponentialEuler(steps=2).solve_chain(fields, y0, restarts=restarts)

    each = torch.stack([anew(), ~anew(), torch.zeros_like(anew())])
    expected = torch.stack([solve(one) for one in each])
    torch.testing.assert_close(torch.vmap(solve)(each), expected)


@pytest.mark.parametrize("kind", [LiquidField, Saturating])
def test_a_chain_in_chunks_of_rows(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, rate, y0 = tensors()
    found: list[list[Tensor]] = []
    for elements in (2**16, 8 / torch.get_num_threads()):
        monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", elements)
        found.append([])
        fields = fields_of(kind, weight, bias, rate)
        for restarts in (None, anew()):
            ends = SemiImplicitEuler(steps=3).solve_chain(fields, y0, restarts=restarts)
            assert is_taped(ends)
            grads = torch.autograd.grad(ends.sin().sum(), (weight, bias, rate, y0))
            found[-1] += [ends, *grads]
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_a_rate_that_all_share_gathers_its_gradient() -> None:
    weight, bias, rate, y0 = tensors()
    of_all = rate[0].detach().requires_grad_()
    fields = [Saturating(weight, own, of_all) for own in bias.unbind()]
    grads = [
        torch.autograd.grad(ends.sin().sum(), (of_all, weight))
        for ends in (
            SemiImplicitEuler(steps=3).solve_chain(fields, y0, (0.0, 0.7)),
            one_by_one(SemiImplicitEuler(steps=3), fields, y0),
        )
    ]
    for actual, expected in zip(*grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


def cubic(rate: Tensor | float) -> QuasilinearField:
    """dy/dt = rate (1 + y^2) (0 - y), without a derivative of its own."""
    return QuasilinearField(lambda t, y: (torch.zeros_like(y), 1 + y.square()), rate)


def test_quasilinear_fields_with_every_kind_of_method() -> None:
    y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).view(3, 2)
    field = cubic(2.0)
    # v = y^2 obeys dv/dt = -4 v (1 + v), whose solution is v / (1 + v) = c exp(-4 t)
    ratio = y0.square() / (1 + y0.square()) * torch.tensor(-4.0).double().exp()
    exact = y0.sign() * (ratio / (1 - ratio)).sqrt()
    for solver in (DormandPrince(), Heun(steps=200), TorchDiffEq("rk4", steps=50)):
        torch.testing.assert_close(solver.solve(field, y0).y, exact, rtol=1e-3, atol=1e-4)
    for name in ("semi_implicit_euler", "exponential_euler", "uniform_euler"):
        errors = [
            float((solvers.get(name, steps=n).solve(field, y0).y - exact).abs().max())
            for n in (100, 200)
        ]
        assert 1.8 < errors[0] / errors[1] < 2.2  # order 1


def test_semi_implicit_euler_of_a_quasilinear_field_is_the_fused_update() -> None:
    y0, dt = torch.tensor([[0.5, -2.0]], dtype=torch.float64), 0.25
    y = y0
    for _ in range(4):
        y = y / (1 + dt * 2 * (1 + y.square()))
    solution = SemiImplicitEuler(steps=4).solve(cubic(2.0), y0, t_eval=[0.5, 1.0])
    torch.testing.assert_close(solution.y, y)
    assert solution.ys is not None
    torch.testing.assert_close(solution.ys[1], y)


@pytest.mark.parametrize("name", ["etdrk2", "etdrk4"])
def test_methods_that_a_quasilinear_field_does_not_suit(name: str) -> None:
    with pytest.raises(ValueError, match="time constants that do not depend on the state"):
        solvers.get(name).solve(cubic(2.0), torch.ones(2, 3))


def test_bad_chains() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        Euler().solve_chain([], torch.ones(2, 3))
    weight, bias, rate, y0 = tensors()
    with torch.no_grad():
        bias[1, 2] = torch.nan
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), pytest.raises(
            SolverError, match=r"problem 2 of 3: 1 of 5 samples \(2\) met a NaN"
        ):  # fmt: skip
            Euler().solve_chain(fields_of(LiquidField, weight, bias, rate), y0)
    with pytest.raises(ValueError, match="t1 of t_span must be finite"):
        Euler().solve_chain(fields_of(LiquidField, weight, bias, rate), y0, (1.0, float("nan")))
    with pytest.raises(ValueError, match="one floating-point tensor"):
        Euler().solve_chain([lambda t, y: y], (y0, y0))  # type: ignore[arg-type]
    fields = fields_of(LiquidField, weight, bias, rate)
    for count in (1, T):
        for bad in (torch.ones(count, B) > 0, torch.ones(count, B, 1), [True] * count):
            with pytest.raises(ValueError, match=rf"restarts must .*\({count}, 5, 1\), not"):
                Euler().solve_chain(fields[:count], y0, restarts=bad)


def test_chains_in_times_of_each_sample() -> None:
    weight, bias, rate, y0 = tensors()
    fields = fields_of(LiquidField, weight, bias, rate)
    t1 = torch.linspace(0.5, 2.0, B, dtype=y0.dtype, requires_grad=True)
    solver = Euler(steps=4, step_size=Uniform())
    ends = solver.solve_chain(fields, y0, (0.0, t1))
    state, expected = y0, []
    for field in fields:
        state = solver.solve(field, state, (0.0, t1)).y
        expected.append(state)
    torch.testing.assert_close(ends, torch.stack(expected))
    each = SemilinearField(fields[0].target, fields[0].tau / t1[:, None])
    torch.testing.assert_close(ends[0], solver.solve(each, y0).y)
    ours, other = (torch.autograd.grad(x.sum(), t1)[0] for x in (ends[-1], expected[-1]))
    torch.testing.assert_close(ours, other)


def test_states_may_be_edited_in_place() -> None:
    weight, bias, rate, y0 = tensors()
    fields = fields_of(LiquidField, weight, bias, rate)
    for count in (1, T):
        ends = Euler(steps=2, step_size=Uniform()).solve_chain(fields[:count], y0)
        expected = torch.autograd.grad((2 * ends).sum(), weight, retain_graph=True)
        ends.mul_(2)
        torch.testing.assert_close(torch.autograd.grad(ends.sum(), weight), expected)


def test_shared_gradients_of_long_chains_are_added_in_float32() -> None:
    torch.manual_seed(0)
    weight = (0.5 * torch.randn(H, H)).bfloat16().requires_grad_()
    bias, rate = torch.randn(600, B, H).bfloat16(), torch.rand(600, B, H).bfloat16()
    grads = []
    for dtype in (torch.bfloat16, torch.float32):
        fields = fields_of(LiquidField, weight.to(dtype), bias.to(dtype), rate.to(dtype))
        ends = Euler(steps=2, step_size=Uniform()).solve_chain(
            fields, torch.zeros(B, H, dtype=dtype)
        )
        grads.append(torch.autograd.grad(ends.float().sum(), weight)[0].float())
    assert (grads[0] - grads[1]).norm() < 0.03 * grads[1].norm()


def test_inputs_that_are_made_at_each_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, rate, y0 = tensors()

    class Remade(Saturation):
        @property
        def tensors(self) -> tuple[Tensor, ...]:
            return self.weight * 1, self.bias

    fields = [
        QuasilinearField(Remade(weight, b), r)
        for b, r in zip(bias.unbind(), rate.unbind(), strict=True)
    ]
    plain = SemiImplicitEuler(steps=2).solve_chain(fields_of(Saturating, weight, bias, rate), y0)
    (expected,) = torch.autograd.grad(plain.sin().sum(), weight)
    for elements in (2**16, 8 / torch.get_num_threads()):  # together, and in chunks of rows
        monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", elements)
        ends = SemiImplicitEuler(steps=2).solve_chain(fields, y0)
        (actual,) = torch.autograd.grad(ends.sin().sum(), weight)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), torch.tensor([1.0, -0.5])])
def test_bad_rates(rate: Tensor | float) -> None:
    with pytest.raises(ValueError, match="rate must be finite and at least 0 everywhere"):
        cubic(rate)
