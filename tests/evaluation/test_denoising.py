"""The held-out loss by noise level, against the closed form of white images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.data import ImageSet
from liquid_ode.diffusion import CosineSchedule, GaussianDiffusion
from liquid_ode.evaluation import denoising_loss

SCHEDULE = CosineSchedule(100)


class White(nn.Module):
    """ε̂ = √(1−ᾱ) x_t: the best linear guess for pixels of mean 0 and variance 1; its error is ᾱ."""

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_classes = num_classes
        self.labels: list[int] = []

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            self.labels += labels.tolist()
        sigma = SCHEDULE.sigmas[t].to(x).view(-1, 1, 1, 1)
        return self.scale * x * sigma / (1 + sigma**2).sqrt()


def black_and_white(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.randint(0, 2, (n, 3, 8, 8), generator=generator).to(torch.uint8)


def test_the_loss_of_white_images_is_the_signal_left_at_each_level() -> None:
    diffusion = GaussianDiffusion(White(), SCHEDULE)
    found = denoising_loss(diffusion, ImageSet(black_and_white(600)), levels=4, batch_size=250)
    signal = 1 / (1 + SCHEDULE.sigmas.double() ** 2)  # ᾱ
    for level, wanted in zip(found.levels, signal.view(4, 25).mean(1), strict=True):
        assert level == pytest.approx(float(wanted), abs=0.03)
    assert found.mean == pytest.approx(float(signal.mean()), abs=4 * found.standard_error)
    # Uniform ᾱ in about [0, 1] alone spreads by 1/√12 over 600 images.
    assert 0.01 < found.standard_error < 0.02
    assert found.images == 600


def test_models_meet_the_same_noise() -> None:
    images = ImageSet(black_and_white(60))
    first, again = (denoising_loss(GaussianDiffusion(White(), SCHEDULE), images) for _ in "ab")
    assert first == again
    assert denoising_loss(GaussianDiffusion(White(), SCHEDULE), images, seed=1) != first
    assert denoising_loss(
        GaussianDiffusion(White(), SCHEDULE), images, batch_size=7
    ).levels == pytest.approx(first.levels, rel=1e-5)


def test_a_conditional_model_is_told_the_classes() -> None:
    labels = torch.arange(40) % 3
    diffusion = GaussianDiffusion(White(num_classes=3), SCHEDULE).train()
    denoising_loss(diffusion, ImageSet(black_and_white(40), labels))
    assert isinstance(diffusion.model, White)
    assert diffusion.model.labels == labels.tolist()
    with pytest.raises(ValueError, match="3 classes and the held-out images none"):
        denoising_loss(diffusion, ImageSet(black_and_white(40)))
    with pytest.raises(ValueError, match="3 classes and the held-out images 2"):
        denoising_loss(diffusion, ImageSet(black_and_white(40), labels % 2))


def test_what_has_no_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="too few for 5 noise levels"):
        denoising_loss(GaussianDiffusion(White(), SCHEDULE), ImageSet(black_and_white(3)))
    broken = White()
    broken.scale.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite noise"):
        denoising_loss(GaussianDiffusion(broken, SCHEDULE), ImageSet(black_and_white(60)))
