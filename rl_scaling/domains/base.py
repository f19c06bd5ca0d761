"""What a domain tells the rest of the house: how its runs train, and how a sweep makes them.

In return it has, with no code of its own: grids by A.3 with extended edges, further seeds at the best rates, Sobol
search, early stopping, resuming after a kill, live progress with an end time, a dry run, trackers and the report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from rl_scaling.config import Config, LearningRates, RunDescription, parse, require
from rl_scaling.records import Record

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Hardware:
    """What runs run on: kept with a run as provenance, and no part of the question that it answers.

    Attributes:
        device: "cpu", "cuda" or "auto".
        threads: of torch and of the emulator, each.
        alternate: act for one half of the environments while the other half is emulated.
        compute_dtype: what the network's layers compute in, under autocast; "auto" is settled before runs begin.
        data_folder: where a data set lies that is not found by its name; "" for none.
    """

    device: str = "auto"
    threads: int = 1
    alternate: bool = False
    compute_dtype: Precision = "float32"
    data_folder: str = ""


ON_ONE_THREAD = Hardware()


class Control:
    """What whoever listens asks of runs that train; looked at after every update.

    Args:
        asked: asked each time `interrupt` is looked at, until it says yes.

    Attributes:
        checkpoint: yield a checkpoint of every run at the next record; the domain sets it back.
        interrupt: yield a record and a checkpoint of every run now, however few updates the record stands for; then
            nobody asks for more.
        stop: numbers of runs that end here, each with a checkpoint if the domain has any.
        goals: values of the quantity whose first reach deserves a row, where the domain knows it.
    """

    def __init__(self, asked: Callable[[], bool] = lambda: False) -> None:
        self.goals: tuple[float, ...] = ()
        self.checkpoint = False
        self.stop: set[int] = set()
        self._asked, self._interrupt = asked, False

    @property
    def interrupt(self) -> bool:
        self._interrupt = self._interrupt or self._asked()
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value


@dataclass(frozen=True)
class Starting:
    """A run is being set up, which takes a while: `done` of `total` steps."""

    done: int
    total: int


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to continue after its latest record, as plain data and tensors.

    Attributes:
        updates: the updates so far, those of the latest record.
        state: what `Domain.run` gets back as `resume`.
    """

    updates: int
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A run is over: all its updates are done, or a loss or gradient was no longer finite."""

    status: Literal["done", "diverged"] = "done"
    note: str = ""


@dataclass(frozen=True)
class TrialCost:
    """What one run takes.

    Attributes:
        seconds: of one slot's time.
        memory_bytes: at its peak.
        kept_bytes: on disk, what stays.
        open_bytes: on disk as well, while it runs.
    """

    seconds: float
    memory_bytes: float
    kept_bytes: float
    open_bytes: float


@dataclass(frozen=True)
class CannotResume:
    """A run's state is of no run like it, as of one with another network: it does not begin, and the others do."""


Event = Starting | Record | Checkpoint | Ended | CannotResume
AnyConfig = TypeVar("AnyConfig", bound=RunDescription)


@dataclass(frozen=True, kw_only=True)
class TaskPlan(Config, ABC):
    """One task of a sweep: which configs it is made of.

    Attributes:
        batch_sizes: in the task's unit per update.
        learning_rates: where the rates of each batch size are looked for.
        goals: of the task's quantity; their Pareto fronts are wanted.
    """

    kind: ClassVar[str]

    batch_sizes: tuple[int, ...]
    learning_rates: LearningRates
    goals: tuple[float, ...] = ()

    def check(self) -> None:
        """See `Config.check`."""
        require(len(self.batch_sizes) > 0, "no batch sizes: give at least one")

    @abstractmethod
    def config(self, batch_size: int, learning_rate: float, seed: int, **tuned: float) -> RunDescription:
        """The run of a batch size, a rate and a seed; `tuned` are the values of a point of a search.

        Raises:
            ConfigError: there can be none.
        """

    def search_space(self, batch_size: int, width: float, decay: bool) -> Sequence[tuple[str, float, float]]:
        """What a quasi-random search looks for at a batch size: (name, lower bound, upper bound), the rate first.

        Args:
            batch_size: in the task's unit.
            width: upper over lower bound of the learning rate, around the centre of the grid.
            decay: search a decay of the rate too, where the domain has one.
        """
        centre = self.learning_rates.centre(batch_size)
        return [("learning_rate", centre / width**0.5, centre * width**0.5)]

    def adaptive_configs(self, seed: int) -> Sequence[RunDescription]:
        """Runs whose batch follows the noise scale, which a sweep makes after the fixed ones."""
        return ()

    def explicit(self) -> Sequence[RunDescription]:
        """Runs to make in place of a grid; none where there is a grid."""
        return ()

    @property
    def example(self) -> RunDescription:
        """Any run of the task."""
        if explicit := self.explicit():
            return explicit[0]
        return self.config(self.batch_sizes[0], self.learning_rates.grid(self.batch_sizes[0])[0], 0)

    @property
    def task(self) -> str:
        """The label of the task."""
        return self.example.task


class Domain(ABC, Generic[AnyConfig]):
    """A domain's side of the plug."""

    # Whether runs that train together may be at different numbers of updates.
    out_of_step: ClassVar[bool] = False

    name: ClassVar[str]
    config: ClassVar[type[RunDescription]]

    def parse(self, plain: Mapping[str, Any]) -> AnyConfig:
        """A run's config from what a store or another process has of it.

        Raises:
            ConfigError: it is none.
        """
        own = {name: value for name, value in plain.items() if name != "kind"}
        return parse(self.config, own, "run's config")  # pyright: ignore[reportReturnType]

    def job_key(self, config: AnyConfig) -> Hashable:
        """Runs with equal keys are handed out as one job; by default each run is a job of its own."""
        return config.run_id

    def together(self, configs: Sequence[AnyConfig], hardware: Hardware = ON_ONE_THREAD) -> list[list[AnyConfig]]:
        """Split the runs of a job into those that one call of `run` trains at once; by default each trains alone."""
        return [[config] for config in configs]

    def device(self, hardware: Hardware) -> str:
        """What runs really run on, for their provenance: "auto" says little.

        Raises:
            ConfigError: there is no such device.
        """
        return "cpu"

    def settled(self, configs: Sequence[AnyConfig], hardware: Hardware) -> tuple[Hardware, list[str]]:
        """The hardware with what is left open chosen for these runs together, and lines that say what was chosen.

        Raises:
            ConfigError: it is not to be had here.
        """
        return hardware, []

    def refuse(self, configs: Sequence[AnyConfig], hardware: Hardware, side_by_side: int) -> None:
        """Refuse what this machine cannot run, before anything is written.

        Raises:
            ConfigError: too little memory, no such device.
        """

    def costs(
        self, configs: Sequence[AnyConfig], hardware: Hardware, side_by_side: int
    ) -> tuple[Sequence[TrialCost], str] | None:
        """What runs cost, `side_by_side` at a time, and what that rests on; None: measured by running some of them."""
        return None

    @abstractmethod
    def run(
        self,
        configs: Sequence[AnyConfig],
        resume: Sequence[Mapping[str, Any] | None],
        control: Control,
        hardware: Hardware,
    ) -> Iterator[tuple[int, Event]]:
        """Train runs and say what happens; it opens no file.

        Args:
            configs: one run, or several of one group of `together`.
            resume: for each, the state of its last checkpoint, or None to begin at the beginning. Those of a group are
                at the same number of updates, unless the domain lets them be `out_of_step`.
            control: what is asked of the runs while they train.
            hardware: what they run on.

        Yields:
            (number of the run, what happened): records in order, checkpoints as `control` asks, and at last `Ended`,
            unless the run was interrupted or stopped; or `CannotResume` in place of them all. A resumed run yields no
            record that its checkpoint's run had.

        Raises:
            ConfigError: runs that cannot be run; before anything is yielded.
        """
