"""Error control per sample: batches, dropping of samples that ended, gradients, compilers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ETDRK4,
    PID,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Heun,
    HeunEuler,
    NativeSolver,
    ParameterisedField,
    SemilinearField,
    Tsit5,
)

F64 = torch.float64
SOLVERS = [
    HeunEuler(step_size=PID(1e-3, 1e-3)),
    Bosh3(),
    DormandPrince(),
    Tsit5(),
    ETDRK4(step_size=PID(1e-3, 1e-3)),
]
SHAPES = [(6, 1), (6, 6), (4, 2, 3, 3)]


def kind_of(solver: Any) -> str:
    return type(solver).__name__


def sized(rates: Tensor, axes: int) -> Tensor:
    return rates.view(-1, *[1] * (axes - 1))


def waves(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    """Oscillations of which some samples have many and others hardly any."""
    return rates * (torch.cos(rates * t) - 0.3 * y).to(y.dtype)


class Counter:
    """A function of (t, y, ...) that notes how many rows it is asked for."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.sizes: list[int] = []

    def __call__(self, t: Tensor, y: Tensor, *arguments: Tensor) -> Tensor:
        self.sizes.append(len(y))
        return self.function(t, y, *arguments)


def field_of(solver: NativeSolver, rates: Tensor, function: Any = waves) -> Any:
    if not isinstance(solver, ETDRK4):
        return ParameterisedField(function, rates)

    def target(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        return y + function(t, y, rates) / rates

    return SemilinearField(ParameterisedField(target, rates), 1 / rates)


# ---- A sample does not depend on its batch ------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS, ids=kind_of)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_steps_do_not_depend_on_the_batch(
    solver: NativeSolver, shape: tuple[int, ...]
) -> None:
    count, axes = shape[0], len(shape)
    rates = torch.logspace(-1, 1.2, count, dtype=F64)
    y0 = torch.linspace(-1, 1, math.prod(shape), dtype=F64).view(shape)
    whole = solver.solve(field_of(solver, sized(rates, axes)), y0)
    assert len(set(whole.stats.accepted.tolist())) > 2  # type: ignore[union-attr]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    for rows in (order, [0], [count - 1], order[:2]):
        part = solver.solve(field_of(solver, sized(rates[rows], axes)), y0[rows])
        torch.testing.assert_close(part.y, whole.y[rows], rtol=1e-12, atol=1e-12)
        for name in ("nfe", "accepted", "rejected"):
            assert getattr(part.stats, name).tolist() == getattr(whole.stats, name)[rows].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("solver", SOLVERS, ids=kind_of)
def test_lower_precision(solver: NativeSolver, dtype: torch.dtype) -> None:
    rates = torch.tensor([[0.5], [2.0], [5.0]], dtype=dtype)
    y0 = torch.linspace(-1, 1, 6, dtype=dtype).view(3, 2)
    seen = set()

    def watched(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        seen.add(y.dtype)
        return waves(t, y, rates)

    solution = solver.solve(field_of(solver, rates, watched), y0)
    assert solution.y.dtype == dtype
    assert seen == {dtype}
    exact = solver.solve(field_of(solver, rates.double()), y0.double()).y
    tolerance = 40 * torch.finfo(dtype).eps + 1e-4
    torch.testing.assert_close(solution.y.double(), exact, rtol=tolerance, atol=tolerance)


# ---- Only samples that have not ended are evaluated ---------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS, ids=kind_of)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_that_arrived_are_not_evaluated(
    solver: NativeSolver, shape: tuple[int, ...]
) -> None:
    rates = torch.logspace(-1, 1.2, shape[0], dtype=F64)
    y0 = torch.zeros(shape, dtype=F64)
    counter = Counter(waves)
    solution = solver.solve(field_of(solver, sized(rates, len(shape)), counter), y0)
    assert isinstance(solution.stats.nfe, Tensor)
    assert counter.sizes == sorted(counter.sizes, reverse=True)
    assert counter.sizes[-1] < shape[0]
    assert int(solution.stats.nfe.sum()) == sum(counter.sizes)
    assert int(solution.stats.nfe.max()) == len(counter.sizes)


# ---- Plain functions, whose rows are never asked for alone ---------------------------------------


@pytest.mark.parametrize("tau_shape", [(5, 3), (3,), ()], ids=str)
def test_semilinear_fields_of_plain_targets_keep_their_rows(tau_shape: tuple[int, ...]) -> None:
    tau = torch.logspace(-1.5, 1, math.prod(tau_shape), dtype=F64).view(tau_shape)
    counter = Counter(lambda t, y: torch.tanh(2 * y) + torch.cos(8 * t * y))
    y0 = torch.linspace(0, 3, 15, dtype=F64).view(5, 3)
    solver = ETDRK4(rtol=1e-4, atol=1e-4)
    solution = solver.solve(SemilinearField(counter, tau), y0)
    assert set(counter.sizes) == {5}
    assert torch.as_tensor(solution.stats.nfe).tolist() == [len(counter.sizes)] * 5
    for row in range(5):
        own = tau[row : row + 1] if len(tau_shape) == 2 else tau
        alone = solver.solve(SemilinearField(counter.function, own), y0[row : row + 1])
        torch.testing.assert_close(alone.y[0], solution.y[row], rtol=1e-12, atol=1e-12)


def test_plain_functions_keep_their_rows() -> None:
    counter = Counter(lambda t, y: 4 * y * torch.cos(20 * t * y))
    y0 = torch.linspace(0.1, 3, 8, dtype=F64).view(8, 1)
    solution = Tsit5().solve(counter, y0)
    accepted = torch.as_tensor(solution.stats.accepted)
    assert len(set(accepted.tolist())) > 2  # rows that end at different times
    assert set(counter.sizes) == {8}
    # The work is that of all to the end, with what it took to find out that they are independent.
    assert torch.as_tensor(solution.stats.nfe).tolist() == [len(counter.sizes)] * 8
    for row in (0, 3, 7):
        alone = Tsit5().solve(counter.function, y0[row : row + 1])
        torch.testing.assert_close(alone.y[0], solution.y[row], rtol=1e-12, atol=1e-12)
        assert alone.stats.accepted.tolist() == [accepted[row]]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["column", "full"])
def test_closures_over_tensors_of_each_sample_give_right_results(kind: str) -> None:
    rates = torch.logspace(-1, 1.2, 6, dtype=F64)[:, None]
    rates = rates if kind == "column" else rates.repeat(1, 2)
    y0 = torch.zeros(6, 2, dtype=F64)
    counter = Counter(lambda t, y: waves(t, y, rates))
    solution = Tsit5().solve(counter, y0)
    expected = Tsit5().solve(ParameterisedField(waves, rates), y0)
    torch.testing.assert_close(solution.y, expected.y, rtol=1e-12, atol=1e-12)
    for name in ("accepted", "rejected"):
        ours, theirs = getattr(solution.stats, name), getattr(expected.stats, name)
        assert torch.equal(ours, theirs)
    assert set(counter.sizes) == {6}
    assert torch.as_tensor(solution.stats.nfe).tolist() == [len(counter.sizes)] * 6


def by_position(t: Tensor, y: Tensor) -> Tensor:
    return waves(t, y, 1.0 + 5 * torch.arange(len(y), dtype=y.dtype)[:, None])


def test_functions_of_the_position_in_the_batch_give_right_results() -> None:
    y0 = torch.tensor([[0.0], [2.0], [0.5], [9.0]], dtype=F64)
    solution = Bosh3().solve(by_position, y0)
    place = torch.arange(4.0, dtype=F64)[:, None]
    given = ParameterisedField(lambda t, y, place: waves(t, y, 1 + 5 * place), place)
    torch.testing.assert_close(solution.y, Bosh3().solve(given, y0).y, rtol=1e-12, atol=1e-12)


# ---- Gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS, ids=kind_of)
def test_checkpointing_gives_the_very_gradient_of_backpropagation(solver: NativeSolver) -> None:
    found = []
    for gradient in (solvers.Backpropagation(), Checkpointing()):
        rates = torch.logspace(-1, 0.8, 4, dtype=F64)[:, None].requires_grad_()
        y0 = torch.linspace(-1, 1, 8, dtype=F64).view(4, 2).requires_grad_()
        chosen = replace(solver, gradient=gradient)
        y = chosen.solve(field_of(solver, rates), y0).y
        found.append([y, *torch.autograd.grad(y.square().sum(), (rates, y0))])
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("solver", [Heun(steps=200), Tsit5(step_size=PID(1e-10, 1e-10))])
def test_checkpointing_keeps_few_states(solver: NativeSolver) -> None:
    """Of n steps about sqrt(2 n) states are kept, not all the tensors of all steps."""
    kept = []
    for gradient in (solvers.Backpropagation(), Checkpointing()):
        sizes = []

        def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        y0 = torch.ones(64, 2, dtype=F64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            replace(solver, gradient=gradient).solve(lambda t, y: -5 * y * torch.cos(y), y0)
        kept.append(sum(sizes))
    assert kept[0] > 10 * kept[1]


@pytest.mark.parametrize("solver", SOLVERS, ids=kind_of)
def test_under_vmap_the_error_is_clear(solver: NativeSolver) -> None:
    field = SemilinearField(lambda t, y: torch.zeros_like(y), 1.0)
    words = "error control chooses its steps by the values of the state, which vmap hides"
    with pytest.raises(ValueError, match=words):
        torch.func.vmap(lambda y: solver.solve(field, y).y)(torch.ones(2, 3, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("kind", ["plain", "parameterised"])
def test_derivatives_by_torch_func(kind: str) -> None:
    solver, y0 = Tsit5(rtol=1e-7, atol=1e-7), torch.ones(2, 3, dtype=F64)
    rates = torch.tensor([[0.5], [2.0]], dtype=F64)

    def final(rates: Tensor) -> Tensor:
        field: Any = ParameterisedField(lambda t, y, rates: -rates * y, rates)
        if kind == "plain":
            field = lambda t, y: -rates * y  # noqa: E731
        return solver.solve(field, y0).y.sum()

    exact = -3 * torch.exp(-rates)
    torch.testing.assert_close(torch.func.grad(final)(rates), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.func.jacfwd(final)(rates), exact, rtol=1e-5, atol=1e-5)
    second = torch.func.hessian(final)(rates)
    expected = torch.diag(-exact.flatten()).view(2, 1, 2, 1)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-5)


def test_the_first_step_takes_no_gradient() -> None:
    """Nor does any other: the gradient is that of the steps as they were taken."""
    tau = torch.tensor([[0.5], [2.0]], dtype=F64, requires_grad=True)
    sizes: list[Tensor] = []

    def target(t: Tensor, y: Tensor) -> Tensor:
        sizes.append(t)
        return torch.cos(3 * t) + 0 * y

    y = ETDRK4(rtol=1e-3).solve(SemilinearField(target, tau), torch.ones(2, 1, dtype=F64)).y
    assert y.requires_grad
    assert not any(t.requires_grad for t in sizes)
