"""What the modules of the package may do: whom they import, what they know, how large they get.

Each check has its known exceptions, by name. One that is no longer needed fails the test: remove
its line. None is added, but that a module that is renamed takes its lines along.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.modules import PACKAGE_DIR, imported_names, module_name

MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_METHODS = 400, 50, 20

# Each may import what stands above it, and nothing beside or below.
LAYERS = """
    queuectl
    errors packed
    clock codes strict_json text
    sgr store.private
    line store.files
    nonblocking procgroup
    job
    config store.logs
    document
    batch
    policy when
    submit
    store.values
    store.worker_protocol
    store.protocol
    query purge
    store.bounded store.channel store.held_claim store.holders store.names
    store.layout store.spare_files store.tally store.watch
    store.local_worker store.pending_lock store.scan store.totals
    store.settings_file
    store.documents
    store.index store.records
    store.entries store.complete_walk store.registry
    store.lookup
    store.core
    store.dependencies store.orphans store.parents store.pending_documents
    store.setback store.stop_requests
    store.adding store.adopting store.purging store.settling store.waiting
    store.claiming
    store.chosen_ids store.recovery store.retrying
    store.cancelling
    store.parts
    store.pool store.queue
    store.directory
    store.doctor.case
    store.doctor.attempts store.doctor.belongings store.doctor.copies store.doctor.directories
    store.doctor.jobs store.doctor.leftovers store.doctor.root
    store.doctor
    store
    worker.environment worker.events worker.loop worker.restart worker.signals worker.stop
    worker.threads
    worker.command worker.detach worker.housekeeping worker.settler worker.workdir
    worker.context
    worker.execution worker.idle
    worker.claiming
    worker.worker
    worker.process
    worker.pool
    worker
    cli.app cli.locale cli.replay cli.screen cli.streams
    cli.completion cli.help cli.metrics cli.output cli.params
    cli.cancel cli.config cli.doctor cli.enqueue cli.group cli.list cli.purge cli.retry cli.show
    cli.waiting
    cli.dlq cli.logs cli.wait cli.worker
    cli.status
    cli
    __main__
"""

# What is outside store/ sees the protocol and what opens a store.
OF_A_STORE = {
    "queuectl.store",
    "queuectl.store.logs",
    "queuectl.store.protocol",
    "queuectl.store.values",
    "queuectl.store.worker_protocol",
}
# How one kind of store keeps its jobs.
MEANS = {"fcntl", "filelock", "inotify_simple", "psycopg", "sqlite3"}
IN_A_STORE = re.compile(
    r"\b(?:blocked|cancelled|completed|corrupt|dead|logs|pending|processing|tmp|workers)/"
    r"|\.(?:control|json|lock)\b|stop_workers|\bSELECT\b"
)

# What a NamedTuple, an enum and os have beside their public names.
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace", "_value_"}


class Module:
    """A file of the package, parsed."""

    def __init__(self, path: Path, source: str | None = None) -> None:
        self.name = module_name(path)
        self.source = path.read_text() if source is None else source
        self.tree = ast.parse(self.source)
        self.imports = imported_names(self.tree)

    def named(self) -> Iterator[tuple[str, ast.AST]]:
        """Yield the module and each class and function in it, by its dotted name."""
        yield self.name, self.tree
        yield from _named(self.tree, self.name)

    def full(self, base: ast.expr) -> str:
        """Return the full name of a class that is named in this module, its parameters left out."""
        name = ast.unparse(base).partition("[")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return f"{node.module}.{alias.name}"
        own = f"{self.name}.{name}"
        return own if any(each == own for each, _ in self.classes()) else name

    def classes(self) -> Iterator[tuple[str, ast.ClassDef]]:
        """Yield each class."""
        for name, node in self.named():
            if isinstance(node, ast.ClassDef):
                yield name, node


def _named(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        own = name
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            own = f"{name}.{child.name}"
            yield own, child
        yield from _named(child, own)


MODULES = [Module(path) for path in sorted(PACKAGE_DIR.rglob("*.py"))]


def must_be(found: Iterable[str], known: Iterable[str]) -> None:
    """Fail for what is found and not known, and for what is known and no longer found."""
    found, known = set(found), set(known)
    new = sorted(found - known)
    gone = sorted(known - found)
    assert not new, "not allowed:\n" + "\n".join(new)
    assert not gone, "no longer needed, remove from the known exceptions:\n" + "\n".join(gone)


# --- whom they import ---


def layers() -> dict[str, int]:
    """Return how far down each module stands."""
    rows = enumerate(LAYERS.split("\n"))
    found = {name: index for index, row in rows for name in row.split()}
    return {"queuectl." * (name != "queuectl") + name: index for name, index in found.items()}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_point_one_way(module: Module) -> None:
    """A module knows those it is built on, and none that is built on it or stands beside it."""
    stands = layers()
    assert module.name in stands, f"{module.name} has no layer: say in LAYERS where it stands"
    below = {name for name in module.imports if stands[name] >= stands[module.name]}
    assert below == set()


CIRCLES: set[str] = set()


def test_no_imports_go_round_in_a_circle() -> None:
    """Whatever a function imports late counts, too."""
    reach = {module.name: set(module.imports) for module in MODULES}
    for middle, further in reach.items():
        for reached in reach.values():
            if middle in reached:
                reached |= further  # noqa: PLW2901  (in place)
    must_be((name for name, reached in reach.items() if name in reached), CIRCLES)


# --- what they know ---

KNOW_A_STORE_FROM_INSIDE: set[str] = set()


def outside(module: Module) -> bool:
    """Return whether a module is no part of a store."""
    return not module.name.startswith("queuectl.store")


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docs:
            if isinstance(node.value, bytes):
                yield node.value.decode(errors="replace")
            elif isinstance(node.value, str):
                yield node.value


def known_of_a_store(module: Module) -> Iterator[str]:
    """Yield what a module knows of how a store keeps its jobs."""
    for name in module.imports:
        if name.startswith("queuectl.store") and name not in OF_A_STORE:
            yield name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MEANS)
        elif isinstance(node, ast.ImportFrom) and node.module in MEANS:
            yield node.module
    for text in strings(module.tree):
        yield from (found[0] for found in IN_A_STORE.finditer(text))


def test_nothing_outside_a_store_knows_how_it_keeps_its_jobs() -> None:
    """No path, no name of a file, no lock and no SQL."""
    found = {
        f"{module.name}: {what}"
        for module in MODULES
        if outside(module)
        for what in known_of_a_store(module)
    }
    must_be(found, KNOW_A_STORE_FROM_INSIDE)


USE_PRIVATE_NAMES: set[str] = {
    "queuectl.store.watch: inotify_simple._libc",
}


def private_names(module: Module) -> Iterator[str]:
    """Yield the private names of others that a module uses."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if is_private(alias.name))


def is_private(name: str) -> bool:
    """Return whether a name is nobody else's to use."""
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def test_nothing_uses_the_private_names_of_another() -> None:
    """Neither of a module nor of an object."""
    must_be(
        (f"{module.name}: {each}" for module in MODULES for each in private_names(module)),
        USE_PRIVATE_NAMES,
    )


# --- what they are made of ---

INHERIT: set[str] = set()
# What a class of ours may be: a value, an enumeration, what the outside world calls.
ABSTRACT = {"Protocol", "NamedTuple", "Enum", "StrEnum", "IntEnum", "IntFlag", "Flag"}


def inheritances(modules: Iterable[Module]) -> Iterator[str]:
    """Yield each class that inherits from a concrete one of ours."""
    bases = {
        name: [module.full(base) for base in node.bases]
        for module in modules
        for name, node in module.classes()
    }

    def is_error(name: str) -> bool:
        if name not in bases:
            return name.endswith(("Error", "Exception", "Warning"))
        return any(map(is_error, bases[name]))

    for name, its in bases.items():
        for base in its:
            abstract = {each.rpartition(".")[2] for each in bases.get(base, ())} & ABSTRACT
            if base in bases and not abstract and not is_error(base):
                yield f"{name}({base.rpartition('.')[2]})"


def test_no_class_inherits_from_a_concrete_one() -> None:
    """It gets what it needs by its constructor; protocols, values and errors may be extended."""
    must_be(inheritances(MODULES), INHERIT)


SHARE_THEIR_STATE: set[str] = set()


def test_nothing_takes_over_the_state_of_another_object() -> None:
    """Nobody could say any more who changes it."""
    found = {
        module.name
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "__dict__"
        and isinstance(node.ctx, ast.Store)
    }
    must_be(found, SHARE_THEIR_STATE)


# --- how large they are ---

LONG_FILES: set[str] = set()


def test_no_file_is_long() -> None:
    """One can be read in one sitting."""
    must_be(
        (each.name for each in MODULES if len(each.source.splitlines()) > MOST_LINES), LONG_FILES
    )


LONG_FUNCTIONS: set[str] = set()


def test_no_function_is_long() -> None:
    """One can be seen at once."""
    found = {
        name
        for module in MODULES
        for name, node in module.named()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }
    must_be(found, LONG_FUNCTIONS)


LARGE_CLASSES: set[str] = set()


def test_no_class_has_many_methods() -> None:
    """One does one thing."""
    found = {
        name
        for module in MODULES
        for name, node in module.classes()
        if sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
        > MOST_METHODS
    }
    must_be(found, LARGE_CLASSES)


# --- how they are described ---

# Modules.
IN_ANOTHER_VOICE: set[str] = set()


def test_docstrings_say_what_a_thing_is_or_does() -> None:
    """A class is a noun, and a function does something of its own."""
    found = {
        module.name
        for module in MODULES
        for _, node in module.named()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and re.match(r"(Be|Tell|Let|Have)\b", ast.get_docstring(node) or "")
    }
    must_be(found, IN_ANOTHER_VOICE)


# --- that the checks find what they look for ---

BAD = """
import fcntl
from typing import Protocol
from queuectl.store.files import _lock
from queuectl.errors import StoreError

class Shape(Protocol): ...
class Square(Shape): ...
class Broken(StoreError): ...
class Small(Square):
    def use(self, other):
        self._own = other._private
        other._replace()
        return "pending/"
"""


def test_what_is_bad_is_found() -> None:
    """Also when the package has no exception any more."""
    module = Module(PACKAGE_DIR / "bad.py", BAD)
    assert set(private_names(module)) == {"_lock", "other._private"}
    assert set(known_of_a_store(module)) == {"fcntl", "queuectl.store.files", "pending/"}
    assert set(inheritances([*MODULES, module])) - INHERIT == {"queuectl.bad.Small(Square)"}
