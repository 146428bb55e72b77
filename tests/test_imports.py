"""What imports what: the architecture, and what each command has to load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import queuectl
from queuectl.store import open_store

PACKAGE_DIR = Path(queuectl.__file__).parent

# Each may import what stands above it, and nothing beside or below.
LAYERS = (
    {"queuectl"},
    {"queuectl.errors", "queuectl.packed"},
    {"queuectl.clock", "queuectl.codes", "queuectl.text"},
    {"queuectl.sgr"},
    {"queuectl.line"},
    {"queuectl.loop", "queuectl.outlet"},
    {"queuectl.job"},
    {"queuectl.document"},
    {"queuectl.config", "queuectl.lines", "queuectl.logs"},
    {"queuectl.policy", "queuectl.submit", "queuectl.when"},
    {"queuectl.store.base"},
    {"queuectl.query", "queuectl.purge"},
    {"the parts of a store"},
    {"queuectl.store.directory"},
    {"queuectl.store.doctor"},
    {"queuectl.store"},
    {"queuectl.runner", "queuectl.settler", "queuectl.workdir"},
    {"queuectl.worker"},
    {"queuectl.caretaker"},
    {"queuectl.pool"},
    {"queuectl.cli.app"},
    {"queuectl.cli.output", "queuectl.cli.params"},
)

# What a quick command must do without: each costs more than the rest of it.
SLOW = {
    "asyncio",
    "concurrent.futures",
    "filelock",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "tabulate",
    "tempfile",
}


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE_DIR.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_names(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from queuectl.store import files` is an import of the module files
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if is_module(name)}
            names |= modules or {node.module}
    return {name for name in names if name.split(".")[0] == "queuectl"}


def is_module(name: str) -> bool:
    """Tell whether a dotted name is a module of the package."""
    path = PACKAGE_DIR.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def layer(name: str) -> int:
    """Return how far down a module stands; the commands and what starts them are at the end."""
    for index, names in enumerate(LAYERS):
        if name in names:
            return index
    if name.startswith("queuectl.store.doctor"):
        return LAYERS.index({"queuectl.store.doctor"})
    if name.startswith("queuectl.store."):
        return LAYERS.index({"the parts of a store"})
    assert name.startswith("queuectl.cli") or name == "queuectl.__main__", (
        f"{name} has no layer: say in LAYERS where it stands"
    )
    return len(LAYERS)


@pytest.mark.parametrize("path", sorted(PACKAGE_DIR.rglob("*.py")), ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    """A module knows those it is built on, and none that is built on it."""
    own = layer(module_name(path))
    # The parts of a store, of its doctor, and the commands may use each other.
    rooms = ({"the parts of a store"}, {"queuectl.store.doctor"})
    has_equals = own in (*map(LAYERS.index, rooms), len(LAYERS))
    below = {name for name in imported_names(path) if layer(name) >= own + has_equals}
    assert below == set()


def loaded_by(code: str, store_dir: Path) -> set[str]:
    """Return the modules that a run of the program has loaded at its end."""
    program = (
        f"import sys\nfrom queuectl.cli.group import run\n{code}\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"QUEUECTL_STORE": str(store_dir), "PYTHONPATH": str(PACKAGE_DIR.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split("\n"))


def test_an_enqueue_loads_nothing_slow(tmp_path: Path) -> None:
    """An enqueue does without what other commands need, and without what made the store."""
    store_dir = tmp_path / "store"
    open_store(str(store_dir), create=True).close()
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", store_dir)
    assert loaded & (SLOW | {"unicodedata", "queuectl.text"}) == set()


def test_an_enqueue_loads_no_other_command(tmp_path: Path) -> None:
    """A command does not pay for the others."""
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", tmp_path)
    commands = {name for name in loaded if name.startswith("queuectl.cli.")}
    assert commands == {f"queuectl.cli.{name}" for name in ("app", "enqueue", "group", "params")}
    assert not loaded & {"queuectl.worker", "queuectl.pool", "queuectl.runner"}


def test_an_enqueue_loads_only_what_it_reads(tmp_path: Path) -> None:
    """Times, batches and stdin cost nobody who does not use them."""
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", tmp_path)
    assert not loaded & {"queuectl.when", "queuectl.lines", "queuectl.cli.stdin", "zoneinfo"}


def test_an_enqueue_with_an_id_loads_filelock_alone(tmp_path: Path) -> None:
    """A chosen id takes pending.lock, and nothing else that is slow but what filelock loads."""
    loaded = loaded_by("assert run(['enqueue', 'true', '--id', 'a']) == 0", tmp_path)
    assert "filelock" in loaded
    assert not loaded & {"tabulate", "subprocess", "multiprocessing"}


def test_help_loads_no_command(tmp_path: Path) -> None:
    """The help of all commands comes from one table."""
    loaded = loaded_by("assert run(['--help']) == 0", tmp_path)
    commands = {name for name in loaded if name.startswith("queuectl.cli.")}
    assert commands == {"queuectl.cli.app", "queuectl.cli.group"}
