"""A model in which nothing hides behind a zero."""

from __future__ import annotations

import torch

from liquid_ode.models import Denoiser, create_model


def busy_model(name: str, **options: object) -> Denoiser:
    """A model whose zero-initialised layers are filled, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    model = create_model(name, **options)  # type: ignore[arg-type]
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model
