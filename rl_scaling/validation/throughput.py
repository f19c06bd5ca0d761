"""How fast A2C or PPO trains on Atari, beside Stable-Baselines3 and beside the limit its two parts set.

The bare emulator and the network's arithmetic each run alone on the whole machine. A program that does first the one
and then the other for every frame, and nothing else, would reach 1 / (1 / emulator + 1 / network): the limit.
Machines drift, so everything is measured in turns, round after round, and ratios are made within a round.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

import ale_py
import gymnasium
import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv

from rl_scaling.agents import Agent, make_network
from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.domains.rl.config import NoiseScaleConfig
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.envs import make_vector
from rl_scaling.envs.config import AtariConfig
from rl_scaling.envs.games import find_game
from rl_scaling.noise import NoiseScaleMeter

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

# Advances by some frames and returns how many.
Step = Callable[[], int]
# Frames per second of each part, measured one after the other.
Round = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured and on what.

    Attributes:
        threads: torch's and the emulator's, each.
        dtype: what this project's layers compute in, and "the network"'s; None: float32. Stable-Baselines3 is as it is.
    """

    game: str
    network: str
    num_envs: int
    device: str
    threads: int
    seconds: float
    rounds: int
    algorithm: Literal["a2c", "ppo"] = "a2c"
    dtype: torch.dtype | None = None

    @property
    def environment(self) -> AtariConfig:
        return AtariConfig(game=self.game, num_envs=self.num_envs, max_start_steps=0)

    @property
    def agent(self) -> A2CConfig | PPOConfig:
        algorithm = A2CConfig if self.algorithm == "a2c" else PPOConfig
        return algorithm(network="nature" if self.network == "nature" else "small")


# Ratios are formed within a round: their name, their words and their form, in the order in which they are printed.
RATIOS: dict[str, tuple[str, Callable[[Round], float]]] = {
    "ratio_to_sb3": ("ratio to Stable-Baselines3", lambda r: r["ours"] / r["sb3"]),
    "alternating_ratio_to_sb3": ("the same, two halves in turns", lambda r: r["alternating"] / r["sb3"]),
    "side_by_side_ratio_to_sb3": ("the same, trials side by side", lambda r: r["side_by_side"] / r["sb3"]),
    "fraction_of_limit": ("fraction of the limit", lambda r: r["ours"] * (1 / r["emulator"] + 1 / r["network"])),
    "fraction_of_emulator": ("two halves, to the bare emulator", lambda r: r["alternating"] / r["emulator"]),
    "alternating_ratio": ("two halves, to all at once", lambda r: r["alternating"] / r["ours"]),
}


@dataclass(frozen=True)
class Throughput:
    """What the rounds measured; frames are counted as the agent sees them.

    Attributes:
        rounds: frames per second of each part in each round:
            ours, sb3: training, by this A2C and by Stable-Baselines3's;
            emulator: alone; network: forward and backward of whole batches of 5 steps;
            alternating: ours, where one half of the environments is emulated while the network acts for the other;
            side_by_side: several trials with one thread each, added up; not on a GPU, which trials would only share.
        noise_scale_overhead: share of the wall time that measuring takes at the default setting.
    """

    rounds: Sequence[Round]
    noise_scale_overhead: float

    @property
    def frames_per_second(self) -> dict[str, float | None]:
        """Medians over the rounds; None: not measured."""
        return {name: self._median(lambda r, name=name: r[name]) for name in (*_PARTS, "side_by_side")}

    @property
    def ratios(self) -> dict[str, float | None]:
        """Medians of the rounds' own ratios, by the names of `RATIOS`."""
        return {name: self._median(form) for name, (_, form) in RATIOS.items()}

    def _median(self, figure: Callable[[Round], float]) -> float | None:
        try:
            return statistics.median(figure(r) for r in self.rounds)
        except KeyError:
            return None


def measure(settings: Settings, say: Callable[[str], None]) -> Throughput:
    """Run all parts in turns.

    Raises:
        ImportError: Stable-Baselines3 is not installed.
    """
    torch.set_num_threads(settings.threads)
    rounds: list[Round] = []
    with ExitStack() as stack:
        parts: dict[str, Step] = {}
        for name, open_part in _PARTS.items():
            say(f"starting {name}")
            parts[name] = stack.enter_context(open_part(settings))
        ours = parts["ours"]
        assert isinstance(ours, Updates)
        overhead = _noise_overhead(ours, settings)
        together = None
        if settings.device == "cpu":
            say("starting trials side by side")
            together = stack.enter_context(_side_by_side(settings))
        for i in range(settings.rounds):
            figures = {name: _frames_per_second(step, settings.seconds) for name, step in parts.items()}
            if together is not None:
                figures["side_by_side"] = together()
            rounds.append(figures)
            say(f"round {i + 1}: " + ", ".join(f"{name} {figure:,.0f}" for name, figure in figures.items()))
    return Throughput(rounds, overhead)


def _frames_per_second(step: Step, seconds: float) -> float:
    step()  # wakes what has slept while other parts were measured
    begun, frames = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        frames += step()
    return frames / elapsed


def emulator_frames_per_second(game: str, num_envs: int, *, threads: int, seconds: float) -> float:
    """What the bare emulators reach alone."""
    with _emulator(game, num_envs, threads) as step:
        return _frames_per_second(step, seconds)


@contextmanager
def _emulator(game: str, num_envs: int, threads: int) -> Generator[Step]:
    """The bare C++ environments with random actions."""
    envs = AtariVectorEnv(find_game(game).rom, num_envs, num_threads=min(threads, num_envs))
    envs.reset(seed=0)
    random = np.random.default_rng(0)
    count = len(envs.ale.get_action_set())

    def step() -> int:
        for _ in range(5):
            envs.step(random.integers(count, size=num_envs))
        return 5 * num_envs

    yield step


@contextmanager
def _network(s: Settings) -> Generator[Step]:
    """Forward and backward over batches of the size of an update, as often as each frame is used."""
    network = make_network(s.network, (4, 84, 84), 4).to(s.device)
    network.compute_dtype = s.dtype
    frames = s.agent.batch_size(s.num_envs)
    batch = torch.randint(0, 255, (frames, 4, 84, 84), dtype=torch.uint8, device=s.device)
    parameters = list(network.parameters())

    def step() -> int:
        for _ in range(s.agent.frame_uses):
            logits, values = network(batch)
            torch.autograd.grad(logits.sum() + values.sum(), parameters)
        synchronize(s.device)
        return frames

    yield step


class Updates:
    """Rollouts of an agent with the updates from them; one that is measured does what `rl-scaling train` does."""

    def __init__(self, agent: Agent[Any], device: str):
        self._agent, self._device = agent, device
        self._meter = NoiseScaleMeter(group_size=1)

    def __call__(self, *, measured: bool = False) -> int:
        noise = NoiseScaleConfig()
        groups, frames = (noise.groups, noise.frame_gradients) if measured else (1, 0)
        update = self._agent.step(num_groups=groups, frame_gradients=frames)
        if update.groups is not None:
            self._meter.update(update.groups.sq_norms, update.groups.batch_sq_norm, group_sizes=update.groups.sizes)
        synchronize(self._device)
        return update.frames


@contextmanager
def agent_updates(
    environment: AtariConfig,
    config: AlgorithmConfig,
    *,
    device: str,
    threads: int,
    alternate: bool = False,
    dtype: torch.dtype | None = None,
) -> Generator[Updates]:
    """An agent with its environments started and its buffers made."""
    with closing(make_vector(environment, num_threads=threads, alternate=alternate)) as source:
        agent = make_agent(config, source.observation_shape, source.num_actions, total_updates=10**9, device=device)
        agent.network.compute_dtype = dtype
        agent.begin(source, source.reset(0))
        for _ in range(2):  # the second captures CUDA graphs where there are any
            agent.step()
        yield Updates(agent, device)


def _ours(s: Settings, *, alternate: bool = False) -> AbstractContextManager[Updates]:
    return agent_updates(s.environment, s.agent, device=s.device, threads=s.threads, alternate=alternate, dtype=s.dtype)


def _noise_overhead(update: Updates, s: Settings) -> float:
    """From rollouts with and without measuring in turns: the difference of their medians, at the default cadence."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    begun = time.perf_counter()
    while time.perf_counter() - begun < max(2 * s.seconds, 1.0):
        for measured in (False, True):
            before = time.perf_counter()
            update(measured=measured)
            seconds[measured].append(time.perf_counter() - before)
    plain, with_noise = (statistics.median(seconds[measured]) for measured in (False, True))
    share = min(1.0, s.agent.updates_per_rollout / NoiseScaleConfig().every_updates)
    return share * (with_noise - plain) / plain


@contextmanager
def _sb3(s: Settings) -> Generator[Step]:
    """Stable-Baselines3's as its users run it: subprocess environments, frame stack, CnnPolicy; the zoo's settings."""
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack

    class SmallCNN(BaseFeaturesExtractor):
        """The body of our "small" network, so that both train the same one; observations come scaled to 0..1."""

        def __init__(self, observation_space: gymnasium.spaces.Box):
            super().__init__(observation_space, features_dim=256)
            self.body = make_network("small", observation_space.shape, 1).policy_body

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.body(observations)

    make = partial(_make_game, f"{s.game}NoFrameskip-v4")
    envs = make_atari_env(make, n_envs=s.num_envs, seed=0, vec_env_cls=SubprocVecEnv)
    policy = {"features_extractor_class": SmallCNN, "features_extractor_kwargs": {}} if s.network == "small" else None
    with closing(VecFrameStack(envs, n_stack=4)) as stacked:
        yield sb3_updates(s.agent, stacked, "CnnPolicy", policy, s.device)


def sb3_updates(
    agent: A2CConfig | PPOConfig, envs: VecEnv, policy: str, policy_options: dict[str, Any] | None, device: str
) -> Step:
    """Rollouts of Stable-Baselines3's A2C or PPO with these settings, and the updates from them."""
    from stable_baselines3 import A2C as TheirA2C
    from stable_baselines3 import PPO as TheirPPO

    common: dict[str, Any] = {
        "learning_rate": agent.learning_rate,
        "n_steps": agent.rollout_steps,
        "gamma": agent.discount,
        "ent_coef": agent.entropy_coefficient,
        "vf_coef": agent.value_coefficient,
        "max_grad_norm": agent.max_grad_norm,
        "policy_kwargs": policy_options,
        "device": device,
    }
    if isinstance(agent, PPOConfig):
        batches = {"batch_size": agent.batch_size(envs.num_envs), "n_epochs": agent.epochs}
        steps = {"gae_lambda": agent.gae_lambda, "clip_range": agent.clip_range}
        model = TheirPPO(policy, envs, **batches, **steps, **common)
        frames = envs.num_envs * agent.rollout_steps
    else:
        model = TheirA2C(policy, envs, **common)
        # Several updates a call, so that its preparations do not count.
        frames = 10 * envs.num_envs * agent.rollout_steps

    def step() -> int:
        model.learn(frames, reset_num_timesteps=False)
        return frames

    return step


_PARTS: dict[str, Callable[[Settings], AbstractContextManager[Step]]] = {
    "emulator": lambda s: _emulator(s.game, s.num_envs, s.threads),
    "network": _network,
    "sb3": _sb3,
    "ours": _ours,
    "alternating": partial(_ours, alternate=True),
}


def _make_game(env_id: str) -> gymnasium.Env[Any, Any]:
    """Runs in a process of its own, where nobody has registered the games yet."""
    gymnasium.register_envs(ale_py)
    return gymnasium.make(env_id)


@contextmanager
def _side_by_side(s: Settings) -> Generator[Callable[[], float]]:
    """One trial per thread, each in a process of its own with one thread; their throughputs added."""
    context = multiprocessing.get_context("spawn")
    alone = replace(s, threads=1)
    connections: list[Connection] = []
    processes = []
    for _ in range(s.threads):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_trial, args=(theirs, alone), daemon=True))
        processes[-1].start()
        theirs.close()
        connections.append(ours)
    for connection in connections:
        connection.recv()

    def together() -> float:
        for connection in connections:
            connection.send("go")
        return sum(connection.recv() for connection in connections)

    try:
        yield together
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join(timeout=10)


def _trial(connection: Connection, s: Settings) -> None:
    torch.set_num_threads(1)
    with _ours(s) as step:
        connection.send("ready")
        try:
            while connection.recv():
                connection.send(_frames_per_second(step, s.seconds))
        except EOFError:
            return


def synchronize(device: str) -> None:
    """Wait for what a GPU is still doing."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
