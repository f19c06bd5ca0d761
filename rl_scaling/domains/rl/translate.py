"""Settings for one number of environments as settings for another that should give the same learning curve.

"Same" is at equal frames, as far as the batch is below the critical one; beyond it more frames are needed whatever the
settings are. What is changed follows from how the algorithm scales: the learning rate by A.3 of McCandlish et al. 2018,
or of PPO-EWMA by the square root of the batch size with the averages that go with it (Hilton et al. 2021). The length
of a rollout stays, for it is how far returns look ahead: the environments alone make the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rl_scaling.agents.config import A2CConfig, PPOConfig, PPOEWMAConfig
from rl_scaling.config import rate_ratio, require
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.estimates import Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Setting:
    """A setting at both numbers of environments.

    Attributes:
        name: of the config's field, or in words what follows from others.
        before, after: its values.
        how: "change" what is to be set otherwise, "follows" what comes of that by itself, "keep" what must stay.
        why: the reason.
    """

    name: str
    before: float
    after: float
    how: Literal["change", "follows", "keep"]
    why: str


@dataclass(frozen=True)
class Translation:
    """One run described for two numbers of environments.

    Attributes:
        before, after: the runs; they differ in what has to be changed and in nothing else.
        rate_ratio: learning rate after over before, by the rule.
        settings: what matters, in order: what changes, what follows, what stays.
    """

    before: RunConfig
    after: RunConfig
    rate_ratio: float
    settings: tuple[Setting, ...]


def translate(config: RunConfig, num_envs: int) -> Translation:
    """The run with another number of environments.

    >>> from rl_scaling.agents.config import PPOEWMAConfig
    >>> from rl_scaling.envs.config import AtariConfig
    >>> before = RunConfig(environment=AtariConfig(game="Pong", num_envs=16), agent=PPOEWMAConfig(learning_rate=3e-4))
    >>> after = translate(before, 64).after
    >>> after.environment.num_envs, after.agent.learning_rate
    (64, 0.0006)

    Raises:
        ConfigError: there is no such run, or its batch follows the noise scale.
    """
    require(
        config.adaptive is None,
        "an adaptive batch changes the number of environments by itself: translate the run that it begins as",
    )
    environment = dataclasses.replace(config.environment, num_envs=num_envs)
    moved = dataclasses.replace(config, environment=environment)  # refuses what makes no whole batches
    turn, power = config.agent.rate_rule
    ratio = rate_ratio(moved.batch_size, config.batch_size, turn=turn, power=power)
    agent = dataclasses.replace(config.agent, learning_rate=_tidy(config.learning_rate * ratio))
    after = dataclasses.replace(moved, agent=agent)
    order = ("change", "follows", "keep")
    settings = sorted(_settings(config, after), key=lambda setting: order.index(setting.how))
    return Translation(config, after, ratio, tuple(settings))


def _tidy(rate: float) -> float:
    """The rate of six digits where it is one but for rounding, so that there and back is where one was."""
    short = float(f"{rate:.6g}")
    return short if math.isclose(short, rate, rel_tol=1e-9) else rate


def _settings(before: RunConfig, after: RunConfig) -> Iterator[Setting]:
    agent, many, few = before.agent, after.environment.num_envs, before.environment.num_envs
    whole = "frames of an outer step: a rollout" if _keeps_minibatch(before) else "frames of an update"
    yield Setting("num_envs", few, many, "change", "what was asked for")
    yield Setting("batch", before.batch_size, after.batch_size, "follows", whole)
    yield Setting("updates", before.updates, after.updates, "follows", f"of {before.frames:,} frames, which stay")
    yield _rate(before, after)
    yield _kept(agent, "rollout_steps", "how far returns look ahead; longer ones would make another problem of it")
    if agent.annealed:
        yield Setting("frames", before.frames, after.frames, "keep", "what is annealed is stretched over them")
    if isinstance(agent, A2CConfig):
        yield _kept(agent, "rmsprop_decay", "as in every sweep here; its average then covers more frames")
    if isinstance(agent, PPOConfig):
        yield _kept(agent, "epochs", "how often frames are used")
        yield _kept(agent, "clip_range", "how far the policy may move")
        if agent.keeps_minibatch:
            yield _kept(agent, "minibatch_frames", "the minibatch stays, so that Adam sees the same noise")
            count = agent.minibatches_of(few), agent.minibatches_of(many)
            yield Setting("minibatches of an epoch", *count, "follows", "their number grows with the rollout")
        else:
            yield _kept(agent, "minibatches", "as many steps of Adam from every rollout; each has a larger minibatch")
    if isinstance(agent, PPOEWMAConfig):
        yield from _averages(agent, few, many)


def _rate(before: RunConfig, after: RunConfig) -> Setting:
    rates, (turn, power) = (before.learning_rate, after.learning_rate), before.agent.rate_rule
    if power == 0:
        return Setting("learning_rate", *rates, "keep", "the minibatches that Adam sees are the same")
    if isinstance(before.agent, PPOEWMAConfig):
        why = "times the square root of the batch's growth (Hilton et al. 2021)"
    else:
        why = f"A.3 with B* = {turn:,.0f} frames and alpha = {power:g}"
    return Setting("learning_rate", *rates, "change", why)


def _averages(agent: PPOEWMAConfig, few: int, many: int) -> Iterator[Setting]:
    """Decays in force: the config's hold at its reference batch, and follow the batch by themselves."""
    units = {"proximal_decay": "steps of Adam", "advantage_decay": "rollouts"}
    for name, unit in units.items():
        decays = (agent.decay_at(getattr(agent, name), few), agent.decay_at(getattr(agent, name), many))
        centres = [decay / (1 - decay) for decay in decays]
        why = f"centre of mass {centres[0]:.3g} {unit} before, {centres[1]:.3g} after: as many frames"
        yield Setting(f"{name} in force", *decays, "follows", why)
    yield _kept(agent, "reference_batch", "the batch at which the decays hold as they are written")


def _keeps_minibatch(config: RunConfig) -> bool:
    return isinstance(config.agent, PPOConfig) and config.agent.keeps_minibatch


def _kept(agent: Any, name: str, why: str) -> Setting:
    value = getattr(agent, name)
    return Setting(name, value, value, "keep", why)


# --- what was measured of it --------------------------------------------------------------------------------------

MEASURED_COLUMNS = (
    *("goal", "rate_before", "rate_after", "rate_by_rule", "frames_before", "frames_after"),
    *("updates_before", "updates_after", "critical_batch", "critical_batch_low", "critical_batch_high"),
    *("frames_expected", "frames_expected_low", "frames_expected_high"),
    *("updates_expected", "updates_expected_low", "updates_expected_high"),
)


def beside_measured(
    translation: Translation, runs: pd.DataFrame, goals: Sequence[float], *, horizon: float, confidence: float
) -> pd.DataFrame:
    """What a sweep of the task found at both batch sizes, and what its critical batch size has to say.

    With E = E_min (1 + B / B_crit) and S = S_min (1 + B_crit / B) (McCandlish et al. 2018, eq. 2.11) the frames to a
    goal grow from one batch to the other by (1 + B' / B_crit) / (1 + B / B_crit), the updates by
    (1 + B_crit / B') / (1 + B_crit / B), at the best learning rate of each.

    Args:
        translation: its two batch sizes and its rule.
        runs: in the form of `rl_scaling.store.load_runs`; those of other tasks are left out.
        goals: scores.
        horizon, confidence: see `rl_scaling.analysis.fit_runs`.

    Returns:
        A row per goal: MEASURED_COLUMNS. rate_before and rate_after are the best rates that were found, rate_by_rule
        what the rule makes of rate_before; frames and updates are those of the best rates; the critical batch size
        has its interval, and frames_expected and updates_expected are ratios after over before. NaN is what was not
        reached or not measured; no rows where there are no runs of the task.
    """
    import pandas as pd

    from rl_scaling.analysis import fit_runs

    own = runs[runs["task"] == translation.before.task].reset_index(drop=True)
    sizes = {"before": translation.before.batch_size, "after": translation.after.batch_size}
    rows: list[dict[str, float]] = []
    if len(own):
        fit = fit_runs(own, list(goals), horizon=horizon, confidence=confidence)
        turns = fit.fits.set_index("goal")
        for goal, turn in ((goal, Estimate.of(turns.loc[goal].to_dict(), "critical_batch")) for goal in turns.index):
            row = {"goal": float(goal), **turn.columns("critical_batch")}
            for when, size in sizes.items():
                point = fit.fronts[(fit.fronts["goal"] == goal) & (fit.fronts["batch_size"] == size)]
                found = point.iloc[0] if len(point) else {}
                for name, column in (("rate", "learning_rate"), ("frames", "examples"), ("updates", "updates")):
                    row[f"{name}_{when}"] = float(found.get(column, math.nan))
            row["rate_by_rule"] = row["rate_before"] * translation.rate_ratio
            frames, updates = expected_ratios(turn, sizes["before"], sizes["after"])
            rows.append(row | frames.columns("frames_expected") | updates.columns("updates_expected"))
    return pd.DataFrame(rows, columns=pd.Index(MEASURED_COLUMNS))


def expected_ratios(critical_batch: Estimate, before: float, after: float) -> tuple[Estimate, Estimate]:
    """Frames and updates to a goal with one batch size over those with another, at the best learning rate of each.

    >>> frames, updates = expected_ratios(Estimate(100.0, 50.0, 200.0), 100, 300)
    >>> frames.value, round(updates.value, 3)
    (2.0, 0.667)
    """

    def ratio(turn: float) -> float:
        if math.isnan(turn):
            return math.nan
        if math.isinf(turn):
            return 1.0
        return (turn + after) / (turn + before)

    value, *ends = (ratio(turn) for turn in (critical_batch.value, critical_batch.low, critical_batch.high))
    times = before / after
    frames = Estimate(value, min(ends), max(ends))
    return frames, Estimate(times * value, times * frames.low, times * frames.high)
