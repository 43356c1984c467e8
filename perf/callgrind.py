"""Instructions per environment step, counted by valgrind: the same on a busy machine.

    python perf/callgrind.py [ENV ...]

Counts what runs inside the environment's ``run`` and below it (the rules, the bookkeeping of the
core that is inlined there, memset, sin), not the Python call around it. The count includes the
resets: the first and those at the ends of episodes. Valgrind emulates a processor of its own, so
the C library may choose other variants of memset or sin there than on the real one; compare counts
with counts. Needs ``valgrind`` on the path.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import suite

from pufferlib_cy.envs import REGISTRY

CLASSES = {env: REGISTRY[env][1] for env in suite.ENVS}
NUM_ENVS = 256
LOOPS = 4


def run(env: str) -> int:
    """In the child: the work that is counted; returns its environment steps."""
    suite.bench_step(LOOPS, env, NUM_ENVS, 1)
    return (LOOPS + 1) * suite.ROTATION * NUM_ENVS      # one rotation is the warm-up


def count(env: str) -> float:
    """Instructions per step of one environment."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "callgrind.out")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
             f"--toggle-collect=__pyx_f_*{CLASSES[env]}_run",
             sys.executable, __file__, "--worker", env],
            text=True, capture_output=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise SystemExit(f"callgrind: measuring {env} failed (see above)")
        totals = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
        if not totals or not int(totals[1]):
            raise SystemExit(f"callgrind: nothing was collected for {env}: is "
                             f"{CLASSES[env]}_run still the name of its loop?")
        return int(totals[1]) / int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="*", metavar="ENV", default=list(CLASSES),
                        help=f"of {', '.join(CLASSES)}; default: all")
    args = parser.parse_args()
    if unknown := set(args.envs) - set(CLASSES):
        parser.error(f"unknown environments {sorted(unknown)}; there are {', '.join(CLASSES)}")
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not on the path (Debian: apt-get install valgrind)")
    print("| environment | instructions per step |\n| --- | ---: |")
    for env in args.envs:
        print(f"| {env} | {count(env):.1f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(run(sys.argv[2]))
    else:
        main()
