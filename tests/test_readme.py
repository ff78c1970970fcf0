"""The README does what it says: its code blocks run, its figures are those that were measured."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from docs.tools.blocks import blocks, calls
from docs.tools.results import evaluation, record
from tests.documents import ROOT, check_call, failures, own_calls
from tests.versions import needs_compiler

README = ROOT / "README.md"
TEXT = README.read_text()
PROGRAMS = {f"README.md {place}": code for place, code in enumerate(blocks(TEXT, "python"), 1)}


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    codes = {name: [code] for name, code in PROGRAMS.items()}  # each block is a program
    return failures(codes, tmp_path_factory.mktemp("readme"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[needs_compiler] if "torch.export" in code else [])
        for name, code in PROGRAMS.items()
    ],
)
def test_python_blocks_run(raised: dict[str, str | None], name: str) -> None:
    assert raised[name] is None, raised[name]


def test_there_are_blocks() -> None:
    assert len(PROGRAMS) >= 2
    assert len(calls(TEXT)) >= 3


@pytest.mark.parametrize("call", own_calls([README]), ids=" ".join)
def test_bash_blocks_name_what_exists(
    call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_call(call, monkeypatch, capsys)


def test_it_is_short() -> None:
    assert len(TEXT.split()) <= 620


def test_figures_are_those_that_were_measured() -> None:
    vdp = {row["solver"]: row["seconds"] for row in record("van_der_pol")["rows"]}
    ours, compiled = "DormandPrince(PID())", "DormandPrince(PID()), compiled"
    rnn = next(
        row
        for row in record("cell_speed")["rows"]
        if row["network"] == "LiquidRNN, 6 equal Euler steps"
    )
    default, tuned = (
        evaluation(run, "ddim-steps50-seed0-n2000") for run in ("improved-seed0", "tuned-seed0")
    )
    losses, distances = (
        {
            model: mean(
                evaluation(f"{model}-seed{seed}", "ddim-steps50-seed0-n10000")[part][key]
                for seed in range(3)
            )
            for model in ("liquid_unet", "unet")
        }
        for part, key in (("loss", "mean"), ("images", "fd"))
    )
    for words in (
        f"{vdp[ours]:.2f} s, and {vdp[compiled]:.2f} s compiled",
        f"{vdp['torchdiffeq dopri5']:.2f} s",
        f"{rnn['ncps LTC / this']:.1f} times as fast",
        f"{rnn['this / nn.GRU']:.1f} times the time",
        f"{losses['liquid_unet']:.4f} against {losses['unet']:.4f}",
        f"FD-cnn {distances['liquid_unet']:.1f} against {distances['unet']:.1f}",
        f"{default['parameters']:,} parameters",
        f"5 epochs in {record('default_run')['rows'][0]['wall minutes']:.0f} minutes",
        f"FD-cnn {default['images']['fd']:.1f}",
        f"it is {tuned['images']['fd']:.1f}",
    ):
        assert words in " ".join(TEXT.split()), words


def test_links_lead_somewhere() -> None:
    places = re.findall(r"\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert len(places) > 5
    for place in places:
        assert (ROOT / place).exists(), place


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
