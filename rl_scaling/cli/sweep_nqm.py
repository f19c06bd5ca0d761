"""`rl-scaling sweep nqm`: exact runs of the noisy quadratic model in the same store as every other sweep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from rl_scaling.cli.options import print_json, say
from rl_scaling.config import ConfigError
from rl_scaling.domains.nqm.config import NQMConfig, OptimizerName
from rl_scaling.store import Store
from rl_scaling.store.provenance import provenance
from rl_scaling.sweeps.plan import keep_goals


@dataclass(frozen=True)
class SweepNQM:
    """Exact runs of the noisy quadratic model over batch sizes and learning rates, tuned around the optimum."""

    optimizers: tuple[OptimizerName, ...] = ("sgd", "momentum", "ema")
    """Optimisers; each is a task of its own."""
    power: float = 0.0
    """p of the preconditioner H^-p, from 0 to 1."""
    batch_sizes: tuple[int, ...] = tuple(4**i for i in range(1, 10))
    """Batch sizes in examples."""
    targets: tuple[float, ...] = (0.1, 0.03, 0.01)
    """Risks to reach; learning rates are tuned for each."""
    rates: int = 5
    """Learning rates per batch size and target, the best one in the middle."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/nqm")
    """Store the runs here."""
    json: bool = False
    """Print a summary of the runs as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.nqm.runs import tuned_grid

        if not (self.optimizers and self.batch_sizes and self.targets) or self.rates < 1:
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --targets and --rates")
        store = Store(self.out)
        configs: dict[str, NQMConfig] = {}
        try:
            for name in self.optimizers:
                base = NQMConfig(optimizer=name, power=self.power, batch_size=1, learning_rate=1.0, updates=1)
                for target in self.targets:
                    grid = tuned_grid(base, self.batch_sizes, target, rates=self.rates)
                    configs |= {config.run_id: config for config in grid}
        except ValueError as error:
            raise ConfigError(str(error)) from error
        keep_goals(store, {config.task: self.targets for config in configs.values()})
        origin = provenance(device="cpu", threads=1, exact=True)
        made = sum(_run(store, config, self.targets, origin) for config in configs.values())
        say(f"{len(configs)} runs in {self.out}, {made} of them new")
        if self.json:
            print_json(_summary(store, configs.values()))
        return 0


def _run(store: Store, config: NQMConfig, targets: Iterable[float], origin: dict[str, Any]) -> bool:
    """Compute and seal a run; False if it was there."""
    from rl_scaling.domains.nqm.runs import records

    if store.status(config.run_id) not in (None, "interrupted"):
        return False
    with store.open_run(config, origin) as writer:
        writer.keep_rows(0)
        last = -1
        for record in records(config, targets):
            if record.updates > 0 or not writer.rows:
                writer.append(record)
            last = record.updates
        writer.seal("done" if last == config.updates else "diverged")
    return True


def _summary(store: Store, configs: Iterable[NQMConfig]) -> list[dict[str, object]]:
    return [
        {
            "run_id": c.run_id,
            "task": c.task,
            "batch_size": c.batch_size,
            "learning_rate": c.learning_rate,
            "coefficient": c.coefficient,
            "averaging": c.averaging,
            "status": store.status(c.run_id),
        }
        for c in configs
    ]
