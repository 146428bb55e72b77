"""Print metrics of the queue for Prometheus."""

import os
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.errors import ConfigError
from queuectl.job import Outcome, State
from queuectl.store.protocol import Store
from queuectl.store.values import LENGTH_BOUNDS

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@click.command(
    epilog=examples(
        "queuectl metrics", "queuectl metrics --output /var/lib/node_exporter/queuectl.prom"
    )
)
@click.option(
    "--output",
    "output_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write to FILE atomically.",
)
@pass_app
def metrics(app: App, *, output_path: str | None) -> None:
    """Print metrics for Prometheus, in its text format.

    They are for the textfile collector of node_exporter: write its FILE each minute from cron.
    Attempts are counted since the store was made; no job's document is opened. This needs the extra
    "metrics": pip install 'queuectl[metrics]'.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
    except ImportError as error:
        raise ConfigError(
            "metrics need the package prometheus_client: pip install 'queuectl[metrics]'"
        ) from error
    registry = CollectorRegistry()
    registry.register(_Collector(app.open()))
    if output_path is None:
        click.echo(generate_latest(registry).decode(), nl=False)
    else:
        write_to_textfile(os.path.expanduser(output_path), registry)


class _Collector:
    """The metrics of a store, as a registry asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client import core

        store, now = self._store, self._store.now()
        counts, workers, tally = store.counts(now), store.workers.live(), store.workers.tally()
        jobs = core.GaugeMetricFamily("queuectl_jobs", "Jobs by state.", labels=["state"])
        for state in State:
            jobs.add_metric([state], counts.by_state.get(state, 0))
        yield jobs
        unreadable = counts.unreadable
        age = max((now - (counts.oldest_due or now)).total_seconds(), 0.0)
        busy = sum(worker.job is not None for worker in workers)
        for name, meaning, value in (
            ("due_jobs", "Pending jobs whose time has come.", counts.due),
            ("oldest_due_age_seconds", "For how long the oldest due job has been due.", age),
            ("unreadable_jobs", "Documents set aside because they are unreadable.", unreadable),
            ("workers", "Live workers.", len(workers)),
            ("workers_busy", "Live workers that run a job.", busy),
        ):
            yield core.GaugeMetricFamily(f"queuectl_{name}", meaning, value=value)
        attempts = core.CounterMetricFamily(
            "queuectl_attempts", "Attempts that have ended, by outcome.", labels=["outcome"]
        )
        for outcome in dict.fromkeys((*Outcome, *tally.by_outcome)):
            attempts.add_metric([outcome], tally.by_outcome.get(outcome, 0))
        yield attempts
        bounds = [*map(str, LENGTH_BOUNDS), "+Inf"]
        yield core.HistogramMetricFamily(
            "queuectl_attempt_duration_seconds",
            "How long attempts ran, without lost ones.",
            buckets=list(zip(bounds, accumulate(tally.by_length), strict=True)),
            sum_value=tally.seconds,
        )
