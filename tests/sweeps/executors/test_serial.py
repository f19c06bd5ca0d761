"""One job after the other, in this process."""

from __future__ import annotations

from pathlib import Path

from rl_scaling.store import Store
from rl_scaling.sweeps.executors.serial import SerialExecutor, one_line
from rl_scaling.sweeps.trial import Job, RunEnded, RunEvent, RunFailed
from tests.sweeps.plans import digits, model

CONFIG = digits().config(32, 0.1, 0)


def drain(executor: SerialExecutor) -> list[tuple[str, RunEvent]]:
    heard: list[tuple[str, RunEvent]] = []
    while executor.running:
        heard += executor.events(0.0)
    return heard


def test_a_job_ends_and_the_next_may_begin(tmp_path: Path) -> None:
    executor = SerialExecutor(8)
    assert executor.slots == 1
    for config in (CONFIG, model().config(8, 0.1, 0)):
        executor.start(Job((config,), tmp_path))
        assert len(executor.running) == 1
        assert drain(executor)[-1] == (config.run_id, RunEnded("done"))


def test_a_failure_is_one_line_and_ends_its_job_alone(tmp_path: Path) -> None:
    (tmp_path / CONFIG.run_id).write_text("in the way")
    executor = SerialExecutor()
    executor.start(Job((CONFIG,), tmp_path))
    ((run_id, failed),) = drain(executor)
    assert isinstance(failed, RunFailed)
    assert run_id == CONFIG.run_id
    assert failed.reason.startswith("a file is in the way of")
    executor.start(Job((model().config(8, 0.1, 0),), tmp_path))
    assert drain(executor)[-1][1] == RunEnded("done")


def test_stopped_interrupted_and_closed(tmp_path: Path) -> None:
    executor = SerialExecutor()
    executor.start(Job((CONFIG,), tmp_path))
    list(executor.events(0.0))
    executor.stop(CONFIG.run_id, "enough")
    assert drain(executor)[-1][1] == RunEnded("stopped")
    other = digits().config(32, 0.1, 1)
    executor.start(Job((other,), tmp_path))
    list(executor.events(0.0))
    executor.close()
    assert not executor.running
    assert Store(tmp_path).status(other.run_id) == "interrupted", "nobody's lock stays"
    executor.interrupt()
    executor.start(Job((other,), tmp_path))
    assert drain(executor)[-1][1] == RunEnded("interrupted")
    executor = SerialExecutor()
    executor.start(Job((other,), tmp_path))
    assert list(executor.events(0.0, lambda: True)) == [(other.run_id, RunEnded("interrupted"))]


def test_errors_in_one_line() -> None:
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(KeyError()) == "KeyError"
