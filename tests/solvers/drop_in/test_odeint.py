"""The calls' arguments: what they mean is what they mean in torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import solvers
from solvers import SolverError, odeint, odeint_adjoint, odeint_event
from tests.solvers.drop_in.libraries import OURS, THEIRS, Library, assert_same

T = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def turning(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -4 * y[..., 0] * (1 + 0.1 * t)), -1)


def two(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([[1.0, 0.0], [0.5, -0.3]], dtype=dtype)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "adaptive_heun", "dopri8", "fehlberg2"])
def test_the_methods_of_torchdiffeq(method: str) -> None:
    loose = {"rtol": 1e-5, "atol": 1e-6, "method": method}
    assert_same(
        [odeint(turning, two(), T, **loose)], [THEIRS.odeint(turning, two(), T, **TIGHT)], 1e-2
    )


@pytest.mark.parametrize(
    "method", ["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams"]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_methods_on_a_grid_are_torchdiffeqs_own(method: str, backwards: bool) -> None:
    t = T.flip(0) if backwards else T
    settings: dict[str, Any] = {"method": method, "options": {"step_size": 0.05}, "rtol": 1e-3}
    ours, theirs = (library.odeint(turning, two(), t, **settings) for library in (OURS, THEIRS))
    assert torch.equal(ours, theirs)


def test_scipy_is_torchdiffeqs_own() -> None:
    settings: dict[str, Any] = {"method": "scipy_solver", "options": {"solver": "LSODA"}}
    ours, theirs = (library.odeint(turning, two(), T, **settings) for library in (OURS, THEIRS))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["tsit5", "dormand_prince", "heun_euler"])
def test_methods_of_this_package(method: str) -> None:
    loose = {"rtol": 1e-5, "atol": 1e-6, "method": method}
    assert_same([odeint(turning, two(), T, **loose)], [odeint(turning, two(), T, **TIGHT)], 1e-3)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("dopri55", "'dopri55' is unknown; did you mean 'dopri5'?"),
        ("heun", "takes a number of steps"),
        ("learned:x", "there is no file x"),
        (5, "must be a name"),
    ],
)
def test_an_unknown_method(method: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        odeint(turning, two(), T, method=method)


def test_the_whole_state_is_one_system_at_one_time() -> None:
    """A field may read its time as a number, and couple the rows."""
    seen = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append((t.shape, t.dtype, y.shape))
        return -y.mean() * float(t) * torch.ones_like(y)

    y0 = torch.ones(3, 2)
    ours, theirs = (lib.odeint(field, y0, T.float(), rtol=1e-6) for lib in (OURS, THEIRS))
    assert_same([ours], [theirs])
    assert set(seen) == {(torch.Size([]), torch.float32, y0.shape)}


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_a_state_of_any_shape(shape: tuple[int, ...]) -> None:
    y0 = torch.rand(shape, dtype=torch.float64)
    path = odeint(lambda t, y: -y, y0, T)
    assert path.shape == (5, *shape)
    torch.testing.assert_close(path, torch.exp(-T).view(-1, *[1] * y0.ndim) * y0)


def test_one_time_is_the_start() -> None:
    y0 = two()
    assert torch.equal(odeint(turning, y0, T[:1]), y0.unsqueeze(0))


@pytest.mark.parametrize("adjoint", [False, True])
def test_tuples_with_their_norm_and_tolerances(adjoint: bool) -> None:
    def field(t: Tensor, state: Any) -> Any:
        y, _ = state
        return turning(t, y), y.square().sum() * 100

    def grads(library: Library) -> list[Tensor]:
        y0 = two().requires_grad_()
        kwargs: dict[str, Any] = {"rtol": (1e-9, 1e-6), "atol": (1e-10, 1e-6)}
        solve = library.odeint
        if adjoint:
            solve = library.odeint_adjoint
            kwargs |= {"adjoint_params": (), "adjoint_rtol": 1e-9, "adjoint_atol": 1e-10}
        path = solve(field, (y0, torch.zeros((), dtype=y0.dtype)), T, **kwargs)
        return [*path, *torch.autograd.grad(path[0].sum() + path[1].sin().sum(), y0)]

    assert_same(grads(OURS), grads(THEIRS))


def test_a_part_of_the_state_may_be_left_out_of_control() -> None:
    """As regularised flows do it: a tolerance of 1e20 for what is only added up."""

    def field(t: Tensor, state: Any) -> Any:
        return -state[0], (50 * t).sin() * torch.ones(1)

    def evaluations(rtol: Any, atol: Any) -> int:
        count = 0

        def counted(t: Tensor, state: Any) -> Any:
            nonlocal count
            count += 1
            return field(t, state)

        odeint(counted, (torch.ones(2), torch.zeros(1)), T.float(), rtol=rtol, atol=atol)
        return count

    assert evaluations([1e-5, 1e20], [1e-5, 1e20]) < evaluations(1e-5, 1e-5) / 3


def test_a_norm_of_ones_own() -> None:
    def norm(y: Tensor) -> Tensor:
        assert y.shape == (2, 2)
        return y[:, 0].abs().max()

    settings: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7, "options": {"norm": norm}}
    ours, theirs = (lib.odeint(turning, two(), T, **settings) for lib in (OURS, THEIRS))
    assert_same([ours], [theirs], 1e-4)


@pytest.mark.parametrize("zero", ["rtol", "atol"])
def test_one_tolerance_may_be_0(zero: str) -> None:
    settings: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6, zero: 0.0}
    y0 = two() + 1
    assert_same([odeint(turning, y0, T, **settings)], [odeint(turning, y0, T)], 1e-4)


def test_options() -> None:
    steps: list[float] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        return turning(t, y)

    field.callback_step = lambda t, y, dt: steps.append(float(dt))  # type: ignore[attr-defined]
    odeint(field, two(), T, rtol=1e-3, atol=1e-3, options={"max_step": 0.02, "first_step": 0.01})
    assert max(steps) <= 0.02 + 1e-12
    assert steps[0] == pytest.approx(0.01)
    with pytest.raises(SolverError, match="max_steps"):
        odeint(turning, two(), T, options={"max_num_steps": 5})
    with pytest.raises(ValueError, match="'max_steps' is unknown; this method has first_step"):
        odeint(turning, two(), T, options={"max_steps": 5})
    with pytest.raises(ValueError, match="'first_step' is unknown; this method has step_size"):
        odeint(turning, two(), T, method="rk4", options={"first_step": 5})
    with pytest.raises(ValueError, match="dtype must be one of floating point"):
        odeint(turning, two(), T, options={"dtype": torch.int64})
    odeint(turning, two(), T, options={"dtype": torch.float64, "max_num_steps": float("inf")})
    for name, value, needed in (
        ("first_step", "small", "must be a number, not 'small'"),
        ("min_step", [], r"must be a number, not \[\]"),
        ("max_num_steps", 1.5, "must be a whole number of at least 1, not 1.5"),
        ("jump_t", "0.5", "must be a tensor of times, not '0.5'"),
    ):
        with pytest.raises(ValueError, match=f"the option {name} {needed}"):
            odeint(turning, two(), T, options={name: value})
    with pytest.raises(ValueError, match="t0 must be one time"):
        odeint_event(turning, two(), T, event_fn=lambda t, y: y[0])


def test_the_smallest_step_is_taken_whatever_its_error() -> None:
    """What would need a million steps gets there roughly, as people ask of a stiff field."""

    def stiff(t: Tensor, y: Tensor) -> Tensor:
        return -20.0 * (y - t.cos())

    count = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return stiff(t, y)

    loose = odeint(counted, two(), T, rtol=1e-12, atol=1e-13, options={"min_step": 0.05})
    assert count <= 6 * 40 + 4
    assert_same([loose[-1]], [odeint(stiff, two(), T)[-1]], 1e-2)

    def lost(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.5, torch.nan, y)

    with pytest.raises(SolverError, match="met a NaN"):
        odeint(lost, two(), T, options={"min_step": 0.05})


@pytest.mark.parametrize("backwards", [False, True])
def test_callbacks(backwards: bool) -> None:
    calls: list[tuple[str, float, float]] = []

    def note(name: str) -> Callable[..., None]:
        def call(t: Tensor, y: Any, dt: Tensor) -> None:
            assert y[0].shape == (2, 2)
            assert t.shape == dt.shape == ()
            calls.append((name, float(t), float(dt)))

        return call

    def field(t: Tensor, y: Any) -> Any:
        return (turning(t, y[0]),)

    for name in ("step", "accept_step", "reject_step"):
        setattr(field, f"callback_{name}", note(name))
    t = T.flip(0) if backwards else T
    odeint(field, (two(),), t, rtol=1e-5, atol=1e-6, options={"first_step": 0.5})
    assert [name for name, _, _ in calls[::2]] == ["step"] * (len(calls) // 2)
    assert {name for name, _, _ in calls[1::2]} == {"accept_step", "reject_step"}
    assert [call[1:] for call in calls[::2]] == [call[1:] for call in calls[1::2]]
    taken = [(start, dt) for name, start, dt in calls if name == "accept_step"]
    way = -1.0 if backwards else 1.0
    starts = [*(start for start, _ in taken), float(t[-1])]
    assert starts[0] == float(t[0])
    for (start, dt), after in zip(taken, starts[1:], strict=True):
        assert start + way * dt == pytest.approx(after, abs=1e-12)


def test_callbacks_of_the_way_back_are_refused() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y

    field.callback_step_adjoint = print  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="callback_step_adjoint"):
        odeint_adjoint(field, two(), T)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"t": [0.0, 1.0]}, "t must be a floating-point tensor"),
        ({"t": torch.tensor([0, 1])}, "t must be a floating-point tensor"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, "strictly increasing or strictly decreasing"),
        ({"t": torch.tensor([0.0, 0.0])}, "strictly increasing or strictly decreasing"),
        ({"y0": torch.tensor([1, 2])}, "floating point"),
        ({"y0": "state"}, "y0 must be a tensor"),
        ({"func": None}, "func must be callable"),
        ({"rtol": torch.tensor(1e-5, requires_grad=True)}, "rtol requires a gradient"),
        ({"rtol": -1.0}, "rtol must be a positive"),
        ({"event_fn": lambda t, y: y[0, 0] > 0, "t": T[:2]}, "distances with a sign"),
        ({"event_fn": lambda t, y: y[0, 0]}, "two entries"),
        ({"event_fn": "ground", "t": T[:2]}, "must be a function"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"func": turning, "y0": two(), "t": T, **arguments}
    with pytest.raises(ValueError, match=words):
        odeint(given.pop("func"), given.pop("y0"), given.pop("t"), **given)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.layer(y)) * torch.cos(t)
        return out


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"adjoint_options": {"norm": "seminorm"}},
        {"adjoint_method": "bosh3", "adjoint_rtol": 1e-7, "adjoint_atol": 1e-8},
        {"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.02}},
        {"method": "rk4", "options": {"step_size": 0.02}},
        {"method": "tsit5"},
    ],
)
def test_the_adjoint(more: dict[str, Any], backwards: bool) -> None:
    def grads(library: Library, **more: Any) -> list[Tensor]:
        field, y0 = Linear(), two().requires_grad_()
        t = (T.flip(0) if backwards else T).clone().requires_grad_()
        path = library.odeint_adjoint(field, y0, t, **TIGHT, **more)
        return [path, *torch.autograd.grad(path.sin().sum(), [y0, t, *field.parameters()])]

    assert_same(grads(OURS, **more), grads(THEIRS))


def test_adjoint_params() -> None:
    """Without, all that the field depends on has its gradient; with, these alone."""
    one, other = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.5, 0.3))

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -one * y + other * torch.sin(t)

    def grads(**more: Any) -> list[Tensor | None]:
        loss = odeint_adjoint(field, two(), T, **TIGHT, **more).sum()
        return list(torch.autograd.grad(loss, [one, other], allow_unused=True))

    exact = torch.autograd.grad(odeint(field, two(), T, **TIGHT).sum(), [one, other])
    found = grads()
    assert found[0] is not None
    assert found[1] is not None
    assert_same([found[0], found[1]], exact)
    for params in ((one,), one, iter([one])):
        found = grads(adjoint_params=params)
        assert found[0] is not None
        assert_same([found[0]], exact[:1])
        assert found[1] is None


def test_adjoint_arguments_that_contradict() -> None:
    with pytest.raises(ValueError, match="give adjoint_options as well"):
        odeint_adjoint(
            Linear(), two(), T, method="dopri5", options={"max_step": 1.0}, adjoint_method="bosh3"
        )
    with pytest.raises(ValueError, match="give 'seminorm'"):
        odeint_adjoint(Linear(), two(), T, adjoint_options={"norm": lambda parts: parts[0]})


@pytest.mark.parametrize("backwards", [False, True])
def test_the_first_of_several_events(backwards: bool) -> None:
    def event_fn(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[0] - 1.0, 0.3 - y[1], t.abs() - 5.0))

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], -y[0]))

    y0 = torch.tensor([0.2, -0.8], dtype=torch.float64)
    t = torch.tensor([0.0, -1.0 if backwards else 1.0], dtype=torch.float64)
    (ours, states), (theirs, there) = (
        library.odeint(field, y0, t, event_fn=event_fn) for library in (OURS, THEIRS)
    )
    assert_same([ours, states], [theirs, there], 1e-6)
    assert ours.shape == ()
    assert states.shape == (2, 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_an_events_gradients(method: str, interface: str, reverse: bool) -> None:
    """Of a thrown ball, in closed form: also to what the event function is made of."""
    way = -1.0 if reverse else 1.0
    t0, gravity, floor, speed = (
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.5, 9.8, 0.7, 2.0)
    )

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((way * y[1], -way * gravity))

    start = torch.stack((torch.tensor(3.0, dtype=torch.float64), speed))
    more: dict[str, Any] = {"adjoint_params": (gravity,)} if interface != "odeint" else {}
    if method == "rk4":
        more |= {"options": {"step_size": 0.01, "interp": "cubic"}, "atol": 1e-12}
    when, states = odeint_event(
        field, start, t0, event_fn=lambda t, y: y[0] - floor, reverse_time=reverse,
        odeint_interface=getattr(solvers, interface), method=method, **more,
    )  # fmt: skip
    fall = (speed + (speed.square() + 2 * gravity * (3.0 - floor)).sqrt()) / gravity
    exact, last = t0 + way * fall, speed - gravity * fall
    torch.testing.assert_close(when, exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(states[-1, 1], last, rtol=1e-6, atol=1e-6)
    named = [t0, gravity, floor, speed]
    found = torch.autograd.grad(when + 0.3 * states[-1, 1], named)
    wanted = torch.autograd.grad(exact + 0.3 * last, named)
    assert_same([torch.stack(found)], [torch.stack(wanted)], 1e-5)


def test_an_event_far_away_and_one_that_never_comes() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], -y[0]))

    y0, t = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0])
    far = odeint(field, y0, t, event_fn=lambda t, y: t - 300.0, rtol=1e-6, atol=1e-6)[0]
    assert float(far) == pytest.approx(300.0)
    with pytest.raises(SolverError, match=r"no event came by t = .* within max_num_steps"):
        odeint(field, y0, t, event_fn=lambda t, y: y[0] + 2.0, options={"max_num_steps": 200})


def test_an_event_right_after_the_end_of_a_span() -> None:
    """The search goes on from t = 1, where the value is next to 0 but has its sign."""
    y0, t = torch.zeros(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    for late in (1e-3, 1e-7, 1e-9, 1e-13):
        event_t, _ = odeint(
            lambda t, y: torch.ones_like(y), y0, t, event_fn=lambda t, y, at=1 + late: y - at
        )
        assert float(event_t) == pytest.approx(1 + late, abs=1e-12)


def test_a_value_of_0_at_the_start_is_no_event() -> None:
    """So that a ball may be thrown from the ground."""
    y0, t = torch.tensor([0.0, 4.9], dtype=torch.float64), torch.tensor([0.0, 1.0])

    def ball(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], torch.full_like(y[1], -9.8)))

    event_t, _ = odeint(ball, y0, t, event_fn=lambda t, y: torch.stack((y[0], 5 - y[0])))
    assert float(event_t) == pytest.approx(1.0)
    theirs, _ = torchdiffeq.odeint(ball, y0, t, event_fn=lambda t, y: y[0])
    assert float(theirs) == 0.0
