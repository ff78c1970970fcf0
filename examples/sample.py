"""Sample images from a trained run, with any sampler and any solver: see --help.

python examples/sample.py runs/improved-euler-seed0 -n 64 --steps 50
python examples/sample.py runs/improved-euler-seed0 --sampler dpm-solver++ --steps 10
python examples/sample.py runs/improved-euler-seed0 --sampler probability-flow \\
    --sampler-solver tsit5 --sampler-rtol 1e-3
python examples/sample.py runs/improved-euler-seed0 --solver midpoint --solver-steps 2 3 4
python examples/sample.py runs/improved-euler-seed0 -n 10000 --npz samples.npz
"""

from liquid_ode.sampling.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
