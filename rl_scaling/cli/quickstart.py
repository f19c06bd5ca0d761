"""`rl-scaling quickstart`: the whole path on real input in a few minutes, in all three domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.task import RLTask, learning_rates_of
from rl_scaling.envs.config import AtariConfig, MinAtarConfig

if TYPE_CHECKING:
    from rl_scaling.report import Overview, Section
    from rl_scaling.sweeps.plan import SweepPlan

SHIPPED = Path("results/breakout-a2c")
GAME_BATCH_SIZES = (40, 120, 360)  # of 8, 24 and 72 environments
MINATAR_BATCH_SIZES = (10, 20, 80, 320)  # of 2, 4, 16 and 64
_NQM_SIZES = (4, 32, 256, 2048, 16384)
_DIGITS_SIZES = (4, 16, 64, 256)
_MINATAR = MinAtarConfig(game="breakout")


def minatar_plan(frames: int) -> SweepPlan:
    """The live part whose front bends: MinAtar's Breakout, to scores a little above random play's.

    Runs stop at the last goal, and train side by side, so that small batches cost little. For goals as low as these the
    best learning rates are high: around 0.016 with 16 environments.
    """
    from rl_scaling.sweeps.plan import SweepPlan

    base = RunConfig(
        environment=_MINATAR,
        agent=A2CConfig(network="minatar"),
        noise_scale=NoiseScaleConfig(every_updates=4),
        frames=frames,
    )
    task = RLTask(
        base=base,
        batch_sizes=MINATAR_BATCH_SIZES,
        learning_rates=learning_rates_of(base.agent, reference_rate=1.6e-2, count=3, max_extensions=0),
        goals=(1.0, 1.5, 2.0),
    )
    return SweepPlan(tasks=(task,), seeds=(0, 1), stop_at_goals=True)


def atari_plan(frames: int) -> SweepPlan:
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
    """The tour: A2C on MinAtar and on Atari, a digit classifier and a quadratic model, each at several batch sizes."""

    minatar_frames: Count = 400_000
    """Frames of every trial on MinAtar's Breakout that does not reach its goals before."""
    frames: Count = 20_000
    """Frames of every trial on Atari's Breakout."""
    digits_epochs: float = 12
    """Passes over the digits of every trial."""
    minutes: float = 4.0
    """Training on the games stops after this time; what is measured by then is shown."""
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
        say("3 of 3: A2C on Breakout, MinAtar's with 2 to 64 environments and Atari's with 8 to 72.")
        sweeps = run_plans(
            self._games(), make_executor("processes", available_cpus()), deadline_seconds=60 * self.minutes
        )
        failed = [trial for sweep in sweeps for trial in sweep.trials.values() if trial.failure]
        for trial in failed:
            say(f"failed: {trial.label}: {trial.failure}")
        sections, overview = _parts(self.out, "rl-scaling quickstart", "measured just now", _LIVE)
        live = _games_first(sections)
        shipped = _parts(SHIPPED, f"rl-scaling report {SHIPPED}", "shipped with the project", _SHIPPED)[0]
        page = write_report(
            [*live, *(replace(part, heading="Breakout, a longer sweep") for part in shipped)],
            self.out / "report.html",
            title="How large a batch can training use?",
            lead="Three kinds of training, measured on this machine a moment ago with the same instrument; below them "
            "a sweep of hours on Breakout that comes with the project.",
            overview=overview,
            overview_after=len(live),
        )
        say(f"The page is here, open it in a browser: {page.resolve()}")
        return 1 if failed or any(sweep.stopped_by == "request" for sweep in sweeps) else 0

    def _games(self) -> dict[Path, SweepPlan]:
        """What to train on each game, by store; MinAtar first, of which all should be there when time is up."""
        from rl_scaling.envs import require_installed

        plans = {self.out / "breakout-a2c": atari_plan(self.frames)}
        try:
            require_installed(_MINATAR)
        except ConfigError as missing:
            say(f"left out, and with it the front that bends: {missing}")
            return plans
        return {self.out / "minatar-breakout-a2c": minatar_plan(self.minatar_frames), **plans}


def _games_first(sections: Sequence[Section]) -> list[Section]:
    """The sections with reinforcement learning in front, MinAtar by itself before Atari."""
    found: list[Section] = []
    for section in sections:
        if section.heading != _GAMES:
            found.append(section)
            continue
        small = section.runs["problem"] == _MINATAR.name
        for heading, own in (("MinAtar", section.runs[small]), ("Atari", section.runs[~small])):
            if not own.empty:
                part = replace(
                    section,
                    heading=f"{_GAMES}: {heading}",
                    explanation=_LIVE[heading],
                    runs=own,
                    fit=section.fit.of_tasks(list(own["task"].unique())),
                )
                found.append(part)
    return sorted(found, key=lambda section: not section.heading.startswith(_GAMES))


def _parts(
    folder: Path, command: str, badge: str, explanations: Mapping[str, str]
) -> tuple[list[Section], Overview | None]:
    """The sections of the runs below a folder, and what is compared over them; none where there is no such folder."""
    if not folder.is_dir():
        return [], None
    runs, fit = load_and_fit((folder,))
    sections, overview = parts(runs, fit, known_runs((folder,)), command=command, explanations=explanations)
    return [replace(section, badge=badge) for section in sections], overview


_GAMES = "Reinforcement learning"
_LIVE = {
    "Noisy quadratic model": "A model of training that can be computed instead of run: 10,000 directions, exact to the "
    "last digits. The steps that the best learning rates need give the fronts; its noise scale has a closed form.",
    "Supervised learning": "A plain network on 1,797 real images of digits. Runs of one batch size train together in "
    "one program.",
    "MinAtar": "A small Breakout of 10 by 10 cells, cheap enough that a whole sweep takes a minute or two. With few "
    "environments a score takes few frames and many updates, with many environments the reverse; the turn of the "
    "front between them is the critical batch size.",
    "Atari": "Real frames of a real game. A few minutes are enough to see the noise scale, not to learn to play: goals "
    "that were not reached are marked as such.",
}
_SHIPPED = {
    _GAMES: "The same game of Atari, trained far longer; these runs come with the project and were not made just now."
}
