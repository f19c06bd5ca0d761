"""What a run says of where it was made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl_scaling.store import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of this package's shape, with a tracked store; the module believes that it lies there."""
    for name in ("rl_scaling/store/provenance.py", "results/sweep.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("as it was")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "rl_scaling" / "store" / "provenance.py"))
    provenance._commit.cache_clear()
    yield tmp_path
    provenance._commit.cache_clear()


def commit() -> str:
    provenance._commit.cache_clear()
    return provenance.provenance(device="cpu", threads=1)["commit"]


def test_code_that_differs_is_marked_and_a_store_that_grows_is_not(checkout: Path) -> None:
    head = commit()
    assert len(head) == 12
    (checkout / "results" / "sweep.json").write_text("a sweep wrote here")
    assert commit() == head
    (checkout / "rl_scaling" / "store" / "provenance.py").write_text("other code")
    assert commit() == f"{head}+changes"


def test_asking_git_leaves_the_index_to_whoever_works_there(checkout: Path) -> None:
    (checkout / ".git" / "index.lock").touch()
    assert len(commit()) == 12


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert commit() is None
    provenance._commit.cache_clear()
