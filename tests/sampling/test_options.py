"""The options of sampling as values, and those without effect."""

from __future__ import annotations

import math

import pytest
from torch import nn

import solvers
from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    DDIMPath,
    DPMSolver,
    GaussianDiffusion,
    Guidance,
    KarrasGrid,
    KarrasHeun,
    LogSNRGrid,
    LogSNRPath,
    ProbabilityFlow,
    Sampler,
    SigmaList,
    TimeList,
    TrailingGrid,
)
from liquid_ode.sampling.options import choose_classes, choose_guidance, choose_sampler, name_of
from liquid_ode.sampling.parser import make_parser


def chosen(text: str) -> Sampler:
    return choose_sampler(make_parser().parse_args(["RUN", *text.split()]))


def flow(solver: str, *path: object, **settings: object) -> ProbabilityFlow:
    return ProbabilityFlow(solvers.get(solver, **settings), *path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DDIM(TrailingGrid(50))),
        ("--steps 7 --eta 0.5", DDIM(TrailingGrid(7), eta=0.5)),
        ("--sigma-max 15", DDIM(TrailingGrid(50, sigma_max=15.0))),
        ("--grid log-snr --steps 9", DDIM(LogSNRGrid(9))),
        ("--times 9 5 1", DDIM(TimeList([9, 5, 1]))),
        ("--sampler ddpm", DDPM()),
        ("--sampler ddpm --steps 100 --variance 1", DDPM(TrailingGrid(100), variance=1.0)),
        ("--sampler dpm-solver++", DPMSolver(TrailingGrid(20, sigma_max=80.0))),
        ("--sampler dpm-solver++ --grid log-snr", DPMSolver(LogSNRGrid(20))),
        ("--sampler dpm-solver++ --sigma-max inf", DPMSolver(TrailingGrid(20))),
        ("--sampler dpm-solver++ --grid karras --rho 5", DPMSolver(KarrasGrid(20, rho=5.0))),
        ("--sampler dpm-solver++ --sigmas 9 1", DPMSolver(SigmaList([9.0, 1.0]))),
        ("--sampler heun --churn 10", KarrasHeun(KarrasGrid(18), churn=10.0)),
        ("--sampler heun --sigma-max inf", KarrasHeun(KarrasGrid(18, sigma_max=math.inf))),
        ("--sampler probability-flow", flow("euler", steps=50)),
        (
            "--sampler probability-flow --sampler-solver etdrk4 --steps 5 --sigma-max 9",
            flow("etdrk4", LogSNRPath(9.0), steps=5),
        ),
        ("--sampler probability-flow --sampler-solver tsit5", flow("tsit5")),
        ("--sampler probability-flow --sampler-solver tsit5 --steps 9", flow("tsit5", steps=9)),
        (
            "--sampler probability-flow --sampler-solver etdrk4 --sampler-rtol 0.01",
            flow("etdrk4", rtol=0.01),
        ),
        (
            "--sampler probability-flow --sampler-solver heun --grid karras --steps 6",
            flow("heun", DDIMPath(KarrasGrid(6))),
        ),
        (
            "--sampler probability-flow --sampler-solver dopri5 --sampler-atol 0.1 --times 9 3",
            flow("dopri5", DDIMPath(TimeList([9, 3])), atol=0.1),
        ),
    ],
)
def test_samplers(text: str, expected: Sampler) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--sampler-solver dopri5 --steps 5", "--steps has no effect on the solver 'dopri5', wh"),
        ("--sampler-solver tsit5 --steps 5 --sampler-rtol 1", "contradict"),
        ("--sampler-solver uniform_euler --sampler-rtol 1", "takes no option 'rtol'"),
        ("--sampler-solver-option steps=5", "use --steps in place of"),
        ("--sampler-solver magic", "unknown solver"),
        ("--rho 3", "--rho has no effect without --grid karras"),
        ("--eta 0", "--eta has no effect with --sampler probability-flow"),
    ],
)
def test_probability_flow_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(f"--sampler probability-flow {text}")


def test_classes() -> None:
    names = ["Elk", "cat", "dog", "2"]
    assert choose_classes(None, 4, names) == [0, 1, 2, 3]
    assert choose_classes(["CAT", "0", "Elk"], 4, names) == [1, 0, 0]
    assert choose_classes(["2"], 4, names) == [3]  # a name comes first
    assert choose_classes(["a", "A"], 2, ["A", "a"]) == [1, 0]
    assert choose_classes(["1"], 2, None) == [1]
    assert choose_classes(None, None, None) is None
    for word in ("4", "-1", "cow", "1.0", ""):
        with pytest.raises(ValueError, match="one of 0 to 3, or Elk, cat, dog, 2; not "):
            choose_classes([word], 4, names)
    with pytest.raises(ValueError, match="must be one of 0 to 1; not 'a'"):
        choose_classes(["a"], 2, None)
    with pytest.raises(ValueError, match="the model has no classes"):
        choose_classes(["1"], None, None)


class Stoppable(nn.Module):
    steps: object = None

    def stopped_early(self, steps: object) -> Stoppable:
        weak = Stoppable()
        weak.steps = steps
        return weak


def guidance(text: str, model: nn.Module | None = None) -> Guidance:
    options = make_parser().parse_args(["RUN", *text.split()])
    return choose_guidance(options, GaussianDiffusion(model or nn.Identity()))


def test_guidance() -> None:
    assert guidance("") == Guidance()
    assert guidance("--guidance-scale 2 --guidance-interval 0.2 3") == Guidance(
        2.0, interval=(0.2, 3.0)
    )
    assert guidance("--guidance-scale 2 --guidance-rescale 0.7") == Guidance(2.0, rescale=0.7)
    for words, steps in (("3", 3), ("1 2 3", (1, 2, 3))):
        found = guidance(f"--depth-guidance 1.5 --early-steps {words}", Stoppable())
        assert found.scale == 1.5
        assert isinstance(found.weak, GaussianDiffusion)
        assert found.weak.model.steps == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--guidance-scale 2 --depth-guidance 2 --early-steps 1", "exclude each other"),
        ("--guidance-scale 2 --early-steps 1", "--early-steps has no effect without --depth"),
        ("--depth-guidance 1 --early-steps 1", "--early-steps has no effect without"),
        ("--depth-guidance 2 --early-steps 1", "Identity cannot"),
        ("--guidance-interval 1 2", "--guidance-interval has no effect without"),
        ("--guidance-scale 2 --guidance-interval 2 1", "0 <= low < high"),
        ("--guidance-scale 2 --guidance-rescale 2", r"rescale must lie in \[0, 1\]"),
    ],
)
def test_guidance_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guidance(text)


def name(text: str) -> str:
    options = make_parser().parse_args(["RUN", *text.split()])
    options.precision = "no"  # as it is resolved on a CPU
    choose_sampler(options)
    return name_of(options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "samples-ddim-steps50-seed0"),
        ("--eta 0.5 --weights model --seed 3", "samples-ddim-steps50-eta0.5-raw-seed3"),
        ("-n 9 --class-label dog 2", "samples-ddim-steps50-classdog-2-seed0-n9"),
        ("--times 9 3", "samples-ddim-times9-3-seed0"),
        ("--sampler ddpm", "samples-ddpm-seed0"),
        (
            "--sampler heun --sigma-max 9 --solver midpoint --solver-steps 1",
            "samples-heun-steps18-sigma9-cellsmidpoint-inner1-seed0",
        ),
        (
            "--sampler probability-flow --sampler-solver tsit5 --sampler-rtol 0.1 "
            "--sampler-solver-option shared=True",
            "samples-probability-flow-bytsit5-shared-True-rtol0.1-seed0",
        ),
        (
            "--depth-guidance 2 --early-steps 3 --guidance-interval 0.2 inf --solver learned:a/b",
            "samples-ddim-steps50-depth2-early3-within0.2-inf-cellslearned-a-b-seed0",
        ),
    ],
)
def test_names_say_what_made_the_images(text: str, expected: str) -> None:
    assert name(text) == expected


def test_a_long_name_is_cut_and_still_its_own() -> None:
    names = [name(f"--times {' '.join(map(str, range(300, last, -1)))}") for last in (0, 1)]
    assert names[0] != names[1]
    assert max(map(len, names)) < 200
