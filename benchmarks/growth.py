"""Measure how the cost grows with the backlog: `python -m benchmarks.growth [--quick]`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import machine, median, remove, scratch
from benchmarks.run import Bench, drain_some, look_up, pending_id

SIZES = (1_000, 10_000, 100_000, 1_000_000)
# For the plot: what is drawn together, in which unit, and the limit that docs/performance.md sets.
PANELS = (
    ("look-ups", "seconds", 1.0, "look_up_seconds"),
    ("drain, two workers", "ms a job", None, "drain_ms_a_job"),
    ("first start", "seconds", 2.0, "first_start_seconds"),
    ("memory", "MB", 24.0, "memory_mb"),
)


def measure(bench: Bench, store_dir: Path, size: int, rounds: int) -> dict[str, object]:
    """Measure with so many pending jobs, and leave nearly as many."""
    some = min(3_000, size * 8 // 10)
    walls: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    pools = []
    for _ in range(rounds):
        bench.fill(store_dir, size - len(os.listdir(store_dir / "pending")))
        os.sync()
        for name, (wall, peak) in look_up(store_dir, pending_id(store_dir)).items():
            walls.setdefault(name, []).append(wall)
            peaks.setdefault(name, []).append(peak)
        pools.append(drain_some(store_dir, some))
    memory = {"worker (private)": median([each.worker_mb for each in pools])}
    return {
        "pending": size,
        "drained": some,
        "look_up_seconds": {name: median(values) for name, values in walls.items()},
        "drain_ms_a_job": {"drain": median([1e3 / each.per_second for each in pools])},
        "first_start_seconds": {"first start": median([each.first_start for each in pools])},
        "memory_mb": memory | {name: max(values) for name, values in peaks.items()},
    }


def show(results: Sequence[dict[str, object]]) -> str:
    """Return the table for a person: a line for each cost, a column for each backlog."""
    from tabulate import tabulate

    rows = []
    for _, unit, _, key in PANELS:
        columns = [result[key] for result in results]
        first = columns[0]
        assert isinstance(first, dict)
        for name in first:
            values = [column[name] for column in columns if isinstance(column, dict)]
            rows.append([f"{name}, {unit}", *(f"{value:.3g}" for value in values)])
    headers = ("pending", *(f"{result['pending']:,}" for result in results))
    return tabulate(
        rows, headers, disable_numparse=True, colalign=["left"] + ["right"] * len(results)
    )


def draw(document: dict[str, object], path: Path) -> None:
    """Draw the costs against the backlog, as SVG."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.stderr.write("no plot: pip install --group benchmarks (or: pip install matplotlib)\n")
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt

    # The same numbers give the same file, and its text stays text.
    mpl.rcParams.update({"svg.hashsalt": "queuectl", "svg.fonttype": "none", "font.size": 9})
    results = document["results"]
    assert isinstance(results, list)
    sizes = [result["pending"] for result in results]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for axis, (title, unit, limit, key) in zip(axes.flat, PANELS, strict=True):
        for name in results[0][key]:
            axis.plot(sizes, [result[key][name] for result in results], marker="o", label=name)
        if limit is not None:
            label = "goal for a worker" if unit == "MB" else "goal"
            axis.axhline(limit, color="grey", linestyle="--", label=label)
        axis.set(title=title, xlabel="pending jobs", ylabel=unit, xscale="log")
        axis.set_ylim(bottom=0)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(fontsize=7)
    machine_of = document["machine"]
    assert isinstance(machine_of, dict)
    figure.suptitle("{date}, {processor}, {cores} cores".format(**machine_of), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measure, print the table, write the JSON, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 jobs, each thing once")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/queuectl-bench"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/growth.json"))
    parser.add_argument("--plot", type=Path, help="docs/growth.svg, but beside the JSON if quick")
    parser.add_argument("--redraw", action="store_true", help="draw from the JSON of before")
    chosen = parser.parse_args()
    if not chosen.redraw:
        sizes, rounds = (SIZES[:-1], 1) if chosen.quick else (SIZES, 3)
        results = []
        with scratch(chosen.folder) as folder:
            bench = Bench(folder, quick=chosen.quick)
            store_dir = bench.new_store(0)
            for size in sizes:
                sys.stderr.write(f"{size} pending ...\n")
                results.append(measure(bench, store_dir, size, rounds))
            sys.stderr.write("removing what was made ...\n")
            remove(folder)
        sys.stdout.write(show(results) + "\n")
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine(), "results": results}
        chosen.json.write_text(json.dumps(document, indent=2) + "\n")
    plot = chosen.json.with_suffix(".svg") if chosen.quick else Path("docs/growth.svg")
    draw(json.loads(chosen.json.read_text()), chosen.plot or plot)


if __name__ == "__main__":
    main()
