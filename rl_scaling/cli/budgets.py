"""`rl-scaling budgets`: what a fixed budget of training buys at each batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from rl_scaling.cli.options import Folders, json_rows, print_json, print_line, print_table, say, unset
from rl_scaling.estimates import DASH, Estimate, interval, number
from rl_scaling.store import StoreError, load_runs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Budgets:
    """Best learning rates by training loss and by validation, for runs of `sweep supervised --budget`."""

    folders: Folders
    """Stores of runs, or folders that hold some."""
    figures: Annotated[Path | None, unset("DIR")] = None
    """Write charts here, as SVG, PNG and PDF."""
    json: bool = False
    """Print the tables as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.analysis.learning_rates import against_sgd, best_rates_of_budgets, turns, unlimited

        best = best_rates_of_budgets(load_runs(*self.folders, allow_empty=False))
        if best.empty:
            raise StoreError("no run there has a budget: make some with sweep supervised --budget epochs")
        beyond = unlimited(best)
        tables = {"best": best, "unlimited": beyond, "turns": turns(best), "against_sgd": against_sgd(best)}
        if self.figures is not None:
            from rl_scaling.report.figures import draw_all
            from rl_scaling.report.page import export_figure

            for figure in draw_all("budgets", best):
                for path in export_figure(figure, self.figures / figure.name):
                    say(f"wrote {path}")
        if self.json:
            print_json({name: json_rows(table) for name, table in tables.items()})
        else:
            _print(tables)
        return 0


def _print(tables: dict[str, pd.DataFrame]) -> None:
    heads = ("task", "budget", "optimiser", "batch", "quantity", "best rate", "within an error", "effective", "value")
    shown = Table(*heads, "", box=None)
    for row in [*json_rows(tables["best"]), *json_rows(tables["unlimited"])]:
        value = f"{row['value']:.4g}" + (f" ± {row['standard_error']:.1g}" if row["standard_error"] is not None else "")
        notes = [f"{row['at_edge']}est rate tried: a better one may lie beyond"] if row["at_edge"] else []
        if "epochs" in row:
            notes.append(f"after {row['epochs']:g} epochs" + (", the longest tried" if row["longest"] else ""))
        shown.add_row(
            *(row["subject"], row["budget"], row["optimizer"], f"{row['batch_size']:,}"),
            *(row["quantity"].replace("_", " "), f"{row['learning_rate']:g}"),
            *(interval(row["rate_low"], row["rate_high"]), f"{row['effective_rate']:.3g}", value, "; ".join(notes)),
        )
    print_table(shown)
    for row in tables["turns"].to_dict("records"):
        who = f"{row['subject']} {row['optimizer']}, {row['budget']}, {row['quantity'].replace('_', ' ')}"
        print_line(f"{who}: the best rate stops growing around {_turn(Estimate.of(row, 'turn'))}")


def _turn(turn: Estimate) -> str:
    """A batch size with its interval, in words where it is beyond those that were tried."""
    names = {0: "below the smallest", math.inf: "beyond the largest"}
    low, high = (names.get(end, number(end, whole=True)) for end in (turn.low, turn.high))
    at = "no batch size tried" if turn.value in names else f"{number(turn.value, whole=True)} examples"
    return f"{at} (95 %: {low}{DASH}{high})"
