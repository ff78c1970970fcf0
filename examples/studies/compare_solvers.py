"""Compare solvers: error against evaluations and time, on a suite of fields or a trained model.

python examples/studies/compare_solvers.py
python examples/studies/compare_solvers.py runs/improved-euler-seed0
python examples/studies/compare_solvers.py --solvers heun etdrk2 --problems stiff_liquid --full
"""

from liquid_ode.commands.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
