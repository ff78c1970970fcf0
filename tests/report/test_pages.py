"""The pages: complete in themselves, well-formed, with what the runs' directories hold."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from liquid_ode.report import write_reports
from liquid_ode.training import CheckpointError, train
from liquid_ode.training.reporting import Reporter
from tests.runs import check_refusal, draw_images, load_script, on_one_thread, small_config

EVALUATION = {
    "weights": "ema",
    "loss": {"levels": [0.2, 0.1, 0.05], "mean": 0.1167, "standard_error": 0.002, "images": 99},
    "title": "FD-cnn",
    "images": {"n": 1000, "fd": 6.278, "kid": 0.0123, "kid_std": 0.0004},
    "real": {"n": 1000, "fd": 0.317, "kid": 0.0, "kid_std": 0.0001},
    "pixels": {"std": 0.607, "saturated": 0.094},
    "evaluations": 50.0,
    "neighbours": "/elsewhere/neighbours-x.png",
}
VOID = {"meta", "link", "img", "input", "br"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    yield from on_one_thread()


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, addresses and pictures' sizes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = re.findall(r"url\(['\"]?([^'\")]*)", self.source)
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.addresses += [found[name] or "" for name in ("src", "href") if name in found]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small ``improved`` with classes and grey images, and a small ``unet``."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("cat", "dog"):
        (root / "images").mkdir(exist_ok=True)
        draw_images(root / "images" / name, 4)
    common = {"sample_steps": 2, "log_every": 1, "samples": 2, "image_channels": 1}
    liquid = small_config(
        root / "images",
        root / "a <liquid> & run",
        class_conditional=True,
        **common,
    )
    unet = small_config(
        root / "images",
        root / "unet",
        model="unet",
        model_options={"widths": [8, 8, 8]},
        lr=0.02,
        **common,
    )
    paths = [train(config, reporter=Reporter()) for config in (liquid, unet)]
    (paths[0] / "evaluation-ddim50.json").write_text(json.dumps(EVALUATION))
    grid = next((paths[0] / "samples").glob("*.png")).read_bytes()
    (paths[0] / "neighbours-x.png").write_bytes(grid)
    (paths[1] / "evaluation-broken.json").write_text("{")
    return paths


@pytest.fixture(scope="module")
def pages(runs: list[Path]) -> list[Page]:
    output = runs[0].parent / "comparison.html"
    paths = write_reports(runs, output, n=3, steps=4, device="cpu")
    assert paths == [runs[0] / "report.html", runs[1] / "report.html", output]
    return [Page(path) for path in paths]


def test_pages_need_nothing_else(pages: list[Page]) -> None:
    for page in pages:
        assert page.addresses
        assert all(address.startswith("data:") for address in page.addresses)
        assert "http" not in page.source.replace("http://www.w3.org", "")
        assert 'name="viewport"' in page.source
        assert "prefers-color-scheme: dark" in page.source


def test_a_run_has_its_sections(pages: list[Page], runs: list[Path]) -> None:
    liquid, unet, _ = pages
    for text in (
        "a <liquid> & run", "Samples", "Training loss", "Samples after each epoch", "Epoch 1",
        "FD-cnn, n = 1,000", "6.278", "0.317", "12.30 ± 0.40", "9.4%", "0.1167", "Nearest training",
        "Time constants", "classes in turn: cat, dog", "batch_size 2 16", "Denoising",
        "images, 8 images of 8x8", "step 4, σ",
    ):  # fmt: skip
        assert text in liquid.text or text in liquid.source, text
    assert "<liquid>" not in liquid.source
    assert "Time constants" not in unet.text
    assert "Evaluations" not in unet.text


def test_the_comparison_tells_what_differs_and_warns(pages: list[Page]) -> None:
    text = pages[2].text
    settings = text[text.index("Settings that differ") : text.index("other settings")]
    for part in ("model improved unet", "lr 0.0002 0.02", "class_conditional on off"):
        assert part in settings
    assert "batch_size" not in settings
    assert "Seeds 0 to 2, row by row; the same seed in the same place." in text
    assert "The models differ in size" in text
    assert "different images" not in text


def test_films_and_maps_are_labelled(pages: list[Page]) -> None:
    films = re.findall(r'data-labels="([^"]*)"', pages[2].source)
    assert [len(labels.split("|")) for labels in films] == [4, 4]
    assert films[0].startswith("step 1, σ ")
    assert pages[0].source.count("time constants of blocks.0") > 0


def test_nothing_is_drawn_without_images(runs: list[Path], tmp_path: Path) -> None:
    (path,) = write_reports(runs[1:], tmp_path / "page.html", n=0)
    text = Page(path).text
    assert "Training loss" in text
    assert "Denoising" not in text


def test_warnings_about_data_and_loss(runs: list[Path], tmp_path: Path) -> None:
    for place, run in enumerate(runs):
        record = json.loads((run / "config.json").read_text())
        record["config"]["weighting"] = ("min-snr", "uniform")[place]
        record["data"]["crc32"] = str(place)
        (tmp_path / str(place)).mkdir()
        (tmp_path / str(place) / "config.json").write_text(json.dumps(record))
    paths = write_reports([tmp_path / "0", tmp_path / "1"], tmp_path / "page.html", n=0)
    text = Page(paths[-1]).text
    assert "trained on different images" in text
    assert "weigh the noise levels differently (weighting)" in text


def test_runs_of_one_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "run").mkdir(parents=True)
        config = (runs[0] / "config.json").read_bytes()
        (tmp_path / place / "run" / "config.json").write_bytes(config)
    both = [tmp_path / "one" / "run", tmp_path / "two" / "run"]
    text = Page(write_reports(both, tmp_path / "page.html", n=0)[-1]).text
    assert str(both[0]) in text
    assert str(both[1]) in text


def test_what_is_no_report(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run directory"):
        write_reports([tmp_path])
    for given, options, match in (
        ([], {}, "at least one run"),
        ([runs[0], runs[0] / ".." / runs[0].name], {}, "named twice"),
        (runs, {"n": -1}, "n must be at least 0"),
    ):
        with pytest.raises(ValueError, match=match):
            write_reports(given, **options)  # type: ignore[arg-type]


def test_the_script(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("report")
    page = tmp_path / "page.html"
    assert script.main([str(runs[1]), "-o", str(page), "-n", "2", "--steps", "2"]) == 0
    assert capsys.readouterr().out == f"page     {page}\n"
    assert "Denoising" in Page(page).text
    status = script.main([str(runs[1]), "--weights", "none"])
    check_refusal(status, capsys.readouterr().err, "none")


def test_a_training_that_was_cut_off_says_of_how_many_images(
    runs: list[Path], tmp_path: Path
) -> None:
    whole, cut = " of [0-9,]+ images seen", tmp_path / "cut"
    assert not re.search(whole, Page(write_reports([runs[1]], tmp_path / "a.html", n=0)[0]).text)
    shutil.copytree(runs[1], cut)
    first = json.loads((cut / "metrics.jsonl").read_text().partition("\n")[0])
    (cut / "metrics.jsonl").write_text(json.dumps({**first, "step": 1}) + "\n")
    assert re.search(whole, Page(write_reports([cut], n=0)[0]).text)


def test_what_was_measured_meanwhile_has_a_curve(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "measured"
    shutil.copytree(runs[1], copy)
    lines = [{"step": step, "epoch": 1, "fd_cnn": 9.0 - step, "n": 200} for step in (1, 2)]
    with (copy / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (page,) = write_reports([copy], n=0)
    assert "FD-cnn" in Page(page).text
    assert "FD-cnn" not in Page(write_reports([runs[1]], tmp_path / "plain.html", n=0)[0]).text
