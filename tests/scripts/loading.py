"""Scripts as modules: they are no package, and a process of their own for each would only wait for torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def load_script(name: str) -> Any:
    """The module; its `main` is what the command line calls."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
