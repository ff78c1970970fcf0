"""Write a page of HTML about a run, or about several and how they compare.

python examples/report.py runs/improved-euler-seed0
python examples/report.py runs/improved-euler-seed0 pretrained:unet -o comparison.html
"""

from liquid_ode.commands.report import main

if __name__ == "__main__":
    raise SystemExit(main())
