"""A process per slot, whatever happens to it."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import psutil
import pytest

from rl_scaling.config import ConfigError
from rl_scaling.store import Store
from rl_scaling.sweeps.executors import EXECUTORS, make_executor
from rl_scaling.sweeps.executors.processes import MOST_RETRIES, ProcessExecutor, _Inbox
from rl_scaling.sweeps.trial import Job, RunEnded, RunEvent, RunFailed
from tests.sweeps.plans import digits, is_worker, model

LONG = digits(updates=10**6).config(32, 0.1, 0)


def workers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if is_worker(process)]


def hear(executor: ProcessExecutor, most_seconds: float = 90) -> list[tuple[str, RunEvent]]:
    deadline, heard = time.monotonic() + most_seconds, []
    while not heard and time.monotonic() < deadline:
        heard += executor.events(0.5)
    assert heard
    return heard


def test_a_worker_that_dies_is_replaced_twice_and_then_its_run_has_failed(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    executor.start(Job((LONG,), tmp_path))
    heard: list[tuple[str, RunEvent]] = []
    killed: set[int] = set()
    try:
        while not heard:
            heard += executor.events(0.5)
        for _ in range(MOST_RETRIES + 1):
            while not (alive := [worker for worker in workers() if worker.pid not in killed]):
                heard += executor.events(0.5)
            alive[0].kill()
            killed.add(alive[0].pid)
        while executor.running:
            heard += executor.events(0.5)
    finally:
        executor.close(kill=True)
    run_id, failed = heard[-1]
    assert isinstance(failed, RunFailed)
    assert run_id == LONG.run_id
    assert failed.reason == "its process died with exit code -9 3 times (out of memory?)"
    assert Store(tmp_path).status(LONG.run_id) == "interrupted", "nobody's lock stays"


def test_a_failure_is_one_line_and_its_worker_runs_the_next_job(tmp_path: Path) -> None:
    config = model().config(8, 0.1, 0)
    (tmp_path / LONG.run_id).write_text("in the way")
    executor = ProcessExecutor(1)
    executor.start(Job((LONG,), tmp_path))
    ((_, failed),) = hear(executor)
    assert isinstance(failed, RunFailed)
    assert failed.reason.startswith("a file is in the way of")
    (worker,) = workers()
    executor.start(Job((config,), tmp_path))
    heard: list[tuple[str, RunEvent]] = []
    while executor.running:
        heard += hear(executor)
    assert heard[-1] == (config.run_id, RunEnded("done"))
    assert workers() == [worker]
    executor.close()
    assert not workers()


def test_looking_whether_to_stop_costs_little_and_a_job_that_comes_early_is_kept(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    inbox = _Inbox(theirs)
    control = inbox.requests.control
    looks = 20_000
    begun = time.process_time()
    for _ in range(looks):
        assert not control.interrupt
    each = (time.process_time() - begun) / looks
    assert each < 0.05 / 6_000, "more than 5 % of an update, of which there are 6,000 a second"
    ours.send(("stop", "a", "enough"))
    ours.send(("run", Job((LONG,), tmp_path).to_plain()))
    time.sleep(0.05)
    assert not control.interrupt
    assert inbox.requests.reasons == {"a": "enough"}
    assert inbox.next_job() == Job((LONG,), tmp_path)
    assert inbox.requests.reasons == {}
    ours.send(("interrupt",))
    assert inbox.requests.control.interrupt
    ours.close()
    ours, again = multiprocessing.get_context("spawn").Pipe()
    ours.close()
    assert _Inbox(again).requests.control.interrupt, "the sweep is gone"
    for connection in (theirs, again):
        connection.close()


def test_executors_by_name() -> None:
    assert make_executor("processes", 3).slots == 3
    assert set(EXECUTORS) == {"serial", "processes"}
    with pytest.raises(ConfigError, match="no executor 'threads': serial, processes"):
        make_executor("threads", 2)
