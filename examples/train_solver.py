"""Train a solver's coefficients on the fields that a trained model's liquid cells meet.

python examples/train_solver.py runs/improved-euler-seed0 -o euler.safetensors
python examples/sample.py runs/improved-euler-seed0 --solver learned:euler.safetensors
"""

from liquid_ode.commands.train_solver import main

if __name__ == "__main__":
    raise SystemExit(main())
