"""What a domain is asked while it trains, and how it is found by its name."""

from __future__ import annotations

import pytest

from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains import DOMAINS, find_domain, find_task_plan
from rl_scaling.domains.base import Control
from tests.sweeps.plans import TASKS


def test_an_interrupt_once_asked_for_stays() -> None:
    answers = iter([False, True])
    control = Control(lambda: next(answers))
    assert [control.interrupt for _ in range(4)] == [False, True, True, True]


def test_an_interrupt_may_be_set_by_hand() -> None:
    control = Control()
    assert not control.interrupt
    control.interrupt = True
    assert control.interrupt


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_reads_its_runs_back_and_each_is_its_own_job_or_group(name: str) -> None:
    domain, task = find_domain(name), TASKS[name]()
    assert isinstance(task, find_task_plan(name))
    config = task.example
    assert (config.domain, task.task) == (name, config.task)
    assert domain.parse(to_dict(config)) == config
    assert domain.parse(to_dict(config) | {"kind": name}) == config
    assert domain.together([config]) == [[config]]
    other = task.config(task.batch_sizes[-1], 0.1, 0)
    assert domain.job_key(config) != domain.job_key(other)


def test_an_unknown_domain_is_named_beside_the_known() -> None:
    with pytest.raises(ConfigError, match="no domain 'chess': rl, supervised, nqm"):
        find_domain("chess")
