"""CfC cells under the compiler, function transforms and export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, NoGateForm, PureForm
from tests.versions import needs_compiler

FORMS = [GatedForm(), NoGateForm(), PureForm()]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Sequence(torch.nn.Module):
    def __init__(self, form: CfCForm) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = CfCCell(3, 4, form=form, backbone_units=5)

    def forward(self, x: Tensor, h0: Tensor, durations: Tensor) -> Tensor:
        return self.cell.sequence(x, h0, durations)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 2, 3), torch.randn(2, 4), torch.rand(3, 2)


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_compiles_in_one_graph(form: CfCForm) -> None:
    module = Sequence(form)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected, found = module(*arguments()), compiled(*arguments())
    torch.testing.assert_close(found, expected)
    leaves = list(module.parameters())
    ours = torch.autograd.grad(found.square().sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), leaves))


@pytest.mark.parametrize("form", FORMS)
def test_an_ensemble_by_vmap(form: CfCForm) -> None:
    modules = [Sequence(form) for _ in range(3)]
    with torch.no_grad():
        for index, module in enumerate(modules):
            for parameter in module.parameters():
                parameter.mul_(1 + index)
    stacked, _ = torch.func.stack_module_state(modules)  # type: ignore[arg-type]
    x, h0, _ = arguments()

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        given = {name.removeprefix("cell."): value for name, value in parameters.items()}
        cell = modules[0].cell
        return torch.func.functional_call(cell, given, (x[0], h0)).square().sum()

    losses = torch.func.vmap(loss)(stacked)
    gradients = torch.func.vmap(torch.func.grad(loss))(stacked)
    for index, module in enumerate(modules):
        expected = module.cell(x[0], h0).square().sum()
        torch.testing.assert_close(losses[index], expected)
        grads = torch.autograd.grad(expected, list(module.parameters()))
        for (name, _), grad in zip(module.named_parameters(), grads, strict=True):
            torch.testing.assert_close(gradients[name][index], grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("form", FORMS)
def test_forward_derivative(form: CfCForm) -> None:
    cell = Sequence(form).cell.double()
    x, h0, _ = (argument.double() for argument in arguments())
    value, slope = torch.func.jvp(lambda h: cell(x[0], h), (h0,), (torch.ones_like(h0),))
    torch.testing.assert_close(value, cell(x[0], h0))
    jacobian = torch.func.jacrev(lambda h: cell(x[0], h))(h0).sum((2, 3))
    torch.testing.assert_close(slope, jacobian)


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_export(form: CfCForm) -> None:
    module = Sequence(form)
    exported = torch.export.export(module, arguments())
    x, h0, durations = (argument + 0.1 for argument in arguments())
    torch.testing.assert_close(exported.module()(x, h0, durations), module(x, h0, durations))


@needs_compiler
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of the exporter
@pytest.mark.parametrize("form", FORMS)
def test_onnx(form: CfCForm, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = Sequence(form).eval()
    path = tmp_path / "cell.onnx"
    torch.onnx.export(module, arguments(), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    given = tuple(argument + 0.1 for argument in arguments())
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    (found,) = session.run(None, feed)
    torch.testing.assert_close(torch.from_numpy(found), module(*given).detach())
