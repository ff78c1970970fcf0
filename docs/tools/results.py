"""The measurements behind the site's figures: read from their JSON, and written as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "examples/benchmarks/results"
TRAINED = ROOT / "liquid_ode/trained"

_SHORT_RUN = "python examples/benchmarks/default_run.py -- --max-steps 700 --samples 0"
COMMANDS = {
    "cell_speed": "python examples/benchmarks/cell_speed.py",
    "contrast": "python examples/studies/contrast.py pretrained:improved -n 500",
    "default_run": "python examples/benchmarks/default_run.py",
    "default_run_avx2": _SHORT_RUN,
    "default_run_avx512": _SHORT_RUN,
    "denoising_loss": "python examples/benchmarks/denoising_loss.py RUN...",
    "denoising_loss_by_solver": "liquid-ode compare RUN",
    "depth_guidance": "python examples/studies/depth_guidance.py RUN --early 1 2 3",
    "fit_sequence": "python examples/studies/fit_sequence.py",
    "gradient_memory": "python examples/benchmarks/gradient_memory.py",
    "learned_solver": "python examples/benchmarks/learned_solver.py pretrained:recommended-seed0",
    "learned_solver_random": "python examples/benchmarks/learned_solver.py",
    "liquid_field_speed": "python examples/benchmarks/liquid_field_speed.py",
    "liquid_unet_choices": "python examples/studies/over_seeds.py RUN...",
    "model_speed": "python examples/benchmarks/model_speed.py",
    "model_speed_avx2": "python examples/benchmarks/model_speed.py",
    "sample_speed": "python examples/benchmarks/sample_speed.py",
    "sequence_memory": "python examples/benchmarks/sequence_memory.py",
    "stiff": "python examples/benchmarks/stiff.py",
    "stiff_liquid": "python examples/benchmarks/stiff_liquid.py",
    "train_speed": "python examples/benchmarks/train_speed.py",
    "train_speed_compiled": "python examples/benchmarks/train_speed.py --batch-sizes 16",
    "units_of_time": "python examples/benchmarks/units_of_time.py",
    "van_der_pol": "python examples/benchmarks/van_der_pol.py",
    "cnf_two_moons": "python examples/benchmarks/cnf_two_moons.py",
    "neural_ode_adjoint": "python examples/benchmarks/neural_ode_adjoint.py",
    "vision_block_liquid": "python examples/studies/vision_block.py --precision bf16",
    "vision_block_residual": (
        "python examples/studies/vision_block.py --block residual --precision bf16"
    ),
}
# Solvers that have another name now than when they were measured.
RENAMED = {
    "batched_etdrk2": "etdrk2, by tolerance (no more)",
    "batched_etdrk4": "etdrk4, by tolerance",
    "batched_dopri5": "dormand_prince",
    "batched_": "",
    "Dopri5": "DormandPrince",
}


@cache
def record(name: str) -> Any:
    """The JSON of a benchmark or a study."""
    return json.loads((RESULTS / f"{name}.json").read_text())


@cache
def evaluation(run: str, which: str = "ddim-steps50-seed0-n10000") -> dict[str, Any]:
    """The evaluation of a run that comes with the package."""
    found: dict[str, Any] = json.loads((TRAINED / run / f"evaluation-{which}.json").read_text())
    return found


def evaluations() -> list[dict[str, Any]]:
    """All evaluations of those runs."""
    return [json.loads(path.read_text()) for path in sorted(TRAINED.glob("*/evaluation-*.json"))]


def row(name: str, part: str | None = None, **wanted: Any) -> dict[str, Any]:
    """The one row of a record, or of a part of it, that has these values.

    Raises:
        LookupError: where it is not exactly one.
    """
    rows = _rows(name, part)
    found = [each for each in rows if all(each[key] == value for key, value in wanted.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows of {name} have {wanted}, not one")
    return found[0]


def table(
    name: str,
    part: str | None = None,
    columns: Mapping[str, str] | None = None,
    where: Callable[[Mapping[str, Any]], bool] | None = None,
) -> str:
    """Rows of a record as a Markdown table.

    Args:
        name: the record.
        part: the key of a part that holds the rows.
        columns: headings and the keys under them; all if None.
        where: which rows; all if None.
    """
    rows = [each for each in _rows(name, part) if where is None or where(each)]
    shown = columns or {key: key for key in rows[0]}
    cells = [[text(each[key]) for key in shown.values()] for each in rows]
    return markdown([_renamed(heading) for heading in shown], cells)


def sequences_table(task: str, error: str, digits: int) -> str:
    """The models of a task of ``fit_sequence``: mean and spread of the error over the seeds."""
    cells = [
        [
            each["model"], f"{each['mean']:.{digits}f} ± {each['spread']:.{digits}f}",
            f"{each['parameters']:,}", f"{each['seconds_per_epoch']:.2f}",
        ]
        for each in _rows("fit_sequence", f"tasks.{task}")
    ]  # fmt: skip
    return markdown(("model", error, "parameters", "s an epoch"), cells)


def lower(place: int) -> str:
    """By how many percent the mean loss of a choice is below that of the first, the U-Net."""
    first, own = (record("liquid_unet_choices")[each]["losses"] for each in (0, place))
    return f"{100 * (1 - (sum(own) / len(own)) / (sum(first) / len(first))):.1f}"


def made(name: str) -> str:
    """How a record was made: by which command, where and when."""
    return _made(COMMANDS[name], list(_environments(record(name))))


def pivot(name: str, rows: str, columns: str, value: str, unless: str | None = None) -> str:
    """A record as a table of one value over two keys.

    Args:
        name: the record.
        rows, columns, value: the keys.
        unless: the key of what is written behind a value where it is not that of ``rows``.
    """
    found = _rows(name, None)
    down = list(dict.fromkeys(each[rows] for each in found))
    across = list(dict.fromkeys(each[columns] for each in found))
    by_place = {(each[rows], each[columns]): each for each in found}

    def cell(each: Mapping[str, Any]) -> str:
        if unless is None or each[unless] == each[rows]:
            return text(each[value])
        return f"{text(each[value])} ({text(each[unless])})"

    cells = [[text(a), *(cell(by_place[a, b]) for b in across)] for a in down]
    return markdown([rows, *map(_renamed, across)], cells)


def trained_table() -> str:
    """The runs that come with the package, as they were evaluated."""
    cells = []
    for each in evaluations():
        images, real, pixels = each["images"], each["real"], each["pixels"]
        cells.append([
            each["source"],
            f"{each['parameters']:,}", f"{_sampler(each)}, {text(each['evaluations'])}",
            f"{each['loss']['mean']:.4f}", f"{images['fd']:.2f} ({real['fd']:.2f})",
            f"{images['kid']:.4f}", f"{images['n']:,}", f"{pixels['std']:.3f}",
        ])  # fmt: skip
    headings = (
        "run", "parameters", "sampler, evaluations", "error of the noise",
        "FD-cnn (of real images)", "KID", "n", "deviation of the pixels",
    )  # fmt: skip
    return markdown(headings, cells)


def made_trained() -> str:
    """How the evaluations of those runs were made."""
    command = "liquid-ode evaluate RUN -n 10000 --steps 50"
    return _made(command, [each["environment"] for each in evaluations()])


def choices_table() -> str:
    """The settings of the liquid U-Net that were compared, each with the mean of its seeds."""
    cells = []
    for each in record("liquid_unet_choices"):
        setting = each["settings that differ"].partition(", channels_last")[0]
        cells.append([
            setting.replace("model_options=", ""), f"{each['parameters']:,}",
            _spread(each["losses"], 4), _spread(each["distances"], 2),
            str(len(each["losses"])), each["environment"]["device"],
        ])  # fmt: skip
    headings = "model, options, solver, rate", "parameters", "error of the noise", "FD-cnn"
    return markdown((*headings, "seeds", "trained on"), cells)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(value: Any) -> str:
    """A value as a cell shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _renamed(str(value)).replace("\n", " ").replace("|", "\\|")


def _renamed(name: str) -> str:
    for before, now in RENAMED.items():
        name = name.replace(before, now)
    return name


def _rows(name: str, part: str | None) -> list[dict[str, Any]]:
    found = record(name)
    for key in (part or "").split("."):
        found = found[key] if key else found
    rows: list[dict[str, Any]] = found["rows"] if isinstance(found, dict) else found
    return rows


def _environments(found: Any) -> Iterator[dict[str, Any]]:
    """Every environment in a record."""
    if isinstance(found, dict) and "environment" in found:
        yield found["environment"]
    elif isinstance(found, (dict, list)):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _environments(part)


def _made(command: str, environments: Sequence[Mapping[str, Any]]) -> str:
    machines = dict.fromkeys(map(_machine, environments))
    dates = dict.fromkeys(environment["date"] for environment in environments)
    return f"*`{command}`; {'; '.join(machines)}; {', '.join(dates)}.*"


def _machine(environment: Mapping[str, Any]) -> str:
    device, threads = environment["device"], environment["threads"]
    if device == "cpu":
        processor = str(environment["processor"]).replace("(R)", "")
        where = f"{processor}, {threads} thread{'s' * (threads > 1)}"
    else:
        where = str(device)
    return f"{where}, torch {environment['torch'].partition('+')[0]}"


def _sampler(each: Mapping[str, Any]) -> str:
    return str(each["sampler"]).partition("(")[0]


def _spread(values: Sequence[float], digits: int) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
