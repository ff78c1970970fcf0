"""Fit a small neural circuit to a sine wave: the first steps with the cells.

python examples/fit_sine.py
python examples/fit_sine.py --cell WiredCfCCell --output runs/sine-cfc.png

A circuit of 16 neurons sees a sine and a cosine of 1.5 periods over 48 steps, and its one motor
neuron learns the sine of twice the frequency. The figure shows it before and after training, with
the loss and the wiring. The task is that of the first tutorial of the package ncps.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn import functional as F

import liquid_ode
from liquid_ode import LiquidRNN, MotorReadout, Wiring

STEPS, UNITS = 48, 16
CELLS = ("LTCCell", "WiredCfCCell", "CfCCell", "LiquidCell")


def data() -> tuple[Tensor, Tensor]:
    """Inputs ``(1, STEPS, 2)`` and targets ``(1, STEPS, 1)``."""
    angle = torch.linspace(0, 3 * math.pi, STEPS)
    return torch.stack((angle.sin(), angle.cos()), dim=1)[None], (2 * angle).sin()[None, :, None]


def make(cell: str) -> LiquidRNN:
    """A circuit whose output is its motor neuron."""
    wiring = Wiring.auto_ncp(input_size=2, units=UNITS, motor=1)
    readout = MotorReadout(wiring, affine=True)
    kind = getattr(liquid_ode, cell)
    return LiquidRNN(2, UNITS, cell=kind, wiring=wiring, projection=readout)


def train(rnn: LiquidRNN, epochs: int) -> list[float]:
    """The loss before every step of Adam, and after the last."""
    x, target = data()
    optimizer = torch.optim.Adam(rnn.parameters(), lr=0.01)
    losses = []
    for _ in range(epochs):
        loss = F.mse_loss(rnn(x)[0], target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rnn.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, F.mse_loss(rnn(x)[0], target).item()]


def draw(path: Path, before: Tensor, after: Tensor, losses: list[float], wiring: Wiring) -> None:
    x, target = data()
    figure, (of_fit, of_loss, of_wiring) = plt.subplots(
        1, 3, figsize=(15, 4), layout="constrained", width_ratios=(4, 3, 4)
    )
    of_fit.plot(x[0], color="0.8", label=["inputs", None])
    of_fit.plot(target[0], color="black", linestyle="--", label="target")
    of_fit.plot(before[0], color="tab:orange", label="before training")
    of_fit.plot(after[0], color="tab:blue", label="after training")
    of_fit.set(xlabel="step", title="the motor neuron")
    of_fit.legend(loc="lower left", fontsize="small")
    of_loss.semilogy(losses)
    of_loss.set(xlabel="epoch", title="mean squared error")
    wiring.plot(of_wiring)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--cell", choices=CELLS, default="LTCCell", help="(default: LTCCell)")
    add("--epochs", type=int, default=400, metavar="N", help="(default: 400)")
    add("--seed", type=int, default=0, metavar="N", help="of the weights (default: 0)")
    add("-o", "--output", type=Path, default=Path("runs/sine.png"), metavar="PNG",
        help="the figure (default: runs/sine.png)")  # fmt: skip
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # the arrays are small: more gain nothing
    rnn = make(options.cell)
    with torch.no_grad():
        before, _ = rnn(data()[0])
    losses = train(rnn, options.epochs)
    with torch.no_grad():
        after, _ = rnn(data()[0])
    draw(options.output, before, after, losses, rnn.cells[0].wiring)
    print(f"mean squared error {losses[0]:.3g} before training, {losses[-1]:.3g} after")
    print(f"figure   {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
