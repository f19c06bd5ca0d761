"""`rl-scaling translate`: settings for one number of environments as settings for another.

Analysis is imported where it is used, for `--help`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from tyro.conf import Positional, arg

from rl_scaling.cli.analyse import CONFIDENCE, HORIZON, goals_of_task
from rl_scaling.cli.options import as_json, print_json, print_line, print_table, unset
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.estimates import Estimate, number
from rl_scaling.store import StoreError, load_runs
from rl_scaling.store.files import CONFIG_FILE, RunInfo, read_info

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.domains.rl.config import RunConfig
    from rl_scaling.domains.rl.translate import Translation


@dataclass(frozen=True)
class Translate:
    """Settings for one number of environments as settings for another that should give the same learning curve."""

    run_or_config: Annotated[Path, Positional, arg(metavar="CONFIG|RUN")]
    """A run's folder, a store and the beginning of a run's id (runs/pong-ppo/3f2a), or a config as JSON."""
    to_envs: Annotated[int, arg(metavar="INT")]
    """Number of environments that settings are wanted for."""
    from_envs: Annotated[int | None, unset("INT")] = None
    """Number of environments that the settings are for; by default what they say, and otherwise refused."""
    algorithm: Annotated[str | None, unset("STR")] = None
    """Algorithm that the settings are for; by default what they say, and otherwise refused: there is no rule from one
    algorithm to another."""
    goals: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Scores to look at in what was measured; by default those kept with the sweep, or the game's own."""
    horizon: float = HORIZON
    """Episodes over which scores are smoothed before they are compared with a goal."""
    confidence: float = CONFIDENCE
    """Confidence level of the intervals."""
    json: bool = False
    """Print the settings, the new config and what was measured as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.rl.translate import translate

        config, store = _read(self.run_or_config)
        self._require_as_asked(config)
        translation = translate(config, self.to_envs)
        measured = self._measured(translation, store)
        if self.json:
            print_json(_as_json(translation, measured))
        else:
            _show(translation, measured)
        return 0

    def _require_as_asked(self, config: RunConfig) -> None:
        """Refuse settings that are not what the options say of them."""
        own = config.environment.num_envs
        if self.from_envs is not None and self.from_envs != own:
            raise ConfigError(
                f"{self.run_or_config} is for {own} environments, not {self.from_envs}: give --from-envs {own}, or"
                " leave it out"
            )
        if self.algorithm is not None and self.algorithm != config.agent.kind:
            raise ConfigError(
                f"{self.run_or_config} is of {config.agent.kind}, and no rule makes settings of {self.algorithm} from"
                f" them: start from the defaults of {self.algorithm}"
            )

    def _measured(self, translation: Translation, store: Path | None) -> pd.DataFrame | None:
        """What the store of the run says; None where it has no goals, or there is no store."""
        from rl_scaling.domains.rl.translate import beside_measured

        if store is None:
            return None
        runs = load_runs(store)
        own = runs[runs["task"] == translation.before.task]
        if own.empty:
            return None
        try:
            goals = self.goals or goals_of_task(translation.before.task, own)
        except ConfigError:
            return None
        try:
            return beside_measured(translation, own, goals, horizon=self.horizon, confidence=self.confidence)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def _read(path: Path) -> tuple[RunConfig, Path | None]:
    """The run that a path names, and the store it lies in, if it does.

    Raises:
        ConfigError: it names none, several, or one of another domain.
    """
    if path.is_file() and path.name != CONFIG_FILE:
        return _parsed(_plain(path), path), None
    info = _info(path)
    if info is None:
        if path.is_file():
            return _parsed(_plain(path), path), None
        raise ConfigError(f"{path} names no run: give a run's folder, a store and a run's id, or a config as JSON")
    if info.identity.domain != "rl":
        raise ConfigError(
            f"{path} is a run of {info.identity.task}, which has no environments: give one of reinforcement learning"
        )
    if info.identity.frozen:
        raise ConfigError(f"{path} is a noise scale measured with the weights kept: give the run that it is of")
    return _parsed(info.config, path), info.directory.parent


def _info(path: Path) -> RunInfo | None:
    """The run of a folder, of its file, or of a store and the beginning of an id."""
    folder = path.parent if path.is_file() else path
    if folder.is_dir():
        return read_info(folder)
    if not path.parent.is_dir():
        return None
    folders = sorted(folder for folder in path.parent.glob(f"{escape(path.name)}*") if folder.is_dir())
    found = [info for info in map(read_info, folders) if info is not None]
    if len(found) > 1:
        raise ConfigError(f"{len(found)} runs of {path.parent} begin with {path.name}: give more of the id")
    return found[0] if found else None


def _plain(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _parsed(plain: Any, path: Path) -> RunConfig:
    from rl_scaling.domains.rl.config import run_config_from_dict

    try:
        return run_config_from_dict(plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _as_json(translation: Translation, measured: pd.DataFrame | None) -> dict[str, Any]:
    before, after = translation.before, translation.after
    return {
        "algorithm": before.agent.kind,
        "from_envs": before.environment.num_envs,
        "to_envs": after.environment.num_envs,
        "settings": [as_json(asdict(setting)) for setting in translation.settings],
        "options": _options(translation),
        "config": to_dict(after),
        "run_id": after.run_id,
        "measured": [] if measured is None else [as_json(row) for row in _rows(measured)],
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _options(translation: Translation) -> str:
    """What changes, as the options of `train`."""
    changes = [setting for setting in translation.settings if setting.how == "change"]
    return " ".join(f"--{setting.name.replace('_', '-')} {setting.after!r}" for setting in changes)


def _show(translation: Translation, measured: pd.DataFrame | None) -> None:
    before, after = (run.environment.num_envs for run in (translation.before, translation.after))
    shown = Table("", "setting", f"{before:,} environments", f"{after:,} environments", "why", box=None)
    for setting in translation.settings:
        shown.add_row(setting.how, setting.name, _value(setting.before), _value(setting.after), setting.why)
    print_table(shown)
    print_line(f"as options: {_options(translation)}")
    if measured is None or measured.empty:
        print_line("nothing was measured of this task: a sweep at both numbers of environments would tell")
        return
    rows = _rows(measured)
    unknown = [f"{row['goal']:g}" for row in rows if not _known(row)]
    for row in filter(_known, rows):
        print_line(_about_goal(row, translation))
    if unknown:
        print_line(f"goal {', '.join(unknown)}: not reached at either number of environments, nor at enough others")


def _value(value: float) -> str:
    whole = isinstance(value, int) or float(value).is_integer()
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def _known(row: dict[str, Any]) -> bool:
    """Whether anything was measured of a goal."""
    return any(math.isfinite(row[name]) for name in ("rate_before", "rate_after", "frames_expected_low"))


def _about_goal(row: dict[str, Any], translation: Translation) -> str:
    """One goal in words: where the batch is beside the critical one, what it costs, and the best rates."""
    size, many = translation.after.batch_size, translation.after.environment.num_envs
    few = translation.before.environment.num_envs
    turn = Estimate.of(row, "critical_batch")
    said = [f"goal {row['goal']:g}: {many:,} environments, batches of {size:,} frames, {_place(turn, size)}"]
    frames, updates = (Estimate.of(row, f"{name}_expected") for name in ("frames", "updates"))
    if frames.resolved or turn.low > 0:
        said.append(
            f"expect {frames.text()} times the frames of {few:,} environments, {updates.text()} times the updates"
        )
    ratios = [row[f"{name}_after"] / row[f"{name}_before"] for name in ("frames", "updates")]
    if all(map(math.isfinite, ratios)):
        said.append(f"measured {number(ratios[0])} and {number(ratios[1])} times")
    rates = [f"{rate:.3g} with {n:,}" for n, rate in ((few, row["rate_before"]), (many, row["rate_after"])) if rate > 0]
    if rates:
        by_rule = f", {row['rate_by_rule']:.3g} with {many:,} by the rule" if row["rate_by_rule"] > 0 else ""
        said.append(f"best learning rate {' and '.join(rates)}{by_rule}")
    return "; ".join(said)


def _place(turn: Estimate, size: int) -> str:
    """Where a batch size is beside the critical one."""
    if not (turn.resolved or turn.low > 0):
        return "whose critical batch size is not known"
    critical = f"the critical batch size {turn.text(whole=True)}"
    if size < turn.low:
        return f"are below {critical}"
    return f"are above {critical}" if size > turn.high else f"are about as large as {critical}"
