"""`rl-scaling bench`: throughput, and the price of measuring, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from rich.table import Table
from tyro.conf import subcommand

from rl_scaling.cli.options import at_least, print_json, print_line, print_table, say
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Precision
from rl_scaling.envs.config import AtariConfig

if TYPE_CHECKING:  # with torch, which bad arguments do not wait for
    from rl_scaling.validation.minatar import Speeds
    from rl_scaling.validation.throughput import Settings, Throughput


@dataclass(frozen=True)
class BenchAtari:
    """Frames per second of A2C or PPO, of Stable-Baselines3's, of the bare emulator and of the network's arithmetic."""

    game: str = "Breakout"
    """Atari game."""
    algorithm: Literal["a2c", "ppo"] = "a2c"
    """The algorithm, in both libraries."""
    network: Literal["nature", "small"] = "nature"
    """The network everywhere."""
    precision: Precision = "auto"
    """Arithmetic of this project's layers and of the network alone: float32, bfloat16, or auto, bfloat16 where the
    hardware has it, its gradient agrees and it is faster; Stable-Baselines3 computes in float32."""
    num_envs: int = 16
    """Environments everywhere."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 0
    """Threads for torch and for the emulator, each; 0: every core this process may use."""
    seconds: float = 8.0
    """Seconds for each figure in each round."""
    rounds: int = 5
    """Rounds; medians are reported."""
    json: bool = False
    """Print the figures as JSON on stdout."""

    def run(self) -> int:
        if self.seconds <= 0 or self.rounds < 1 or self.num_envs < 2 or self.num_envs % 2:
            raise ConfigError("give --seconds above 0, --rounds of 1 or more and an even --num-envs of 2 or more")
        from rl_scaling.agents.precision import DTYPES
        from rl_scaling.domains.base import Hardware
        from rl_scaling.domains.device import choose_device
        from rl_scaling.domains.rl.config import RunConfig
        from rl_scaling.domains.rl.precision import settle_precision
        from rl_scaling.envs import available_cpus, find_game
        from rl_scaling.validation.throughput import RATIOS, Settings, measure

        game = AtariConfig(game=find_game(self.game).name).game  # refuses MinAtar's
        settings = Settings(
            game=game,
            network=self.network,
            num_envs=self.num_envs,
            device=str(choose_device(self.device)),
            threads=self.threads or available_cpus(),
            seconds=self.seconds,
            rounds=self.rounds,
            algorithm=self.algorithm,
        )
        run = RunConfig(environment=settings.environment, agent=settings.agent)
        hardware = Hardware(device=settings.device, threads=settings.threads, compute_dtype=self.precision)
        hardware, notes = settle_precision([run], hardware)
        for note in notes:
            say(note)
        settings = replace(settings, dtype=DTYPES[hardware.compute_dtype])
        try:
            t = measure(settings, say)
        except ImportError as error:
            raise ConfigError(
                f"the benchmark needs Stable-Baselines3 ({error}): pip install 'rl-scaling[bench]'"
            ) from error
        if self.json:
            told = {"noise_scale_overhead": t.noise_scale_overhead, "precision": hardware.compute_dtype}
            print_json({**t.ratios, **told, "frames_per_second": t.frames_per_second})
            return 0
        print_table(_table(settings, t))
        for name, ratio in t.ratios.items():
            if ratio is not None:
                print_line(f"{RATIOS[name][0]:33} {ratio:.2f}")
        print_line(f"{'noise scale, share of the time':33} {t.noise_scale_overhead:.1%}")
        return 0


def _table(settings: Settings, t: Throughput) -> Table:
    threads, algorithm = settings.threads, settings.algorithm.upper()
    arithmetic = "bfloat16" if settings.dtype else "float32"
    title = f"{settings.game}, {settings.network} network, {settings.num_envs} environments, {settings.device}"
    title += f", {arithmetic}"
    table = Table(title, "frames/s", box=None)
    labels = {
        "ours": f"this {algorithm}, {threads} threads",
        "alternating": "the same, acting for two halves in turns",
        "sb3": f"Stable-Baselines3's {algorithm}, float32",
        "emulator": "the bare emulator",
        "network": "the network alone, forward and backward",
        "side_by_side": f"{threads} trials of this {algorithm} side by side, 1 thread each",
    }
    figures = t.frames_per_second
    for name, label in labels.items():
        if (figure := figures[name]) is not None:
            table.add_row(label, f"{figure:,.0f}")
    return table


Workload = Literal["a2c-16", "a2c-64", "transformer", "mlp"]


@dataclass(frozen=True)
class BenchNoise:
    """Time that measuring the noise scale adds to training, at the default cadence and at every step."""

    workloads: tuple[Workload, ...] = get_args(Workload)
    """A2C with the Nature CNN and 16 or 64 environments; a small transformer; a plain network."""
    game: str = "Breakout"
    """Atari game of A2C."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 0
    """Threads for torch and for the emulator, each; 0: every core this process may use."""
    rounds: int = 20
    """Rounds of twenty steps without measuring, at the default cadence and at every step; medians are reported."""
    json: bool = False
    """Print the figures as JSON on stdout."""

    def run(self) -> int:
        if self.rounds < 1 or not self.workloads:
            raise ConfigError("give --rounds of 1 or more and at least one of --workloads")
        from rl_scaling.domains.device import choose_device
        from rl_scaling.envs import available_cpus, find_game
        from rl_scaling.validation.noise_overhead import Settings, measure

        settings = Settings(
            workloads=self.workloads,
            game=AtariConfig(game=find_game(self.game).name).game,  # refuses MinAtar's
            device=str(choose_device(self.device)),
            threads=self.threads or available_cpus(),
            rounds=self.rounds,
        )
        found = measure(settings, say)
        if self.json:
            print_json([asdict(overhead) for overhead in found])
            return 0
        table = Table("workload", "ms per step", "measured", "adds", "quartiles of the rounds", box=None)
        for o in found:
            cadence = "every step" if o.every == 1 else f"every {o.every} steps"
            spread = f"{o.low_percent:.1f} to {o.high_percent:.1f} %"
            table.add_row(o.workload, f"{o.step_milliseconds:.1f}", cadence, f"{o.percent:.1f} %", spread)
        print_table(table)
        return 0


@dataclass(frozen=True)
class BenchSupervised:
    """Trials per hour one at a time and many together in one batched program, for each batch size, on the digits."""

    model: Literal["mlp", "small-cnn", "cnn", "resnet8", "wide-resnet-skipinit"] = "mlp"
    """A model that can train together with others; cnn: 32-64 channels, 1,024 units; small-cnn: 8-16, 64 units."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Images per update and trial."""
    trials: int = 64
    """Trials in the batched program."""
    updates: int = 1_000
    """Updates that make one trial."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 1
    """Threads for torch: one, as in a sweep, whose trials fill the cores side by side."""
    seconds: float = 0.5
    """Seconds of each way in each round."""
    rounds: int = 7
    """Rounds, in which the two ways take turns; medians are reported."""
    json: bool = False
    """Print the figures as JSON on stdout."""

    def run(self) -> int:
        at_least(1, trials=self.trials, updates=self.updates, threads=self.threads, rounds=self.rounds)
        if self.seconds <= 0 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ConfigError("give --seconds above 0 and --batch-sizes of 1 or more")
        import torch

        from rl_scaling.domains.device import choose_device
        from rl_scaling.domains.supervised.batched.program import last_that_pays, measure_gain
        from rl_scaling.domains.supervised.data import load_dataset
        from rl_scaling.domains.supervised.models import make_model

        torch.set_num_threads(self.threads)
        data = load_dataset("digits", device=choose_device(self.device))
        shape, classes = data.image_shape, data.num_classes
        models = [make_model(self.model, shape, classes, seed=seed) for seed in range(self.trials)]
        gains = []
        for batch_size in sorted(set(self.batch_sizes)):
            gains.append(measure_gain(models, data, batch_size, rounds=self.rounds, seconds=self.seconds))
            say(f"batch size {batch_size}: {gains[-1].ratio:.1f} times")
        per_hour = 3600 / self.updates
        ends = last_that_pays(gains)
        if self.json:
            rows = [
                {**asdict(g), "alone_per_hour": per_hour * g.alone, "together_per_hour": per_hour * g.together}
                for g in gains
            ]
            print_json({"model": self.model, "updates": self.updates, "last_that_pays": ends, "rows": rows})
            return 0
        table = Table("batch size", "one at a time", f"{self.trials} together", "gain", "quartiles", box=None)
        for g in gains:
            rates = (f"{per_hour * rate:,.0f}" for rate in (g.alone, g.together))
            table.add_row(str(g.batch_size), *rates, f"{g.ratio:.1f}", f"{g.low:.1f}-{g.high:.1f}")
        print_table(table)
        print_line(f"trials of {self.updates:,} updates per hour; {self.model} on the digits, {data.train.device}")
        print_line("the gain ends " + ("before the first" if ends is None else f"after batch size {ends}"))
        return 0


@dataclass(frozen=True)
class BenchMinAtar:
    """Frames per second of A2C or PPO on MinAtar: one run, many side by side as in a sweep, and Stable-Baselines3's."""

    game: str = "minatar/breakout"
    """A game of MinAtar, the network its own."""
    algorithm: Literal["a2c", "ppo"] = "a2c"
    """The algorithm, in both libraries."""
    num_envs: tuple[int, ...] = (4, 16, 64, 256)
    """Environments of each run."""
    runs: int = 15
    """Runs side by side."""
    sb3: bool = True
    """Measure Stable-Baselines3 too, if it is installed."""
    seconds: float = 2.0
    """Seconds of each way in each round."""
    rounds: int = 5
    """Rounds, in which all take turns; medians are reported."""
    json: bool = False
    """Print the figures as JSON on stdout."""

    def run(self) -> int:
        at_least(1, rounds=self.rounds)
        at_least(2, runs=self.runs)
        if self.seconds <= 0 or not self.num_envs or min(self.num_envs) < 2:
            raise ConfigError("give --seconds above 0 and --num-envs of 2 or more")
        from rl_scaling.domains.rl.config import RunConfig
        from rl_scaling.domains.rl.registry import find_algorithm
        from rl_scaling.envs import find_game, require_installed
        from rl_scaling.validation.minatar import measure

        game, agent = find_game(self.game), find_algorithm(self.algorithm)
        if "minatar" not in game.environment().networks:
            raise ConfigError(f"{game.name} is not of MinAtar: give a game of MinAtar, minatar/breakout")
        require_installed(game.environment())
        sb3 = self.sb3 and find_spec("stable_baselines3") is not None
        if self.sb3 and not sb3:
            say("Stable-Baselines3 is left out: pip install 'rl-scaling[bench]'")
        found: list[Speeds] = []
        for num_envs in sorted(set(self.num_envs)):
            config = RunConfig(environment=game.environment(num_envs=num_envs), agent=agent(network="minatar"))  # pyright: ignore[reportCallIssue]
            found.append(measure(config, self.runs, sb3=sb3, seconds=self.seconds, rounds=self.rounds))
            say(f"{num_envs} environments: side by side {found[-1].gain.median:.2f} times")
        if self.json:
            print_json({"game": game.name, "algorithm": self.algorithm, "rows": [asdict(speeds) for speeds in found]})
            return 0
        print_table(_minatar_table(found))
        print_line(f"frames per second of one core's time; {self.algorithm} on {game.name}, one thread;")
        print_line("ratios are medians of the rounds with their quartiles")
        return 0


def _minatar_table(found: Sequence[Speeds]) -> Table:
    heads = ["environments", "alone", f"{found[0].runs} side by side", "gain"]
    heads += ["Stable-Baselines3", "alone to it", "side by side to it"] if found[0].sb3 else []
    table = Table(*heads, box=None)
    for s in found:
        rates = [None if rate is None else f"{rate:,.0f}" for rate in (s.alone, s.together, s.sb3)]
        ratios = [
            None if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
            for ratio in (s.gain, s.to_sb3, s.together_to_sb3)
        ]
        cells = [str(s.num_envs), *rates[:2], ratios[0], rates[2], *ratios[1:]]
        table.add_row(*(cell for cell in cells if cell is not None))
    return table


@dataclass(frozen=True)
class Bench:
    """Measure speed on this machine."""

    domain: (
        Annotated[BenchAtari, subcommand("atari")]
        | Annotated[BenchNoise, subcommand("noise")]
        | Annotated[BenchSupervised, subcommand("supervised")]
        | Annotated[BenchMinAtar, subcommand("minatar")]
    )

    def run(self) -> int:
        return self.domain.run()
