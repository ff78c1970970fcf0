"""The same diffusion trained by Lightning, which is no part of this package: pip install lightning.

python examples/with_lightning.py
"""

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from liquid_ode import DDIM, GaussianDiffusion, create_model


class Diffusion(lightning.LightningModule):
    def __init__(self, model: str = "improved", lr: float = 2e-4) -> None:
        super().__init__()
        self.diffusion, self.lr = GaussianDiffusion(create_model(model)), lr

    def training_step(self, images: Tensor, index: int) -> Tensor:
        loss = self.diffusion(images)  # images (B, 3, H, W) in [-1, 1]
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def main(steps: int = 20) -> int:
    loader = DataLoader(torch.rand(64, 3, 16, 16) * 2 - 1, batch_size=16)
    module = Diffusion()
    lightning.Trainer(max_steps=steps, logger=False, enable_checkpointing=False).fit(module, loader)
    images = DDIM(10).sample(module.diffusion.eval(), 4, seeds=0, image_shape=(3, 16, 16))
    print(f"images {tuple(images.shape)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
