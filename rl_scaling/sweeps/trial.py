"""One trial: a run from its config to its place in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rl_scaling.agents.agent import Agent
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.memory import require_memory
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.training import Diverged, Progress, run
from rl_scaling.envs import VectorSource, make_vector
from rl_scaling.records import Status, TrainingRecord
from rl_scaling.store import RunWriter, Store
from rl_scaling.store.provenance import provenance
from rl_scaling.sweeps import INTERRUPT, Verdict

CHECKPOINT_SECONDS = 60.0


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where one is.

    Raises:
        ConfigError: the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}: give cpu, cuda or auto") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no GPU is to be seen for device {name!r}: use --device cpu, or install torch for CUDA")
    return device


@dataclass(frozen=True)
class Faster:
    """What is done for speed: kept with the run as device and threads are, and no part of the question it answers.

    Attributes:
        alternate: act for one half of the environments while the other half is emulated.
        compute_dtype: what the network's layers compute in, under autocast.
    """

    alternate: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


def run_trial(
    config: RunConfig,
    store: Store,
    *,
    device: str = "auto",
    threads: int = 1,
    listen: Callable[[TrainingRecord], Verdict] = lambda record: None,
    starting: Callable[[int, int], None] | None = None,
    replace: bool = False,
    faster: Faster = Faster(),
) -> Status:
    """Train as `config` says, appending to the store as it goes; go on from a checkpoint if there is one.

    Args:
        device: "cpu", "cuda", or "auto".
        threads: for torch and for the emulator, each.
        listen: hears every record and answers with a verdict on the run (see `rl_scaling.sweeps`).
        starting: hears how far the start of the environments is, as (done, total).
        replace: run again what is sealed; the old run is moved aside.
        faster: what is done for speed and changes results by rounding only.

    Returns:
        The run's status in the store: "done", "diverged", "stopped" or "interrupted".
    """
    chosen = choose_device(device)
    torch.set_num_threads(threads)
    origin = provenance(device=str(chosen), threads=threads, **asdict(faster))
    if not replace and store.status(config.run_id) not in (None, "interrupted"):
        store.open_run(config, origin)  # refuses, and says why
    # Before the run is given its place: one that cannot be started must leave nothing behind.
    require_memory([config], device=chosen)
    group_envs = config.adaptive.group_envs if config.adaptive else None
    if faster.alternate and group_envs:
        raise ConfigError("environments that alternate cannot change in number: leave alternating or adapting out")
    made = make_vector(
        config.environment, num_threads=threads, progress=starting, group_envs=group_envs, alternate=faster.alternate
    )
    with closing(made) as source:
        learner = make_agent(
            config.agent,
            source.observation_shape,
            source.num_actions,
            total_updates=config.updates,
            seed=config.seed,
            device=chosen,
        )
        learner.network.compute_dtype = torch.bfloat16 if faster.compute_dtype == "bfloat16" else None
        with store.open_run(config, origin, replace=replace) as writer:
            return _train(config, writer, source, learner, listen)


def _train(
    config: RunConfig,
    writer: RunWriter,
    source: VectorSource,
    learner: Agent[Any],
    listen: Callable[[TrainingRecord], Verdict],
) -> Status:
    progress = Progress.start(config)
    _restore(writer, learner, progress)
    saved = time.monotonic()
    try:
        for record in run(learner, source, config, progress):
            writer.append(record)
            verdict = listen(record)
            if verdict == INTERRUPT or time.monotonic() - saved > CHECKPOINT_SECONDS:
                state = {"learner": learner.state_dict(), "progress": progress.state_dict()}
                writer.save_checkpoint(lambda path, state=state: torch.save(state, path))
                saved = time.monotonic()
            if verdict == INTERRUPT:
                return "interrupted"
            if verdict is not None:
                writer.seal("stopped", verdict)
                return "stopped"
    except Diverged as reason:
        writer.seal("diverged", str(reason))
        return "diverged"
    writer.seal("done")
    return "done"


def _restore(writer: RunWriter, learner: Agent[Any], progress: Progress) -> None:
    """Take up the checkpoint of an interrupted run, or begin it again; rows after the checkpoint are set aside."""
    path: Path | None = writer.checkpoint
    if path is not None:
        state = torch.load(path, weights_only=True, map_location=learner.device)
        learner.load_state_dict(state["learner"])
        progress.load_state_dict(state["progress"])
    writer.keep_rows(progress.updates)
