"""τ of cells while a model denoises: of the right image and noise, in the right layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode import GaussianDiffusion, create_model
from liquid_ode.cells import LiquidCell
from liquid_ode.report.time_constants import time_constants

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Cell(nn.Module):
    """τ is the size of its first input, channel by channel, plus a second one."""

    def time_constant(self, x: Tensor, condition: Tensor) -> Tensor:
        return x.abs() + condition[:, None, None, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return 0.5 * x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = Cell(), Cell()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        zero = torch.zeros(len(x))
        return self.first(x, zero) + self.again(self.again(x, zero), zero + 7)


def test_what_is_shown_is_what_the_cells_were_called_with() -> None:
    found = time_constants(GaussianDiffusion(Model()), IMAGES, [0.1, 3.0], seed=4)
    assert found is not None
    assert found.sigmas == (0.1, 3.0)
    noise = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(4))
    for level, sigma in enumerate(found.sigmas):
        # Of unit scale: √ᾱ x0 + √(1−ᾱ) ε with ᾱ = 1 / (1 + σ²).
        alpha = torch.tensor(1 / (1 + sigma**2))
        noisy = alpha.sqrt() * IMAGES + (1 - alpha).sqrt() * noise
        torch.testing.assert_close(found.noisy[level], noisy[0])
        for name in ("first", "again"):  # of a cell that is called twice, the first time
            torch.testing.assert_close(found.maps[name][level], noisy[0].abs().mean(0))
            torch.testing.assert_close(
                torch.tensor(found.means[name][level]), noisy.abs().mean(), rtol=1e-5, atol=0
            )
    assert found.clean.abs().max() <= 1


def test_the_models_with_cells_show_them_and_are_left_as_they_were() -> None:
    for name, sides in (("improved", {4, 8}), ("original", {4, 8}), ("liquid_unet", {8, 4, 2})):
        model = create_model(name).eval()
        found = time_constants(GaussianDiffusion(model), IMAGES, [1.0])
        assert found is not None
        assert {maps.shape[-1] for maps in found.maps.values()} == sides
        for maps in found.maps.values():
            assert maps.shape[-1] == maps.shape[-2]
            assert 0.1 <= float(maps.min()) <= float(maps.max()) <= 5.0
        assert not any(module._forward_pre_hooks for module in model.modules())
    assert time_constants(GaussianDiffusion(create_model("unet")), IMAGES, [1.0]) is None


def test_liquid_cells_have_their_channels_last() -> None:
    """A place of the map is τ of the input there, whatever the layout."""

    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = LiquidCell(3, 8)  # as many channels as places in a row

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.cell(x.permute(0, 2, 3, 1))
            return x

    model = Places()
    found = time_constants(GaussianDiffusion(model), IMAGES, [0.5])
    assert found is not None
    pixel = found.noisy[0][:, 2, 5]
    expected = model.cell.time_constant(pixel).mean()
    torch.testing.assert_close(found.maps["cell"][0, 2, 5], expected)
