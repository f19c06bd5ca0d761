"""`rl-scaling quickstart`: the whole path on real input in a few minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from rl_scaling.commands.analyse import section
from rl_scaling.commands.options import Count, say
from rl_scaling.commands.sweep import run_sweeps
from rl_scaling.config import A2CConfig, AtariConfig, NoiseScaleConfig, RunConfig
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import LearningRates, SweepPlan

SHIPPED = Path("results/breakout-a2c")


def plan(frames: int) -> SweepPlan:
    """The live part: Breakout with the small network, as in the shipped sweep but far shorter.

    The noise scale is measured at every update, for there are few; random starts are short, for emulating them would
    take longer than training.
    """
    return SweepPlan(
        base=RunConfig(
            environment=AtariConfig(game="Breakout", max_start_steps=100),
            agent=A2CConfig(network="small", rmsprop_epsilon_inside_root=False),
            noise_scale=NoiseScaleConfig(every_updates=1),
            frames=frames,
        ),
        num_envs=(8, 24, 72),
        learning_rates=LearningRates(count=2, max_extensions=0),
        goals=(2.0, 3.0, 4.0),
    )


@dataclass(frozen=True)
class Quickstart:
    """The tour: train A2C on Breakout at several batch sizes, measure, fit and show it all on one page."""

    frames: Count = 36_000
    """Frames of every trial."""
    minutes: float = 4.5
    """Training stops after this time; what is measured by then is shown."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/quickstart")
    """Store of the runs and folder of the page."""

    def run(self) -> int:
        from rl_scaling.envs import available_cpus
        from rl_scaling.report import write_report

        say("Training A2C on Breakout with 8, 24 and 72 environments at two learning rates each.")
        (sweep,) = run_sweeps(
            [(plan(self.frames), Store(self.out))], workers=available_cpus(), deadline_seconds=60 * self.minutes
        )
        failed = [trial for trial in sweep.trials.values() if trial.failure]
        for trial in failed:
            say(f"failed: {trial.label}: {trial.failure}")
        sections = [
            section((self.out,), "Measured on this machine", _LIVE, badge="by this command", command="make quickstart")
        ]
        if SHIPPED.is_dir():
            sections.append(
                section((SHIPPED,), "A longer sweep", _LONGER, badge="shipped with the project", command=_HOW_SHIPPED)
            )
        page = write_report(
            sections,
            self.out / "report.html",
            title="How many environments can A2C use on Breakout?",
            lead="First what a few minutes on this machine show, then what a sweep of hours showed before.",
        )
        say(f"The page is here, open it in a browser: {page.resolve()}")
        return 1 if failed or sweep.stopped_by == "request" else 0


_LIVE = (
    "Real frames of a real game, trained and measured on this machine by this command. A few minutes are enough to "
    "see the noise scale, not to learn to play: goals that were not reached are marked as such."
)
_LONGER = (
    "The same task, trained far longer; these runs come with the project and were not made just now. Here the front "
    "between frames and updates can be seen."
)
_HOW_SHIPPED = "rl-scaling report results/breakout-a2c"
