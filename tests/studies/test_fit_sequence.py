"""examples/studies/fit_sequence.py, its tasks, and the search for equal parameters."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import solvers
from studies import fit_sequence, sequence_tasks
from studies import sequence_plots as plots
from studies.equal_parameters import equal_sizes
from studies.sequences import Sequences
from tests.runs import check_refusal, on_one_thread

one_thread = pytest.fixture(autouse=True, scope="module")(on_one_thread)


@pytest.fixture(scope="module")
def pendulum() -> Any:
    return sequence_tasks.PendulumTask(256)


@pytest.fixture(scope="module")
def digits() -> Any:
    pytest.importorskip("sklearn")
    return sequence_tasks.DigitsTask(64)


class Silent:
    def update(self) -> None:
        pass


def build(task: Any, name: str, hidden: int = 8) -> Any:
    torch.manual_seed(0)
    return fit_sequence.build(fit_sequence.MODELS[name], task, solvers.Euler(steps=2), hidden)


TINY = ["--size", "16", "--epochs", "1"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where a run of every model wrote, and what it printed."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("fit") / "new"
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(words)))
        patch.setattr("tqdm.tqdm.write", printed.append)
        arguments = [*TINY, "--seeds", "2", "--rates", "0.02", "1e-9", "-o", str(folder)]
        assert fit_sequence.main([*arguments, "--models", *fit_sequence.MODELS]) == 0
    return folder, printed


def test_the_table_the_record_and_the_pictures(output: tuple[Path, list[str]]) -> None:
    folder, printed = output
    record = json.loads((folder / "results.json").read_text())
    assert {"torch", "threads", "processor"} <= set(record["environment"])
    assert record["settings"]["seeds"] == 2
    assert record["settings"]["solver"] == "euler"
    titles = [model.title for model in fit_sequence.MODELS.values()]
    for task in ("pendulum", "digits"):
        rows = record["tasks"][task]["rows"]
        assert [row["model"] for row in rows] == titles
        for row in rows:
            assert len(row["test"]) == len(row["validation"]) == 2
            assert row["mean"] == pytest.approx(statistics.fmean(row["test"]))
            assert row["spread"] == pytest.approx(abs(row["test"][0] - row["test"][1]) / 2**0.5)
            assert row["seconds_per_epoch"] > 0
            (line,) = [
                line for line in printed
                if line.startswith(f"{row['model']}  ") and f"{row['mean']:.3f} ± " in line
            ]  # fmt: skip
            assert f"{row['parameters']:,}" in line
    for name in (
        "pendulum_forecasts", "pendulum_error_by_gap", "pendulum_time_constants",
        "digits_readings", "digits_time_constants",
    ):  # fmt: skip
        assert f"picture  {folder / name}.png" in printed
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 400


def test_parameters_are_equal(output: tuple[Path, list[str]], pendulum: Any) -> None:
    found = json.loads((output[0] / "results.json").read_text())["tasks"]
    for task in found.values():
        counts = [row["parameters"] for row in task["rows"]]
        assert max(counts) <= 1.02 * min(counts)
        assert min(counts) > 4000 / 1.5
    (row,) = (row for row in found["pendulum"]["rows"] if row["model"] == "nn.GRU")
    hidden = row["hidden"]
    reader = build(pendulum, "gru", hidden)
    assert sum(p.numel() for p in reader.parameters()) == row["parameters"]
    assert row["parameters"] == 3 * hidden * (2 + hidden) + 6 * hidden + hidden + 1


def test_the_rate_is_chosen_on_the_validation_set_alone(
    pendulum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = {(0.1, 0): math.nan, (0.2, 0): 1.0, (0.3, 0): 2.0, (0.2, 1): 9.0}
    asked = []

    def fit(reader: Any, task: Any, *, rate: float, seed: int, **_: Any) -> Any:
        asked.append((rate, seed))
        return fit_sequence.Fit(reader, validation[rate, seed], test=-100 * rate, seconds=[0.5])

    monkeypatch.setattr(fit_sequence, "fit", fit)
    words = ["--seeds", "2", "--rates", "0.1", "0.2", "0.3"]
    options = fit_sequence.make_parser().parse_args(words)
    options.solver = solvers.Euler(steps=1)
    size = fit_sequence.Size(4, 100)
    progress = fit_sequence.tqdm(disable=True)
    row, _ = fit_sequence.train_model(fit_sequence.MODELS["gru"], size, pendulum, options, progress)
    assert asked == [(0.1, 0), (0.2, 0), (0.3, 0), (0.2, 1)]
    assert (row.rate, row.test, row.validation) == (0.2, [-20, -20], [1.0, 9.0])


@pytest.mark.parametrize("name", ["liquid", "gru"])
def test_a_model_learns_and_needs_the_times(pendulum: Any, name: str) -> None:
    found = {}
    for model in (name, f"{name}-no-times"):
        reader = build(pendulum, model, 24)
        settings = {"rate": 0.03, "seed": 0, "epochs": 16, "progress": Silent()}
        found[model] = fit_sequence.fit(reader, pendulum, **settings).test
    held = float(pendulum.reference.split(": ")[1])
    assert found[name] < 0.75 * found[f"{name}-no-times"]
    assert found[f"{name}-no-times"] < held


@pytest.mark.parametrize("name", ["liquid", "ltc", "cfc", "gru"])
def test_only_models_with_times_see_them(pendulum: Any, name: str) -> None:
    x, durations = torch.randn(3, 5, 1), torch.rand(3, 5) + 0.1
    reader = build(pendulum, name)
    assert not torch.allclose(reader(x, durations), reader(x, 2 * durations), atol=1e-4)
    if f"{name}-no-times" in fit_sequence.MODELS:
        blind = build(pendulum, f"{name}-no-times")
        mean = float(pendulum.data.train.durations.mean())
        assert torch.equal(blind(x, durations), blind(x, 2 * durations))
        same = reader(x, torch.full_like(durations, mean))
        torch.testing.assert_close(blind(x, durations), same)


def test_the_error_of_the_pendulum(pendulum: Any) -> None:
    test = pendulum.data.test
    assert pendulum.error(test.targets, test) == 0
    assert pendulum.error(test.targets + 0.1, test) == pytest.approx(0.1, rel=1e-4)
    early = test.targets.clone()
    early[:, :4] += 5  # the velocity cannot be known yet
    assert pendulum.error(early, test) == 0
    held = (test.inputs - test.targets)[:, 4:].square().mean().sqrt()
    assert pendulum.reference.endswith(f"{held:.3f}")


def test_the_error_of_the_digits(digits: Any) -> None:
    test = digits.data.test
    assert set(test.lengths.tolist()) == set(range(1, 9))
    right = torch.zeros(len(test), 8, 10)
    rows = torch.arange(len(test))
    right[rows, test.lengths - 1, test.targets] = 5.0
    assert digits.error(right, test) == 0
    wrong = right.clone()
    wrong[:40] = wrong[:40].roll(1, dims=2)
    assert digits.error(wrong, test) == pytest.approx(100 * 40 / len(test))
    wrong[rows, test.lengths % 8, 0] = 9.0  # not the end of the sequence, so nobody looks
    assert digits.error(wrong, test) == pytest.approx(100 * 40 / len(test))


def test_no_image_is_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    real = sequence_tasks.irregular_digits

    def numbered(*, copies: int, **settings: Any) -> Sequences:
        """The digits, with the number of the image as the class."""
        found = real(copies=copies, **settings)
        return dataclasses.replace(found, targets=torch.arange(len(found)) // copies)

    monkeypatch.setattr(sequence_tasks, "irregular_digits", numbered)
    data = sequence_tasks.DigitsTask().data
    parts = [set(part.targets.tolist()) for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [1797 - 300 - 400, 300, 400]
    assert len(set.union(*parts)) == 1797


@pytest.mark.parametrize("name", ["liquid", "gru"])
def test_a_forecast_is_what_the_model_says_and_goes_on(pendulum: Any, name: str) -> None:
    swing = pendulum.data.test.select(slice(3, 4))
    reader = build(pendulum, name)
    with torch.no_grad():
        curve = sequence_tasks.forecast(reader, swing, parts=5)
        said = reader(swing.inputs, swing.durations)[0, :, 0]
    times, values = curve.times.view(32, 7), curve.values.view(32, 7)
    assert bool(values[:, 6].isnan().all())
    torch.testing.assert_close(values[:, 5], said)
    ends = swing.durations[0].cumsum(0)
    torch.testing.assert_close(times[:, 5], ends)
    torch.testing.assert_close(times[:, 0], ends - swing.durations[0])
    torch.testing.assert_close(times[:, 2], ends - 0.6 * swing.durations[0])
    jumps = (values[1:, 0] - values[:-1, 5]).abs().max()
    assert bool(jumps < 1e-6) == (name == "liquid")  # a liquid state flows, a GRU's jumps


def test_the_truth_that_is_drawn_passes_through_the_states(pendulum: Any) -> None:
    swing = pendulum.data.test.select(slice(7, 8))
    truth = sequence_tasks.tracking(swing, {}).truth
    ends = swing.durations[0].cumsum(0).double()
    at = torch.searchsorted(truth.times, ends[:-1])
    step = float(truth.times[1])
    assert float((truth.values[at] - swing.states[0, 1:-1, 0]).abs().max()) < 10 * step
    torch.testing.assert_close(truth.values[-1], swing.states[0, -1, 0], rtol=0, atol=1e-4)


def test_the_error_by_gap_adds_up(pendulum: Any) -> None:
    class Held(nn.Module):
        def forward(self, x: Tensor, durations: Tensor) -> Tensor:
            return x

    curve = pendulum.by_gap(Held(), groups=7)
    whole = float(curve.values.square().mean().sqrt())
    assert whole == pytest.approx(pendulum.error(pendulum.data.test.inputs, pendulum.data.test))
    assert bool((curve.times.diff() > 0).all())
    assert float(curve.values[-1]) > 2 * float(curve.values[0])


def linear(inputs: int, hidden: int) -> nn.Module:
    return nn.Linear(inputs, hidden, bias=False)


def test_equal_sizes_are_the_nearest_that_agree() -> None:
    makers = {"six": partial(linear, 6), "ten": partial(linear, 10)}
    # Multiples of 6 and of 10 that agree to 2%: 30, 60, 90, 100 against 102, 120, ...
    assert equal_sizes(makers, 70) == {"six": (10, 60), "ten": (6, 60)}
    assert equal_sizes(makers, 99) == {"six": (17, 102), "ten": (10, 100)}
    assert equal_sizes(makers, 99, tolerance=0.0)["six"] == (15, 90)
    with pytest.raises(ValueError, match=r"near 10 parameters .* six, ten agree to 2%"):
        equal_sizes(makers, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--size", "-1"], "--size must be at least 1"),
        (["--rates", "0.1", "-1"], "--rates must be positive"),
        (["--rates", "nan"], "--rates must be positive"),
        (["--solver", "magic"], "unknown solver 'magic'"),
        (["--solver-steps", "0"], "at least 1, not 0"),
        (["--solver", "dopri5", "--solver-steps", "3"], "steps"),
        (["--parameters", "20"], "near 20 parameters"),
        (["-o", "FILE"], "choose another directory with --output"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if word == "FILE" else word for word in arguments]
    if "-o" not in words:
        words += ["-o", str(tmp_path / "out")]
    status = fit_sequence.main([*TINY, "--task", "pendulum", *words])
    check_refusal(status, capsys.readouterr().err, message)


def test_missing_digits_are_told_before_anything_is_trained(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert fit_sequence.main([*TINY, "-o", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert "pip install scikit-learn" in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_pictures_need_something_to_draw(tmp_path: Path) -> None:
    nothing = plots.Curve(torch.zeros(1), torch.zeros(1))
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match="no forecast"):
        plots.plot_tracking([plots.Tracking(nothing, nothing, {})], path, value="", heading="")
    with pytest.raises(ValueError, match="no line"):
        plots.plot_lines({}, path, axis="", value="", heading="")
    with pytest.raises(ValueError, match="no reading"):
        plots.plot_readings([], path, heading="")
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2,\) and \(3, 4\)"):
        plots.plot_time_constants(
            torch.zeros(2, 3), torch.ones(2), torch.ones(3, 4), path, value="", unit="", heading=""
        )
    assert not path.exists()
