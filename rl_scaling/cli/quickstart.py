"""`rl-scaling quickstart`: the whole path on real input in a few minutes, in all three domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from rl_scaling.agents.config import A2CConfig
from rl_scaling.cli.analyse import load_and_fit
from rl_scaling.cli.options import Count, at_least, say
from rl_scaling.cli.report import known_runs, parts
from rl_scaling.cli.sweep import run_plans
from rl_scaling.cli.sweep_domains import SweepNQM, SweepSupervised
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.task import RLTask, learning_rates_of
from rl_scaling.envs.config import AtariConfig

if TYPE_CHECKING:
    from rl_scaling.report import Overview, Section
    from rl_scaling.sweeps.plan import SweepPlan

SHIPPED = Path("results/breakout-a2c")
GAME_BATCH_SIZES = (40, 120, 360)  # of 8, 24 and 72 environments
_NQM_SIZES = (4, 32, 256, 2048, 16384)
_DIGITS_SIZES = (4, 16, 64, 256)


def plan(frames: int) -> SweepPlan:
    """The live part on Atari: Breakout with the small network, as in the shipped sweep but far shorter.

    The noise scale is measured at every update, for there are few; random starts are short, for emulating them would
    take longer than training.
    """
    from rl_scaling.sweeps.plan import SweepPlan

    base = RunConfig(
        environment=AtariConfig(game="Breakout", max_start_steps=100),
        agent=A2CConfig(network="small", rmsprop_epsilon_inside_root=False),
        noise_scale=NoiseScaleConfig(every_updates=1),
        frames=frames,
    )
    task = RLTask(
        base=base,
        batch_sizes=GAME_BATCH_SIZES,
        learning_rates=learning_rates_of(base.agent, count=2, max_extensions=0),
        goals=(2.0, 3.0, 4.0),
    )
    return SweepPlan(tasks=(task,))


@dataclass(frozen=True)
class Quickstart:
    """The tour: a quadratic model, a digit classifier and A2C on Breakout, each at several batch sizes, on one page."""

    frames: Count = 30_000
    """Frames of every trial on Breakout."""
    digits_epochs: float = 12
    """Passes over the digits of every trial."""
    minutes: float = 3.5
    """Training on Breakout stops after this time; what is measured by then is shown."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/quickstart")
    """Folder of the stores and of the page."""

    def run(self) -> int:
        from rl_scaling.envs import available_cpus
        from rl_scaling.report import write_report
        from rl_scaling.sweeps.executors import make_executor

        at_least(0, minutes=self.minutes, digits_epochs=self.digits_epochs)
        say("1 of 3: the noisy quadratic model, exact, with SGD and averaged SGD.")
        SweepNQM(
            optimizers=("sgd", "ema"), batch_sizes=_NQM_SIZES, targets=(0.1, 0.03), rates=3, out=self.out / "nqm"
        ).run()
        say("2 of 3: a small network on real images of digits, SGD and SGD with momentum.")
        SweepSupervised(
            optimizers=("sgd", "momentum"),
            batch_sizes=_DIGITS_SIZES,
            rates=5,
            extensions=0,
            seeds=(0,),
            targets=(0.6, 0.3),
            epochs=self.digits_epochs,
            updates=300,
            out=self.out / "digits-mlp",
        ).run()
        say("3 of 3: A2C on Breakout with 8, 24 and 72 environments at two learning rates each.")
        (sweep,) = run_plans(
            {self.out / "breakout-a2c": plan(self.frames)},
            make_executor("processes", available_cpus()),
            deadline_seconds=60 * self.minutes,
        )
        failed = [trial for trial in sweep.trials.values() if trial.failure]
        for trial in failed:
            say(f"failed: {trial.label}: {trial.failure}")
        live, overview = _parts(self.out, "rl-scaling quickstart", "measured just now", _LIVE)
        shipped = _parts(SHIPPED, f"rl-scaling report {SHIPPED}", "shipped with the project", _SHIPPED)[0]
        page = write_report(
            [*live, *(replace(part, heading="Breakout, a longer sweep") for part in shipped)],
            self.out / "report.html",
            title="How large a batch can training use?",
            lead="Three kinds of training, measured on this machine a moment ago with the same instrument; below them "
            "a sweep of hours on Breakout that comes with the project.",
            overview=overview,
        )
        say(f"The page is here, open it in a browser: {page.resolve()}")
        return 1 if failed or sweep.stopped_by == "request" else 0


def _parts(
    folder: Path, command: str, badge: str, explanations: Mapping[str, str]
) -> tuple[list[Section], Overview | None]:
    """The sections of the runs below a folder, and what is compared over them; none where there is no such folder."""
    if not folder.is_dir():
        return [], None
    runs, fit = load_and_fit((folder,))
    sections, overview = parts(runs, fit, known_runs((folder,)), command=command, explanations=explanations)
    return [replace(section, badge=badge) for section in sections], overview


_LIVE = {
    "Noisy quadratic model": "A model of training that can be computed instead of run: 10,000 directions, exact to the "
    "last digits. The steps that the best learning rates need give the fronts; its noise scale has a closed form.",
    "Supervised learning": "A plain network on 1,797 real images of digits. Runs of one batch size train together in "
    "one program.",
    "Reinforcement learning": "Real frames of a real game. A few minutes are enough to see the noise scale, not to "
    "learn to play: goals that were not reached are marked as such.",
}
_SHIPPED = {
    "Reinforcement learning": "The same task, trained far longer; these runs come with the project and were not made "
    "just now. Here the front between frames and updates can be seen."
}
