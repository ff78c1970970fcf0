"""The size of an image in the forms in which users write it."""

from __future__ import annotations

from typing import Any

import pytest

from liquid_ode.data import parse_size, written_size


@pytest.mark.parametrize(
    ("size", "expected", "written"),
    [
        (32, (32, 32), 32),
        ("32", (32, 32), 32),
        ("32x32", (32, 32), 32),
        ((32, 32), (32, 32), 32),
        ("24x32", (24, 32), "24x32"),
        ("24×32", (24, 32), "24x32"),
        ([24, 32], (24, 32), "24x32"),
        (1, (1, 1), 1),
    ],
)
def test_forms(size: Any, expected: tuple[int, int], written: int | str) -> None:
    assert parse_size(size) == expected
    assert written_size(size) == written
    assert written_size(written) == written


@pytest.mark.parametrize(
    "size", [0, -3, "0", "24x0", "x32", "24x", "24x32x3", "", "a", 2.5, True, (), (1, 2, 3), None]
)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(ValueError, match=r"as 24x32, got "):
        parse_size(size)
