"""One page over all domains: the shipped results and any runs of yours.

    python scripts/cross_domain_report.py [DIR ...] [--out FILE] [--figures DIR] [--tables DIR] ...

It is `rl-scaling report results DIR ... --model`; all options of that command are understood. Change it where your page
should differ: other folders, goals or a title.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rl_scaling.cli import main

RESULTS = Path(__file__).resolve().parent.parent / "results"

if __name__ == "__main__":
    sys.exit(main(["report", str(RESULTS), *sys.argv[1:], "--model"]))
