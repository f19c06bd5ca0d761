"""The command `rl-scaling`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

# Read when torch is loaded, so before anything that imports it: a waiting thread that spins takes the emulator's core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from rl_scaling.cli.advise import Advise
from rl_scaling.cli.analyse import Fit, Status
from rl_scaling.cli.bench import BenchAtari, BenchNoise, BenchSupervised
from rl_scaling.cli.budgets import Budgets
from rl_scaling.cli.calibrate import Calibrate
from rl_scaling.cli.export import Export
from rl_scaling.cli.nqm import NQM
from rl_scaling.cli.options import say
from rl_scaling.cli.quickstart import Quickstart
from rl_scaling.cli.report import Report
from rl_scaling.cli.sweep_domains import SweepNQM, SweepRL, SweepSupervised
from rl_scaling.cli.temperature import Temperature
from rl_scaling.cli.train import TRAININGS
from rl_scaling.config import ConfigError
from rl_scaling.store import StoreError, StoreWarning

Trainings: Any = Union[TRAININGS]  # noqa: UP007


@dataclass(frozen=True)
class Train:
    """Train one agent, or one model on images, once."""

    algorithm: Trainings  # pyright: ignore[reportInvalidTypeForm]

    def run(self) -> int:
        return self.algorithm.run()


@dataclass(frozen=True)
class Sweep:
    """Train over batch sizes, learning rates and seeds; the same command goes on where it stopped."""

    domain: (
        Annotated[SweepRL, subcommand("atari")]
        | Annotated[SweepRL, subcommand("rl")]
        | Annotated[SweepSupervised, subcommand("supervised")]
        | Annotated[SweepNQM, subcommand("nqm")]
    )

    def run(self) -> int:
        return self.domain.run()


@dataclass(frozen=True)
class Bench:
    """Measure speed on this machine."""

    domain: (
        Annotated[BenchAtari, subcommand("atari")]
        | Annotated[BenchNoise, subcommand("noise")]
        | Annotated[BenchSupervised, subcommand("supervised")]
    )

    def run(self) -> int:
        return self.domain.run()


Command = (
    Annotated[Quickstart, subcommand("quickstart")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Status, subcommand("status")]
    | Annotated[Fit, subcommand("fit")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Advise, subcommand("advise")]
    | Annotated[Budgets, subcommand("budgets")]
    | Annotated[Calibrate, subcommand("calibrate")]
    | Annotated[NQM, subcommand("nqm")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Temperature, subcommand("temperature")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 done, 1 failed or interrupted, 2 bad arguments.
    """
    warnings.showwarning = _show_warning
    try:
        command = tyro.cli(
            Command,
            args=arguments,
            prog="rl-scaling",
            description="How large a batch can this training use before it wastes compute?",
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
        return command.run()
    except ConfigError as error:
        say(f"rl-scaling: {error}")
        return 2
    except (StoreError, OSError) as error:
        say(f"rl-scaling: {error}")
        return 1
    except KeyboardInterrupt:
        say("rl-scaling: interrupted; what was recorded is kept")
        return 1


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Warnings about the store are for the user, one line each; others are for developers."""
    if issubclass(category, StoreWarning):
        say(f"rl-scaling: {message}")


if __name__ == "__main__":
    sys.exit(main())
