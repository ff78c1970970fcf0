"""The run directory: which file is where, its lock, and its records in JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from liquid_ode import trained
from liquid_ode.arguments import did_you_mean
from liquid_ode.evaluation.metrics import read_lines
from liquid_ode.training.averages import length_of
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.errors import CheckpointError, TrainingError
from liquid_ode.training.lock import locked
from solvers.storage import write_atomically

FORMAT_VERSION = 1


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
    """The files of one run.

    Args:
        path: the directory; ``pretrained:NAME`` is that of a run of this package.

    Raises:
        ValueError: there is no pretrained run of that name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = trained.find(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.loss_plot = self.path / "loss.png"

    @property
    def pretrained(self) -> bool:
        """Whether it is a run of this package."""
        return trained.is_trained(self.path)

    @property
    def title(self) -> str:
        """What it is called on a command line."""
        return f"{trained.PREFIX}{self.path.name}" if self.pretrained else str(self.path)

    @property
    def outputs(self) -> Path:
        """Where what is made of the run goes: into it, but for a run of this package."""
        return Path("runs") / f"pretrained-{self.path.name}" if self.pretrained else self.path

    def weights(self, which: str) -> Path:
        """The file of the averaged weights ("ema", "ema-0.05"), or of the last step's ("model").

        "best" are the averaged weights of the epoch that was measured best.

        Raises:
            ValueError: another name.
        """
        if which == "best":
            return self.path / "ema-best.safetensors"
        if which not in ("ema", "model") and length_of(which) is None:
            raise ValueError(
                f"weights must be 'ema', 'model' or 'best', or 'ema-LENGTH' such as ema-0.05, "
                f"got {which!r}"
            )
        return self.path / f"{which}.safetensors"

    def sample(self, epoch: int) -> Path:
        return self.path / "samples" / f"epoch_{epoch:04d}.png"

    def last_sample(self) -> Path | None:
        """The newest sample grid, if there is one."""
        return max((self.path / "samples").glob("epoch_*.png"), default=None)

    def snapshot(self, step: int) -> Path:
        """A checkpoint of an earlier step that is kept for good."""
        return self.path / "snapshots" / f"step_{step:07d}.safetensors"

    def snapshots(self) -> list[Path]:
        """Those that there are, by their steps."""
        return sorted((self.path / "snapshots").glob("step_*.safetensors"))

    @staticmethod
    def step_of(snapshot: Path) -> int:
        return int(snapshot.stem.removeprefix("step_"))

    def locked(self) -> AbstractContextManager[bool]:
        """Within the block no other process can train here; see :func:`lock.locked`.

        Raises:
            ValueError: another process does, or the directory is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output {self.path} is a file; name a directory")
        return locked(self.path)

    def refuse_existing(self) -> None:
        """Raise ValueError where the directory already holds a run."""
        if self.config.exists() or self.checkpoint.exists():
            raise ValueError(
                f"{self.path} already holds a run: continue it with --resume "
                f"{shlex.quote(str(self.path))}, or choose another directory with --output"
            )

    def _guess(self) -> str:
        """The run beside it, or the pretrained one, that may have been meant."""
        name = str(self.path)
        shipped = [*trained.SHORT, *trained.trained_runs()]
        if name in shipped:
            return f" (did you mean '{trained.PREFIX}{name}'?)"
        runs = [record.parent for record in self.path.parent.glob("*/config.json")]
        beside = [str(run) for run in runs if did_you_mean(self.path.name, [run.name])]
        return did_you_mean(name, [*beside, *(trained.PREFIX + each for each in shipped)])

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
                f"({error.strerror or error}){self._guess()}"
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
            _ = record["data"]["num_classes"]  # what else is relied on
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
        """Drop the lines of later steps, and those that are damaged, as by a kill."""
        if not self.path.exists():
            return
        kept = [json.dumps(r) + "\n" for r in read_lines(self.path) if r["step"] <= step]
        save_bytes(self.path, "".join(kept).encode())
