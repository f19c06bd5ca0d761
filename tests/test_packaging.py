"""The wheel: built from the source distribution, installed into a clean environment, complete and nothing more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import rl_scaling

ROOT = Path(__file__).parent.parent
LINKS = ("agents", "envs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout (building leaves files behind)."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("rl_scaling", *LINKS, "tests", "scripts"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it. The dependencies are borrowed, the editable install is not.

    Python does not read the .pth files of a folder that a .pth file names, and it is such a file that makes an editable
    install visible.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages(folder) / "borrowed.pth").write_text("\n".join(paths))
    return folder


def site_packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


def source_files() -> set[str]:
    """Every file of the package as the wheel should name it, the linked folders included."""
    found = {path.relative_to(ROOT) for path in (ROOT / "rl_scaling").glob("*") if path.is_file()}
    for folder in [path for path in (ROOT / "rl_scaling").glob("*") if path.is_dir()]:
        target = folder.resolve()
        files = [*target.rglob("*.py"), *target.rglob("*.json")]
        found |= {Path("rl_scaling", folder.name, path.relative_to(target)) for path in files}
    return {path.as_posix() for path in found}


@pytest.mark.parametrize("name", LINKS)
def test_the_folders_at_the_top_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "rl_scaling" / name
    assert link.is_symlink(), f"rl_scaling/{name} is not a link: check the repository out with links enabled"
    assert link.readlink() == Path("..", name)


def test_wheel_holds_each_source_file_once_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name for name in names if ".dist-info/" not in name} == source_files()


def test_clean_environment_imports_the_linked_packages(clean_environment: Path) -> None:
    code = "import rl_scaling.agents, rl_scaling.envs; print(rl_scaling.agents.__file__, rl_scaling.envs.__file__)"
    out = run(clean_environment / "bin" / "python", "-I", "-c", code, cwd=clean_environment)
    installed = site_packages(clean_environment) / "rl_scaling"
    assert [Path(line) for line in out.split()] == [installed / name / "__init__.py" for name in LINKS]
    assert not any((installed / name).is_symlink() for name in LINKS)


def test_clean_environment_has_no_bare_names(clean_environment: Path) -> None:
    top = {path.name for path in site_packages(clean_environment).iterdir()}
    assert {name for name in top if not name.endswith((".dist-info", ".pth"))} == {"rl_scaling"}


def test_clean_environment_has_the_command(clean_environment: Path) -> None:
    out = run(clean_environment / "bin" / "rl-scaling", "--help", cwd=clean_environment)
    assert "quickstart" in out


def test_version_is_the_same_everywhere(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == rl_scaling.__version__
    assert f"\nversion: {rl_scaling.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {rl_scaling.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_dependency_to_a_version_that_is_allowed() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(name): Version(version) for name, version in pins}
    assert not any(version.local for version in versions.values()), "a local build (+cpu) is on no public index"
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["bench"], *extras["dev"]]:
        wanted = Requirement(text)
        if wanted.name != "rl-scaling":
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text
