"""Check the store for damage, and repair it."""

from dataclasses import asdict

import click

from queuectl.cli.common import (
    App,
    echo,
    echo_json_array,
    examples,
    json_option,
    pass_app,
)
from queuectl.text import printable


@click.command(epilog=examples("queuectl doctor", "queuectl doctor --repair"))
@click.option("--repair", is_flag=True, help="Repair what can be repaired; nothing is lost.")
@json_option
@pass_app
@click.pass_context
def doctor(ctx: click.Context, app: App, *, repair: bool, as_json: bool) -> None:
    """Check the store for damage.

    Silent where all is well. Else it prints a line for each finding, what: where: what to do (or
    was done), and the exit code is 1 unless all was repaired. It is safe while workers run; what
    has no place in the queue is moved to corrupt/ with the reason beside it.
    """
    if "://" in app.location:
        app.open()  # says what it has to be
        return
    from queuectl.store.doctor import examine

    found = []
    for each in examine(app.location, repair=repair):
        found.append(each)
        if not as_json:
            note = "note: " if each.note else ""
            echo(printable(f"{note}{each.what}: {each.where}: {each.action}"))
    if as_json:
        echo_json_array(map(asdict, found))
    if any(not (each.repaired or each.note) for each in found):
        ctx.exit(1)
