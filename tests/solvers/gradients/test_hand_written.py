"""Hand-written gradients in company: everywhere the same as those of ordinary operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import solvers
from liquid_ode.cells import LiquidField
from solvers import (
    Euler,
    ExponentialEuler,
    HandWritten,
    QuasilinearField,
    SemiImplicitEuler,
    SemilinearField,
    Uniform,
)
from tests.solvers.fields import Saturating, is_taped
from tests.versions import needs_compiler

F64 = torch.float64
SOLVERS = [
    Euler(3),
    Euler(step_size=Uniform(3)),
    ExponentialEuler(2),
    SemiImplicitEuler(2),
]
B, H = 2, 3
Solve = Callable[..., Tensor]


def tensors(dtype: torch.dtype = F64) -> tuple[Tensor, ...]:
    """A weight, a bias and a rate of each sample, and the initial states."""
    generator = torch.Generator().manual_seed(0)
    shapes = (H, H), (B, H), (B, H), (B, H)
    weight, bias, rate, y0 = (
        torch.randn(shape, generator=generator, dtype=F64).to(dtype) for shape in shapes
    )
    return weight, bias, 0.5 + rate.abs(), y0


def by_hand(solver: solvers.Solver, kind: type) -> Solve:
    """The end of a solve by the hand-written gradient, as a function of the tensors."""
    return lambda weight, bias, rate, y0: solver.solve(kind(weight, bias, rate), y0).y


def by_autograd(solver: solvers.Solver, kind: type) -> Solve:
    def solve(weight: Tensor, bias: Tensor, rate: Tensor, y0: Tensor) -> Tensor:
        def target(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(torch.addmm(bias, y, weight.t()))

        def leak(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return target(t, y), 1.5 + y.sin()

        semilinear = kind is LiquidField
        field: Any = SemilinearField.of_rate(target, rate)
        return solver.solve(field if semilinear else QuasilinearField.of_rate(leak, rate), y0).y

    return solve


@pytest.fixture(params=[LiquidField, Saturating], ids=["target", "leak"])
def kind(request: pytest.FixtureRequest) -> type:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=SOLVERS, ids=repr)
def both(request: pytest.FixtureRequest, kind: type) -> tuple[Solve, Solve]:
    """A solve by hand, and the same by autograd."""
    solve = by_hand(request.param, kind)
    assert is_taped(solve(*(x.requires_grad_() for x in tensors())))
    return solve, by_autograd(request.param, kind)


def agree(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    found, expected = ([x] if isinstance(x, Tensor) else list(x) for x in (found, expected))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_the_field_by_autograd_is_not_written_by_hand(kind: type) -> None:
    assert not is_taped(by_autograd(SOLVERS[2], kind)(*(x.requires_grad_() for x in tensors())))


# ---- torch.func, and torch.autograd.functional ---------------------------------------------------

func, functional = torch.func, torch.autograd.functional
TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "jacrev": lambda f, x: func.jacrev(f)(x),
    "jacfwd": lambda f, x: func.jacfwd(f)(x),
    "hessian": lambda f, x: func.hessian(lambda x: f(x).square().sum())(x),
    "rev of rev": lambda f, x: func.jacrev(func.jacrev(lambda x: f(x).square().sum()))(x),
    "fwd of fwd": lambda f, x: func.jacfwd(func.jacfwd(lambda x: f(x).square().sum()))(x),
    "rev of fwd": lambda f, x: func.jacrev(func.jacfwd(lambda x: f(x).square().sum()))(x),
    "vmap": lambda f, x: torch.vmap(f)(torch.stack([x, x + 1])),
    "vmap of grad": lambda f, x: torch.vmap(func.grad(lambda x: f(x).square().sum()))(
        torch.stack([x, x + 1])
    ),
    "vmap on another axis": lambda f, x: torch.vmap(f, in_dims=1)(torch.stack([x, x + 1], 1)),
    "functional": lambda f, x: functional.hessian(lambda x: f(x).square().sum(), x),
    "vectorized": lambda f, x: functional.jacobian(f, x, vectorize=True),
    "vectorized, differentiable": lambda f, x: functional.jacobian(
        f, x, vectorize=True, create_graph=True
    ),
    "vectorized hessian": lambda f, x: functional.hessian(
        lambda x: f(x).square().sum(), x, vectorize=True
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("argument", [0, 3], ids=["weight", "state"])
def test_transforms(both: tuple[Solve, Solve], name: str, argument: int) -> None:
    given = list(tensors())

    def of_one(solve: Solve, x: Tensor) -> Tensor:
        return solve(*given[:argument], x, *given[argument + 1 :])

    found, expected = (
        TRANSFORMS[name](lambda x, solve=solve: of_one(solve, x), given[argument])  # type: ignore[misc]
        for solve in both
    )
    agree(found, expected)


def test_jacobians_of_all_tensors(both: tuple[Solve, Solve]) -> None:
    found, expected = (func.jacrev(solve, (0, 1, 2, 3))(*tensors()) for solve in both)
    agree(found, expected)


# ---- The engine of autograd ----------------------------------------------------------------------


def leaves() -> list[Tensor]:
    return [x.requires_grad_() for x in tensors()]


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("duration", [0.3, 1.0])
def test_several_calls_differentiated_twice(
    both: tuple[Solve, Solve], calls: int, duration: float
) -> None:
    """Each starts where the one before it ended, and its bias is made of the weight they share."""

    def run(solve: Solve) -> Sequence[Tensor]:
        weight, bias, rate, y = given = leaves()
        for _ in range(calls):
            y = solve(weight, bias + y @ weight, rate * duration, y)
        first = torch.autograd.grad(y.square().sum(), given, create_graph=True)
        (plain,) = torch.autograd.grad(y.square().sum(), weight, retain_graph=True)
        penalty = sum(x.square().sum() for x in first)
        return [y, *first, plain, *torch.autograd.grad(penalty, given)]

    agree(*map(run, both), tolerance=1e-9)


def test_gradients_of_gradients_of_gradients(both: tuple[Solve, Solve]) -> None:
    def run(solve: Solve) -> Tensor:
        given = leaves()
        found = solve(*given).sin().sum()
        for _ in range(3):
            (grad,) = torch.autograd.grad(found, given[0], create_graph=True)
            found = grad.sin().sum()
        return found

    agree(*map(run, both), tolerance=1e-9)


@pytest.mark.parametrize("create_graph", [False, True])
def test_batched_gradients(both: tuple[Solve, Solve], create_graph: bool) -> None:
    rows = torch.eye(B * H, dtype=F64).view(-1, B, H)

    def run(solve: Solve) -> Sequence[Tensor]:
        given = leaves()
        found = torch.autograd.grad(
            solve(*given), given, rows, is_grads_batched=True, create_graph=create_graph
        )
        assert found[0].requires_grad == create_graph
        if not create_graph:
            return found
        return [*found, *torch.autograd.grad(sum(x.square().sum() for x in found), given)]

    agree(*map(run, both))


def test_the_same_graph_twice(both: tuple[Solve, Solve]) -> None:
    given = leaves()
    y = both[0](*given)
    grad = torch.ones_like(y)
    first, again = (torch.autograd.grad(y, given, grad, retain_graph=True) for _ in range(2))
    agree(first, again, 0.0)
    assert torch.equal(grad, torch.ones_like(y))  # it is not the solver's to overwrite
    with pytest.raises(RuntimeError, match="a second time"):
        [torch.autograd.grad(y, given, grad) for _ in range(2)]


@pytest.mark.parametrize("index", range(4))
def test_an_input_that_was_changed_in_place_is_noticed(
    both: tuple[Solve, Solve], index: int
) -> None:
    given = leaves()
    y = both[0](*given)
    with torch.no_grad():
        given[index].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_by_a_checkpoint(both: tuple[Solve, Solve], reentrant: bool) -> None:
    def run(solve: Solve, again: bool) -> Sequence[Tensor]:
        given = leaves()
        y = checkpoint(solve, *given, use_reentrant=reentrant) if again else solve(*given)
        y = solve(*given[:3], y)
        y.square().sum().backward()
        return [y, *(x.grad for x in given if x.grad is not None)]

    found = run(both[0], True)
    assert len(found) == 5
    agree(found, run(both[1], False))


@pytest.mark.parametrize("way_back", ["inside", "outside"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_under_autocast(both: tuple[Solve, Solve], way_back: str, create_graph: bool) -> None:
    def run(solve: Solve, cast: bool) -> Sequence[Tensor]:
        given = [x.requires_grad_() for x in tensors(torch.float32)]
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = solve(*given).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast and way_back == "inside"):
            return torch.autograd.grad(loss, given, create_graph=create_graph)

    found = run(both[0], True)
    assert [x.dtype for x in found] == [torch.float32] * 4
    agree(found, run(both[1], False), 0.05)


def test_a_cast_of_a_weight_that_is_made_within_is_not_used_outside() -> None:
    """It has no graph, and autocast would keep it for the next use of the weight."""
    x, scale = (tensor.detach().float() for tensor in own_inputs())
    weight = torch.eye(3, requires_grad=True)

    class Product(Softsign):
        def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
            return super().forward((torch.mm(inputs[0], inputs[1]).float(), scale), keep=keep)

    with torch.autocast("cpu", torch.bfloat16):
        Product()(x, weight)
        y = torch.mm(x, weight)
    assert y.requires_grad


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_tangents_where_an_input_is_expanded() -> None:
    x, scale = (tensor.detach() for tensor in own_inputs())
    row = x[0].expand(2, 3)

    def slope(scale: Tensor) -> Tensor:
        return func.grad(lambda scale: own(row, scale).square().sum())(scale)

    _, found = func.jvp(slope, (scale,), (torch.ones_like(scale),))
    agree(found, func.hessian(lambda scale: Softsign().plain(row, scale).square().sum())(scale))


def test_a_device_without_autocast() -> None:
    x, scale = (torch.empty_like(tensor, device="meta").requires_grad_() for tensor in own_inputs())
    (found,) = torch.autograd.grad(own(x, scale).sum(), x)
    assert found.is_meta


def test_only_what_is_asked_for_is_kept(both: tuple[Solve, Solve]) -> None:
    """Nothing without a gradient; with one, no more than a few arrays a step."""

    def kept(given: Sequence[Tensor]) -> int:
        count = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            both[0](*given)
        return count

    assert kept(tensors()) == 0
    with torch.no_grad():
        assert kept(leaves()) == 0
    assert 0 < kept(leaves()) <= 5 + 4 * 3  # the tensors, and y, target, gain and dt


# ---- One of a user's own -------------------------------------------------------------------------


class Softsign(HandWritten):
    """x / (1 + |s x|) for a scale s, keeping the denominator."""

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        x, scale = inputs
        below = 1 + (scale * x).abs()
        return x / below, [below] if keep else []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        (x, scale), (below,) = inputs, kept
        of_scale = -grad * x * x.abs() * scale.sign() / below.square()
        return grad / below.square(), of_scale.sum().view(scale.shape)

    def plain(self, *inputs: Tensor) -> Tensor:
        x, scale = inputs
        return x / (1 + (scale * x).abs())


def own(x: Tensor, scale: Tensor) -> Tensor:
    return Softsign()(x, scale)


def own_inputs() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-2, 2, 6, dtype=F64).view(2, 3).requires_grad_()
    return x, torch.tensor(0.7, dtype=F64, requires_grad=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.filterwarnings("ignore:.*_vmap_internals.vmap:FutureWarning")  # of torch 2.4's own
def test_a_function_of_ones_own() -> None:
    x, scale = own_inputs()
    assert torch.autograd.gradcheck(own, (x, scale), check_forward_ad=True)
    assert torch.autograd.gradcheck(own, (x, scale), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(own, (x, scale))
    assert torch.equal(own(x, scale), Softsign().plain(x, scale))


@needs_compiler
def test_a_function_of_ones_own_compiles() -> None:
    x, scale = own_inputs()
    compiled = torch.compile(own, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, scale), own(x, scale))
