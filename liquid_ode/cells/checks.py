"""What every cell asks of its arguments: a dtype, a device, and numbers that are finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from solvers.checks import holds


def check_duration(duration: float) -> float:
    """Return it, or raise ValueError where it is negative or not finite."""
    if not 0 <= duration < math.inf:
        raise ValueError(f"a duration must be finite and at least 0, not {duration}")
    return duration


def check_durations(durations: Tensor) -> None:
    """Raise ValueError where a duration is negative or not finite.

    Where values cannot be looked at (:func:`solvers.checks.holds`), they are not.
    """
    good = (durations >= 0) & torch.isfinite(durations)
    if holds(good) is False:
        where = tuple((~good).nonzero()[0].tolist())
        raise ValueError(
            "every duration must be finite and at least 0; "
            f"{int((~good).sum())} are not, the first is {durations[where].item():g} at {where}. "
            "Sort the times before taking differences, and pack sequences in place of padding "
            "them with NaN"
        )


def check_tensor(name: str, value: object) -> None:
    """Raise ValueError where an argument is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, not {type(value).__name__}")


def check_like_weights(name: str, x: Tensor, module: nn.Module) -> None:
    """Raise ValueError where no weight of a module has the dtype of x, or lies on its device.

    Under autocast the dtypes may differ. A module without weights in floating point, as a
    quantised one is, takes any.
    """
    if any((own.dtype, own.device) == (x.dtype, x.device) for own in module.parameters()):
        return
    weights = [weight for weight in module.parameters() if weight.is_floating_point()]
    devices = {str(weight.device) for weight in weights}
    if weights and str(x.device) not in devices:
        raise ValueError(
            f"{name} is on {x.device}, the weights of the {type(module).__name__} are on "
            f"{_listed(devices)}: move one with .to(device)"
        )
    dtypes = {str(weight.dtype) for weight in weights}
    if weights and str(x.dtype) not in dtypes and not _is_cast(x):
        raise ValueError(
            f"{name} is {x.dtype}, the weights of the {type(module).__name__} are "
            f"{_listed(dtypes)}: turn one into the other with .to(dtype), or compute under "
            "torch.autocast"
        )


def check_like(name: str, value: Tensor, other: str, x: Tensor) -> None:
    """Raise ValueError where a tensor has not the dtype and the device of another."""
    check_device(name, value, other, x)
    if value.dtype != x.dtype and not (_is_cast(x) and _is_cast(value)):
        raise ValueError(
            f"{name} is {value.dtype}, {other} is {x.dtype}: call {name}.to({other}.dtype)"
        )


def check_device(name: str, value: Tensor, other: str, x: Tensor) -> None:
    """Raise ValueError where a tensor does not lie on the device of another."""
    if value.device != x.device:
        raise ValueError(
            f"{name} is on {value.device}, {other} is on {x.device}: call {name}.to({other}.device)"
        )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))


def _is_cast(x: Tensor) -> bool:
    """Whether autocast sees to the dtype of a tensor."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return on and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


def all_finite(*tensors: Tensor) -> bool:
    """Whether no number is NaN or infinite, by one look in the usual case.

    True also where numbers cannot be looked at: under a compiler, under a transform such as
    vmap, and of fake tensors.
    """
    if torch.compiler.is_compiling():
        return True
    # A finite sum proves it; one that is not (it may have overflowed) needs the full look.
    sums = [each.detach().sum(dtype=_at_least_float32(each)) for each in tensors]
    try:
        total = sum(sums[1:], sums[0]).item()
    except RuntimeError:
        return True
    return math.isfinite(total) or all(bool(torch.isfinite(each).all()) for each in tensors)


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def check_finite(name: str, values: Tensor, axes: Sequence[str]) -> None:
    """Raise ValueError where a number is NaN or infinite, saying where the first is.

    Args:
        name: of the values.
        values: ``(*axes, ...)``.
        axes: what the first axes count, ``("step", "sample")`` say.
    """
    if all_finite(values):
        return
    wrong = ~torch.isfinite(values.detach())
    places = wrong.reshape(*values.shape[: len(axes)], -1).any(-1)
    first = tuple(places.nonzero()[0].tolist())
    where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    value = values.detach()[first][wrong[first]][0].item()
    raise ValueError(
        f"{name} must be finite, but is {value:g} in {where} ({int(places.sum())} such in all). "
        "Fill in what is missing, scale what overflows, and pack sequences in place of padding "
        "them with NaN"
    )


def check_weights(module: nn.Module) -> None:
    """Raise ValueError where a weight of a module is NaN or infinite."""
    for name, weight in module.named_parameters():
        if not all_finite(weight):
            raise ValueError(
                f"{name} of the {type(module).__name__} is not finite everywhere, and so no state "
                "is: training has diverged before (lower the learning rate, clip the gradient), "
                "or it was loaded so"
            )


def refuse_torchscript(module: nn.Module) -> NoReturn:
    """Raise ValueError with what serves in place of TorchScript and the old ONNX exporter.

    They would keep the length of a sequence, the steps of a solver and the answers of checks as
    they are for one example.
    """
    raise ValueError(
        f"{type(module).__name__} does not go into TorchScript, by torch.jit.trace, "
        "torch.jit.script or torch.onnx.export(dynamo=False): take torch.export.export, and "
        "torch.onnx.export(program, dynamo=True) of what it gives"
    )


P = ParamSpec("P")
R = TypeVar("R")


def untraced(forward: Callable[P, R]) -> Callable[P, R]:
    """A module's forward, which TorchScript's tracer is refused before its arguments are bound.

    The old ONNX exporter gives it those by keyword alone as positional ones.
    """

    @functools.wraps(forward)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.jit.is_tracing():
            refuse_torchscript(cast(nn.Module, args[0]))
        return forward(*args, **kwargs)

    return checked
