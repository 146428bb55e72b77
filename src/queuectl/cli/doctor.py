"""Check the store for damage, and repair it."""

from dataclasses import asdict

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import echo_json_array
from queuectl.cli.params import json_option
from queuectl.text import printable


@click.command(epilog=examples("queuectl doctor", "queuectl doctor --repair"))
@click.option("--repair", is_flag=True, help="Repair what can be repaired; no job is lost.")
@json_option
@pass_app
@click.pass_context
def doctor(ctx: click.Context, app: App, *, repair: bool, as_json: bool) -> None:
    """Check the store for damage, and repair it.

    Prints nothing if the store is healthy, else a line for each finding: what is wrong, where, and
    what to do or what was done. The exit code is 1 unless everything was repaired. Workers may run
    meanwhile. A file that has no place in the queue is moved to corrupt/, with the reason beside
    it.
    """
    from queuectl.store import examine

    found = []
    for each in examine(app.location, repair=repair):
        found.append(each)
        if not as_json:
            note = "note: " if each.note else ""
            click.echo(printable(f"{note}{each.what}: {each.where}: {each.action}"))
    if as_json:
        echo_json_array(map(asdict, found))
    if any(not (each.repaired or each.note) for each in found):
        ctx.exit(1)
