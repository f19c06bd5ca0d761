"""One run: opened, kept, resumed and sealed in one place; what another process has is left to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_scaling import run
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event, Hardware
from rl_scaling.domains.supervised.domain import Supervised
from rl_scaling.records import LossRecord, to_row
from rl_scaling.store import RunTakenError, Store, StoreError
from rl_scaling.sweeps import trial
from rl_scaling.sweeps.trial import Job, Requests, RunEnded, RunEvent, RunFailed, run_job, units_of
from tests.sweeps.plans import cartpole, digits, model

CONFIG = digits().config(32, 0.1, 0)
OF_EACH_DOMAIN = [CONFIG, model().config(8, 0.1, 0), cartpole().config(20, 1e-3, 0)]
OTHER = digits().config(32, 0.1, 1)


def row(updates: int, loss: float = 2.0) -> LossRecord:
    return LossRecord(updates=updates, examples=32 * updates, wall_seconds=0.0, loss=loss, validation_loss=loss)


class Script:
    """Stands in for the supervised domain's training: says what it is told to, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *events: tuple[int, Event] | Exception) -> None:
        self.events, self.resumed = events, []
        monkeypatch.setattr(Supervised, "run", self._run)
        monkeypatch.setattr(Supervised, "together", lambda _, configs, hardware: [list(configs)])

    def _run(
        self, configs: Sequence[Any], resume: Sequence[Mapping[str, Any] | None], control: Control, _: Hardware
    ) -> Iterator[tuple[int, Event]]:
        self.resumed.append(([config.run_id for config in configs], list(resume)))
        self.control = control
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event


def job(folder: Path, *configs: Any, **options: Any) -> Job:
    return Job(tuple(configs or (CONFIG,)), folder, **options)


def status(folder: Path, config: Any = CONFIG) -> str | None:
    return Store(folder).status(config.run_id)


def test_the_beginning_of_a_longer_schedule(tmp_path: Path) -> None:
    """Rates fall as over the whole length; more can be asked for, and less is there already."""
    base = cartpole().config(20, 1e-3, 0)
    agent = dataclasses.replace(base.agent, learning_rate_schedule="linear")
    config = dataclasses.replace(base, agent=agent, frames=1000, record_every_frames=100)
    store = Store(tmp_path)
    for asked, least in ((200, 200), (150, 200), (400, 400)):
        assert run(config, store, stop_at=asked) == "stopped"
        assert least <= units_of(store.read_rows(config.run_id)[-1]) < least + 100
    info = store.info(config.run_id)
    assert info is not None
    assert info.note == "asked to stop at 400 frames"
    rows = store.read_rows(config.run_id)
    falling = [1e-3 * (1 - (record.updates - 1) / config.updates) for record in rows]
    np.testing.assert_allclose([to_row(record)["current_learning_rate"] for record in rows], falling)
    assert run(config, store, stop_at=5000) == "done"
    assert units_of(store.read_rows(config.run_id)[-1]) >= 1000


@pytest.mark.parametrize("config", OF_EACH_DOMAIN)
def test_a_run_of_any_domain_ends_and_is_left_as_it_is(config: Any, tmp_path: Path) -> None:
    heard: list[Any] = []
    assert run(config, tmp_path, listen=heard.append) == "done"
    assert heard[-1] == RunEnded("done")
    before = (tmp_path / config.run_id / "records.parquet").read_bytes()
    assert run(config, str(tmp_path), listen=lambda _: pytest.fail("run")) == "done"
    assert (tmp_path / config.run_id / "records.parquet").read_bytes() == before
    assert run(config, Store(tmp_path), replace=True) == "done"
    assert (tmp_path / f"{config.run_id}.replaced-1" / "records.parquet").read_bytes() == before


@pytest.mark.parametrize("config", OF_EACH_DOMAIN)
def test_its_provenance_names_the_device_that_auto_stood_for(config: Any, tmp_path: Path) -> None:
    run(config, tmp_path, hardware=Hardware(device="auto"))
    info = Store(tmp_path).info(config.run_id)
    assert info is not None
    assert info.provenance["device"] in ("cpu", "cuda")


def test_asked_to_stop_it_is_interrupted_and_resumes(tmp_path: Path) -> None:
    heard: list[RunEvent] = []
    assert run(CONFIG, tmp_path, listen=heard.append, asked_to_stop=lambda: len(heard) > 3) == "interrupted"
    assert status(tmp_path) == "interrupted"
    assert (tmp_path / CONFIG.run_id / "checkpoint.pt").exists()
    assert run(CONFIG, tmp_path) == "done"
    assert [r.updates for r in Store(tmp_path).read_rows(CONFIG.run_id)] == list(range(61))


def test_a_run_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(CONFIG, {}), pytest.raises(RunTakenError, match="is being written by process"):
        run(CONFIG, tmp_path, replace=True)


def test_runs_of_a_job_that_another_process_has_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, (0, row(0)), (0, Ended()))
    with Store(tmp_path).open_run(OTHER, {}):
        events = list(run_job(job(tmp_path, CONFIG, OTHER), Requests()))
    (taken,) = [event for run_id, event in events if run_id == OTHER.run_id]
    assert isinstance(taken, RunEnded)
    assert taken.status == "running"
    assert (CONFIG.run_id, RunEnded("done")) in events
    (again,) = run_job(job(tmp_path, CONFIG), Requests())
    assert isinstance(again[1], RunEnded)
    assert again[1].status == "running", "it has been sealed since it was handed out"
    assert script.resumed == [([CONFIG.run_id], [None])]


def test_runs_at_the_same_update_resume_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third = digits().config(32, 0.1, 2)
    for config, updates in ((CONFIG, 5), (OTHER, 3), (third, 5)):
        Script(monkeypatch, (0, row(0)), (0, row(updates)), (0, Checkpoint(updates, {"at": updates})))
        list(run_job(job(tmp_path, config), Requests(Control(lambda: False))))
        assert status(tmp_path, config) == "interrupted"
    script = Script(monkeypatch)
    list(run_job(job(tmp_path, CONFIG, OTHER, third), Requests()))
    assert script.resumed == [
        ([OTHER.run_id], [{"at": 3}]),
        ([CONFIG.run_id, third.run_id], [{"at": 5}, {"at": 5}]),
    ]


def test_rows_after_the_checkpoint_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, (0, row(0)), (0, row(5)), (0, Checkpoint(5, {})), (0, row(6)), OSError("killed"))
    with pytest.raises(OSError, match="killed"):
        list(run_job(job(tmp_path), Requests()))
    Script(monkeypatch, (0, row(6, 1.5)), (0, Ended()))
    list(run_job(job(tmp_path), Requests()))
    assert [(r.updates, r.loss) for r in Store(tmp_path).read_rows(CONFIG.run_id)] == [(0, 2.0), (5, 2.0), (6, 1.5)]  # pyright: ignore[reportAttributeAccessIssue]
    assert (tmp_path / CONFIG.run_id / "records.dropped.jsonl").exists()


def test_without_a_checkpoint_a_run_begins_anew_with_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Script(monkeypatch, (0, row(0)), (0, row(5)))
    assert list(run_job(job(tmp_path), Requests()))[-1] == (CONFIG.run_id, RunEnded("interrupted"))
    Script(monkeypatch, (0, row(0)), (0, row(4)), (0, Ended()))
    list(run_job(job(tmp_path), Requests()))
    assert [r.updates for r in Store(tmp_path).read_rows(CONFIG.run_id)] == [0, 4]


@pytest.mark.parametrize("late", [(0, Checkpoint(5, {})), (0, row(6)), (0, Ended())], ids=["checkpoint", "row", "end"])
def test_what_is_said_of_a_run_after_it_was_left_is_of_no_use(
    late: tuple[int, Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Script(monkeypatch, (0, row(5)), (0, Checkpoint(5, {})), late)
    requests = Requests(
        Control(lambda: status(tmp_path) == "running" and bool(Store(tmp_path).read_rows(CONFIG.run_id)))
    )
    assert list(run_job(job(tmp_path), requests))[-1] == (CONFIG.run_id, RunEnded("interrupted"))
    assert [r.updates for r in Store(tmp_path).read_rows(CONFIG.run_id)] == [5]


def test_a_run_is_stopped_for_good_with_its_reason_and_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(monkeypatch, (0, row(5)), (1, row(5)), (1, Checkpoint(5, {})), (0, row(6)), (0, Ended()))
    requests = Requests(reasons={OTHER.run_id: "too slow"})
    list(run_job(job(tmp_path, CONFIG, OTHER), requests))
    info = Store(tmp_path).info(OTHER.run_id)
    assert info is not None
    assert (info.status, info.note, status(tmp_path)) == ("stopped", "too slow", "done")
    assert (info.directory / "checkpoint.pt").exists()
    assert script.control.stop == {1}


def test_a_run_with_all_its_goals_is_stopped_where_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [(0, row(5)), (0, row(6, 0.5)), (0, Checkpoint(6, {})), (0, Ended())]
    for stop, expected in ((True, "stopped"), (False, "done")):
        Script(monkeypatch, *events)
        list(run_job(job(tmp_path / expected, goals=(1.9, 1.0), stop_at_goals=stop), Requests()))
        assert status(tmp_path / expected) == expected


def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, ConfigError("no such thing"))
    with pytest.raises(ConfigError, match="no such thing"):
        list(run_job(job(tmp_path / "store", CONFIG, OTHER), Requests()))
    assert not (tmp_path / "store").exists()


def test_a_checkpoint_is_asked_for_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, (0, row(0)), (0, row(1)), (0, Ended()))
    asked = []
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", -1.0)
    for _, _event in run_job(job(tmp_path), Requests()):
        asked.append(script.control.checkpoint)
    assert asked[0]


DAMAGE = {
    "is damaged": [lambda path: path.write_bytes(b"nothing"), lambda path: torch.save({"of": "another"}, path)],
    "does not fit this run's network": [lambda path: torch.save(_of_another_network(path), path)],
}


def _of_another_network(path: Path) -> Any:
    kept = torch.load(path, weights_only=True)
    weights = kept["state"]["learner"]["network"]
    weights |= {name: torch.cat([tensor, tensor]) for name, tensor in weights.items()}
    return kept


@pytest.mark.parametrize(
    ("says", "damage"), [(says, damage) for says, ways in DAMAGE.items() for damage in ways], ids=lambda value: ""
)
def test_a_checkpoint_that_is_of_no_use_is_named_and_its_run_fails_alone(
    says: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    """The others train, side by side; the run itself begins anew when it is deleted."""
    configs = [cartpole().config(20, rate, 0) for rate in (1e-3, 2e-3, 3e-3)]
    looks = iter(range(10**9))
    list(run_job(job(tmp_path, *configs), Requests(Control(lambda: next(looks) > 9))))
    bad = configs[1]
    path = tmp_path / bad.run_id / "checkpoint.pt"
    rows = len(Store(tmp_path).read_rows(bad.run_id))
    damage(path)
    wanted = f"{path} {says}: delete it, and the run begins anew (its rows are kept aside)"
    ends = [(r, e) for r, e in run_job(job(tmp_path, *configs), Requests()) if isinstance(e, RunEnded | RunFailed)]
    assert len(ends) == len(configs)
    assert dict(ends) == {c.run_id: RunEnded("done") for c in configs} | {bad.run_id: RunFailed(wanted)}
    with pytest.raises(StoreError) as raised:
        run(bad, tmp_path)
    assert str(raised.value) == wanted
    assert status(tmp_path, bad) == "interrupted"
    path.unlink()
    assert run(bad, tmp_path) == "done"
    aside = (tmp_path / bad.run_id / "records.dropped.jsonl").read_text().splitlines()
    assert len(aside) == rows > 0


def test_a_run_among_others_that_diverges_ends_so_and_the_others_as_alone(tmp_path: Path) -> None:
    """Its numbers are not finite, and nobody else's; each is kept as it would be alone."""
    common = cartpole().config(20, 1e-3, 0)
    agent = dataclasses.replace(common.agent, max_grad_norm=1e38)
    configs = [
        dataclasses.replace(common, seed=seed, agent=dataclasses.replace(agent, learning_rate=rate))
        for seed, rate in enumerate((1e-3, 1e30, 3e-3))
    ]
    ends = {r: e for r, e in run_job(job(tmp_path / "together", *configs), Requests()) if isinstance(e, RunEnded)}
    assert [ends[config.run_id].status for config in configs] == ["done", "diverged", "done"]
    info = Store(tmp_path / "together").info(configs[1].run_id)
    assert info is not None
    assert (info.status, "not finite after" in info.note) == ("diverged", True)
    for config in (configs[0], configs[2]):
        assert run(config, tmp_path / "alone") == "done"
        ours, theirs = (Store(tmp_path / folder).read_rows(config.run_id) for folder in ("together", "alone"))
        assert len(ours) == len(theirs) > 0
        for one, other in zip(map(to_row, ours), map(to_row, theirs), strict=True):
            for name in one.keys() - {"wall_seconds", "frames_per_second"}:
                assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5, nan_ok=True), name


def test_checkpoints_of_older_versions_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"learner": {}, "progress": {"updates": 7}}
    with Store(tmp_path).open_run(CONFIG, {}) as writer:
        writer.append(row(7))
        writer.save_checkpoint(lambda path: torch.save(state, path))
    script = Script(monkeypatch)
    list(run_job(job(tmp_path), Requests()))
    assert script.resumed == [([CONFIG.run_id], [state])]


def test_a_job_crosses_to_another_process_as_plain_data(tmp_path: Path) -> None:
    for config in (CONFIG, cartpole().config(20, 1e-3, 0), model().config(8, 0.1, 0)):
        sent = Job((config,), tmp_path, Hardware(device="cpu"), (1.0,), True, frozenset({"a"}), frozenset({"b"}))
        assert Job.from_plain(sent.to_plain()) == sent


def test_reopened_runs_that_are_whole_by_now_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, (0, row(0)), (0, row(60)), (0, Ended()))
    list(run_job(job(tmp_path), Requests()))
    (event,) = run_job(job(tmp_path, reopen=frozenset({CONFIG.run_id})), Requests())
    assert isinstance(event[1], RunEnded)
    assert (event[1].status, len(list(tmp_path.iterdir()))) == ("running", 1)
    longer = dataclasses.replace(CONFIG, updates=70)
    assert longer.run_id != CONFIG.run_id
