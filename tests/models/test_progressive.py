"""Models that grow: what each level works with, and what fading in leaves as it was."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from liquid_ode.models import create_model
from tests.models.busy import busy_model

GROWING = ["unet", "liquid_unet"]


@pytest.mark.parametrize("name", GROWING)
def test_a_grown_model_is_the_plain_one(name: str) -> None:
    model, plain = busy_model(name, progressive=True).eval(), create_model(name).eval()
    found = plain.load_state_dict(model.state_dict(), strict=False)
    assert all(key.split(".")[0] in {"stems", "heads", "growth"} for key in found.unexpected_keys)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    assert torch.equal(model(x, t), plain(x, t))


@pytest.mark.parametrize("name", GROWING)
def test_fading_in_begins_with_the_smaller_model_and_ends_with_the_larger(name: str) -> None:
    model = busy_model(name, progressive=True).double().eval()
    x, t = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([3, 700])

    def at(level: int, fade: float, x: torch.Tensor) -> torch.Tensor:
        model.grow(level, fade)
        with torch.no_grad():
            return (
                model(x, t) - model.skip(F.silu(model.conditioning(t, None)))[..., None, None] * x
            )

    small = at(2, 1.0, F.avg_pool2d(x, 2))
    torch.testing.assert_close(at(1, 0.0, x), F.interpolate(small, scale_factor=2))
    nearly, whole = at(1, 1 - 1e-9, x), at(1, 1.0, x)
    torch.testing.assert_close(nearly, whole, rtol=0, atol=1e-6)
    assert not torch.allclose(small.mean(), whole.mean())


@pytest.mark.parametrize("name", GROWING)
def test_a_level_trains_its_own_parameters_alone(name: str) -> None:
    model = busy_model(name, progressive=True)
    model.grow(2)
    model(torch.randn(2, 3, 8, 8), torch.tensor([3, 700])).square().sum().backward()
    used = {n.rsplit(".", 2)[0] for n, p in model.named_parameters() if p.grad is not None}
    assert not any(n.startswith(("down.0", "down.1", "up.1", "up.2", "stem.")) for n in used)
    assert {"stems", "heads.1"} <= used or {"stems.1", "heads.1"} <= used


def test_growth_is_saved_with_the_weights() -> None:
    model, other = create_model("unet", progressive=True), create_model("unet", progressive=True)
    model.grow(1, 0.25)
    assert (model.reduction, other.reduction) == (2, 1)
    other.load_state_dict(model.state_dict())
    assert other.growth is not None
    assert other.growth.tolist() == [1.0, 0.25]
    assert other.reduction == 2


def test_bad_growth() -> None:
    with pytest.raises(ValueError, match="progressive=True"):
        create_model("unet").grow(1)
    model = create_model("unet", progressive=True)
    with pytest.raises(ValueError, match="halved 0 to 2 times, not 3 times"):
        model.grow(3)
    with pytest.raises(ValueError, match="fade must lie in"):
        model.grow(2, 0.5)
    model.grow(2)
    model(torch.zeros(1, 3, 1, 1), torch.zeros(1))
    model.grow(1)
    with pytest.raises(ValueError, match="2 levels needs images of at least 2 pixels"):
        model(torch.zeros(1, 3, 1, 1), torch.zeros(1))
