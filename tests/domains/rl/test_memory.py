"""The estimate of a run's memory against real processes, and the refusal of what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from typing import Any

import psutil
import pytest
import torch

from rl_scaling.agents import make_network
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.networks import layer_units
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, RunConfig
from rl_scaling.domains.rl.memory import ENVIRONMENT_BYTES, memory_of, require_memory
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig

CPU = torch.device("cpu")

# Resident bytes after each of three lots of 4 environments, then while 4 of them are trained for ever longer.
GROWTH = """
import json, psutil, torch
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.agents.config import A2CConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.envs import make_vector

torch.set_num_threads(1)
resident = lambda: psutil.Process().memory_info().rss
lots, made = [resident()], []
for _ in range(3):
    made.append(make_vector(AtariConfig(game="Pong", num_envs=4, max_start_steps=0), num_threads=1))
    observations = made[-1].reset(0)
    lots.append(resident())
agent = make_agent(A2CConfig(network="small"), (4, 84, 84), 6, total_updates=10**6)
agent.begin(made[-1], observations)
lengths = []
for _ in range(4):
    for _ in range(25):
        agent.step(num_groups=3)
    lengths.append(resident())
print(json.dumps([lots, lengths]))
"""

PEAK = """
import sys, torch
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.envs import make_vector
from tests.domains.rl.test_memory import CONFIGS

torch.set_num_threads(1)
config = CONFIGS[sys.argv[1]]
source = make_vector(config.environment, num_threads=1)
agent = make_agent(config.agent, source.observation_shape, source.num_actions, total_updates=100)
agent.begin(source, source.reset(0))
for _ in range(2):
    agent.step()
# Not ru_maxrss, which a new program inherits from the process that started it.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(1024 * int(peak.split()[1]))
"""
FEW = AtariConfig(game="Pong", num_envs=4, max_start_steps=0)
GRIDS = MinAtarConfig(game="seaquest", num_envs=800)
CONFIGS = {
    "a2c": RunConfig(environment=FEW, agent=A2CConfig(network="small", rollout_steps=200)),
    "ppo": RunConfig(environment=FEW, agent=PPOConfig(network="small", rollout_steps=400, epochs=1)),
    "minatar": RunConfig(environment=GRIDS, agent=A2CConfig(network="minatar", rollout_steps=20)),
}


def output_of(script: str, *words: str) -> Any:
    return json.loads(subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=True).stdout)


def test_memory_is_linear_in_environments_and_flat_in_the_length_of_a_run() -> None:
    lots, lengths = output_of(GROWTH)
    each = [(after - before) / 4 for before, after in pairwise(lots)]
    assert max(each[1:]) < 1.5 * ENVIRONMENT_BYTES, each
    assert min(each) > 0.5 * ENVIRONMENT_BYTES, each
    assert lengths[-1] - lengths[0] < 8e6, lengths


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_estimate_is_what_a_process_takes(name: str) -> None:
    assert output_of(PEAK, name) == pytest.approx(memory_of(CONFIGS[name]).total, rel=0.2)


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 40, 64)], ids=str)
@pytest.mark.parametrize("name", ["nature", "small", "minatar", "mlp"])
def test_layers_give_as_many_numbers_as_is_said(name: str, shape: tuple[int, ...]) -> None:
    network = make_network(name, shape, 4)
    units = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: units.append(output.numel()))
    network(torch.zeros(1, *shape))
    assert sum(units) == layer_units(name, shape) + 4 + 1


def test_observations_of_other_environments_count_too() -> None:
    """A hand of Blackjack is 45 floats; a network that does not fit is refused before anything starts."""
    blackjack = GymnasiumConfig(env_id="Blackjack-v1", num_envs=8)
    needed = memory_of(RunConfig(environment=blackjack, agent=PPOConfig(network="mlp", rollout_steps=100)))
    assert needed.rollout == 2 * 800 * 45 * 4
    with pytest.raises(ConfigError, match="network 'nature' needs images"):
        memory_of(RunConfig(environment=blackjack, agent=A2CConfig()))


def test_a_gpu_takes_what_is_learned_from() -> None:
    needed = memory_of(CONFIGS["a2c"])
    host, device = needed.on(torch.device("cuda"))
    assert host + device == pytest.approx(needed.total)
    assert needed.learning < device < needed.learning + needed.rollout
    assert needed.on(CPU) == (needed.total, 0)


def test_an_adaptive_batch_counts_with_its_most_environments() -> None:
    adaptive = AdaptiveBatchConfig(exchange_rate=1, min_envs=4, max_envs=512, group_envs=4)
    grown = RunConfig(environment=FEW, agent=A2CConfig(), adaptive=adaptive)
    fixed = RunConfig(environment=AtariConfig(game="Pong", num_envs=512), agent=A2CConfig())
    assert memory_of(grown) == memory_of(fixed)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS["a2c"]
    needed = memory_of(config).total

    def free(share: float) -> None:
        memory = psutil.virtual_memory()._replace(available=int(share * needed))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    free(1.1)
    require_memory([config, config], device=CPU)
    with pytest.raises(ConfigError, match=r"2 runs of up to 4 environments need about .* or --workers"):
        require_memory([config, config], device=CPU, side_by_side=2)
    free(0.9)
    with pytest.raises(ConfigError, match=r"a run of 4 environments needs about .* GB are free: give fewer"):
        require_memory([config], device=CPU)
    require_memory([], device=CPU)
