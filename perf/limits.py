"""How far the environments are from what the machine could do.

    python perf/limits.py

Compiles and runs `limits.c`, measures the serial ``vec.step`` at 4096 environments in turn with it,
and prints both. Best times on both sides: a limit is what nothing disturbed. Needs a C compiler
called ``cc``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import suite

ROUNDS = 10
NUM_ENVS = 4096

# Bytes that one step of one environment must write, each counted once: observation, state, reward,
# two flags and mask, the checked copy of the action, episode return and length, whether it ended.
SHARED = 4 + 2 + 1 + 4 + 8 + 4 + 1
WRITTEN = {"squared": 121 + 12 + SHARED, "cartpole": 16 + 40 + SHARED,
           "cartpole_fast": 16 + 16 + SHARED}


def limits(machine: dict[str, float]) -> dict[str, dict[str, float]]:
    """Steps per second that each resource would allow if there were nothing else to do.

    `machine` is what limits.c prints: bytes per second of fill and copy; rows of 121 bytes cleared
    per second; pairs of sine and cosine per second; triples of divisions per second.
    """
    return {
        "squared": {
            f"writing {WRITTEN['squared']} bytes to L2": machine["fill"] / WRITTEN["squared"],
            "clearing 121 bytes by one memset": machine["rows"],
        },
        "cartpole": {
            f"writing {WRITTEN['cartpole']} bytes to L2": machine["fill"] / WRITTEN["cartpole"],
            "one sine and one cosine": machine["trig"],
            "the same and three divisions": 1 / (1 / machine["trig"] + 1 / machine["divisions"]),
        },
        # It reads about as much as it writes: state, return, length, action, reward, flags.
        "cartpole_fast": {
            f"writing {WRITTEN['cartpole_fast']} bytes to L2":
                machine["fill"] / WRITTEN["cartpole_fast"],
            f"copying {WRITTEN['cartpole_fast']} bytes within L2":
                machine["copy"] / WRITTEN["cartpole_fast"],
        },
    }


def main() -> None:
    machine: dict[str, float] = {}
    ours = dict.fromkeys(suite.ENVS, 0.0)
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "limits")
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O3", str(source), "-o", str(program), "-lm"], check=True)
        for _ in range(ROUNDS):
            output = subprocess.run([program], check=True, stdout=subprocess.PIPE).stdout
            for name, value in json.loads(output).items():
                machine[name] = max(machine.get(name, 0.0), value)
            for env in suite.ENVS:
                seconds = suite.bench_step(4, env, NUM_ENVS, 1)
                ours[env] = max(ours[env], 4 * suite.ROTATION * NUM_ENVS / seconds)
    print(f"L2: fill {machine['fill'] / 1e9:.0f} GB/s, copy {machine['copy'] / 1e9:.0f} GB/s\n")
    print("| environment | limit | M steps/s | ours | share |\n| --- | --- | ---: | ---: | ---: |")
    for env, entries in limits(machine).items():
        for name, value in entries.items():
            print(f"| {env} | {name} | {value / 1e6:.0f} | {ours[env] / 1e6:.1f} | "
                  f"{ours[env] / value:.0%} |")


if __name__ == "__main__":
    main()
