"""Tasks by name: what is not there is named."""

from __future__ import annotations

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.supervised.data import load_dataset
from rl_scaling.supervised.models.make import make_model
from rl_scaling.supervised.tasks import TASKS, Task, find_task, optimizer_of


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_made(name: str) -> None:
    task = find_task(name)
    data = load_dataset(task.dataset)
    make_model(task.model, data.image_shape, data.num_classes, seed=0)
    for optimizer in task.rates:
        assert optimizer_of(optimizer, task.rate_of(optimizer)).learning_rate > 0


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="no task 'digits-lstm': digits-mlp, digits-cnn"):
        find_task("digits-lstm")
    with pytest.raises(ConfigError, match="digits-mlp has no learning rate for adam: leave it at sgd"):
        Task("digits", "mlp", {"sgd": 0.1}).rate_of("adam")
