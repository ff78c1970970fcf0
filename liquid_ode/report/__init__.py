"""Reports of runs: one page of HTML, complete in itself, for a run or for the comparison of some.

from liquid_ode.report import write_reports
write_reports(["runs/improved-euler-seed0", "runs/unet-seed0"], "comparison.html")
"""

from liquid_ode.report.write import write_reports

__all__ = ["write_reports"]
