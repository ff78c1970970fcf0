"""The runs that come with the package."""

from __future__ import annotations

import json

import pytest

from liquid_ode.trained import trained_run, trained_runs
from liquid_ode.training import load_config, load_run


@pytest.mark.parametrize("name", trained_runs())
def test_a_run_loads_and_says_how_good_it_is(name: str) -> None:
    run = trained_run(name)
    load_run(run, device="cpu")
    assert load_config(run).output is None
    (evaluation, *_) = run.glob("evaluation*.json")
    assert json.loads(evaluation.read_text())["images"]["fd"] > 0


def test_an_unknown_run_is_named() -> None:
    assert trained_runs()
    with pytest.raises(ValueError, match="unknown run 'x'; there are "):
        trained_run("x")
