"""What a sweep will take follows from what its trials take, one by one, of any domain."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.analysis.costs import fit_throughput
from rl_scaling.domains.base import ON_ONE_THREAD, Hardware, TrialCost
from rl_scaling.domains.nqm.domain import NoisyQuadraticModel
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.task import RLTask, learning_rates_of
from rl_scaling.domains.rl.timing import Speed
from rl_scaling.envs.config import AtariConfig
from rl_scaling.store import Store
from rl_scaling.sweeps.forecast import Forecast, Forecasts, forecast_sweeps
from rl_scaling.sweeps.plan import SweepPlan
from tests.store.builders import PROVENANCE, record
from tests.sweeps.plans import DOMAINS, digits, model, tiny


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for every thousand updates, and memory by the batch."""

    def costs(_: object, configs: Sequence[Any], hardware: Hardware, slots: int) -> tuple[list[TrialCost], str]:
        return [TrialCost(c.updates / 1000, 10.0 * c.batch_size, 3.0, 100.0) for c in configs], f"{slots} by hand"

    monkeypatch.setattr(NoisyQuadraticModel, "costs", costs)


def forecast(plan: SweepPlan, folder: Path, slots: int = 2) -> tuple[Forecast, Forecasts]:
    found = forecast_sweeps({folder: plan}, slots, ON_ONE_THREAD)
    return found.sweeps[0], found


@pytest.mark.usefixtures("priced")
def test_trials_units_and_seconds_add_up(tmp_path: Path) -> None:
    one, whole = forecast(tiny("nqm", best_seeds=(1,)), tmp_path / "store")
    assert (one.trials, one.units, one.unit) == (6, 2_000 * 3 * (8 + 64), "examples")
    assert (one.seconds, one.longest_seconds, one.note) == (12.0, 2.0, "2 by hand")
    assert (one.memory_bytes, one.kept_bytes, one.open_bytes) == (2 * 640, 6 * 3, 2 * 100)
    assert whole.seconds() == 6.0
    assert whole.disk_bytes == 18 + 200
    assert dataclasses.replace(whole, slots=100).seconds() == 2.0
    plain = json.loads(json.dumps(whole.to_plain()))
    assert plain["trials"] == 6
    assert plain["hours"] == pytest.approx(6 / 3600)
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("priced")
def test_extensions_of_grids_come_on_top_and_fixed_rates_have_none(tmp_path: Path) -> None:
    rates = {"count": 3, "max_extensions": 2}
    one, whole = forecast(tiny("nqm", model(rates=rates)), tmp_path)
    assert one.trials == 6
    assert one.extension_seconds == pytest.approx(one.seconds * 2 / 3)
    assert whole.seconds(extended=True) == pytest.approx(one.seconds * 5 / 6)
    fixed, _ = forecast(tiny("nqm", model(rates={"fixed": (1e-3,)})), tmp_path)
    assert fixed.extension_seconds == 0


@pytest.mark.usefixtures("priced")
def test_what_is_done_is_not_counted(tmp_path: Path) -> None:
    plan = tiny("nqm")
    first = model().config(8, plan.tasks[0].learning_rates.grid(8)[0], 0)
    with Store(tmp_path).open_run(first, {}) as writer:
        writer.seal("done")
    one, _ = forecast(plan, tmp_path)
    assert (one.trials, one.seconds) == (3, 6.0)


def test_nothing_left_takes_no_time() -> None:
    assert np.isfinite(Forecasts((), 2, 1.0, 1.0).seconds())


@pytest.mark.usefixtures("priced")
def test_sweeps_share_their_slots_and_their_disk(tmp_path: Path) -> None:
    plans = {tmp_path / "a": tiny("nqm"), tmp_path / "b": tiny("nqm", model(updates=4_000))}
    both = forecast_sweeps(plans, 2, ON_ONE_THREAD)
    assert both.seconds() == (8.0 + 16.0) / 2
    assert both.disk_bytes == 2 * 4 * 3 + 200
    lines = list(both.lines())
    assert lines[0].startswith(f"{tmp_path / 'a'}: 4 trials, 288,000 examples, 4 s by itself")
    assert lines[-2].startswith("8 trials, 864,000 examples: about 12 s with 2 at a time")
    full = dataclasses.replace(both, memory_free_bytes=1.0)
    assert list(full.lines())[-1].startswith("it would be refused, for that is more memory than is free")


@pytest.mark.parametrize("domain", [name for name in DOMAINS if name != "rl"])
def test_without_costs_of_its_own_a_domain_is_measured_by_running(domain: str, tmp_path: Path) -> None:
    one, whole = forecast(tiny(domain), tmp_path / "store")
    assert one.trials == 4
    assert 0 < one.longest_seconds <= one.seconds
    assert 0 < whole.memory_bytes < whole.memory_free_bytes
    assert "jobs measured for 1 s each" in one.note
    assert not (tmp_path / "store").exists()


def test_a_long_job_is_measured_for_a_second_alone(tmp_path: Path) -> None:
    task = digits(updates=10**6, batch_sizes=(32,))
    one, _ = forecast(tiny("supervised", task), tmp_path / "store")
    assert one.seconds > 20, "what a second shows of it goes for the whole"


def test_explicit_runs_and_searches_are_counted(tmp_path: Path) -> None:
    points = tuple(model().config(8, rate, 0) for rate in (0.1, 0.2, 0.3))
    one, _ = forecast(tiny("nqm", model(points=points, batch_sizes=(8,))), tmp_path)
    assert (one.trials, one.extension_seconds) == (3, 0)


# --- reinforcement learning: from a line through two numbers of environments ----------------------------------------

# A rollout takes 10 ms and 1 ms for each of its frames, an environment 2 s to start.
LINE = pd.DataFrame({"batch_size": [20, 80], "seconds": [0.03, 0.09], "error": [0.0, 0.0]})
SPEED = Speed(rollout=fit_throughput(LINE), start_seconds=2.0, side_by_side=2, game="Pong")


def pong(agent: AlgorithmConfig, **changes: Any) -> SweepPlan:
    base = RunConfig(environment=AtariConfig(game="Pong", max_start_steps=0), agent=agent, frames=10_000)
    base = dataclasses.replace(base, **{k: v for k, v in changes.items() if hasattr(base, k)})
    sizes = tuple(agent.batch_size(n) for n in changes.get("num_envs", (4, 8)))
    rates = learning_rates_of(agent, fixed=(1e-3, 2e-3))
    return SweepPlan(tasks=(RLTask(base=base, batch_sizes=sizes, learning_rates=rates, goals=(0.0,)),))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl_scaling.domains.rl.timing.measure_speed", lambda *_, **__: SPEED)


@pytest.mark.usefixtures("timed")
def test_a_game_takes_its_updates_and_its_start(tmp_path: Path) -> None:
    plan = dataclasses.replace(pong(A2CConfig(network="small")), best_seeds=(1,))
    one, whole = forecast(plan, tmp_path)
    assert (one.trials, one.units, one.unit) == (6, 60_000, "frames")
    smaller, larger = 500 * 0.03 + 8, 250 * 0.05 + 16
    assert one.seconds == pytest.approx(3 * (smaller + larger), rel=1e-6)
    assert one.longest_seconds == pytest.approx(larger, rel=1e-6)
    assert whole.seconds() == pytest.approx(one.seconds / 2)


@pytest.mark.usefixtures("timed")
def test_ppo_takes_its_time_per_rollout(tmp_path: Path) -> None:
    one, _ = forecast(pong(PPOConfig(rollout_steps=10, minibatches=2, epochs=3)), tmp_path)
    assert one.seconds == pytest.approx(2 * (250 * 0.05 + 8 + 125 * 0.09 + 16), rel=1e-6)


@pytest.mark.usefixtures("timed")
def test_the_disk_is_what_a_run_takes(tmp_path: Path) -> None:
    plan = pong(A2CConfig(network="small"), frames=1_000, record_every_frames=20, num_envs=(4,))
    before, _ = forecast(plan, tmp_path, slots=1)
    with Store(tmp_path).open_run(plan.tasks[0].config(20, 1e-3, 0), PROVENANCE) as writer:
        for updates in range(1, 51):
            writer.append(record(updates))
        writer.seal("done")
    after, _ = forecast(plan, tmp_path, slots=1)
    assert (before.trials, after.trials) == (2, 1)
    assert before.open_bytes == after.open_bytes > 2 * 4 * 680_000, "one trial at a time, its checkpoint twice"
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    said = before.kept_bytes - after.kept_bytes
    assert 0.5 < said / kept < 2, (said, kept)
