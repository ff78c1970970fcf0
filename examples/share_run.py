"""Write a copy of a run to hand on: weights and record, without state and folder names.

python examples/share_run.py runs/improved-euler-seed0 shared/improved
"""

from liquid_ode.commands.share import main

if __name__ == "__main__":
    raise SystemExit(main())
