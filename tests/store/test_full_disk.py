"""A disk that is really full: a device that has no room, a limit on file sizes, a tiny file system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rl_scaling.store import Store, StoreError
from tests.store.builders import PROVENANCE, all_bits, atari, record

CONFIG = atari()
RUN = CONFIG.run_id
ROOT = Path(__file__).parents[2]
ADVICE = "free some and give the same command again; everything recorded so far is kept"


def run_program(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_row_that_finds_no_room_is_one_line_of_advice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE):
        pass
    rows = tmp_path / RUN / "records.jsonl"
    rows.unlink()
    rows.symlink_to("/dev/full")
    with store.open_run(CONFIG, PROVENANCE) as writer, pytest.raises(StoreError) as caught:
        writer.append(record(1))
    assert str(caught.value) == f"no space left for {rows}: {ADVICE}"


def test_a_line_that_fitted_in_part_is_taken_back(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from rl_scaling.store import Store, StoreError
from tests.store.builders import PROVENANCE, atari, record
rows = Path(sys.argv[1]) / atari().run_id / "records.jsonl"
with Store(sys.argv[1]).open_run(atari(), PROVENANCE) as writer:
    writer.append(record(1))
    whole = rows.read_bytes()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, unlimited[1]))
    try:
        writer.append(record(2))
    except StoreError as error:
        print(error)
    assert rows.read_bytes() == whole
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    writer.append(record(2))
"""
    result = run_program(program, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "records.jsonl: File too large" in result.stdout
    assert all_bits(Store(tmp_path).read_rows(RUN)) == all_bits([record(1), record(2)])


TINY_DISK = """
import os, subprocess, sys
from pathlib import Path
root = Path(sys.argv[1])
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(root)], capture_output=True)
if mounted.returncode:
    sys.exit(77)
from rl_scaling.store import Store, StoreError, load_runs
from tests.store.builders import PROVENANCE, atari, record

def refused(call):
    try:
        call()
    except StoreError as error:
        assert str(error).startswith("no space left for ") and str(error).endswith(sys.argv[2]), error
        assert "\\n" not in str(error)
        return
    raise AssertionError("there was room")

def torch_like(path):
    try:
        path.write_bytes(b"x" * 200_000)
    except OSError as error:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed") from None

def fill():
    with (root / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass

store, config = Store(root / "store"), atari()
with store.open_run(config, PROVENANCE) as writer:
    writer.append(record(1))
    writer.save_checkpoint(lambda path: path.write_bytes(b"first"))
    refused(lambda: writer.save_checkpoint(lambda path: path.write_bytes(b"x" * 200_000)))
    refused(lambda: writer.save_checkpoint(torch_like))
    assert writer.checkpoint.read_bytes() == b"first"
    fill()
    count = 1
    def append_until_full():
        global count
        while True:
            writer.append(record(count + 1))
            count += 1
    refused(append_until_full)
    refused(lambda: writer.seal("done"))
    refused(lambda: store.save_plan({"game": "Pong"}))
    refused(lambda: store.open_run(atari(seed=1), PROVENANCE))
    assert [row.updates for row in store.read_rows(config.run_id)] == list(range(1, count + 1))
with store.open_run(config, PROVENANCE) as writer:
    assert len(writer.rows) == count
    refused(lambda: writer.seal("done"))
    (root / "ballast").unlink()
    writer.append(record(count + 1))
    writer.seal("done")
assert list(load_runs(root)["updates"]) == list(range(1, count + 2))
assert not [path for path in root.rglob("*") if "partial" in path.name]
with store.open_run(atari(seed=1), PROVENANCE):
    pass
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
try:
    store.open_run(atari(seed=2), PROVENANCE)
except StoreError as error:
    assert str(error).endswith(": give a folder that you may write to"), error
assert len(load_runs(root)) == count + 1
assert store.status(atari(seed=1).run_id) == "interrupted"
"""


def test_on_a_full_file_system_nothing_is_lost_and_all_goes_on_when_there_is_room(tmp_path: Path) -> None:
    prefix = ("unshare", "--mount", "--map-root-user")
    try:
        result = run_program(TINY_DISK, tmp_path, ADVICE, prefix=prefix)
    except FileNotFoundError:
        pytest.skip("this system has no unshare")
    if result.returncode == 77 or "unshare:" in result.stderr:
        pytest.skip("file systems cannot be mounted here")
    assert result.returncode == 0, result.stderr


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"a file is in the way of .*: give another folder, or move the file"):
            Store(root).open_run(CONFIG, PROVENANCE)
        with pytest.raises(StoreError, match="a file is in the way of"):
            Store(root).save_plan({})
