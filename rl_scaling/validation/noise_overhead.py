"""What measuring the noise scale costs: training without it, at the default cadence and at every step, in turns.

Machines drift, so the three ways take turns in short blocks of as many steps as the default cadence is long, in another
order each round, and are compared within a round.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rl_scaling.agents.config import A2CConfig
from rl_scaling.domains.rl.config import NoiseScaleConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.noise.torch.gradient_noise import GradientNoise
from rl_scaling.validation.throughput import Updates, agent_updates, synchronize

# One step of training; the ways to train are called by how often a step is measured, one in 20 or each. 0: never.
Step = Callable[[], None]
EVERY = (0, NoiseScaleConfig().every_updates, 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured and on what; `threads` are torch's and the emulator's, each."""

    workloads: tuple[str, ...]
    game: str
    device: str
    threads: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Time that measuring adds, in percent of the time without it.

    Attributes:
        workload: what was trained.
        every: one step in this many was measured.
        percent: median over the rounds of what a block took with measuring over what it took without, less one.
        low_percent, high_percent: quartiles of the rounds.
        step_milliseconds: median time of a step without measuring.
        rounds: how many.
    """

    workload: str
    every: int
    percent: float
    low_percent: float
    high_percent: float
    step_milliseconds: float
    rounds: int


def measure(settings: Settings, say: Callable[[str], None]) -> list[Overhead]:
    """Train each workload in the three ways in turns.

    Args:
        settings: what to measure; its workloads are names from `WORKLOADS`.
    """
    torch.set_num_threads(settings.threads)
    found = []
    for name in settings.workloads:
        say(f"starting {name}")
        with WORKLOADS[name](settings) as steps:
            seconds = _rounds(steps, settings)
        for every in EVERY[1:]:
            found.append(_overhead(name, every, seconds))
            say(f"{name}, every {every}: {found[-1].percent:.1f} %")
    return found


def _rounds(steps: Mapping[int, Step], s: Settings) -> dict[int, np.ndarray]:
    """Seconds of a block, round by round, for each cadence."""
    for step in steps.values():
        _block(step, s.device)
    seconds: dict[int, list[float]] = {every: [] for every in steps}
    for round_number in range(s.rounds):
        for every in np.roll(list(steps), round_number).tolist():
            seconds[every].append(_block(steps[every], s.device))
    return {every: np.array(values) for every, values in seconds.items()}


def _block(step: Step, device: str) -> float:
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(max(EVERY)):
        step()
    synchronize(device)
    return time.perf_counter() - begun


def _overhead(name: str, every: int, seconds: Mapping[int, np.ndarray]) -> Overhead:
    percents = 100 * (seconds[every] / seconds[0] - 1)
    low, median, high = np.percentile(percents, [25, 50, 75])
    return Overhead(
        workload=name,
        every=every,
        percent=float(median),
        low_percent=float(low),
        high_percent=float(high),
        step_milliseconds=float(1000 * np.median(seconds[0]) / max(EVERY)),
        rounds=len(percents),
    )


@contextmanager
def _a2c(s: Settings, num_envs: int) -> Generator[dict[int, Step]]:
    """A2C of this project with the Nature CNN on the real emulator; measured as `rl-scaling train a2c` does."""
    environment = AtariConfig(game=s.game, num_envs=num_envs, max_start_steps=0)
    config = A2CConfig(network="nature")
    with agent_updates(environment, config, device=s.device, threads=s.threads) as update:
        yield {every: _at_cadence(update, every) for every in EVERY}


def _at_cadence(update: Updates, every: int) -> Step:
    """Updates of which the first in `every` is measured; 0: none."""
    count = itertools.count()

    def step() -> None:
        update(measured=every > 0 and next(count) % every == 0)

    return step


@contextmanager
def _mlp(s: Settings) -> Generator[dict[int, Step]]:
    """Two hidden layers of 512 on 784 inputs, 256 rows, as for MNIST."""
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    inputs, targets = torch.randn(256, 784), torch.randint(10, (256,))
    yield _classifying(model, inputs, targets, s.device)


@contextmanager
def _transformer(s: Settings) -> Generator[dict[int, Step]]:
    """Two blocks of width 128 on 32 sequences of 64 random tokens."""
    tokens = torch.randint(1000, (32, 65))
    yield _classifying(Transformer(), tokens[:, :-1], tokens[:, 1:], s.device)


def _classifying(model: nn.Module, inputs: Tensor, targets: Tensor, device: str) -> dict[int, Step]:
    """Steps of Adam on one batch, again and again: random data, only the time counts."""
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def backward() -> None:
        nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten()).backward()

    def plain() -> None:
        optimizer.zero_grad()
        backward()
        optimizer.step()

    def measured(noise: GradientNoise) -> Step:
        def step() -> None:
            optimizer.zero_grad()
            with noise.measure(len(inputs)):
                backward()
            optimizer.step()

        return step

    return {every: measured(GradientNoise(model, every=every)) if every else plain for every in EVERY}


class Transformer(nn.Module):
    """A small causal language model of Linear, Embedding and LayerNorm layers."""

    def __init__(self, vocabulary: int = 1000, length: int = 64, width: int = 128, blocks: int = 2):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, length, vocabulary) for (n, length) tokens."""
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self._heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inwards, self.outwards = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        queries, keys, values = self.inwards(self.norm_attention(x)).view(n, length, 3, self._heads, -1).unbind(2)
        heads = (part.transpose(1, 2) for part in (queries, keys, values))
        attended = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.outwards(attended.transpose(1, 2).reshape(n, length, width))
        return x + self.mlp(self.norm_mlp(x))


WORKLOADS: dict[str, Callable[[Settings], AbstractContextManager[dict[int, Step]]]] = {
    "a2c-16": lambda s: _a2c(s, 16),
    "a2c-64": lambda s: _a2c(s, 64),
    "transformer": _transformer,
    "mlp": _mlp,
}
