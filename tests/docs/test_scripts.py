"""What scripts/test runs, and when it installs the package, with a Python that only takes notes."""

import ast
import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

PYTHON = """#!/bin/sh
case "$*" in
-c*print*) echo 3.99 ;;
-c*) ;;
*) echo "$@" >>"$RUNS" ;;
esac
case "$*" in "-m venv"*)
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python" ;;
esac
"""
TOOLS = ("strace", "tmux", "zsh", "fish", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "apt-get")


class Repository:
    """A repository with the scripts, where Python and all tools do nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("scripts/test", "scripts/venv.sh"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        (root / "src").mkdir()
        for name in ("setup.cfg", "pyproject.toml", "src/module.py"):
            (root / name).touch()
        self.python = root / "bin" / "python3.99"
        (root / "bin").mkdir()
        for name in (self.python.name, "python3", *TOOLS):
            (root / "bin" / name).write_text(PYTHON if "python" in name else "#!/bin/sh\n")
            (root / "bin" / name).chmod(0o755)

    def test(self, *words: str, **variables: str) -> list[str]:
        """Run scripts/test; return what Python was run with, without the look at what it is."""
        runs = self.root / "runs"
        runs.unlink(missing_ok=True)
        env = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "RUNS": str(runs), **variables}
        subprocess.run([self.root / "scripts" / "test", *words], env=env, check=True, timeout=50)
        return runs.read_text().splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository in which scripts/test has run once."""
    made = Repository(tmp_path)
    made.test()
    return made


def test_without_arguments_style_types_and_all_tests_are_checked(repository: Repository) -> None:
    """As CI does."""
    assert repository.test() == [
        "-m ruff check --quiet",
        "-m ruff format --check --quiet",
        "-m mypy --no-error-summary",
        "-m pytest -n auto",
    ]


def test_one_test_is_run_at_once_and_alone(repository: Repository) -> None:
    """Nothing is installed where only tests have changed, and no processes are started for it."""
    (repository.root / "tests").mkdir()
    (repository.root / "tests" / "test_module.py").touch()
    words = ("tests/test_module.py::test_one", "-x")
    assert repository.test(*words) == [f"-m pytest -n 0 {' '.join(words)}"]
    assert repository.test("-k", "enqueue") == ["-m pytest -n auto -k enqueue"]


def test_the_package_is_installed_where_it_has_changed(repository: Repository) -> None:
    """So that tests never run against what it was before."""
    (repository.root / "src" / "module.py").write_text("changed = True\n")
    installed, ran = repository.test("tests/test_module.py::test_one")
    assert installed == f"-m pip install {repository.root}"
    assert ran.startswith("-m pytest")


def test_another_python_has_an_environment_of_its_own(repository: Repository) -> None:
    """The one in .venv stays what it is."""
    before = (repository.root / ".venv" / "package.sum").stat()
    made, *others = repository.test("-k", "one", PYTHON=str(repository.python))
    assert made == f"-m venv --clear {repository.root}/.venv-3.99"
    assert others[-1] == "-m pytest -n auto -k one"
    assert repository.test("-k", "one", PYTHON=str(repository.python)) == others[-1:]
    assert (repository.root / ".venv" / "package.sum").stat() == before


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda it: it.name)
def test_what_a_script_imports_of_the_program_is_there(script: Path) -> None:
    """No test runs all of them: one needs packages of its own, and much time."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("queuectl"):
            module = importlib.import_module(str(node.module))
            for each in node.names:
                if not hasattr(module, each.name):
                    importlib.import_module(f"{node.module}.{each.name}")
