"""Print a shell completion script, and answer what that script asks."""

import click

from queuectl.cli.app import examples

_PROGRAM = "queuectl"
_VARIABLE = "_QUEUECTL_COMPLETE"


@click.command(
    epilog=examples(
        'eval "$(queuectl completion bash)"',
        'queuectl completion zsh > "${fpath[1]}/_queuectl"',
        "queuectl completion fish > ~/.config/fish/completions/queuectl.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print a shell completion script.

    It completes commands, options, states, ids and config keys. Write it where your SHELL looks for
    such scripts, then start a new shell:

    \b
      bash  ~/.local/share/bash-completion/completions/queuectl
      zsh   a directory of $fpath, as _queuectl
      fish  ~/.config/fish/completions/queuectl.fish

    Bash must be 4.4 or later. Without the package bash-completion, put the first example below into
    ~/.bashrc.
    """  # noqa: D301  (a backspace, after which click keeps the lines)
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    # Not source(), which runs bash to check its version.
    script = kind(click.get_current_context().find_root().command, {}, _PROGRAM, _VARIABLE)
    click.echo(kind.source_template % script.source_vars(), nl=False)
    if shell == "zsh":
        # Click's script in $fpath would not complete at the second Tab, but register itself.
        click.echo(f"compdef {script.func_name} {_PROGRAM}")


def complete(command: click.Command, instruction: str) -> int:
    """Answer what the script asks, silent about errors, and return the exit code."""
    from click.shell_completion import shell_complete

    try:
        return shell_complete(command, {}, _PROGRAM, _VARIABLE, instruction)
    except Exception:  # noqa: BLE001  (a message would land in the middle of the command line)
        return 1
