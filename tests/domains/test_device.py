"""Names of devices."""

import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.device import choose_device


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("name", "message"), [("quantum", "there is no device"), ("cuda:99", "no GPU is to be seen")])
def test_what_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_device(name)
