"""Coefficients of the Runge-Kutta methods: order conditions, scipy's tables, validation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate._ivp.rk import RK23, RK45

from solvers import ButcherTableau
from solvers.methods import tableaus as tableau
from solvers.methods.interpolation import Path, hermite

TABLEAUS = {
    name: value for name, value in vars(tableau).items() if isinstance(value, ButcherTableau)
}
PAIRS = {name: value for name, value in TABLEAUS.items() if value.embedded is not None}

Tree = tuple["Tree", ...]  # type: ignore[misc]  # a rooted tree is the forest under its root


def forests(nodes: int, largest: int) -> Iterator[Tree]:
    """Multisets of rooted trees of that many nodes in all."""
    if nodes == 0:
        yield ()
    for size in range(min(nodes, largest), 0, -1):
        for first in trees(size):
            for rest in forests(nodes - size, size):
                # each multiset once: the trees of one size in order
                if not rest or order(rest[0]) < size or repr(rest[0]) <= repr(first):
                    yield (first, *rest)


def trees(nodes: int) -> list[Tree]:
    return list(forests(nodes - 1, nodes - 1))


def order(tree: Tree) -> int:
    return 1 + sum(order(branch) for branch in tree)


def density(tree: Tree) -> int:
    return order(tree) * math.prod(density(branch) for branch in tree)


def weights_of(tree: Tree, a: np.ndarray) -> np.ndarray:
    """The elementary weight of each stage (Butcher 2008, section 31)."""
    total = np.ones(len(a))
    for branch in tree:
        total = total * (a @ weights_of(branch, a))
    return total


def matrix(method: ButcherTableau) -> np.ndarray:
    a = np.zeros((method.stages, method.stages))
    for index, row in enumerate(method.a, start=1):
        a[index, :index] = row
    return a


def residual(method: ButcherTableau, b: np.ndarray, nodes: int, theta: float = 1.0) -> float:
    """The worst violation of the conditions of one order: b u(tree) = theta^order / density."""
    a = matrix(method)
    return max(
        abs(float(b @ weights_of(tree, a)) - theta**nodes / density(tree)) for tree in trees(nodes)
    )


def test_there_are_as_many_conditions_as_rooted_trees() -> None:
    assert [len(trees(nodes)) for nodes in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]


@pytest.mark.parametrize("name", TABLEAUS)
def test_order_conditions(name: str) -> None:
    method = TABLEAUS[name]
    b = np.array(method.b)
    for nodes in range(1, method.order + 1):
        assert residual(method, b, nodes) < 1e-13
    assert residual(method, b, method.order + 1) > 1e-6  # and no more than it declares


@pytest.mark.parametrize("name", PAIRS)
def test_order_conditions_of_the_embedded_result(name: str) -> None:
    method = PAIRS[name]
    b = np.array(method.embedded)
    assert method.embedded_order == method.order - 1
    for nodes in range(1, method.embedded_order + 1):
        assert residual(method, b, nodes) < 1e-13
    assert residual(method, b, method.order) > 1e-6  # or it would estimate no error
    errors = np.array(method.error_weights)
    np.testing.assert_allclose(errors, np.array(method.b) - b, atol=1e-16)


@pytest.mark.parametrize(
    "name", [name for name, value in TABLEAUS.items() if value.interpolant is not None]
)
def test_order_conditions_of_the_interpolant(name: str) -> None:
    method = TABLEAUS[name]
    table = np.array(method.interpolant)
    for theta in (0.1, 0.5, 0.77, 1.0):
        b = table @ theta ** np.arange(1, table.shape[1] + 1)
        for nodes in range(1, 5):
            assert residual(method, b, nodes, theta) < 1e-12
    np.testing.assert_allclose(table.sum(1), method.b, atol=1e-14)
    # dy/dt of the path is that of the field at both ends, so that paths join smoothly
    slopes = table @ np.arange(1, table.shape[1] + 1)
    np.testing.assert_allclose(slopes, [0] * (method.stages - 1) + [1], atol=1e-13)
    np.testing.assert_allclose(table[:, 0], [1] + [0] * (method.stages - 1), atol=1e-13)


@pytest.mark.parametrize(("ours", "theirs"), [(tableau.DOPRI5, RK45), (tableau.BOSH3, RK23)])
def test_coefficients_are_scipys(ours: ButcherTableau, theirs: Any) -> None:
    stages = theirs.n_stages
    np.testing.assert_allclose(matrix(ours)[:stages, : stages - 1], theirs.A[:, : stages - 1])
    np.testing.assert_allclose(matrix(ours)[stages, :stages], theirs.B)
    np.testing.assert_allclose(ours.c[:stages], theirs.C)
    errors = np.array(ours.error_weights)
    np.testing.assert_allclose(errors, -theirs.E, atol=1e-16)
    if ours.interpolant is not None:
        np.testing.assert_allclose(ours.interpolant, theirs.P, rtol=1e-12)


def test_cubic_hermite_is_scipys_interpolant_of_bosh3() -> None:
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    y, dt = torch.randn(3, 2, generator=generator, dtype=torch.float64), 0.3
    y1 = y + dt * torch.einsum("s,sbd->bd", torch.tensor(tableau.BOSH3.b).double(), slopes)
    path = Path(y, dt, hermite, (y1, slopes[0], slopes[3]))
    for theta in (0.0, 0.2, 0.9, 1.0):
        b = torch.tensor(RK23.P @ theta ** np.arange(1, 4))
        expected = y + dt * torch.einsum("s,sbd->bd", b, slopes)
        torch.testing.assert_close(path.at(theta), expected)
        torch.testing.assert_close(path.at(torch.full((3, 1), theta).double()), expected)


def test_which_methods_reuse_their_last_evaluation() -> None:
    reusing = {name for name, value in TABLEAUS.items() if value.first_same_as_last}
    assert reusing == {"BOSH3", "DOPRI5", "TSIT5"}
    assert [TABLEAUS[name].stages for name in ("EULER", "HEUN", "RK4", "TSIT5")] == [1, 2, 4, 7]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c": (0.0, 1.0, 0.5)}, "do not describe one explicit method of 2 stages"),
        ({"a": ((0.5, 0.5),)}, "do not describe one explicit method of 2 stages"),
        ({"a": ()}, "do not describe one explicit method of 2 stages"),
        ({"c": (0.0, 0.5)}, r"row \(1.0,\) must sum to its node 0.5"),
        ({"c": (0.1, 1.0)}, r"row \(\) must sum to its node 0.1"),
        ({"b": (0.5, 0.6)}, "the 2 weights b must sum to 1"),
        ({"embedded": (0.5, 0.4)}, "the 2 weights embedded must sum to 1"),
        ({"embedded": (1.0,)}, "the 2 weights embedded must sum to 1"),
        ({"embedded": None}, "give both or neither"),
        ({"embedded_order": None}, "give both or neither"),
        ({"interpolant": ((0.5,), (0.4,))}, "must sum to the weights b"),
        ({"interpolant": ((0.5,),)}, "must sum to the weights b"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(tableau.HEUN, **changes)
