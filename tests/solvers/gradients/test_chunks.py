"""A large batch is solved some rows at a time: nothing of it must show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from liquid_ode.cells.liquid.cell import VectorTarget
from solvers import Euler, ExponentialEuler, Heun, ParameterisedField, SemilinearField
from solvers.gradients import cache_chunks as chunks
from tests.solvers.fields import is_taped

SOLVERS = [Euler(steps=4), Heun(steps=4), ExponentialEuler(steps=4)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", 8 / torch.get_num_threads())


class NotedTarget(VectorTarget):
    """Notes of how many rows it is asked."""

    sizes: list[int]

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.sizes.append(len(y))
        return super().__call__(t, y)


class Noted(LiquidField):
    kind = NotedTarget


def field_of(rows: int, sizes: list[int] | None = None) -> LiquidField:
    generator = torch.Generator().manual_seed(0)
    recurrent, drive, rate = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 4), (rows, 4), (rows, 4))
    )
    field = Noted(recurrent, drive, 0.5 + rate.abs())
    field.function.sizes = [] if sizes is None else sizes  # type: ignore[attr-defined]
    return field


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("rows", [1, 3, 7, 10])
def test_chunks_change_nothing(
    solver: solvers.NativeSolver, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y0 = torch.linspace(-1, 1, 4 * rows, dtype=torch.float64).view(rows, 4)
    with torch.no_grad():
        whole = solver.solve(field_of(rows), y0)
    sizes: list[int] = []
    monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", 8 / torch.get_num_threads())
    with torch.no_grad():
        parts = solver.solve(field_of(rows, sizes), y0)
    torch.testing.assert_close(parts.y, whole.y, rtol=1e-13, atol=1e-13)
    assert parts.stats == whole.stats
    assert parts.status.tolist() == whole.status.tolist() == [0] * rows
    assert max(sizes) <= 3
    assert sum(sizes) == rows * int(whole.stats.nfe)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_failed_sample_of_one_chunk(solver: solvers.NativeSolver) -> None:
    bad = torch.zeros(9, 1, dtype=torch.float64)
    bad[4] = torch.nan
    target = ParameterisedField(lambda t, y, bad: torch.cos(y) + bad, bad)

    def plain(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.cos(y) + bad - y

    y0 = torch.linspace(-1, 1, 36, dtype=torch.float64).view(9, 4)
    exponential = isinstance(solver, ExponentialEuler)
    field = SemilinearField(target, 1.0) if exponential else ParameterisedField(plain, bad)
    with torch.no_grad():
        solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == [0] * 4 + [solvers.NON_FINITE] + [0] * 4
    assert torch.isfinite(solution.y).all()
    with (
        torch.no_grad(),
        pytest.raises(solvers.SolverError, match=r"1 of 9 samples \(4\) met a NaN"),
    ):
        solver.solve(field, y0)


@pytest.mark.parametrize("solver", SOLVERS[::2], ids=lambda solver: type(solver).__name__)
def test_gradients_of_chunks(solver: solvers.NativeSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for elements in (2**16, 8 / torch.get_num_threads()):
        monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", elements)
        field = field_of(7)
        tensors = [x.detach().requires_grad_() for x in (field.recurrent, field.drive, field.rate)]
        y0 = torch.linspace(-1, 1, 28, dtype=torch.float64).view(7, 4).requires_grad_()
        y = solver.solve(LiquidField(*tensors), y0).y
        assert is_taped(y)
        found.append([y, *torch.autograd.grad(y.square().sum(), [*tensors, y0])])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
