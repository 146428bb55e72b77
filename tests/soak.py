"""Run the model and the storm in turn, with fresh seeds, until the time is up or a job is lost.

Both are tests of the suite, in a longer form; this only chooses their seeds, and adds up what they
tell. What failed is kept: the seed, what pytest told, and the directory with the store.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_TESTS = ("tests/property/test_model.py", "tests/process/test_storm.py")
_MAXIMA = ("most jobs at once",)


def main(words: list[str]) -> int:
    """Return the exit code: 0, or 1 when something was lost or went wrong."""
    minutes = float(words[0]) if words else 60.0
    until = time.monotonic() + minutes * 60
    seeds = random.SystemRandom()
    figures: Counter[str] = Counter()
    here = Path(tempfile.mkdtemp(prefix="queuectl-soak-"))
    tell(f"soaking for {minutes:g} min in {here}; Ctrl-C ends it")
    try:
        rounds = 0
        while rounds == 0 or time.monotonic() < until:
            rounds += 1
            seed = int(os.environ.get("QUEUECTL_TEST_SEED") or seeds.randrange(2**32))
            for test in _TESTS:
                if not run(test, seed, here / str(rounds), figures):
                    tell(f"after {summary(figures)}")
                    return 1
            tell(f"{max(until - time.monotonic(), 0) / 60:.1f} min left: {summary(figures)}")
    except KeyboardInterrupt:
        tell("ended early")
    tell(f"{summary(figures)}, lost 0")
    shutil.rmtree(here)
    return 0


def run(test: str, seed: int, here: Path, figures: "Counter[str]") -> bool:
    """Run one test with a seed; return whether it passed, and tell how to repeat it if not."""
    here.mkdir(exist_ok=True)
    figures_path = here / "figures"
    figures_path.write_text("")
    command = [
        sys.executable, "-m", "pytest", test, "-q", "-p", "no:cacheprovider",
        f"--hypothesis-seed={seed}", "--basetemp", str(here / "files"),
    ]  # fmt: skip
    chosen = {"QUEUECTL_TEST_SEED": str(seed), "QUEUECTL_TEST_EXAMPLES": examples()}
    env = os.environ | chosen | {"QUEUECTL_TEST_LARGE": "1"}
    env["QUEUECTL_TEST_FIGURES"] = str(figures_path)
    done = subprocess.run(
        command, cwd=_ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    for line in figures_path.read_text().splitlines():
        add(figures, json.loads(line))
    if done.returncode == 0:
        shutil.rmtree(here / "files")
        return True
    (here / "told").write_bytes(done.stdout)
    sys.stdout.buffer.write(done.stdout)
    repeat = " ".join([*(f"{key}={val}" for key, val in chosen.items()), "QUEUECTL_TEST_LARGE=1"])
    tell(f"{test} failed with seed {seed}; its files are kept in {here}. To repeat it:")
    tell(f"  {repeat} {' '.join(command[:-2])}")
    return False


def examples() -> str:
    """Return how many examples the model is given in one turn."""
    return os.environ.get("QUEUECTL_TEST_EXAMPLES", "150")


def add(figures: "Counter[str]", more: dict[str, int]) -> None:
    """Add the figures of a run to those before it."""
    for name, value in more.items():
        figures[name] = max(figures[name], value) if name in _MAXIMA else figures[name] + value


def summary(figures: "Counter[str]") -> str:
    """Return the figures on one line."""
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def tell(text: str) -> None:
    """Tell how it goes."""
    sys.stdout.write(f"soak: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
