"""Hugging Face `datasets` asks no network here, and keeps its files apart from the user's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder; the hub is not there."""
    import datasets
    import huggingface_hub
    from datasets import config

    cache = tmp_path_factory.mktemp("hugging-face")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(config, "HF_MODULES_CACHE", str(cache / "modules"))
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return cache
