"""Runs that train side by side: those of one batch size, which differ in learning rate and seed.

Each has its own environments, records, checkpoints and end; what they share is the passes through their networks
(`rl_scaling.agents.stack`). They need not be at the same update: frames that only reset an environment do not count, so
that runs of one length end a few updates apart, and a run that is resumed joins where it was.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from rl_scaling.agents import Agent
from rl_scaling.agents.config import PPOConfig
from rl_scaling.agents.networks import make_network
from rl_scaling.agents.stack import Stack
from rl_scaling.config import ConfigError, RunDescription
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.registry import SIDE_BY_SIDE
from rl_scaling.domains.rl.training import Diverged, Ledger, what_to_measure
from rl_scaling.envs import VectorSource, make_vector
from rl_scaling.envs.config import EnvironmentConfig
from rl_scaling.noise.torch.stacked_layers import why_not_stackable

# The most frames of an update for which training side by side was measured to be the faster way: where the operations
# of a pass take longer to start than to do. With larger batches, and with networks that are not named, arithmetic is
# all there is, and a network that is trained by itself stays in the cache.
MOST_FRAMES = {"minatar": 400, "mlp": 5_000}
# More of them share what passes cost to start, but their weights leave the cache: what is gained ends here.
MOST_RUNS = 32


def can_stack(config: RunDescription) -> bool:
    """Whether runs like this one train side by side where there are several."""
    if not isinstance(config, RunConfig):  # what is measured with the weights kept does not train
        return False
    agent = config.agent
    return (
        config.adaptive is None
        and agent.kind in SIDE_BY_SIDE
        and not (isinstance(agent, PPOConfig) and agent.keeps_minibatch)  # measured by the rollout
        and config.environment.kind != "atari"
        and config.batch_size <= MOST_FRAMES.get(agent.network, 0)
        and _network_stacks(dataclasses.replace(config.environment, num_envs=1), agent.network)
    )


@lru_cache
def _network_stacks(environment: EnvironmentConfig, name: str) -> bool:
    """Whether the network can be stacked that is made for an environment, whose actions may ask for more than layers.

    What cannot be made is said where it is to be run.
    """
    try:
        with closing(make_vector(environment)) as source, torch.random.fork_rng(devices=[]):
            network = make_network(name, source.observation_shape, source.num_actions or source.action_space)
    except ConfigError:
        return False
    return not why_not_stackable(network)


def alike(config: RunConfig) -> RunConfig:
    """What runs that train side by side agree in: the config but for its learning rate and seed."""
    return dataclasses.replace(config, seed=0, agent=dataclasses.replace(config.agent, learning_rate=1.0))


@dataclass(frozen=True)
class Member:
    """One of the runs.

    Attributes:
        number: the caller's.
        ledger: with its config and progress.
        learner: as far as `ledger` is.
        source: its environments.
        observations: that these gave when they were reset.
    """

    number: int
    ledger: Ledger
    learner: Agent[Any]
    source: VectorSource
    observations: np.ndarray

    @property
    def checkpoint(self) -> Checkpoint:
        """A copy, which does not change as training continues."""
        progress = self.ledger.progress
        state = {"learner": self.learner.state_dict(), "progress": progress.state_dict()}
        return Checkpoint(progress.updates, copy.deepcopy(state))

    def measure(self) -> Mapping[str, Any]:
        """What its next step measures."""
        return what_to_measure(self.ledger.config, self.ledger.progress.updates)


def train(members: Sequence[Member], control: Control) -> Iterator[tuple[int, Event]]:
    """Train until every run has ended, was stopped or interrupted; see `rl_scaling.domains.base.Domain.run`.

    The time of a step is divided among the runs that took it.
    """
    stack = Stack([member.learner for member in members])
    stack.begin([member.source for member in members], [member.observations for member in members])
    present, owed = list(members), set[int]()
    if control.interrupt:
        yield from ((member.number, member.checkpoint) for member in present)
        return
    while present:
        begun = time.perf_counter()
        updates = stack.step([member.measure() for member in present])
        seconds = (time.perf_counter() - begun) / len(present)
        leaving, staying = control.interrupt, []
        for place, (member, update) in enumerate(zip(present, updates, strict=True)):
            member.ledger.take(update, seconds=seconds)
            stays = True
            if member.ledger.due or leaving or member.number in control.stop:
                stays = yield from _record(member, control, owed, {each.number for each in present})
            if stays:
                staying.append(place)
            else:
                member.source.close()
        if len(staying) < len(present):
            present = [present[place] for place in staying]
            if present:
                stack.keep(staying)


def _record(member: Member, control: Control, owed: set[int], present: set[int]) -> Iterator[tuple[int, Event]]:
    """A run's record and what follows from it; whether it stays.

    Args:
        member: the run.
        control: what is asked.
        owed: the numbers of runs whose next record is to be followed by a checkpoint.
        present: the numbers of all runs that train.
    """
    yield member.number, member.ledger.record()
    if control.checkpoint:
        control.checkpoint = False
        owed |= present
    try:
        member.ledger.begin_next()
    except Diverged as reason:
        yield member.number, Ended("diverged", str(reason))
        return False
    done, asked_to_leave = member.ledger.done, control.interrupt or member.number in control.stop
    if member.number in owed or (asked_to_leave and not done):
        owed.discard(member.number)
        yield member.number, member.checkpoint
    if done:
        yield member.number, Ended()
    return not (done or asked_to_leave)
