"""Time of a liquid cell's solve: batch 8192, hidden 64, 7 equal Euler steps, float32.

python examples/benchmarks/liquid_field_speed.py
pip install '.[bench]'   # for the rows of diffrax

Every row computes h(1) from the inputs x, the state h(0), the weights and the time constants
tau (and, forward + backward, the gradients of all of them):
tau dh/dt = -h + tanh(W_rec h + W_in x + b). "plain" evaluates that equation as it stands in the
field; "hoisted" computes W_in x + b and 1/tau once. The references are the matrix products that
the steps cannot do without: 7 forward, and 21 with the backward pass. "Solve alone" is given the
field, W_in x + b and 1/tau made already (backward to h(0) only, through the same steps). Memory
that is freed is kept for the next solve, as in training, since page faults would otherwise decide
over the figures of the solves that allocate most.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import report
from timing import interleaved
from torch import Tensor
from torchdiffeq import odeint

from liquid_ode.cells import LiquidField
from liquid_ode.training.machine import keep_freed_memory
from solvers import Euler, ExponentialEuler, SemilinearField, Uniform

BATCH, HIDDEN, STEPS = 8192, 64, 7
Job = Callable[[], object]


def make_tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    tensors = {
        "recurrent": 0.8 * torch.linalg.qr(torch.randn(HIDDEN, HIDDEN)).Q.contiguous(),
        "weight": torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5,
        "bias": torch.zeros(HIDDEN),
        "x": torch.randn(BATCH, HIDDEN),
        "tau": 0.5 + torch.rand(BATCH, HIDDEN),
        "h0": 0.5 * torch.randn(BATCH, HIDDEN),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def torch_rows(p: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    span = torch.tensor([0.0, 1.0])

    def plain(t: Tensor, h: Tensor) -> Tensor:
        return (-h + torch.tanh(h @ p["recurrent"].T + p["x"] @ p["weight"].T + p["bias"])) / p[
            "tau"
        ]

    def drive() -> Tensor:
        return torch.addmm(p["bias"], p["x"], p["weight"].T)

    def torchdiffeq(field: Any) -> Tensor:
        options = {"step_size": 1 / STEPS}
        return odeint(field, p["h0"], span, method="euler", options=options)[-1]

    def torchdiffeq_hoisted() -> Tensor:
        constant, rate = drive(), p["tau"].reciprocal()
        return torchdiffeq(
            lambda t, h: (torch.tanh(torch.addmm(constant, h, p["recurrent"].T)) - h) * rate
        )

    def loop() -> Tensor:
        constant, weight, h = drive(), (1 / STEPS) / p["tau"], p["h0"]
        for _ in range(STEPS):
            target = torch.tanh(torch.addmm(constant, h, p["recurrent"].T))
            h = h + weight * (target - h)
        return h

    def semilinear() -> Tensor:
        constant = drive()
        field = SemilinearField(
            lambda t, h: torch.tanh(torch.addmm(constant, h, p["recurrent"].T)), p["tau"]
        )
        return Euler(step_size=Uniform(STEPS)).solve(field, p["h0"]).y

    def liquid(solver: Any) -> Callable[[], Tensor]:
        def solve() -> Tensor:
            field = LiquidField(p["recurrent"], drive(), p["tau"].reciprocal())
            return solver.solve(field, p["h0"]).y

        return solve

    with torch.no_grad():
        parts = [p["recurrent"].clone(), drive(), p["tau"].reciprocal()]
    given = LiquidField(*(part.requires_grad_() for part in parts))

    def alone() -> Tensor:
        return Euler(step_size=Uniform(STEPS)).solve(given, p["h0"]).y

    return {
        "torchdiffeq euler, plain": lambda: torchdiffeq(plain),
        "torchdiffeq euler, hoisted": torchdiffeq_hoisted,
        "plain PyTorch loop, hoisted": loop,
        "Euler(7, step_size=Uniform()), SemilinearField": semilinear,
        "Euler(7, step_size=Uniform()), LiquidField": liquid(Euler(step_size=Uniform(STEPS))),
        "the same, solve alone": alone,
        "Euler(7), LiquidField": liquid(Euler(STEPS)),
        "ExponentialEuler(7), LiquidField": liquid(ExponentialEuler(STEPS)),
    }


def diffrax_rows(p: dict[str, Tensor]) -> dict[str, tuple[Job, Job]]:
    """Forward and forward + backward under jit; none where diffrax is not installed."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return {}
    arrays = {name: jnp.asarray(tensor.detach().numpy()) for name, tensor in p.items()}

    def solve(p: dict[str, Any], hoist: bool) -> Any:
        constant = p["x"] @ p["weight"].T + p["bias"]
        rate = 1 / p["tau"]

        def hoisted(t: Any, h: Any, args: Any) -> Any:
            return (jnp.tanh(h @ p["recurrent"].T + constant) - h) * rate

        def plain(t: Any, h: Any, args: Any) -> Any:
            return (-h + jnp.tanh(h @ p["recurrent"].T + p["x"] @ p["weight"].T + p["bias"])) / p[
                "tau"
            ]

        return diffrax.diffeqsolve(
            diffrax.ODETerm(hoisted if hoist else plain),
            diffrax.Euler(),
            0.0,
            1.0,
            1 / STEPS,
            p["h0"],
            max_steps=STEPS + 1,
        ).ys[-1]

    rows = {}
    for name, hoist in (("plain", False), ("hoisted", True)):
        forward = jax.jit(lambda p, hoist=hoist: solve(p, hoist))
        both = jax.jit(jax.grad(lambda p, hoist=hoist: solve(p, hoist).sum()))
        rows[f"diffrax Euler under jit, {name}"] = (
            lambda f=forward: jax.block_until_ready(f(arrays)),
            lambda f=both: jax.block_until_ready(f(arrays)),
        )
    return rows


def products(p: dict[str, Tensor]) -> tuple[Job, Job]:
    h, weight = p["h0"].detach(), p["recurrent"].detach()
    grad = torch.randn(BATCH, HIDDEN)

    def forward() -> None:
        for _ in range(STEPS):
            torch.mm(h, weight.T)

    def both() -> None:
        for _ in range(STEPS):
            torch.mm(h, weight.T)
            torch.mm(grad, weight)
            torch.mm(grad.T, h)

    return forward, both


def compare(rounds: int) -> list[dict[str, object]]:
    p = make_tensors()
    grad = torch.ones(BATCH, HIDDEN)

    def forward(solve: Callable[[], Tensor]) -> Job:
        def job() -> Tensor:
            with torch.no_grad():
                return solve()

        return job

    def both(solve: Callable[[], Tensor]) -> Job:
        def job() -> None:
            torch.autograd.grad(solve(), list(p.values()), grad, allow_unused=True)

        return job

    jobs = {"matrix products alone": products(p)}
    rows = torch_rows(p)
    expected = rows["torchdiffeq euler, plain"]()
    for name, solve in rows.items():
        if "Uniform" in name:
            torch.testing.assert_close(solve(), expected, rtol=1e-4, atol=1e-5)
        jobs[name] = forward(solve), both(solve)
    jobs |= diffrax_rows(p)
    ahead = interleaved({name: pair[0] for name, pair in jobs.items()}, rounds=rounds)
    back = interleaved({name: pair[1] for name, pair in jobs.items()}, rounds=rounds)
    reference = "torchdiffeq euler, plain"
    least = "matrix products alone"
    return [
        {
            "solve": name,
            "forward ms": round(1e3 * ahead[name], 2),
            "of the products": round(ahead[name] / ahead[least], 2),
            "torchdiffeq/this": round(ahead[reference] / ahead[name], 2),
            "forward + backward ms": round(1e3 * back[name], 2),
            "of the 21 products": round(back[name] / back[least], 2),
            "torchdiffeq / this": round(back[reference] / back[name], 2),
        }
        for name in jobs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="(default: 40)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    keep_freed_memory()
    report("liquid field, batch 8192, hidden 64, 7 steps", compare(options.rounds), options.json)


if __name__ == "__main__":
    main()
