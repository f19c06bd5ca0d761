"""Reinforcement learning as a domain: one run at a time, from its config to records and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch

from rl_scaling.agents import Agent
from rl_scaling.agents.frozen import FrozenGradients
from rl_scaling.agents.precision import DTYPES
from rl_scaling.config import ConfigError, parse
from rl_scaling.domains.base import Checkpoint, Control, Domain, Ended, Event, Hardware, Starting, TrialCost
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl import training
from rl_scaling.domains.rl.config import FrozenConfig, RunConfig
from rl_scaling.domains.rl.measure import FrozenProgress, load_weights, measure
from rl_scaling.domains.rl.memory import require_memory
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.training import Diverged, Progress
from rl_scaling.envs import VectorSource, make_vector, require_installed

_Made = TypeVar("_Made")


class ReinforcementLearning(Domain[RunConfig]):
    """Agents that learn from copies of an environment; a call of `run` trains one, or measures one that is kept."""

    name = "rl"
    config = RunConfig

    def parse(self, plain: Mapping[str, Any]) -> RunConfig:
        """See `Domain.parse`; what is measured with the weights kept says so."""
        if plain.get("kind") != FrozenConfig.kind:
            return super().parse(plain)
        return parse(FrozenConfig, plain, "measurement's config")  # pyright: ignore[reportReturnType]

    def device(self, hardware: Hardware) -> str:
        """See `Domain.device`."""
        return str(choose_device(hardware.device))

    def settled(self, configs: Sequence[RunConfig], hardware: Hardware) -> tuple[Hardware, list[str]]:
        """See `Domain.settled`: the arithmetic."""
        from rl_scaling.domains.rl.precision import settle_precision

        return settle_precision(configs, hardware)

    def refuse(self, configs: Sequence[RunConfig], hardware: Hardware, side_by_side: int) -> None:
        """See `Domain.refuse`."""
        for environment in {config.environment for config in configs}:
            require_installed(environment)
        require_memory(configs, device=_device(configs, hardware), side_by_side=side_by_side)

    def costs(
        self, configs: Sequence[RunConfig], hardware: Hardware, side_by_side: int
    ) -> tuple[Sequence[TrialCost], str] | None:
        """See `Domain.costs`: by a straight line through two numbers of environments."""
        from rl_scaling.domains.rl.timing import MEASURED_SECONDS, cost_of, measure_speed

        if not configs:
            return [], "nothing is left"
        hardware, _ = self.settled(configs, hardware)
        speed = measure_speed(
            configs,
            side_by_side=side_by_side,
            device=hardware.device,
            seconds=MEASURED_SECONDS,
            dtype=DTYPES[hardware.compute_dtype],
        )
        return [cost_of(config, speed) for config in configs], speed.note

    def run(
        self,
        configs: Sequence[RunConfig],
        resume: Sequence[Mapping[str, Any] | None],
        control: Control,
        hardware: Hardware,
    ) -> Iterator[tuple[int, Event]]:
        """Train one run: see `Domain.run`.

        Environments cannot be saved: a resumed run begins new episodes, with seeds it has not used before. A run that
        is interrupted while its environments start yields nothing more.
        """
        if hardware.compute_dtype == "auto":
            hardware, _ = self.settled(configs, hardware)
        config = configs[0]
        frozen = isinstance(config, FrozenConfig)
        train_or_measure: Any = _measure if frozen else _run
        for event in train_or_measure(config, resume[0], control, hardware):
            yield 0, event


def _run(
    config: RunConfig, resume: Mapping[str, Any] | None, control: Control, hardware: Hardware
) -> Generator[Event, None, None]:
    device = _device([config], hardware)
    torch.set_num_threads(hardware.threads)
    progress = Progress.start(config)
    if resume is not None:
        progress.load_state_dict(resume["progress"])
    with ExitStack() as stack:

        def start(tell: Callable[[int, int], None]) -> tuple[VectorSource, np.ndarray]:
            source = make_vector(
                config.environment,
                num_threads=hardware.threads,
                progress=tell,
                group_envs=config.adaptive.group_envs if config.adaptive else None,
                alternate=hardware.alternate,
            )
            stack.callback(source.close)
            return source, training.reset(source, config, progress)

        started = yield from _while_starting(start, control)
        if started is None:
            return
        source, observations = started
        learner = make_agent(
            config.agent,
            source.observation_shape,
            source.num_actions or source.action_space,
            total_updates=config.updates,
            seed=config.seed,
            device=device,
        )
        learner.network.compute_dtype = DTYPES[hardware.compute_dtype]
        if resume is not None:
            learner.load_state_dict(copy.deepcopy(resume["learner"]))
        try:
            for record in training.run(learner, source, config, progress, control=control, observations=observations):
                yield record
                if control.checkpoint:
                    control.checkpoint = False
                    yield _checkpoint(learner, progress)
        except Diverged as reason:
            yield Ended("diverged", str(reason))
            return
        yield Ended() if progress.frames >= config.frames else _checkpoint(learner, progress)


def _measure(
    config: FrozenConfig, resume: Mapping[str, Any] | None, control: Control, hardware: Hardware
) -> Generator[Event, None, None]:
    """Play with weights that are kept, in environments with seeds that the measurement has not used before."""
    torch.set_num_threads(hardware.threads)
    progress, state = FrozenProgress(), resume or {}
    progress.load_state_dict(state.get("progress", {}))
    seeds = np.random.SeedSequence([config.seed, progress.frames, 1]).generate_state(2) >> 1

    def start(tell: Callable[[int, int], None]) -> tuple[VectorSource, np.ndarray]:
        made = make_vector(config.environment, num_threads=hardware.threads, progress=tell)
        stack.callback(made.close)
        return made, made.reset(int(seeds[0]))

    with ExitStack() as stack:
        started = yield from _while_starting(start, control)
        if started is None:
            return
        source, observations = started
        agent = make_agent(
            config.agent,
            source.observation_shape,
            source.num_actions or source.action_space,
            total_updates=1,
            seed=config.seed,
            device=choose_device(hardware.device),
        )
        load_weights(agent, config, state)
        frozen = FrozenGradients(agent, source, observations, num_groups=config.groups, seed=int(seeds[1]))
        weights = {"weights": state["weights"]} if config.of_run else {}
        for event in measure(frozen, config, progress, control):
            yield event
            if isinstance(event, Ended):
                return
            if control.checkpoint:
                control.checkpoint = False
                yield Checkpoint(progress.rollouts, {"progress": progress.state_dict(), **weights})
        kept = Checkpoint(progress.rollouts, {"progress": progress.state_dict(), **weights})
        yield Ended() if progress.is_over(config) else kept


def _checkpoint(learner: Agent[Any], progress: Progress) -> Checkpoint:
    """A copy, which does not change as training continues."""
    state = {"learner": learner.state_dict(), "progress": progress.state_dict()}
    return Checkpoint(progress.updates, copy.deepcopy(state))


def _device(configs: Sequence[RunConfig], hardware: Hardware) -> torch.device:
    if hardware.alternate and any(config.adaptive for config in configs):
        raise ConfigError("environments that alternate cannot change in number: leave alternating or adapting out")
    return choose_device(hardware.device)


class _Abandoned(Exception):
    """Nobody waits for the environments any longer."""


def _while_starting(
    start: Callable[[Callable[[int, int], None]], _Made], control: Control
) -> Generator[Starting, None, _Made | None]:
    """Do on a thread what takes a while and tells how far it is; give its result, or None after an interrupt."""
    told: SimpleQueue[Starting | None] = SimpleQueue()
    abandoned = False

    def tell(done: int, total: int) -> None:
        if abandoned:
            raise _Abandoned
        told.put(Starting(done, total))

    def work() -> _Made:
        try:
            return start(tell)
        finally:
            told.put(None)

    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(work)
        try:
            while (event := told.get()) is not None:
                yield event
                if control.interrupt:
                    return None
            return made.result()
        finally:
            abandoned = True
