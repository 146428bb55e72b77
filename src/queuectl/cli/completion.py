"""Print the script that lets a shell complete commands, and answer what that script asks."""

from collections.abc import Collection
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from queuectl.cli.common import App, echo, examples
from queuectl.errors import QueuectlError
from queuectl.job import State
from queuectl.store import open_store

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_PROGRAM = "queuectl"
_VARIABLE = "_QUEUECTL_COMPLETE"
_MOST_IDS = 1000  # more help nobody to choose, and a shell takes its time to lay them out


@click.command(
    epilog=examples(
        'eval "$(queuectl completion bash)"',
        'queuectl completion zsh > "${fpath[1]}/_queuectl"',
        "queuectl completion fish > ~/.config/fish/completions/queuectl.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the script that completes commands, options, states, ids and config keys.

    Write it where your SHELL looks for such scripts, then start a new shell:

    \b
      bash  ~/.local/share/bash-completion/completions/queuectl
      zsh   a directory of $fpath, as _queuectl
      fish  ~/.config/fish/completions/queuectl.fish

    Bash must be 4.4 or later; without the package bash-completion, put the line below into
    ~/.bashrc.
    """  # noqa: D301  (a backspace, after which click keeps the lines)
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    # Not source(): for bash that runs one, to look at its version.
    script = kind(click.get_current_context().find_root().command, {}, _PROGRAM, _VARIABLE)
    echo(kind.source_template % script.source_vars(), newline=False)


def complete(command: click.Command, instruction: str) -> int:
    """Answer what the script asks; whatever is wrong, say nothing: somebody is typing."""
    from click.shell_completion import shell_complete

    try:
        return shell_complete(command, {}, _PROGRAM, _VARIABLE, instruction)
    except Exception:  # noqa: BLE001  (a message would land in the middle of the command line)
        return 1


def matching_ids(
    ctx: click.Context, param: click.Parameter, states: Collection[State], incomplete: str
) -> "list[CompletionItem[str]]":
    """Return the ids that start so, of jobs in one of the states, but those that stand there."""
    from click.shell_completion import CompletionItem

    given = ctx.params.get(param.name or "")
    known = set(given) if isinstance(given, (list, tuple)) else set()
    try:
        store = open_store(App(ctx.find_root().params["store"]).location)
        try:
            found = chain.from_iterable(
                ((job_id, state) for job_id in store.ids(state, incomplete)) for state in states
            )
            some = dict(islice(found, _MOST_IDS))
        finally:
            store.close()
    except (QueuectlError, click.ClickException, OSError):
        return []  # the command itself will tell what is wrong with the store
    return [
        CompletionItem(job_id, help=state)
        for job_id, state in sorted(some.items())
        if job_id not in known
    ]
