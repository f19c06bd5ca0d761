"""`rl-scaling measure`: the noise scale of weights that are kept, at the start or at a run's checkpoints.

What trains is imported where it is used, for `--help`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes

from rl_scaling.cli.analyse import frozen_table, load_and_fit
from rl_scaling.cli.environments import GameOptions, environment_config, suited_agent
from rl_scaling.cli.options import (
    Folders,
    as_json,
    changed,
    given,
    options_of,
    print_json,
    print_line,
    print_table,
    say,
    unset,
)
from rl_scaling.cli.train import no_empty_folders
from rl_scaling.config import ConfigError
from rl_scaling.domains import find_domain
from rl_scaling.domains.rl.config import FrozenConfig, run_config_from_dict
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
from rl_scaling.estimates import Estimate
from rl_scaling.records import SEALED
from rl_scaling.store import RunInfo, Store, StoreError, list_runs
from rl_scaling.store.files import CHECKPOINT_FILE, kept_checkpoints

_AgentOptions = options_of(*map(find_algorithm, ALGORITHMS))
_FrozenOptions = options_of(
    FrozenConfig,
    leave_out=["environment", "agent", "seed", "of_run", "of_updates", "of_frames", "goal"],
    max_frames="frames",
)
# A policy that has learned something sees other states late in a game than at its start, where all copies begin.
SETTLE_STEPS = 256
NUM_ENVS = 64


@dataclass(frozen=True)
class Target:
    """One measurement: its description, where it is kept, and the checkpoint whose weights it takes."""

    config: FrozenConfig
    store: Path
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Measure:
    """The noise scale of weights that are kept, at the start or at checkpoints: B_simple, its parts, B_noise.

    Plays on with the same weights until the interval is narrow, and says B_simple, its parts, the design effect and
    B_noise. The same command resumes; what was measured before is not measured again.
    """

    folders: Folders
    """Runs (folders of one run, or stores) whose checkpoints are measured: those kept at goals (train and sweep with
    --measure-at goals), else the last one; folders of measurements alone are shown; none: the policy at the start, of
    --game or --env-id."""
    run_id: Annotated[str | None, unset("STR", name="run")] = None
    """Only the run with this id, or whose id begins so."""
    front: bool = False
    """Only runs of the fronts, each at the goals that it reached first at its batch size."""
    game: Annotated[tuple[str, ...], unset("[STR [STR ...]]")] = ()
    """Games whose policy at the start is measured, for instance Breakout or minatar/breakout; all: the seven of the
    paper; minatar/all: MinAtar's five."""
    env_id: Annotated[str | None, unset("STR")] = None
    """Gymnasium environment whose policy at the start is measured."""
    algorithm: str = "a2c"
    """Algorithm whose loss and rollouts are looked at: a2c, ppo, ppo-ewma, or one that you registered."""
    num_envs: int = NUM_ENVS
    """Environments played in, of which groups are made; those of the run whose weights are measured do not matter."""
    agent: OmitArgPrefixes[_AgentOptions] = field(default_factory=_AgentOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Settings of the algorithm; those of another one are refused."""
    played: OmitArgPrefixes[GameOptions] = field(default_factory=GameOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How a game is played."""
    measured: OmitArgPrefixes[_FrozenOptions] = field(default_factory=_FrozenOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How long and how finely is measured; kept with the measurement."""
    seeds: tuple[int, ...] = (0,)
    """Seeds: of the actions and environments, and of the weights at the start."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder of the measurements, by default that of the runs, or runs/frozen."""
    device: str = "auto"
    """Device: cpu, cuda, or auto, a GPU where there is one."""
    threads: int = 0
    """Threads for torch and for the emulator, each; 0: every core this process may use."""
    json: bool = False
    """Print one row per measurement as JSON on stdout."""

    def run(self) -> int:
        return int(self.measure())

    def measure(self, *, show_all: bool = True) -> bool:
        """Measure what is not measured yet and, unless told otherwise, print all; whether it was interrupted."""
        targets = self.targets()
        interrupted = measure_all(targets, device=self.device, threads=self.threads)
        if show_all:
            show(targets, as_rows=self.json)
        return interrupted

    def targets(self) -> list[Target]:
        """What is to be measured.

        Raises:
            ConfigError: nothing, or what cannot be.
            StoreError: no such folder or run, or no checkpoint there.
        """
        if self.folders and (self.game or self.env_id):
            raise ConfigError("give runs, or --game or --env-id for a policy at the start, not both")
        if not self.seeds:
            raise ConfigError("give --seeds at least one seed")
        return list(self._of_runs() if self.folders else self._at_start())

    def _at_start(self) -> Iterator[Target]:
        from rl_scaling.envs import find_games

        if self.run_id or self.front:
            raise ConfigError("--run and --front are about runs: name the folder of their store too")
        if self.game and self.env_id is not None:
            raise ConfigError("give --game or --env-id, not both: measure one after the other")
        games = [game.name for game in find_games(self.game)]
        played: list[tuple[str | None, str | None]] = [(game, None) for game in games]
        if self.env_id is not None or not games:
            played.append((None, self.env_id))
        for names in played:
            environment = environment_config(*names, self.num_envs, given(self.played))
            agent = changed(
                find_algorithm(self.algorithm)(),  # pyright: ignore[reportCallIssue]
                ({"network": environment.networks[0]} if environment.networks else {}) | given(self.agent),
                f"{{option}} is not for {self.algorithm}: leave it out, or give another --algorithm",
            )
            if "network" not in given(self.agent):
                agent = suited_agent(agent, environment)
            for seed in self.seeds:
                config = FrozenConfig(environment=environment, agent=agent, seed=seed, **given(self.measured))
                yield Target(config, self.out or Path("runs/frozen"))

    def _of_runs(self) -> Iterator[Target]:
        if given(self.agent) or given(self.played):
            raise ConfigError("the run says how it is played and learned: leave options of agents and games out")
        infos = list_runs(*self.folders)
        if self.run_id is not None:
            infos = [info for info in infos if info.run_id.startswith(self.run_id)]
        if infos and all(info.identity.frozen for info in infos):  # measurements: shown, or resumed
            if given(self.measured):
                raise ConfigError("these are measurements, and how they are made stays: leave the options out")
            for info in sorted(infos, key=lambda info: (info.identity.problem, info.identity.seed)):
                config = find_domain("rl").parse(info.config)
                yield Target(config, info.directory.parent)
            return
        infos = [info for info in infos if not info.identity.frozen]
        if not infos:
            wanted = f"run {self.run_id!r}" if self.run_id else "runs"
            raise StoreError(f"no {wanted} in {', '.join(map(str, self.folders))}: see rl-scaling status")
        targets = [target for info in infos for target in self._of_run(info)]
        if self.front:
            goals = sorted({target.config.goal for target in targets if target.config.goal is not None})
            reached = _of_fronts(self.folders, tuple(goals)) if goals else set()
            targets = [target for target in targets if (target.config.of_run, target.config.goal) in reached]
            if not targets:
                raise StoreError(f"no run of the fronts kept its weights in {', '.join(map(str, self.folders))}")
        if not targets:
            raise StoreError(
                f"no checkpoint in {', '.join(map(str, self.folders))}: a finished run keeps none unless it was"
                " trained with --measure-at goals"
            )
        yield from targets

    def _of_run(self, info: RunInfo) -> Iterator[Target]:
        if info.identity.domain != "rl":
            raise ConfigError(f"run {info.run_id} is of {info.identity.domain}: give one of reinforcement learning")
        options = {"num_envs": self.num_envs, **given(self.measured)}
        for seed in self.seeds:
            yield from targets_of_run(info, out=self.out, seed=seed, **options)


def targets_of_run(
    info: RunInfo, *, out: Path | None = None, num_envs: int = NUM_ENVS, seed: int = 0, **options: Any
) -> list[Target]:
    """The measurements of a run's checkpoints: of those that stayed with it, or of its last one; may be none.

    Raises:
        StoreError: a checkpoint is damaged.
    """
    from rl_scaling.sweeps.trial import load_checkpoint

    run = run_config_from_dict(info.config)
    kept: Mapping[str, Path] = kept_checkpoints(info.directory)
    last = info.directory / CHECKPOINT_FILE
    if not kept and last.exists():
        kept = {"": last}
    found = []
    for place, path in kept.items():
        progress = load_checkpoint(path)["state"]["progress"]
        config = FrozenConfig(
            environment=dataclasses.replace(run.environment, num_envs=num_envs),
            agent=run.agent,
            seed=seed,
            of_run=info.run_id,
            of_updates=progress["updates"],
            of_frames=progress["frames"],
            goal=_goal(place),
            **{"settle_steps": SETTLE_STEPS, **options},
        )
        found.append(Target(config, out or info.directory.parent, path))
    return sorted(found, key=lambda target: target.config.of_frames)


def _of_fronts(folders: tuple[Path, ...], goals: tuple[float, ...]) -> set[tuple[str, float | None]]:
    """(run id, goal) of the runs that make the fronts of these goals."""
    runs, fit = load_and_fit(folders, goals)
    choice = ["task", "batch_size", "learning_rate", "setting"]
    ids = runs[["run_id", *choice]].drop_duplicates()
    return {(str(run_id), float(goal)) for run_id, goal in ids.merge(fit.fronts, on=choice)[["run_id", "goal"]].values}


def _goal(place: str) -> float | None:
    try:
        return float(place)
    except ValueError:
        return None


def measure_all(targets: Sequence[Target], *, device: str = "auto", threads: int = 0) -> bool:
    """Measure one after the other what is not measured yet; whether it was interrupted.

    Raises:
        ConfigError: what cannot be measured here.
        StoreError: another process measures it, or the disk is full.
    """
    from rl_scaling.cli.live import Interruptible
    from rl_scaling.domains.base import Hardware
    from rl_scaling.envs import available_cpus
    from rl_scaling.sweeps.trial import load_checkpoint
    from rl_scaling.sweeps.trial import run as run_one

    hardware = Hardware(device=device, threads=threads or available_cpus())
    with Interruptible() as stop:
        for target in targets:
            config, store = target.config, Store(target.store)
            name = f"{config.identity.task} {config.place}, run {config.run_id} in {target.store}"
            if store.status(config.run_id) in SEALED:
                say(f"{name}: measured before")
                continue
            say(name)
            initial = None
            if target.checkpoint is not None:
                initial = {"weights": load_checkpoint(target.checkpoint)["state"]["learner"]["network"]}
            with no_empty_folders(target.store):
                status = run_one(
                    config,
                    store,
                    hardware=hardware,
                    initial=initial,
                    listen=_tell,
                    asked_to_stop=lambda: stop.asked,
                )
            if status == "interrupted":
                say("interrupted: the same command resumes it")
                return True
            if status == "diverged":
                say("its gradients are not finite: there is nothing to measure")
    return False


def _tell(event: Any) -> None:
    from rl_scaling.domains.base import Starting

    if isinstance(event, Starting):
        if event.done == event.total:
            say("environments started")
    elif hasattr(event, "frames"):
        simple = Estimate(event.noise_scale, event.noise_scale_low, event.noise_scale_high)
        say(f"{event.frames:,} frames, {event.frames_per_second:,.0f} frames/s, B_simple {simple}")


def rows_of(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """What is known of measurements, one row each, as `frozen_noise_scales` has them."""
    from rl_scaling.analysis.frozen import frozen_noise_scales
    from rl_scaling.store import load_runs

    ids = [target.config.run_id for target in targets]
    folders = {target.store / run_id for target, run_id in zip(targets, ids, strict=True)}
    table = frozen_noise_scales(load_runs(*sorted(folder for folder in folders if folder.is_dir())))
    rows = {str(row["run_id"]): row for row in table.to_dict("records")}
    return [{str(k): v for k, v in rows[run_id].items()} for run_id in ids if run_id in rows]


def show(targets: Sequence[Target], *, as_rows: bool) -> None:
    """Print measurements as a table, or as JSON."""
    rows = rows_of(targets) if any((t.store / t.config.run_id).is_dir() for t in targets) else []
    if as_rows:
        print_json([as_json(row) for row in rows])
        return
    if not rows:
        print_line("nothing was measured")
        return
    print_table(frozen_table(rows))
