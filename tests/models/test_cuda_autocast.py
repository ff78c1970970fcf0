"""The models under CUDA's mixed precision, by shapes and dtypes alone: no GPU is needed.

CUDA's autocast takes other operations in float32 than the CPU's does (reciprocal, expm1, norms).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import solvers
from liquid_ode.models import create_model, model_names, resample
from solvers import native
from tests.versions import needs_fake_cuda


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors without data on a "cuda" device, and that device's autocast switched on."""
    monkeypatch.setattr(native, "all_finite", lambda y: True)  # there is no data to look at
    for name in ("_averages", "_bilinear"):
        monkeypatch.setattr(resample, name, getattr(resample, name).__wrapped__)
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), torch.device("cuda"):
            yield
    finally:
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", dtype)


@needs_fake_cuda
@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("solver", ["euler", "heun", "exponential_euler", "semi_implicit_euler"])
@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("grad", [True, False])
def test_models_run(name: str, solver: str, grad: bool) -> None:
    model = create_model(name, solver=solvers.get(solver))
    with torch.set_grad_enabled(grad):
        out = model(torch.randn(2, 3, 32, 32), torch.zeros(2))
    assert out.shape == (2, 3, 32, 32)
    assert out.device.type == "cuda"
