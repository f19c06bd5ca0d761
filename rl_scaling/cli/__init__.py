"""The command `rl-scaling`: one file per verb, and `main` to dispatch them."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; see `rl_scaling.cli`."""
    from rl_scaling.cli.verbs import main as run

    return run(arguments)
