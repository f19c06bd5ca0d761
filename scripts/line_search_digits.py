"""B_noise in two ways at several stages of training: Hessian-vector products, and line searches over batch sizes.

    python scripts/line_search_digits.py                   # prints the table; about a minute on one core
    python scripts/line_search_digits.py --out docs/pictures --draws 128

A small network on scikit-learn's digits; batches are drawn with replacement from all of them, which stand for the
truth. The chart is of the kind of Figure 5 of McCandlish et al. 2018.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import altair as alt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.noise.torch.hessian import Curvature, HessianNoiseScale, hessian_noise_scale
from rl_scaling.noise.torch.line_search import LineSearchNoiseScale, draw_examples, line_search_noise_scale
from rl_scaling.report.figures import Figure, Tables
from rl_scaling.report.page import export_figure
from rl_scaling.report.theme import log_axis, ordered_colour
from rl_scaling.validation.digits import GroupedSGD, load_digits, small_mlp

BATCH_SIZES = [2**power for power in range(1, 12)]
Data = tuple[Tensor, Tensor]


def by_products(model: nn.Module, data: Data, measurements: int, curvature: Curvature) -> HessianNoiseScale:
    """B_noise from `measurements` batches of 8 groups of 64."""
    generator = torch.Generator().manual_seed(2)
    batches = ([draw_examples(data, 64, generator) for _ in range(8)] for _ in range(measurements))
    return hessian_noise_scale(model, cross_entropy, batches, [data], curvature=curvature)


def rows_of(updates: int, search: LineSearchNoiseScale, hessian: HessianNoiseScale) -> pd.DataFrame:
    """The points and curves of one stage, gains over that of the full gradient."""
    table = pd.DataFrame({"updates": updates, "batch_size": search.batch_sizes})
    table["gain"], table["error"] = search.gains / search.full_gain, search.gain_errors / search.full_gain
    table["own"] = search.own_gains / search.full_gain
    table["fit"] = search.gain_fit.curve / search.full_gain
    table["hessian"] = 1 / (1 + hessian.b_noise.value / search.batch_sizes)
    # A logarithmic axis has no place for an error bar that reaches zero.
    table["low"], table["high"] = (table["gain"] - table["error"]).clip(lower=4e-4), table["gain"] + table["error"]
    return table


def figure(table: pd.DataFrame) -> Figure:
    """Gain against batch size, a colour for each stage."""
    tables = Tables()
    source = alt.Chart(tables.add(table, table.columns.tolist()))
    x = log_axis(alt.X, "batch_size", "batch size (examples)", table["batch_size"])
    y = log_axis(
        alt.Y, "gain", "gain / gain of the full gradient", pd.concat([table["low"], table["own"]]), format="~g"
    )
    colour = ordered_colour("updates", sorted(table["updates"].unique().tolist()), "updates trained")

    def at(field: str) -> alt.Y:
        moved = y.copy()
        moved.shorthand = f"{field}:Q"
        return moved

    layers = [
        source.mark_line(clip=True).encode(x=x, y=at("fit"), color=colour),
        source.mark_line(strokeDash=[5, 4], opacity=0.8, clip=True).encode(x=x, y=at("hessian"), color=colour),
        source.mark_rule(clip=True).encode(x=x, y=at("low"), y2="high:Q", color=colour),
        source.mark_point(filled=True, size=45, clip=True).encode(x=x, y=y, color=colour),
        source.mark_point(shape="diamond", size=35, opacity=0.7, clip=True).encode(x=x, y=at("own"), color=colour),
    ]
    caption = (
        "Points: best common step; diamonds: best step of each draw. Solid: fit of 2.7 to the points; dashed: from H."
    )
    return Figure("line-search-gain", "What a step gains, over batch sizes", caption, alt.layer(*layers), tables)


def describe(search: LineSearchNoiseScale, products: dict[Curvature, HessianNoiseScale]) -> None:
    """Both ways, a line for each estimate."""
    for name, found in products.items():
        named = ((found.b_noise, "B_noise"), (found.eps_max, "eps_max"), (found.delta_loss_max, "gain_max"))
        print(f"  {name:<14}" + "  ".join(f"{n} {estimate}" for estimate, n in named))
    fits = {"common gain": search.gain_fit, "common step": search.step_fit, "own gain": search.own_gain_fit}
    for name, fit in fits.items():
        print(f"  {name:<14}B_noise {fit.b_noise}  limit {fit.limit}  scatter {fit.scatter:.1f}")
    print(f"  full gradient: step {search.full_step:.3g}, gain {search.full_gain:.3g}", flush=True)


def main() -> int:
    """Print one block per stage of training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, nargs="+", default=[0, 20, 60, 200, 1000], help="stages of training")
    parser.add_argument("--draws", type=int, default=64, help="gradients per batch size (default 64)")
    parser.add_argument("--measurements", type=int, default=100, help="batches of 8 groups of 64 (default 100)")
    parser.add_argument("--out", type=Path, help="folder for the chart")
    args = parser.parse_args()
    data, model, done = load_digits(), small_mlp(16, 0), 0
    training = GroupedSGD(model, data, torch.Generator().manual_seed(1))
    tables, kinds = [], get_args(Curvature)
    for updates in sorted(args.updates):
        training.train(updates - done)
        done = updates
        search = line_search_noise_scale(model, cross_entropy, data, BATCH_SIZES, draws=args.draws)
        products = {kind: by_products(model, data, args.measurements, kind) for kind in kinds}
        tables.append(rows_of(updates, search, products["hessian"]))
        with torch.no_grad():
            loss = float(cross_entropy(model(data[0]), data[1]))
        print(f"{updates} updates, loss {loss:.3f}: {products['hessian'].b_simple}")
        describe(search, products)
    if args.out:
        print(*export_figure(figure(pd.concat(tables)), args.out / "line-search-gain"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
