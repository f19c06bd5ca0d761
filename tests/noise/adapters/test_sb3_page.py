"""The how-to page's examples run as they stand there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "stable-baselines3.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["A2C", "PPO"])
def test_example_prints_an_estimate(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, str(PAGE), "exec"), {})
    assert re.match(r"(B_simple = |unresolved, B_simple > )", capsys.readouterr().out)
