"""What every domain has from the one sweep: however it ends, nothing is lost or run twice; and what may be asked."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl_scaling.analysis import fit_runs
from rl_scaling.domains.base import Control
from rl_scaling.store import Store, list_runs, load_runs
from rl_scaling.store.rows import encode_record
from rl_scaling.sweeps import trial
from rl_scaling.sweeps.executors.serial import SerialExecutor
from rl_scaling.sweeps.plan import Search, SweepPlan
from rl_scaling.sweeps.sweep import CANNOT_WIN, Sweep, run_sweeps, sweep
from rl_scaling.sweeps.trial import REACHED_ALL, RunEnded
from tests.sweeps.plans import DOMAINS, TASKS, SweepTiny, is_worker, tiny

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 90.0

pytestmark = pytest.mark.parametrize("domain", DOMAINS)


def stamps(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("*/records.parquet")}


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def lines(store: Path, run_id: str) -> list[bytes]:
    """A run's rows, NaN being equal to NaN."""
    return [encode_record(row) for row in Store(store).read_rows(run_id)]


class Running:
    """The command of a tiny sweep in a process group of its own, slowed down."""

    def __init__(self, domain: str, store: Path, *options: str, seconds_per_update: float) -> None:
        self.store, self.ticks = store, store.with_suffix(f".ticks{time.monotonic_ns()}")
        self.ticks.touch()
        command = [sys.executable, "-m", "tests.sweeps.plans", "--domain", domain, "--out", str(store), *options]
        slow = {"SECONDS_PER_UPDATE": str(seconds_per_update), "TICKS": str(self.ticks), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | slow, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def until_trained(self, updates: int) -> None:
        seen = self.ticks.stat().st_size
        until(lambda: self.ticks.stat().st_size >= seen + updates or self.process.poll() is not None, "updates")
        assert self.process.poll() is None, self.process.communicate()[1]

    def until_rows(self, runs: int) -> None:
        def enough() -> bool:
            return sum(path.stat().st_size > 0 for path in self.store.glob("*/records.*")) >= runs

        until(lambda: enough() or self.process.poll() is not None, "rows")
        assert self.process.poll() is None, self.process.communicate()[1]

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if is_worker(child)]

    def end(self) -> int:
        """The exit code; `seconds` is how long saving takes."""
        begun = time.monotonic()
        until(lambda: not list(self.store.glob("*/lock")), "runs that are saved")
        self.seconds = time.monotonic() - begun
        _, self.said = self.process.communicate(timeout=60)
        return self.process.returncode


def test_asked_to_stop_it_saves_itself_at_the_next_update_and_the_same_command_finishes(
    domain: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for number, to_group in ((signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)):
        running = Running(domain, store, "--long", "--workers", "1", seconds_per_update=0.3)
        running.until_trained(6)
        (worker,) = running.workers
        (os.killpg if to_group else os.kill)(running.process.pid, number)
        assert running.end() == 1, running.said
        assert running.seconds < 5, "a record is further away than that"
        assert "the same command resumes" in running.said
        assert not worker.is_running()
        interrupted = [info for info in list_runs(store) if info.status == "interrupted"]
        assert interrupted
        assert not list(store.glob("*/lock")) + list(store.glob("*/.*partial*"))
        if domain != "nqm":  # whose runs begin anew
            assert all((info.directory / "checkpoint.pt").exists() for info in interrupted if load(info.directory))
    kept = {info.run_id: lines(store, info.run_id) for info in list_runs(store)}
    options = SweepTiny(domain=domain, long=True, out=store, executor="serial")
    assert options.run() == 0
    for run_id, rows in kept.items():
        assert domain == "nqm" or lines(store, run_id)[: len(rows)] == rows, "nothing is measured twice"
        updates = [row.updates for row in Store(store).read_rows(run_id)]
        assert updates == sorted(set(updates))
    assert [info.status for info in list_runs(store)] == ["done"] * 2


def load(directory: Path) -> bytes:
    return (directory / "records.jsonl").read_bytes()


def test_killed_workers_and_a_killed_sweep_lose_no_trial_and_repeat_none(domain: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    running = Running(domain, store, "--workers", "2", seconds_per_update=0.02)
    running.until_rows(2)
    victim = running.workers[0]
    victim.kill()
    until(lambda: len(running.workers) == 2 and victim not in running.workers, "another worker")
    running.until_trained(4)
    left, sealed = running.workers, stamps(store)
    running.process.kill()
    running.process.communicate()
    gone, alive = psutil.wait_procs(left, timeout=30)  # one may still be importing
    assert not alive, "workers end with their sweep"
    assert len(gone) == 2
    assert not list(store.glob("*/.*partial*")), "they have saved themselves"
    assert all(info.status != "running" for info in list_runs(store))
    sealed |= stamps(store)
    begun = Sweep(tiny(domain), Store(store))
    begun.begin()
    run_sweeps([begun], SerialExecutor())
    assert {t.status for t in begun.trials.values()} == {"done"}
    assert sealed.items() <= stamps(store).items(), "what was sealed is not run again"
    assert len(stamps(store)) == 4
    if domain != "rl":  # whose environments cannot be saved
        straight = sweep(tiny(domain), tmp_path / "straight", "serial")
        for run_id in straight.trials:
            first, second = (Store(tmp_path / name).read_rows(run_id) for name in ("store", "straight"))
            assert [row.updates for row in first] == [row.updates for row in second]
            losses = [[row.loss for row in rows] for rows in (first, second)]  # pyright: ignore[reportAttributeAccessIssue]
            assert losses[0] == pytest.approx(losses[1], rel=1e-3, nan_ok=True)
        fronts = [fit_runs(load_runs(tmp_path / name), goals_of(domain)).fronts for name in ("store", "straight")]
        assert len(fronts[0]) == 2
        assert fronts[0]["updates"].tolist() == pytest.approx(fronts[1]["updates"].tolist(), rel=1e-3)


def goals_of(domain: str) -> list[float]:
    return list(tiny(domain).tasks[0].goals)


def test_a_dry_run_says_time_memory_and_disk_and_writes_nothing(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl_scaling.domains.rl.timing.MEASURED_SECONDS", 0.5)
    command = {
        "rl": "rl --game Pong --num-envs 2 --frames 2e3 --network small --rates 2 --best-seeds 1",
        "supervised": "supervised --optimizers sgd --batch-sizes 32 128 --rates 2 --seeds 0 --best-seeds 1",
        "nqm": "nqm --optimizers sgd --batch-sizes 64 256 --rates 2 --targets 0.1",
    }
    from rl_scaling.cli import main

    folder = tmp_path / "store"
    assert main(["sweep", *command[domain].split(), "--workers", "2", "--dry-run", "--json", "--out", str(folder)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["trials"] == {"rl": 3, "supervised": 6, "nqm": 4}[domain]
    assert all(math.isfinite(said[name]) and said[name] > 0 for name in ("hours", "memory_bytes", "disk_bytes"))
    assert said["memory_free_bytes"] > 0
    assert not folder.exists()


def test_every_trial_is_seen_by_the_tracker_and_stdout_has_the_summary_alone(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = SweepTiny(
        domain=domain, out=tmp_path / "store", executor="serial", tensorboard=tmp_path / "tb", json=True
    )
    assert options.run() == 0
    summary = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in summary] == ["done"] * 4
    assert {row["run_id"] for row in summary} == {folder.name for folder in (tmp_path / "tb").iterdir()}
    for folder in (tmp_path / "tb").iterdir():
        found = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        rows = Store(tmp_path / "store").read_rows(folder.name)
        assert [scalar.value for scalar in found.Scalars("updates")] == [row.updates for row in rows]


def test_in_no_time_nothing_is_started(domain: str, tmp_path: Path) -> None:
    assert SweepTiny(domain=domain, out=tmp_path, minutes=0).run() == 1
    assert not list(tmp_path.glob("*/*"))


def run(plan: SweepPlan, folder: Path, **options: Any) -> Sweep:
    return sweep(plan, folder, "serial", **options)


def cell_of(swept: Sweep) -> dict[tuple[int, float], set[int]]:
    seeds: dict[tuple[int, float], set[int]] = {}
    for one in swept.trials.values():
        seeds.setdefault((one.identity.batch_size, one.identity.learning_rate), set()).add(one.identity.seed)
    return seeds


def test_every_trial_is_run_once_and_not_again(domain: str, tmp_path: Path) -> None:
    assert [t.status for t in run(tiny(domain), tmp_path).trials.values()] == ["done"] * 4
    before = stamps(tmp_path)
    run(tiny(domain), tmp_path, on_event=lambda *event: pytest.fail(f"something was run: {event}"))
    assert stamps(tmp_path) == before


def test_interrupted_in_between_it_resumes_without_a_row_twice(domain: str, tmp_path: Path) -> None:
    """The first event is a row of 0 updates, but in reinforcement learning."""
    plan = tiny(domain)
    for most in (1, 2):
        heard: list[object] = []
        begun = Sweep(plan, Store(tmp_path))
        begun.begin()
        run_sweeps(
            [begun],
            SerialExecutor(),
            on_event=lambda *event, heard=heard: heard.append(event),
            asked_to_stop=lambda heard=heard, most=most: len(heard) >= most,
        )
        assert begun.stopped_by == "request"
        assert {t.status for t in begun.trials.values()} <= {None, "interrupted"}
        assert begun.to_do == 4
    finished = run(plan, tmp_path)
    assert [t.status for t in finished.trials.values()] == ["done"] * 4
    for run_id in finished.trials:
        updates = [row.updates for row in Store(tmp_path).read_rows(run_id)]
        assert updates == sorted(set(updates))


def test_further_seeds_are_run_at_the_best_rates_alone(domain: str, tmp_path: Path) -> None:
    first = run(tiny(domain), tmp_path)
    before = stamps(tmp_path)
    wider = run(tiny(domain, best_seeds=(7, 8)), tmp_path)
    assert before.items() <= stamps(tmp_path).items()
    fronts = fit_runs(load_runs(tmp_path), goals_of(domain)).fronts
    assert (fronts["seeds"] == 3).all(), "every rate on the front has all the seeds"
    assert {size for size, _ in cell_of(wider)} == {size for size, _ in cell_of(first)}
    assert len(wider.trials) < 3 * len(first.trials)


def test_the_edge_with_the_best_rate_is_extended(domain: str, tmp_path: Path) -> None:
    low = {"rl": (1e-6, 1e-5), "supervised": (1e-4, 1e-3), "nqm": (1e-4, 1e-3)}[domain]
    task = TASKS[domain](rates={"fixed": low, "max_extensions": 1})
    task = dataclasses.replace(task, batch_sizes=task.batch_sizes[:1])
    swept = run(tiny(domain, task), tmp_path)
    rates = sorted(rate for _, rate in cell_of(swept))
    assert len(rates) == 3
    added = (set(rates) - set(low)).pop()
    assert added > max(low) or domain == "rl"
    assert run(tiny(domain, task), tmp_path).trials.keys() == swept.trials.keys()
    assert domain == "rl" or any("try higher ones" in remark for remark in swept.tuner.remarks())


def test_a_search_runs_its_points_once(domain: str, tmp_path: Path) -> None:
    plan = tiny(domain, search=Search(trials=3, width=4.0))
    swept = run(plan, tmp_path)
    rates = {t.identity.learning_rate for t in swept.trials.values() if t.status == "done"}
    assert len(rates) == 6
    before = stamps(tmp_path)
    assert run(plan, tmp_path).trials.keys() == swept.trials.keys()
    assert stamps(tmp_path) == before


def test_trials_that_cannot_win_are_stopped_and_the_front_stays(domain: str, tmp_path: Path) -> None:
    task = TASKS[domain](
        **{
            "rl": {"frames": 8_000, "goals": (20.0, 25.0)},
            "supervised": {"goals": (1.9, 1.5), "rates": {"fixed": (0.3, 0.003)}},
            "nqm": {"goals": (0.8, 0.5), "rates": {"fixed": (0.1, 0.4)}},
        }[domain]
    )
    task = dataclasses.replace(task, batch_sizes=task.batch_sizes[:1])
    everything = run(tiny(domain, task), tmp_path / "all")
    early = run(tiny(domain, task), tmp_path / "early", stop_early=True)
    assert {t.status for t in everything.trials.values()} == {"done"}
    notes = {info.note for info in list_runs(tmp_path / "early") if info.status == "stopped"}
    assert notes == {CANNOT_WIN}
    assert early.units_saved > 0
    fronts = [fit_runs(load_runs(tmp_path / name), task.goals).fronts for name in ("all", "early")]
    columns = ["goal", "batch_size", "learning_rate", "updates", "examples"]
    assert len(fronts[0])
    assert fronts[0][columns].equals(fronts[1][columns])
    again = run(tiny(domain, task), tmp_path / "early", stop_early=True)
    assert again.units_saved == 0, "what was stopped cannot win the next time either"


def harder(domain: str, goals: tuple[float, ...]) -> SweepPlan:
    task = dataclasses.replace(TASKS[domain](), goals=goals)
    return tiny(domain, dataclasses.replace(task, batch_sizes=task.batch_sizes[:1]), stop_at_goals=True)


def test_stopped_at_its_goals_a_run_trains_on_for_harder_ones(domain: str, tmp_path: Path) -> None:
    easy, hard = {"rl": (12.0, 1e6), "supervised": (2.2, 1.0), "nqm": (0.9, 0.5)}[domain]
    run(harder(domain, (easy,)), tmp_path / "twice")
    stopped = {info.run_id: info.note for info in list_runs(tmp_path / "twice") if info.status == "stopped"}
    assert set(stopped.values()) == {REACHED_ALL}
    rows = {run_id: lines(tmp_path / "twice", run_id) for run_id in stopped}
    assert run(harder(domain, (easy,)), tmp_path / "twice", on_event=lambda *_: pytest.fail("run")).to_do == 0
    second = run(harder(domain, (easy, hard)), tmp_path / "twice")
    assert second.to_do == 0
    for run_id, before in rows.items():
        now = lines(tmp_path / "twice", run_id)
        assert domain == "nqm" or now[: len(before)] == before, "from its checkpoint"
        assert len(now) > len(before)
    aside = [info for info in (tmp_path / "twice").iterdir() if "replaced" in info.name]
    assert bool(aside) == (domain == "nqm"), "only what has no checkpoint begins anew, and the old run stays"
    if domain == "rl":
        return
    straight = run(harder(domain, (easy, hard)), tmp_path / "once")
    for run_id, one in straight.trials.items():
        both = one.tracker.reached, second.trials[run_id].tracker.reached
        assert {g: r.updates for g, r in both[0].items()} == pytest.approx({g: r.updates for g, r in both[1].items()})


def test_what_older_versions_called_done_at_its_target_begins_anew_only_for_harder_ones(
    domain: str, tmp_path: Path
) -> None:
    easy, hard = {"rl": (12.0, 1e6), "supervised": (2.2, 1.0), "nqm": (0.9, 0.5)}[domain]
    whole = run(harder(domain, (easy,)), tmp_path / "new")
    store = Store(tmp_path / "old")
    short = [t for t in whole.trials.values() if t.status == "stopped"]
    for one in short:
        with store.open_run(one.config, {}) as writer:
            for row in Store(tmp_path / "new").read_rows(one.config.run_id):
                writer.append(row)
            writer.seal("done")
    for one in whole.trials.values():
        if one not in short:
            (tmp_path / "new" / one.config.run_id).rename(tmp_path / "old" / one.config.run_id)
    run(harder(domain, (easy,)), tmp_path / "old", on_event=lambda *_: pytest.fail("nothing more is asked"))
    again = run(harder(domain, (easy, hard)), tmp_path / "old")
    assert again.to_do == 0
    assert len([folder for folder in store.root.iterdir() if "replaced" in folder.name]) == len(short) > 0


def test_runs_of_other_lengths_stay_and_are_told_of(domain: str, tmp_path: Path) -> None:
    swept = run(tiny(domain, best_seeds=(3,)), tmp_path)
    again = Sweep(tiny(domain), Store(tmp_path))
    assert again.begin() == [], "further seeds are no other runs"
    longer = tiny(domain, TASKS[domain](**{"rl": {"frames": 4_000}}.get(domain, {"updates": 3_000})))
    (said,) = Sweep(longer, Store(tmp_path)).begin()
    assert said == f"{len(swept.trials)} runs here of other settings or lengths: they stay, and count too"


def test_the_serial_executor_saves_itself_before_the_next_record(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Control.interrupt.fget
    asked: list[float] = []

    def interrupt(control: Control) -> bool:
        asked.append(time.monotonic())
        assert looked is not None
        return looked(control)

    monkeypatch.setattr(Control, "interrupt", Control.interrupt.getter(interrupt))
    begun = Sweep(SweepTiny(domain=domain, long=True, out=tmp_path).plans()[tmp_path], Store(tmp_path))
    begun.begin()
    ends: list[object] = []
    run_sweeps(
        [begun],
        SerialExecutor(),
        on_event=lambda _, run_id, event: ends.append(event) if isinstance(event, RunEnded) else None,
        asked_to_stop=lambda: len(asked) > 6,
    )
    assert RunEnded("interrupted") in ends
    assert len(asked) < 30
    assert trial.CHECKPOINT_SECONDS == 60
