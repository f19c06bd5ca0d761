"""Several processes at one store: kills at any moment, two writers, readers beside a writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl_scaling.store import Store, StoreError, load_runs
from rl_scaling.store.disk import RunLock, is_locked
from tests.store.builders import PROVENANCE, all_bits, atari, record

CONFIG = atari()
RUN = CONFIG.run_id
ROOT = Path(__file__).parents[2]
PREAMBLE = """
import os, sys, time
from pathlib import Path
from rl_scaling.store import Store, StoreError
from tests.store.builders import PROVENANCE, atari, record
store = Store(sys.argv[1])
"""
WRITES_FOR_EVER = """
with store.open_run(atari(), PROVENANCE) as writer:
    for updates in range(len(writer.rows) + 1, 10**9):
        writer.append(record(updates))
        print(updates, flush=True)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program with a store; what is still alive at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PREAMBLE + program, *map(str, arguments)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the program ended early"
    return line.strip()


def kill(child: subprocess.Popen[str]) -> list[str]:
    """SIGKILL, and what the child had still said by then."""
    assert child.stdout is not None
    child.kill()
    return child.stdout.read().split()


@pytest.mark.filterwarnings("ignore::rl_scaling.store.StoreWarning")
def test_a_killed_writer_loses_no_row_that_append_returned_for(tmp_path: Path, start: Start) -> None:
    acknowledged = 0
    for delay_seconds in (0.0, 0.003, 0.05):
        child = start(WRITES_FOR_EVER, tmp_path)
        said = [read_line(child)]
        time.sleep(delay_seconds)
        said += kill(child)
        child.wait()
        acknowledged = int(said[-1])
        rows = Store(tmp_path).read_rows(RUN)
        assert acknowledged <= len(rows) <= acknowledged + 1
        assert all_bits(rows) == all_bits([record(u) for u in range(1, len(rows) + 1)])
        assert Store(tmp_path).status(RUN) == "interrupted"
    assert acknowledged > 3
    with Store(tmp_path).open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(len(writer.rows) + 1))
        writer.seal("done")
    assert len(load_runs(tmp_path)) >= acknowledged + 1


def test_a_run_that_another_process_writes_is_running_and_refused(tmp_path: Path, start: Start) -> None:
    store = Store(tmp_path)
    child = start(WRITES_FOR_EVER, tmp_path)
    read_line(child)
    assert store.status(RUN) == "running"
    with pytest.raises(StoreError, match=rf"{RUN} is being written by process {child.pid} on .+: wait for it"):
        store.open_run(CONFIG, PROVENANCE)
    with pytest.raises(StoreError, match="is being written by"):
        store.open_run(CONFIG, PROVENANCE, replace=True)
    frame = load_runs(tmp_path)
    assert set(frame["status"]) == {"running"}
    assert list(frame["updates"]) == list(range(1, len(frame) + 1))
    child.send_signal(signal.SIGSTOP)
    assert store.status(RUN) == "running", "a process that sleeps is still at it"
    kill(child)
    child.wait()
    assert store.status(RUN) == "interrupted"


def test_two_writers_in_one_process_are_refused_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE):
        with pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"):
            store.open_run(CONFIG, PROVENANCE)
        with store.open_run(atari(seed=1), PROVENANCE):
            pass
    with store.open_run(CONFIG, PROVENANCE):
        pass


def test_of_many_who_ask_at_once_one_gets_the_run(tmp_path: Path, start: Start) -> None:
    program = """
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    writer = store.open_run(atari(), PROVENANCE)
    print("got it", flush=True)
except StoreError as error:
    print("refused" if "is being written by" in str(error) else error, flush=True)
time.sleep(60)
"""
    go = tmp_path / "go"
    children = [start(program, tmp_path / "store", go) for _ in range(4)]
    go.touch()
    assert sorted(read_line(child) for child in children) == ["got it", "refused", "refused", "refused"]


def test_what_a_killed_writer_forked_does_not_keep_the_run(tmp_path: Path, start: Start) -> None:
    program = """
writer = store.open_run(atari(), PROVENANCE)
orphan = os.fork()
if orphan == 0:
    time.sleep(60)
    os._exit(0)
print(orphan, flush=True)
time.sleep(60)
"""
    child = start(program, tmp_path)
    orphan = int(read_line(child))
    try:
        time.sleep(0.1)
        assert Store(tmp_path).status(RUN) == "running", "the child must not free its parent's lock"
        child.kill()
        child.wait()
        os.kill(orphan, 0)
        assert Store(tmp_path).status(RUN) == "interrupted"
        with Store(tmp_path).open_run(CONFIG, PROVENANCE):
            pass
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_asking_for_the_status_all_the_time_never_keeps_a_writer_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE):
        pass
    stop = threading.Event()
    seen: set[str | None] = set()

    def ask() -> None:
        while not stop.is_set():
            seen.add(store.status(RUN))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(150):
            with store.open_run(CONFIG, PROVENANCE):
                pass
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert seen == {"running", "interrupted"}


def test_a_lock_whose_file_was_removed_and_made_again_is_not_held_twice(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = RunLock(path)
    assert is_locked(path)
    first.release()
    first.release()
    assert not path.exists()
    assert not is_locked(path)
    second = RunLock(path)
    assert is_locked(path)
    second.release()


CRASHES = """
import rl_scaling.store.disk, rl_scaling.store.writer
config = atari()

def attempt(limit):
    '''Go on with the run and seal it, but die at the system call number `limit`.'''
    calls = 0
    def dying(function):
        def call(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls > limit:
                os._exit(9)
            return function(*arguments, **named)
        return call
    for name in ("fsync", "replace", "unlink", "truncate", "ftruncate", "open", "write", "close"):
        setattr(os, name, dying(getattr(os, name)))
    with store.open_run(config, PROVENANCE) as writer:
        writer.keep_rows(2)
        writer.append(record(3))
        writer.save_checkpoint(lambda path: path.write_bytes(b"weights"))
        writer.seal("done")
    os._exit(0)

limit = 0
while True:
    limit += 1
    store = Store(Path(sys.argv[1]) / str(limit))
    with store.open_run(config, PROVENANCE) as writer:
        for updates in (1, 2, 3, 4):
            writer.append(record(updates))
    child = os.fork()
    if child == 0:
        attempt(limit)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(limit, flush=True)
"""


@pytest.mark.filterwarnings("ignore::rl_scaling.store.StoreWarning")
def test_a_crash_at_any_system_call_leaves_a_run_that_can_be_read_and_finished(tmp_path: Path, start: Start) -> None:
    crashes = int(read_line(start(CRASHES, tmp_path)))
    assert crashes > 15
    wanted = [record(1), record(2), record(3)]
    for limit in range(1, crashes + 1):
        folder = tmp_path / str(limit)
        store = Store(folder)
        rows = store.read_rows(RUN)
        assert all_bits(rows[:2]) == all_bits(wanted[:2])
        assert store.status(RUN) in ("interrupted", "done")
        if store.status(RUN) == "done":
            assert all_bits(rows) == all_bits(wanted)
            continue
        kept_aside = folder / RUN / "records.dropped.jsonl"
        assert rows[-1].updates == 4 or b'"updates":4,' in kept_aside.read_bytes()
        with store.open_run(CONFIG, PROVENANCE) as writer:
            writer.keep_rows(2)
            writer.append(record(3))
            assert writer.checkpoint is None or writer.checkpoint.read_bytes() == b"weights"
            writer.seal("done")
        assert all_bits(store.read_rows(RUN)) == all_bits(wanted)
        assert not list((folder / RUN).glob(".*.partial-*"))


@pytest.mark.filterwarnings("error::rl_scaling.store.StoreWarning")
def test_reading_beside_a_writer_that_starts_and_seals_sees_whole_runs_only(tmp_path: Path, start: Start) -> None:
    program = """
for seed in range(40):
    with store.open_run(atari(seed), PROVENANCE) as writer:
        for updates in range(1, 6):
            writer.append(record(updates))
        writer.seal("done")
print("finished", flush=True)
time.sleep(60)
"""
    child = start(program, tmp_path / "store")
    reads, runs = 0, 0
    deadline = time.monotonic() + 60
    while runs < 40 and time.monotonic() < deadline:
        frame = load_runs(tmp_path)
        reads += 1
        for _, rows in frame.groupby("run_id"):
            assert list(rows["updates"]) == list(range(1, len(rows) + 1))
            assert len(rows) == 5 or set(rows["status"]) <= {"running", "interrupted"}
        runs = frame.loc[frame["status"] == "done", "run_id"].nunique()
    assert runs == 40
    assert reads > 3
    assert read_line(child) == "finished"
