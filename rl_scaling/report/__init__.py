"""The report: tables, charts and one self-contained HTML page. It draws what the analysis found and fits nothing.

from rl_scaling.report import Section, write_report
write_report([Section(heading="Breakout", runs=runs, fit=fit)], "report.html", title="How Breakout scales")
"""

from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.overview import Overview
from rl_scaling.report.page import write_report
from rl_scaling.report.section import Section

__all__ = ["Figure", "Overview", "Section", "Tables", "chart", "write_report"]
