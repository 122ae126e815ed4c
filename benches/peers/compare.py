"""Times the reference networks here and in PyTorch, in turn, and prints a table of medians and ratios.

Usage: python compare.py [--rounds 3] [--steps 5] [--threads 2] [mnist28 cifar32], with a Python that has PyTorch.
Build first: cargo build --release. Machines drift: the ratio of each round compares two runs of the same minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = HERE.parent.parent / "target" / "release" / "imagen"
FIGURES = {"train_ms_median": "training step, ms", "forward_ms_median": "forward pass, ms", "peak_mb": "peak memory, MB"}


def run(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workloads", nargs="*", default=["mnist28", "cifar32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if not OURS.exists():
        sys.exit(f"{OURS} is not there; run: cargo build --release")
    common = ["--steps", str(options.steps), "--threads", str(options.threads)]
    print("| workload | figure | imagen | torch | ratio | ratio of each round |\n|---|---|---|---|---|---|")
    for workload in options.workloads:
        rounds = []
        for _ in range(options.rounds):
            ours = run([str(OURS), "bench", workload, "--json", *common])
            theirs = run([sys.executable, str(HERE / "torch_unet.py"), workload, *common])
            if ours["parameters"] != theirs["parameters"]:
                sys.exit(f"the networks differ: {ours['parameters']} and {theirs['parameters']} parameters")
            rounds.append((ours, theirs))
        for key, name in FIGURES.items():
            ratios = [ours[key] / theirs[key] for ours, theirs in rounds]
            medians = [statistics.median(pair[i][key] for pair in rounds) for i in (0, 1)]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {workload} | {name} | {medians[0]:.0f} | {medians[1]:.0f} | {statistics.median(ratios):.2f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
