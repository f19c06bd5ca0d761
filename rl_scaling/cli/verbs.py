"""The verbs of `rl-scaling`, and `main`, which loads only the one that is asked for."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import make_dataclass
from pkgutil import resolve_name
from typing import Annotated, Any, Union

# Read when torch is loaded, so before anything that imports it: a waiting thread that spins takes the emulator's core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from rl_scaling.config import ConfigError

# Where each verb is, below this package, and what it says of itself; a verb of one's own is one line here.
VERBS = {
    "quickstart": (
        "quickstart:Quickstart",
        "The tour: A2C on MinAtar and on Atari, a digit classifier and a quadratic model, each at several batch sizes.",
    ),
    "train": ("train:Train", "Train one agent, or one model on images, once."),
    "sweep": (
        "sweep_domains:Sweep",
        "Train over batch sizes, learning rates and seeds; the same command resumes where it stopped.",
    ),
    "measure": (
        "measure:Measure",
        "The noise scale of weights that are kept, at the start or at checkpoints: B_simple, its parts, B_noise.",
    ),
    "status": ("analyse:Status", "What is done, running, diverged and left in a store, and when it will end."),
    "fit": ("analyse:Fit", "Goals reached, Pareto fronts and critical batch sizes with intervals."),
    "report": (
        "report:Report",
        "One self-contained HTML page: noise scale against critical batch size over all domains, then each task.",
    ),
    "export": (
        "export:Export",
        "Hand the records of stored runs to a tracker, or write them as CSV; the store stays as it is.",
    ),
    "advise": (
        "advise:Advise",
        "From one run: what every number of environments takes, and which is fastest, cheapest and balanced.",
    ),
    "translate": (
        "translate:Translate",
        "Settings for one number of environments as settings for another that should give the same learning curve.",
    ),
    "budgets": (
        "budgets:Budgets",
        "Best learning rates by training loss and by validation, for runs of `sweep supervised --budget`.",
    ),
    "calibrate": (
        "calibrate:Calibrate",
        "Run the estimators on gradients whose noise scale is known; print bias, coverage and the part left "
        "unresolved.",
    ),
    "nqm": ("nqm:NQM", "The noisy quadratic model: exact, in seconds."),
    "bench": ("bench:Bench", "Measure speed on this machine."),
    "temperature": (
        "temperature:Temperature",
        "Change the temperature of a training (learning rate / batch size) and see the noise scale follow.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 done, 1 failed or interrupted, 2 bad arguments.
    """
    warnings.showwarning = _show_warning
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command: Any = tyro.cli(
            _commands(words),
            args=words,
            prog="rl-scaling",
            description="How large a batch can this training use before it wastes compute?",
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
        return command.run()
    except KeyboardInterrupt:
        return _fail("interrupted; what was recorded is kept", 1)
    except ConfigError as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 1)
    except Exception as error:
        from rl_scaling.store import StoreError

        if not isinstance(error, StoreError):
            raise
        return _fail(error, 1)


def _commands(words: Sequence[str]) -> Any:
    """A union of the verbs: the one that is asked for with its options, the others with a line of help alone.

    A script that completes words in a shell needs them all.
    """
    everything = any(word.startswith("--tyro-") for word in words)
    verbs = []
    for name, (place, line) in VERBS.items():
        wanted = everything or name == next(iter(words), None)
        kind: Any = resolve_name(f"rl_scaling.cli.{place}") if wanted else make_dataclass(name, [])
        verbs.append(Annotated[kind, subcommand(name, description=None if wanted else line)])
    return Union[tuple(verbs)]  # noqa: UP007


def _fail(message: object, code: int) -> int:
    from rl_scaling.cli.options import say

    say(f"rl-scaling: {message}")
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Warnings about the store are for the user, one line each; others are for developers."""
    from rl_scaling.store import StoreWarning

    if issubclass(category, StoreWarning):
        _fail(message, 0)


if __name__ == "__main__":
    sys.exit(main())
