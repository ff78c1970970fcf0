"""The kinds of problem that torchdiffeq shows as its examples, by its calls and by these."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.solvers.drop_in.libraries import OURS, THEIRS, Library, assert_same, solve

BOTH = pytest.mark.parametrize("adjoint", [False, True], ids=["odeint", "odeint_adjoint"])


class Spiral(nn.Module):
    """A network of the cubes of the state, to be fitted to a spiral."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 2)).double()
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.net(y**3)
        return out


def fit_a_spiral(library: Library, adjoint: bool) -> list[Tensor]:
    torch.manual_seed(0)
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    t = torch.linspace(0, 5, 100, dtype=torch.float64)
    start = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        truth = library.odeint(lambda t, y: (y**3) @ matrix, start, t)
    func = Spiral()
    optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        begin = torch.randperm(90)[:8]
        target = torch.stack([truth[begin + step] for step in range(10)])
        optimizer.zero_grad()
        path = solve(library, adjoint)(func, truth[begin], t[:10])
        loss = (path - target).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [truth, torch.stack(losses), *(p.detach() for p in func.parameters())]


@BOTH
def test_a_spiral_is_fitted(adjoint: bool) -> None:
    assert_same(fit_a_spiral(OURS, adjoint), fit_a_spiral(THEIRS, adjoint), 1e-4)


class Ball(nn.Module):
    """A ball that falls, and bounces with a part of its speed; time, height and speed learned."""

    def __init__(self) -> None:
        super().__init__()
        values = {"gravity": 9.8, "radius": 0.3, "t0": 0.1, "height": 5.0, "speed": 1.0}
        for name, value in {**values, "kept": 0.8}.items():
            setattr(self, name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        _, speed = state
        return speed, -self.gravity.expand_as(speed)

    def above_ground(self, t: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0] - self.radius.detach()

    def bounce(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        height, speed = state
        return height + 1e-7, -self.kept * speed


def bounces(library: Library, adjoint: bool) -> list[Tensor]:
    ball, interface = Ball(), solve(library, adjoint)
    t0, state = ball.t0, (ball.height.reshape(1), ball.speed.reshape(1))
    times, heights = [], []
    for _ in range(3):
        event_t, states = library.odeint_event(
            ball, state, t0, event_fn=ball.above_ground, odeint_interface=interface
        )
        begin, end = t0.item() + 0.05, event_t.item() - 0.05
        between = torch.linspace(begin, end, 5, dtype=torch.float64)
        path = interface(ball, state, torch.cat([t0.reshape(1), between, event_t.reshape(1)]))
        heights.append(path[0])
        state = ball.bounce(tuple(part[-1] for part in states))
        t0 = event_t
        times.append(event_t)
    times.append(state[1].squeeze())
    named = [ball.gravity, ball.t0, ball.height, ball.speed, ball.kept]
    grads = torch.autograd.grad(torch.stack(times).sum() + torch.cat(heights).sum(), named)
    return [torch.stack(times).detach(), torch.cat(heights).detach(), torch.stack(grads)]


@BOTH
def test_a_ball_bounces(adjoint: bool) -> None:
    ours, theirs = bounces(OURS, adjoint), bounces(THEIRS, adjoint)
    assert_same(ours, theirs)
    falls = (1.0 + math.sqrt(1.0 + 2 * 9.8 * 4.7)) / 9.8
    assert float(ours[0][0]) == pytest.approx(0.1 + falls, rel=1e-6)


class Physics(nn.Module):
    """A body in a learned field of force, thrown back where a learned function says so.

    torchdiffeq gives no gradient to what event_fn is made of, but to the state: so it is in there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.force = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        self.hit = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        self.walls = nn.Parameter(torch.tensor([[1.0, 0.2], [-0.3, 1.0]], dtype=torch.float64))

    def forward(self, t: Tensor, state: Any) -> Any:
        position, velocity, walls = state
        return velocity, 0.3 * self.force(position), torch.zeros_like(walls)

    @staticmethod
    def inside(t: Tensor, state: Any) -> Tensor:
        position, _, walls = state
        return 1.0 - torch.tanh(walls @ position).square() * 2.0  # two walls, two values

    def collide(self, state: Any) -> Any:
        position, velocity, walls = state
        changed = velocity + self.hit(torch.cat([position, velocity]))
        return 0.98 * position, -0.9 * velocity + 0.05 * changed, walls


def physics(library: Library, adjoint: bool) -> list[Tensor]:
    torch.manual_seed(1)
    model, interface = Physics(), solve(library, adjoint)
    start = torch.tensor([0.1, 0.0], dtype=torch.float64)
    velocity = torch.tensor([0.9, 0.5], dtype=torch.float64)
    state: Any = start, velocity, model.walls
    t0, loss, seen = torch.zeros((), dtype=torch.float64), torch.zeros(()), []
    for count in range(3):
        event_t, states = library.odeint_event(
            model, state, t0, event_fn=model.inside, odeint_interface=interface,
            method="dopri5", rtol=1e-9, atol=1e-10,
        )  # fmt: skip
        state = model.collide(tuple(part[-1] for part in states))
        loss = loss + (event_t - count).square() + state[0].square().sum()
        seen += [event_t.detach(), state[0].detach()]
        t0 = event_t
    return [*seen, *torch.autograd.grad(loss, list(model.parameters()))]


@BOTH
def test_physics_are_learned(adjoint: bool) -> None:
    assert_same(physics(OURS, adjoint), physics(THEIRS, adjoint), 1e-4)


class Flow(nn.Module):
    """A continuous normalizing flow: a weight and a gate that change in time, the trace exact."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.hyper = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, width * 7)).double()

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        w, u, gate, bias = (
            self.hyper(t.reshape(1, 1)).view(-1).split([2 * self.width] * 3 + [self.width])
        )
        w, u, gate = (x.view(self.width, 2) for x in (w, u, gate))
        hidden = torch.tanh(z @ w.T + bias)
        return hidden @ (u * torch.sigmoid(gate)) / self.width

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        with torch.enable_grad():
            z = z.requires_grad_(True)
            velocity = self.velocity(t, z)
            trace = torch.zeros(len(z), dtype=z.dtype)
            for axis in range(2):
                (row,) = torch.autograd.grad(velocity[:, axis].sum(), z, create_graph=True)
                trace = trace + row[:, axis]
        return velocity, -trace.view(-1, 1)


def two_moons(count: int) -> Tensor:
    angle = math.pi * torch.rand(count, dtype=torch.float64)
    upper = torch.stack((angle.cos(), angle.sin()), 1)
    lower = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
    moon = torch.where(torch.arange(count).view(-1, 1) % 2 == 0, upper, lower)
    return moon + 0.05 * torch.randn(count, 2, dtype=torch.float64)


def flow(library: Library, adjoint: bool) -> list[Tensor]:
    torch.manual_seed(2)
    func, interface = Flow(), solve(library, adjoint)
    optimizer = torch.optim.Adam(func.parameters(), lr=3e-3)
    settings: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-7, "method": "dopri5"}
    losses = []
    for _ in range(2):
        x = two_moons(32)
        optimizer.zero_grad()
        z, change = interface(
            func, (x, torch.zeros(32, 1, dtype=x.dtype)), torch.tensor([1.0, 0.0]), **settings
        )
        normal = -0.5 * z[-1].square().sum(1) - math.log(2 * math.pi)
        loss = -(normal - change[-1].view(-1)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        noise = torch.randn(5, 2, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
        samples, change = interface(func, noise, torch.linspace(0, 1, 4), **settings)
    return [torch.stack(losses), samples, change, *(p.detach() for p in func.parameters())]


@BOTH
def test_a_flow_on_two_moons(adjoint: bool) -> None:
    assert_same(flow(OURS, adjoint), flow(THEIRS, adjoint), 1e-4)
