"""The run directory: which file is where, its records in JSON, and whether a run may go on."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liquid_ode.training.config import TrainConfig
from liquid_ode.training.errors import CheckpointError, TrainingError
from solvers.storage import write_atomically

FORMAT_VERSION = 1

# Settings that change what is shown and kept, but not the weights.
FREE = frozenset(
    {
        "data_root", "samples", "sample_steps", "sample_every", "device", "threads",
        "checkpoint_every", "log_every", "output",
    }
)  # fmt: skip


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Within the block ``path`` is written.

    Raises:
        TrainingError: in place of an OSError; it says how to go on.
    """
    try:
        yield
    except OSError as error:
        kept = "; the previous one is kept" if path.exists() else ""
        raise TrainingError(
            f"could not save {path}: {error.strerror or error}{kept}. Make room or correct the "
            f"rights, then continue with --resume {shlex.quote(str(path.parent))}"
        ) from error


def save_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` as a whole.

    Raises:
        TrainingError: it could not be written; what was at ``path`` is kept.
    """
    with saving(path):
        write_atomically(path, data)


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.loss_plot = self.path / "loss.png"

    def weights(self, which: str) -> Path:
        """The file of the averaged weights ("ema") or of the trained ones ("model").

        Raises:
            ValueError: another name.
        """
        if which not in ("ema", "model"):
            raise ValueError(f"weights must be 'ema' or 'model', got {which!r}")
        return self.path / f"{which}.safetensors"

    def sample(self, epoch: int) -> Path:
        return self.path / "samples" / f"epoch_{epoch:04d}.png"

    def last_sample(self) -> Path | None:
        """The newest sample grid, if there is one."""
        return max((self.path / "samples").glob("epoch_*.png"), default=None)

    def refuse_existing(self) -> None:
        """Raise ValueError where the directory already holds a run, or is not a directory."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output {self.path} is a file; name a directory")
        if self.config.exists() or self.checkpoint.exists():
            raise ValueError(
                f"{self.path} already holds a run: continue it with --resume "
                f"{shlex.quote(str(self.path))}, or choose another directory with --output"
            )

    def write_record(self, config: TrainConfig, facts: Mapping[str, Any]) -> None:
        record = {"format_version": FORMAT_VERSION, "config": config.to_dict(), **facts}
        save_bytes(self.config, (json.dumps(record, indent=2) + "\n").encode())

    def read_record(self) -> tuple[TrainConfig, dict[str, Any]]:
        """The run's settings, and all that its ``config.json`` holds.

        Raises:
            CheckpointError: there is no run here, or its record is broken or from another version.
        """
        try:
            text = self.config.read_text()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.config} is broken or not a run's record") from error
        except OSError as error:
            raise CheckpointError(
                f"{self.path} is not a run directory: its config.json could not be read "
                f"({error.strerror or error})"
            ) from error
        try:
            record = json.loads(text)
            version, settings = record["format_version"], record["config"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.config} is broken or not a run's record") from error
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{self.config} has format version {version!r}; this library reads {FORMAT_VERSION}"
            )
        try:
            config = TrainConfig.from_dict(settings)
            _ = record["data"]["num_classes"], record["processes"]  # what else is relied on
            return config, record
        except KeyError as error:
            raise CheckpointError(f"{self.config} is broken: it lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.config}: {error}") from error


class MetricsLog:
    """The lines of ``metrics.jsonl``: one JSON object each, in the order of their steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            TrainingError: it could not be written.
        """
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"could not write {self.path}: {error.strerror or error}"
            ) from error

    def cut_after(self, step: int) -> None:
        """Drop the lines of later steps, and a last line that a kill left unfinished."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        save_bytes(self.path, "".join(kept).encode())


# Whether a run may go on with the settings and the data that it is given -----------------------


def merge(saved: TrainConfig, given: TrainConfig, run: RunDirectory) -> TrainConfig:
    """The settings with which to go on: ``given``, where they are those of the run.

    Raises:
        ValueError: they would change the weights; each such setting is named.
    """
    if given.precision == "auto":  # the run has resolved it already
        given = dataclasses.replace(given, precision=saved.precision)
    changes = [
        f"{name} {old!r} -> {new!r}"
        for name, old in saved.to_dict().items()
        if name not in FREE and (new := getattr(given, name)) != old
    ]
    if changes:
        raise ValueError(
            f"the run in {run.path} has other settings: {', '.join(changes)}. A resumed run gives "
            "the weights that it would have given without a stop, so nothing may change that the "
            "weights depend on (also not epochs or max_steps: the learning rate falls to 0 over "
            "the whole run). Start a new run in another --output for that"
        )
    return given


def check_settings(found: Any, config: TrainConfig, what: str) -> None:
    """Raise CheckpointError where a checkpoint was made with settings that are not the run's."""
    settings = config.to_dict()
    found = found if isinstance(found, dict) else {}
    misfits = [
        f"{name} {found.get(name)!r} in place of {value!r}"
        for name, value in settings.items()
        if name not in FREE and found.get(name) != value
    ]
    if misfits:
        raise CheckpointError(f"{what} is not of this run: it was made with {', '.join(misfits)}")


def check_facts(saved: dict[str, Any], now: dict[str, Any], run: RunDirectory) -> None:
    """Raise ValueError where the data or the number of processes is not that of the run."""
    for name in ("data", "processes"):
        if saved.get(name) != now[name]:
            raise ValueError(
                f"the run in {run.path} was made with {name} {saved.get(name)}, and now there is "
                f"{now[name]}; it can only go on with the same (or start a new run: "
                f"--output, not --resume {shlex.quote(str(run.path))})"
            )
