"""The modules of the package as files, and whom each imports."""

import ast
from pathlib import Path

import queuectl

PACKAGE_DIR = Path(queuectl.__file__).parent


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE_DIR.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_names(tree: ast.AST) -> set[str]:
    """Return the modules of the package that one imports, wherever it does."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from queuectl.store import files` is an import of the module files
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if is_module(name)}
            names |= modules or {node.module}
    return {name for name in names if name.split(".")[0] == "queuectl"}


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module of the package."""
    path = PACKAGE_DIR.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()
