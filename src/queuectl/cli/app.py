"""What every command shares: the chosen store and the examples in its help."""

from typing import TYPE_CHECKING

import click

from queuectl.store import absolute, open_store, open_to_add

if TYPE_CHECKING:
    from queuectl.store.protocol import Adder, Store


class App:
    """The store that the global options chose, opened when a command asks for it."""

    def __init__(self, location: str) -> None:
        if not location:
            raise click.UsageError("--store is empty; give a directory")
        self.location = absolute(location)

    def open(self, *, create: bool = False) -> "Store":
        """Open the store until the command ends.

        A missing one is an empty queue; with ``create`` it is made.
        """
        store = open_store(self.location, create=create)
        click.get_current_context().find_root().call_on_close(store.close)
        return store

    def open_to_add(self) -> "Adder":
        """Open the store until the command ends, but only to add jobs: that imports less."""
        store = open_to_add(self.location)
        click.get_current_context().find_root().call_on_close(store.close)
        return store


pass_app = click.make_pass_decorator(App)


def examples(*lines: str) -> str:
    """Return the end of a command's help: examples of its use."""
    return "\b\nExample:\n  " + "\n  ".join(lines)


def load_all() -> None:
    """Import all that a long-lived command may need: an upgrade replaces the files of modules."""
    import codecs
    from importlib import import_module

    import queuectl.store
    from queuectl.text import output_encoding

    # For settings that were broken by hand, for bugs, and for text on a terminal.
    for name in ("difflib", "traceback", "unicodedata"):
        import_module(name)
    for encoding in ("unicode_escape", output_encoding()):
        codecs.lookup(encoding)
    queuectl.store.load_all()
