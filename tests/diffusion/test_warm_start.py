"""Sampling that begins a model's cells from their states at the evaluation before."""

from __future__ import annotations

import pytest
import torch

from liquid_ode.diffusion import DDIM, GaussianDiffusion, Guidance
from liquid_ode.models import create_model
from tests.models.busy import busy_model

SHAPE = (3, 8, 8)


def diffusion(**options: object) -> GaussianDiffusion:
    return GaussianDiffusion(busy_model("liquid_unet", widths=(8, 8), steps=2, **options))


def test_a_warm_start_changes_all_but_the_first_evaluation() -> None:
    seen: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for warm, found in seen.items():
        DDIM(3).sample(
            diffusion(), 2, image_shape=SHAPE, warm_start=warm,
            callback=lambda progress, found=found: found.append(progress.x0),
        )  # fmt: skip
    assert torch.equal(seen[True][0], seen[False][0])
    assert not torch.allclose(seen[True][1], seen[False][1])


def test_no_state_passes_from_one_batch_to_the_next() -> None:
    made = [
        DDIM(3).sample(diffusion(), 4, image_shape=SHAPE, warm_start=True, batch_size=size)
        for size in (4, 2, 1)
    ]
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=0, atol=1e-4)


def test_guidance_keeps_the_states_of_both_its_halves() -> None:
    labelled = diffusion(num_classes=3)
    options = {"class_labels": 1, "image_shape": SHAPE, "warm_start": True}
    plain = DDIM(3).sample(labelled, 2, **options)
    unguided = DDIM(3).sample(labelled, 2, guidance=Guidance(1.0 + 1e-6), **options)
    torch.testing.assert_close(unguided, plain, rtol=0, atol=1e-3)


def test_an_interval_of_guidance_would_lose_the_states() -> None:
    guidance = Guidance(2.0, interval=(0.5, 5.0))
    options = {"class_labels": 1, "image_shape": SHAPE, "guidance": guidance}
    with pytest.raises(ValueError, match="exclude each other"):
        DDIM(3).sample(diffusion(num_classes=3), 2, warm_start=True, **options)
    DDIM(3).sample(diffusion(num_classes=3), 2, **options)


def test_a_model_without_states_is_named() -> None:
    with pytest.raises(ValueError, match="'liquid_unet', not UNet"):
        DDIM(2).sample(GaussianDiffusion(create_model("unet")), 1, warm_start=True)


def test_the_channels_of_the_model_are_those_of_the_images() -> None:
    grey = GaussianDiffusion(create_model("unet", image_channels=1))
    assert DDIM(1).sample(grey, 2).shape == (2, 1, 32, 32)
