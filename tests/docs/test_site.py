"""The documentation builds as a site, with every link and anchor checked, and asks nothing of any network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_site_builds_and_has_the_command_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "commands" / "index.html").read_text()
    for name in ("sweep atari", "nqm steps", "fit", "report"):
        assert f"rl-scaling {name}" in reference
    assert "--learning-rates" in reference
    loaded = re.findall(
        r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', (tmp_path / "index.html").read_text()
    )
    assert not loaded, "the site loads something from elsewhere"
