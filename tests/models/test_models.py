"""The image models: sizes, shapes, conditioning, and what their solver is asked to do."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidCell
from liquid_ode.models import create_model, model_names, model_options
from tests.models.busy import busy_model

SIZES = {
    "improved": 89_000, "original": 38_000, "inspired": 89_000, "unet": 89_000,
    "liquid_unet": 89_000,
}  # fmt: skip
SCALES = ["improved", "original"]
LIQUID = [*SCALES, "liquid_unet"]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_parameter_counts(name: str, size: int) -> None:
    count = sum(p.numel() for p in create_model(name).parameters())
    assert abs(count - size) <= 0.05 * size


def test_every_model_has_a_tested_size() -> None:
    assert set(model_names()) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [(32, 32), (16, 24), (33, 31)])
def test_shape_is_kept_and_every_parameter_is_used(name: str, size: tuple[int, int]) -> None:
    model = busy_model(name, num_classes=4)
    out = model(torch.randn(2, 3, *size), torch.tensor([0, 999]), torch.tensor([1, 4]))
    assert out.shape == (2, 3, *size)
    out.square().sum().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@pytest.mark.parametrize("name", SIZES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model = busy_model(name).double().eval()
    x, t = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 10, 500, 999])
    whole = model(x, t)
    for index in range(4):
        alone = model(x[index : index + 1], t[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", SIZES)
def test_the_output_depends_on_time_and_class(name: str) -> None:
    model = busy_model(name, num_classes=3)
    x = torch.randn(1, 3, 32, 32)

    def run(t: float, label: int | None) -> Tensor:
        labels = None if label is None else torch.tensor([label])
        return model(x, torch.tensor([t]), labels)

    assert not torch.allclose(run(3, 0), run(700, 0))
    assert not torch.allclose(run(3, 0), run(3, 1))
    torch.testing.assert_close(run(3, None), run(3, 3))  # the last class is "no class"
    assert not torch.allclose(run(3.0, None), run(3.5, None))  # times between the steps


@pytest.mark.parametrize("name", SCALES)
def test_scales_give_each_cell_its_budget(name: str) -> None:
    cells = [m for m in create_model(name).modules() if isinstance(m, LiquidCell)]
    assert [cell.solver for cell in cells[:3]] == [solvers.Euler(steps=n) for n in (3, 5, 7)]
    dopri5 = solvers.get("dopri5")
    cells = [m for m in create_model(name, solver=dopri5).modules() if isinstance(m, LiquidCell)]
    assert {cell.solver for cell in cells} == {dopri5}


@cache
def exact_output(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """A model's input, times and output, solved accurately."""
    model = busy_model(name, solver=solvers.get("dopri5", rtol=1e-6, atol=1e-7))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        return x, t, model(x, t)


@pytest.mark.parametrize("name", LIQUID)
@pytest.mark.parametrize("solver", solvers.names())
def test_every_solver_drives_every_liquid_model(name: str, solver: str) -> None:
    x, t, exact = exact_output(name)
    options = {"rtol": 1e-3, "atol": 1e-4} if "rtol" in solvers.options(solver) else {}
    steps = {"steps": 4} if name == "liquid_unet" else {}
    model = busy_model(name, solver=solvers.get(solver, **options), **steps)
    if name == "liquid_unet" and solver in {"rosenbrock23", "rodas5p"}:
        with pytest.raises(ValueError, match=r"dense Jacobian .* it has 4096 elements"):
            model(x, t)
        return
    out = model(x, t)
    assert (out - exact).norm() < 0.2 * exact.norm()  # the same dynamics, solved more coarsely
    out.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_scales_can_be_changed() -> None:
    options = {"steps": [1, 2, 3], "grids": [2, 16], "pooling": ["max", "average"]}
    model = busy_model("improved", **options)
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([3, 700])
    assert not torch.allclose(model(x, t), busy_model("improved")(x, t))


@pytest.mark.parametrize("name", SIZES)
def test_options_are_plain_data(name: str) -> None:
    options = json.loads(json.dumps(model_options(name)))
    model = create_model(name, **options)
    assert [p.shape for p in model.parameters()] == [
        p.shape for p in create_model(name).parameters()
    ]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(name: str, channels: int) -> None:
    model = busy_model(name, image_channels=channels)
    x, t = torch.randn(2, channels, 8, 12), torch.tensor([3, 700])
    out = model(x, t)
    assert out.shape == x.shape
    reaches = torch.autograd.functional.jacobian(lambda x: model(x, t).sum((0, 2, 3)), x)
    assert reaches.abs().sum((1, 3, 4)).min() > 0  # every channel of the output sees every other
    with pytest.raises(ValueError, match=rf"x must have shape \(B, {channels}, H, W\)"):
        model(torch.zeros(2, 3, 8, 8), t)


@pytest.mark.parametrize("name", LIQUID)
def test_stopping_early_is_the_same_flow_for_less_time(name: str) -> None:
    options = {"steps": 4} if name == "liquid_unet" else {"steps": (4, 4, 4)}
    model = busy_model(name, solver=solvers.get("uniform_euler"), **options).eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        whole, late, early = model(x, t), model.stopped_early(4)(x, t), model.stopped_early(1)(x, t)
        assert torch.equal(model(x, t), whole)  # the model itself is as it was
    assert torch.equal(late, whole)
    assert not torch.allclose(early, whole)
    twin = model.stopped_early(2)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in model.parameters()}
    assert {part.duration for group in twin.budgets() for part in group} == {0.5}


def test_what_cannot_stop_early() -> None:
    with pytest.raises(ValueError, match="no liquid cells"):
        create_model("unet").stopped_early(2)
    with pytest.raises(ValueError, match="after 1 to 3 of them, not after 4"):
        create_model("improved").stopped_early(4)
    with pytest.raises(ValueError, match="takes 3 numbers or one"):
        create_model("improved").stopped_early((1, 2))


def test_bad_options() -> None:
    for name, option in (("improved", "inner"), ("inspired", "blocks"), ("unet", "conditioning")):
        with pytest.raises(ValueError, match=rf"{option} must be a"):
            create_model(name, **{option: -1})
    with pytest.raises(ValueError, match="at least 4 pixels a side, not 2x2"):
        create_model("unet")(torch.zeros(1, 3, 2, 2), torch.zeros(1))
    with pytest.raises(ValueError, match=r"unknown model 'resnet'.*; choose one of improved"):
        create_model("resnet")
    with pytest.raises(ValueError, match="takes no option 'chanels'; it takes channels=64"):
        create_model("improved", chanels=3)
    with pytest.raises(ValueError, match="solver must be a solver"):
        create_model("improved", solver="euler")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps takes 3 values"):
        create_model("improved", steps=(3, 5))
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        create_model("original", steps=(3, 0, 7))
    with pytest.raises(ValueError, match="pooling must be one of average, max"):
        create_model("original", pooling=("mean", "max"))
    with pytest.raises(ValueError, match="multiples of 8"):
        create_model("unet", widths=(12, 24))
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        create_model("unet", num_classes=0)


@pytest.mark.parametrize("name", SIZES)
def test_bad_inputs(name: str) -> None:
    model = create_model(name)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3, H, W\), not \(2, 1, 8, 8\)"):
        model(torch.zeros(2, 1, 8, 8), torch.zeros(2))
    with pytest.raises(ValueError, match=r"t must have shape \(2,\), not \(\)"):
        model(torch.zeros(2, 3, 8, 8), torch.tensor(3))
    with pytest.raises(ValueError, match="unconditional"):
        model(torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    labelled = create_model(name, num_classes=2)
    with pytest.raises(ValueError, match=r"class_labels must be \(2,\) torch.long"):
        labelled(torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.zeros(2))
