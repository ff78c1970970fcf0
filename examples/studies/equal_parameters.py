"""Sizes at which models of different kinds have equally many parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torch import nn


class Size(NamedTuple):
    """A hidden size, and the parameters of the model that has it."""

    hidden: int
    parameters: int


def equal_sizes(
    makers: Mapping[str, Callable[[int], nn.Module]], about: int, *, tolerance: float = 0.02
) -> dict[str, Size]:
    """The hidden size of each model at which all have as many parameters.

    Args:
        makers: make a model of a hidden size from 1 on, with more parameters the larger it is.
        about: the number of parameters. The total nearest to it, within a factor of 1.5, at which
            all agree is taken.
        tolerance: by which share the largest may exceed the smallest.

    Raises:
        ValueError: there is no such total.
    """
    sizes = {name: list(_sizes(make, 2 * about)) for name, make in makers.items()}
    near = {
        size.parameters
        for of_one in sizes.values()
        for size in of_one
        if about / 1.5 <= size.parameters <= about * 1.5
    }
    for total in sorted(near, key=lambda total: abs(total - about)):
        found = {name: _nearest(of_one, total) for name, of_one in sizes.items()}
        counts = [size.parameters for size in found.values()]
        if max(counts) <= (1 + tolerance) * min(counts):
            return found
    raise ValueError(
        f"near {about} parameters there are no hidden sizes at which {', '.join(makers)} agree to "
        f"{tolerance:.0%}: ask for more parameters, between which the steps are finer"
    )


def _nearest(sizes: list[Size], total: int) -> Size:
    return min(sizes, key=lambda size: abs(size.parameters - total))


def _sizes(make: Callable[[int], nn.Module], most: int) -> Iterator[Size]:
    hidden = parameters = 0
    while parameters < most:
        hidden += 1
        parameters = sum(weight.numel() for weight in make(hidden).parameters())
        yield Size(hidden, parameters)
