"""Read and change the settings."""

from typing import Any

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import echo_json, echo_table
from queuectl.cli.params import json_option
from queuectl.config import JOB_KEYS, KEYS, Settings, field_name, parse_value, settings_document
from queuectl.store.protocol import Store


def _complete_key(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [key for key in KEYS if key.startswith(incomplete)]


def _help() -> str:
    """Return the help, which names every setting: a docstring would go stale."""
    *first, last = JOB_KEYS
    defaults = ", ".join(f"{key} ({value})" for key, value in settings_document(Settings()).items())
    return f"""Read and change the settings.

    A job takes {", ".join(first)} and {last} when it is enqueued, and keeps them. Workers take the
    other settings for each job that they start.

    The settings, each with its default: {defaults}.
    """


@click.group(
    help=_help(),
    epilog=examples(
        "queuectl config list",
        "queuectl config set max-retries 5",
        "queuectl config get backoff-base",
        "queuectl config unset timeout",
    ),
)
def config() -> None:
    """Read and change the settings."""


key_argument = click.argument("key", shell_complete=_complete_key)


@config.command("list", epilog=examples("queuectl config list --json"))
@json_option
@pass_app
def list_settings(app: App, *, as_json: bool) -> None:
    """List every setting.

    In JSON, durations are in seconds, and null means none, any or forever.
    """
    store = app.open()
    if as_json:
        settings = store.settings()
        echo_json({key: getattr(settings, field_name(key)) for key in KEYS})
        return
    values, written = _values(store)
    echo_table(
        [(key, values[key], "set" if key in written else "default") for key in KEYS],
        ["KEY", "VALUE", "SOURCE"],
    )


@config.command(
    epilog=examples("queuectl config get max-retries", "queuectl config get timeout --json")
)
@key_argument
@json_option
@pass_app
def get(app: App, *, key: str, as_json: bool) -> None:
    """Print the value of KEY, or its default.

    In JSON it is the value that 'queuectl config list --json' prints.
    """
    name = _dashed(key)
    store = app.open()
    if as_json:
        echo_json(getattr(store.settings(), field_name(key)))
    else:
        click.echo(_values(store)[0][name])


# A negative number is reported as a bad value, not as an option that does not exist.
@config.command(
    "set",
    context_settings={"ignore_unknown_options": True},
    epilog=examples("queuectl config set backoff-max 15m"),
)
@key_argument
@click.argument("value")
@pass_app
def set_value(app: App, *, key: str, value: str) -> None:
    """Set KEY to VALUE for future jobs and attempts."""
    name = _dashed(key)
    text = value.strip()
    parse_value(name, text)
    app.open(create=True).config.change(lambda written: {**_without(written, name), name: text})


@config.command(epilog=examples("queuectl config unset timeout"))
@key_argument
@pass_app
def unset(app: App, *, key: str) -> None:
    """Reset KEY to its default."""
    name = _dashed(key)
    written = app.open().config.read()
    if written != _without(written, name):
        app.open(create=True).config.change(lambda written: _without(written, name))


def _dashed(key: str) -> str:
    """Return a key as it is listed. Raises: ConfigError if there is none such."""
    return field_name(key).replace("_", "-")


def _values(store: Store) -> tuple[dict[str, str], set[str]]:
    """Return the value of every key, as written or by default, and the keys that are written."""
    store.settings()  # refuses a file that is wrong anywhere
    written = {_dashed(key): str(value) for key, value in store.config.read().items()}
    return {**settings_document(Settings()), **written}, set(written)


def _without(written: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the config without a key, written with dashes or underscores."""
    return {key: value for key, value in written.items() if key.replace("_", "-") != name}
