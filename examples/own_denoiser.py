"""A plain denoiser of your own in the diffusion, with a training loop of your own.

python examples/own_denoiser.py
"""

import torch
from torch import Tensor, nn

from liquid_ode import DDIM, CosineSchedule, GaussianDiffusion, MinSNR


class Plain(nn.Module):
    """All that is asked of a model: called as model(x, t), it returns the shape of x."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = (t / 1000).view(-1, 1, 1, 1).expand_as(x)  # the time step, as one more channel
        return self.body(torch.cat([x, level], dim=1))


def main(steps: int = 200) -> int:
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(Plain(), CosineSchedule(1000), "v", MinSNR(5.0))
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=2e-3)
    for step in range(steps):
        rows = torch.rand(32, 1, 8, 1) > 0.5  # images of horizontal stripes
        loss = diffusion.loss(rows.expand(-1, -1, -1, 8) * 2.0 - 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:4}  loss {loss.item():.3f}")
    diffusion.eval()
    images = DDIM(steps=20).sample(diffusion, 4, seeds=0, image_shape=(1, 8, 8))
    print(f"4 images; within a row the pixels differ by {images.std(dim=3).mean():.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
