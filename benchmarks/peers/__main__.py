"""Compare queuectl with other queues: `python -m benchmarks.peers [--quick] [NAME ...]`."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.measure import machine, remove, scratch
from benchmarks.peers.base import Installation, Missing, Queue
from benchmarks.peers.catalog import LEFT_OUT, PEERS, Library, OurLibrary, Ours
from benchmarks.peers.measures import FULL, QUICK, Comparison, Scale, Subject, killed, synced

MEASURES = ("cold", "bulk", "drain", "latency", "safety")
Result = dict[str, object]


def compare(ours: Subject, theirs: Subject, scale: Scale, measures: set[str]) -> Result:
    """Measure one peer; what fails is told, and the rest goes on."""
    kind = theirs.kind
    both = Comparison(ours=ours, theirs=theirs, scale=scale)
    result: Result = {"name": kind.name, "about": kind.about, "recovers": kind.recovers}
    failures: dict[str, str] = {}

    def attempt(name: str, action: Callable[[], object], *, possible: bool = True) -> None:
        if not possible or name.split(" ", maxsplit=1)[0] not in measures:
            return
        sys.stderr.write(f"{kind.name}: {name} ...\n")
        start = time.monotonic()
        try:
            action()
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            failures[name] = str(error)
            sys.stderr.write(f"{kind.name}: {name} failed: {error}\n")
        sys.stderr.write(f"    {time.monotonic() - start:.1f} s\n")

    def safety() -> None:
        result.update(safety_of(theirs, scale))

    attempt("cold", both.cold, possible=kind.keeps)
    attempt("bulk", both.bulk, possible=kind.keeps)
    attempt("drain 2", lambda: both.drain(2))
    attempt("drain 8", lambda: both.drain(8))
    both.combine()
    attempt("latency", both.latency, possible=kind.keeps and kind.has_worker)
    attempt("safety", safety, possible=kind.keeps)
    result["pairs"] = {
        name: asdict(pair) | {"ratio": pair.ratio} for name, pair in both.pairs.items()
    }
    result["failures"] = failures
    return result


def safety_of(subject: Subject, scale: Scale) -> Result:
    """Kill it, and look at what it syncs."""
    return {
        "killed_worker": asdict(killed(subject, scale, everything=False)),
        "killed_all": asdict(killed(subject, scale, everything=True)),
        "synced": synced(subject),
    }


def show(results: list[Result], ours: Result) -> str:
    """Return the table for a person; in brackets how many times better queuectl is.

    With the start, what is in brackets is queuectl's: its program's beside programs, its library's
    beside libraries.
    """
    from tabulate import tabulate

    columns = (
        ("cold_seconds", 1e3, "enqueue ms", False),
        ("bulk_per_second", 1, "bulk /s", True),
        ("drain_2_per_second", 1, "drain 2 /s", True),
        ("drain_8_per_second", 1, "drain 8 /s", True),
        ("all_per_second", 1, "both /s", True),
        ("start_p50_seconds", 1e3, "start p50 ms", False),
        ("start_p99_seconds", 1e3, "start p99 ms", False),
    )

    def cell(result: Result, name: str, scale: float, more_is_better: bool) -> str:
        pairs = result["pairs"]
        assert isinstance(pairs, dict)
        if name not in pairs:
            return "-"
        pair = pairs[name]
        if name.startswith("start"):  # ours may be next to nothing: a ratio would say little
            return f"{pair['theirs'] * scale:.3g} ({pair['ours'] * scale:.3g})"
        better = 1 / pair["ratio"] if more_is_better else pair["ratio"]
        return f"{pair['theirs'] * scale:.3g} ({better:.2g}x)"

    def fate(result: Result, name: str) -> str:
        counts = result.get(name)
        if not isinstance(counts, dict):
            return "-"
        faults = [
            f"{counts[each]} {each}" for each in ("lost", "stuck", "unsettled", "twice", "together")
        ]
        bad = [fault for fault in faults if not fault.startswith("0 ")]
        return f"of {counts['acknowledged']}: {', '.join(bad) or 'none'}"

    def power(result: Result) -> str:
        if "synced" not in result:
            return "-"
        calls = result["synced"]
        if calls is None:
            return "no strace"
        return "synced" if calls else "NOT synced"

    rows = [
        [
            str(result["name"]),
            *(cell(result, name, scale, more) for name, scale, _, more in columns),
            fate(result, "killed_worker"),
            fate(result, "killed_all"),
            power(result),
        ]
        for result in (ours, *results)
    ]
    headers = ("", *(title for _, _, title, _ in columns), "kill worker", "kill all", "power")
    return tabulate(rows, headers, disable_numparse=True)


def of_ours(results: list[Result]) -> dict[str, object]:
    """Return what queuectl reached beside the peers: the median over all of them.

    Its start is not the same beside all: it is shown beside each.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        pairs = result["pairs"]
        assert isinstance(pairs, dict)
        for name, pair in pairs.items():
            if not name.startswith("start"):
                values.setdefault(name, []).append(pair["ours"])
    middles = {name: sorted(each)[len(each) // 2] for name, each in values.items()}
    return {
        name: {"ours": middle, "theirs": middle, "ratio": 1.0} for name, middle in middles.items()
    }


def keep(path: Path, own: Result, results: list[Result], skipped: dict[str, str]) -> None:
    """Write the JSON, after each peer, since all of them take long."""
    document = {"machine": machine(), "queuectl": own, "peers": results, "skipped": skipped}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def available(kind: type[Queue], folder: Path, *, install: bool) -> tuple[Installation, str]:
    """Return a peer's installation and version, and install it where that was asked for.

    Raises: Missing.
    """
    prefix = kind.name.replace(" ", "-").replace(",", "")
    installed = Installation(folder / "installed" / prefix)
    try:
        return installed, kind.version(installed)
    except Missing:
        if not install:
            raise
    sys.stderr.write(f"installing {kind.name} ...\n")
    try:
        kind.install(installed)
    except RuntimeError as error:
        raise Missing(f"its installation failed: {error}") from error
    return installed, kind.version(installed)


def main() -> None:
    """Measure, print the table, write the JSON."""
    names = {kind.name: kind for kind in PEERS}
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer jobs, and each thing once")
    parser.add_argument("--install", action="store_true", help="install what is missing")
    parser.add_argument("--folder", type=Path, default=cache / "queuectl-peers")
    parser.add_argument("--only", action="append", choices=MEASURES, help="repeatable")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/peers.json"))
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    scale = QUICK if chosen.quick else FULL
    measures = set(chosen.only or MEASURES)
    results: list[Result] = []
    skipped = dict(LEFT_OUT)
    with scratch(chosen.folder / "queues") as folder:
        ours = Subject(kind=Ours, installed=Installation(folder), folder=folder / "ours")
        for kind in [names[name] for name in chosen.names] or PEERS:
            try:
                installed, version = available(kind, chosen.folder, install=chosen.install)
            except Missing as why:
                skipped[kind.name] = str(why)
                continue
            theirs = Subject(kind=kind, installed=installed, folder=folder / "theirs")
            ours = replace(ours, kind=OurLibrary if issubclass(kind, Library) else Ours)
            results.append({"version": version, **compare(ours, theirs, scale, measures)})
            keep(chosen.json, {}, results, skipped)
        own: Result = {"name": Ours.name, "version": Ours.version(ours.installed)}
        own |= {"about": Ours.about, "recovers": Ours.recovers, "pairs": of_ours(results)}
        if "safety" in measures:
            sys.stderr.write("queuectl: safety ...\n")
            own |= safety_of(ours, scale)
        sys.stdout.write(show(results, own) + "\n\n")
        for result in (own, *results):
            sys.stdout.write(f"{result['name']} {result['version']}: {result['about']}\n")
        for name, reason in skipped.items():
            sys.stdout.write(f"skipped: {name}: {reason}\n")
        keep(chosen.json, own, results, skipped)
        sys.stderr.write("removing the queues ...\n")
        remove(folder)


if __name__ == "__main__":
    main()
