"""Settings for every test: one thread each, the same random examples each time, GPU tests only where there is a GPU."""

from __future__ import annotations

import os

# Before anything imports numpy or torch, which read these once. A machine runs several tests at a time, and torch's
# threads spin while they wait for each other; subprocesses started by tests inherit the setting.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="passive")

import hypothesis
import pytest

hypothesis.settings.register_profile("default", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the `gpu` tests that were asked for where torch finds no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or "not gpu" in config.option.markexpr:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
