"""Reinforcement learning as a domain: one run, or several side by side, from config to records and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch

from rl_scaling.agents import Agent
from rl_scaling.agents.frozen import FrozenGradients
from rl_scaling.agents.precision import DTYPES
from rl_scaling.agents.stack import why_no_stack
from rl_scaling.config import ConfigError, parse
from rl_scaling.domains.base import (
    ON_ONE_THREAD,
    CannotResume,
    Checkpoint,
    Control,
    Domain,
    Ended,
    Event,
    Hardware,
    Starting,
    TrialCost,
)
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl import stacked, training
from rl_scaling.domains.rl.config import FrozenConfig, RunConfig
from rl_scaling.domains.rl.measure import FrozenProgress, load_weights, measure
from rl_scaling.domains.rl.memory import require_memory
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.stacked import MOST_RUNS
from rl_scaling.domains.rl.training import Diverged, Ledger, Progress
from rl_scaling.envs import VectorSource, make_vector, require_installed

_Made = TypeVar("_Made")


class ReinforcementLearning(Domain[RunConfig]):
    """Agents that learn from copies of an environment: one, or several small ones at once; or that are measured."""

    name = "rl"
    config = RunConfig
    out_of_step = True

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

        if hardware.compute_dtype == "auto" and all(map(stacked.can_stack, configs)):
            in_float32 = replace(hardware, compute_dtype="float32")
            if any(len(group) > 1 for group in self.together(configs, in_float32)):
                return in_float32, ["layers compute in float32: small runs train side by side in it"]
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

    def job_key(self, config: RunConfig) -> Hashable:
        """See `Domain.job_key`: what runs that train side by side agree in."""
        return stacked.alike(config) if stacked.can_stack(config) else super().job_key(config)

    def together(self, configs: Sequence[RunConfig], hardware: Hardware = ON_ONE_THREAD) -> list[list[RunConfig]]:
        """See `Domain.together`; on a GPU, in half precision and where halves alternate each trains alone."""
        if choose_device(hardware.device).type != "cpu" or hardware.alternate or hardware.compute_dtype != "float32":
            return [[config] for config in configs]
        groups: dict[Hashable, list[RunConfig]] = {}
        for config in configs:
            groups.setdefault(self.job_key(config), []).append(config)
        return [group[i : i + MOST_RUNS] for group in groups.values() for i in range(0, len(group), MOST_RUNS)]

    def run(
        self,
        configs: Sequence[RunConfig],
        resume: Sequence[Mapping[str, Any] | None],
        control: Control,
        hardware: Hardware,
    ) -> Iterator[tuple[int, Event]]:
        """Train one run, or several side by side: see `Domain.run`.

        Environments cannot be saved: a resumed run begins new episodes, with seeds it has not used before. A run that
        is interrupted while its environments start yields nothing more.
        """
        if hardware.compute_dtype == "auto":
            hardware, _ = self.settled(configs, hardware)
        first = configs[0]
        if isinstance(first, FrozenConfig):
            yield from ((0, event) for event in _measure(first, resume[0], control, hardware))
            return
        device = _device(configs, hardware)
        torch.set_num_threads(hardware.threads)
        progresses: dict[int, Progress] = {}
        for number, (config, state) in enumerate(zip(configs, resume, strict=True)):
            progress = Progress.start(config)
            if _takes(progress.load_state_dict, state, "progress"):
                progresses[number] = progress
            else:
                yield number, CannotResume()
        with ExitStack() as stack:
            start = partial(_started, configs, progresses, hardware, stack)
            started = yield from _of_each(progresses, _while_starting(start, control))
            if started is None:
                return
            members: list[stacked.Member] = []
            for number, (source, observations) in started.items():
                config, progress = configs[number], progresses[number]
                learner = _learner(config, source, device, hardware)
                if _takes(learner.load_state_dict, resume[number], "learner"):
                    members.append(stacked.Member(number, Ledger(config, progress), learner, source, observations))
                else:
                    source.close()
                    yield number, CannotResume()
            if len(members) > 1 and not why_no_stack(members[0].learner):
                yield from stacked.train(members, control)
                return
            for member in members:  # one after the other, where the actions ask for more than layers
                yield from ((member.number, event) for event in _alone(member, control))


def _takes(load: Callable[[dict[str, Any]], None], state: Mapping[str, Any] | None, part: str) -> bool:
    """Whether a part of a run takes what a state has for it, if there is one; no: the state is of another run."""
    try:
        if state is not None:
            load(copy.deepcopy(state[part]))
    except (ConfigError, KeyError, ValueError):  # of another network, another algorithm, another optimiser
        return False
    return True


_Started = tuple[VectorSource, np.ndarray]


def _started(
    configs: Sequence[RunConfig],
    progresses: Mapping[int, Progress],
    hardware: Hardware,
    stack: ExitStack,
    tell: Callable[[int, int], None],
) -> dict[int, _Started]:
    """The environments of each run that has progress, which `stack` closes, and what they show first."""
    started: dict[int, _Started] = {}
    for place, (number, progress) in enumerate(progresses.items()):
        config = configs[number]

        def tell_of_all(done: int, total: int, place: int = place) -> None:
            tell(place * total + done, len(progresses) * total)

        source = make_vector(
            config.environment,
            num_threads=hardware.threads,
            progress=tell_of_all,
            group_envs=config.adaptive.group_envs if config.adaptive else None,
            alternate=hardware.alternate,
        )
        stack.callback(source.close)
        started[number] = source, training.reset(source, config, progress)
    return started


def _learner(config: RunConfig, source: VectorSource, device: torch.device, hardware: Hardware) -> Agent[Any]:
    learner = make_agent(
        config.agent,
        source.observation_shape,
        source.num_actions or source.action_space,
        total_updates=config.updates,
        seed=config.seed,
        device=device,
    )
    learner.network.compute_dtype = DTYPES[hardware.compute_dtype]
    return learner


def _alone(member: stacked.Member, control: Control) -> Iterator[Event]:
    config, progress = member.ledger.config, member.ledger.progress
    options: dict[str, Any] = {"control": control, "observations": member.observations, "number": member.number}
    try:
        for record in training.run(member.learner, member.source, config, progress, **options):
            yield record
            if control.checkpoint:
                control.checkpoint = False
                yield member.checkpoint
    except Diverged as reason:
        yield Ended("diverged", str(reason))
        return
    yield Ended() if progress.frames >= config.frames else member.checkpoint


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


def _of_each(
    runs: Iterable[int], starting: Generator[Starting, None, _Made]
) -> Generator[tuple[int, Starting], None, _Made]:
    """What is told of a start that several runs share, as if each told it; gives what `starting` gives."""
    with closing(starting):
        while True:
            try:
                event = next(starting)
            except StopIteration as end:
                return end.value
            yield from ((number, event) for number in runs)
