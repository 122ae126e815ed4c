"""Times the reference networks here, in PyTorch and in candle, in turn, and prints a table of medians and ratios.

Usage: python compare.py [--rounds 3] [--steps 5] [--threads 2] [--device cpu|gpu] [mnist28 cifar32], with a Python that has
PyTorch. On a GPU PyTorch's CUDA is timed twice, with products in f32 and in TF32, and candle is not.
Build first: cargo build --release, here and in benches/peers/candle. What is not there is left out, with a word.
Machines drift: the ratio of each round compares runs of the same minutes, each in a process of its own.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CANDLE = HERE / "candle" / "target" / "release" / "imagen-peer-candle"
# the figure, its name, and which runs it is from: "" those of a full batch, " 1" those of one image
FIGURES = [
    ("train_ms_median", "training step, ms", ""),
    ("forward_ms_median", "forward pass, ms", ""),
    ("peak_mb", "peak memory, MB", ""),
    ("forward_ms_median", "forward pass of one image, ms", " 1"),
]
GPU_FIGURES = [
    ("train_ms_median", "training step, waited for, ms", ""),
    ("train_ms_pipelined", "training step, pipelined, ms", ""),
    ("forward_ms_median", "forward pass, waited for, ms", ""),
    ("gpu_peak_mb", "peak memory of the GPU, MB", ""),
    ("forward_ms_median", "forward pass of one image, waited for, ms", " 1"),
]


def run(*command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def one_round(workload, options, torch, candle):
    """The reports of one round by name of the run; those for one image end in 1."""
    # Left to itself it would take a GPU where there is one.
    ours = [options.imagen, "bench", "--json", "--device", "cpu", workload]
    theirs = [sys.executable, HERE / "torch_unet.py", workload]
    threads = ["--threads", str(options.threads)]
    full = ["--steps", str(options.steps)]
    single = ["--steps", str(options.single_steps), "--batch", "1"]
    reports = {"imagen": run(*ours, *full, *threads)}
    if torch:
        reports["torch"] = run(*theirs, *full, *threads)
    reports["imagen 1"] = run(*ours, *single, *threads)
    if torch:
        reports["torch 1"] = run(*theirs, *single, *threads)
    if options.threads > 1:
        reports["imagen, 1 thread"] = run(*ours, *full, "--threads", "1")
    if candle:
        reports["candle"] = run(CANDLE, workload, "--steps", str(options.candle_steps), *threads)
    return same_networks(reports)


def one_gpu_round(workload, options, cuda):
    """As one_round, on a GPU."""
    ours = [options.imagen, "bench", "--json", "--device", "gpu", workload]
    theirs = [sys.executable, HERE / "torch_unet.py", "--device", "cuda", workload]
    reports = {}
    for runs, sizes in (("", ["--steps", str(options.steps)]), (" 1", ["--steps", str(options.single_steps), "--batch", "1"])):
        sizes += ["--threads", str(options.threads)]
        reports["imagen" + runs] = run(*ours, *sizes)
        if cuda:
            reports["torch" + runs] = run(*theirs, *sizes)
            reports["torch TF32" + runs] = run(*theirs, "--tf32", *sizes)
    return same_networks(reports)


def same_networks(reports):
    parameters = {name: report["parameters"] for name, report in reports.items()}
    if len(set(parameters.values())) > 1:
        sys.exit(f"the networks differ in their number of parameters: {parameters}")
    return reports


def median(values, digits=None):
    """The median in so many digits after the point, or as many as its size is worth; a dash if there is none."""
    if not values:
        return "-"
    middle = statistics.median(values)
    return f"{middle:.{(0 if middle >= 100 else 1) if digits is None else digits}f}"


def rows(workload, rounds, threads):
    def values(name, key):
        return [reports[name][key] for reports in rounds if name in reports]

    def ratios(over, under, key):
        return [reports[over][key] / reports[under][key] for reports in rounds if under in reports]

    for key, figure, runs in FIGURES:
        names = [peer + runs for peer in ("imagen", "torch", "candle")]
        medians = [median(values(name, key)) for name in names]
        to_torch, to_candle = (ratios(names[0], name, key) for name in names[1:])
        each = ", ".join(f"{ratio:.2f}" for ratio in to_torch) or "-"
        yield [workload, figure, *medians, median(to_torch, 2), each, median(to_candle, 3)]
    alone = "imagen, 1 thread"
    if values(alone, "train_ms_median"):
        one, all_of_them = (median(values(name, "train_ms_median")) for name in (alone, "imagen"))
        longer = median(ratios(alone, "imagen", "train_ms_median"), 2)
        figure = f"training step, 1 thread against {threads}, ms"
        yield [workload, figure, f"{one} / {all_of_them} = {longer}", "-", "-", "-", "-", "-"]


def gpu_rows(workload, rounds):
    for key, figure, runs in GPU_FIGURES:
        names = [peer + runs for peer in ("imagen", "torch", "torch TF32")]
        medians = [median([reports[name][key] for reports in rounds if name in reports]) for name in names]
        to_f32, to_tf32 = (
            [reports[names[0]][key] / reports[name][key] for reports in rounds if name in reports] for name in names[1:]
        )
        each = ", ".join(f"{ratio:.2f}" for ratio in to_f32) or "-"
        yield [workload, figure, *medians, median(to_f32, 2), each, median(to_tf32, 2)]


def table(options, heads, one_round, rows):
    for row in (heads, ["---"] * len(heads)):
        print(f"| {' | '.join(row)} |")
    for workload in options.workloads:
        rounds = [one_round(workload, i) for i in range(options.rounds)]
        for row in rows(workload, rounds):
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{options.rounds} rounds, {options.steps} steps each ({options.single_steps} with one image), {options.threads} threads.")
    return rounds


def on_gpu(options, torch):
    """The table of a GPU."""
    asked = "import torch; print(torch.cuda.is_available())"
    answer = subprocess.run([sys.executable, "-c", asked], stdout=subprocess.PIPE, text=True).stdout if torch else ""
    cuda = answer.strip() == "True"
    heads = ["workload", "figure", "imagen", "torch f32", "torch TF32", "imagen/torch f32", "in each round", "imagen/torch TF32"]
    try:
        rounds = table(options, heads, lambda workload, _: one_gpu_round(workload, options, cuda), gpu_rows)
    except subprocess.CalledProcessError as error:
        sys.exit(f"this failed: {' '.join(map(str, error.cmd))}")
    for name in ("imagen", "torch"):
        if rounds and name in rounds[-1]:
            report = rounds[-1][name]
            print(f"{report['framework']}: {report['gpu']}.")
    if not cuda:
        print("torch: left out, " + ("it finds no CUDA." if torch else "this Python does not have it."))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workloads", nargs="*", default=["mnist28", "cifar32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--single-steps", type=int, default=20, help="repetitions with one image")
    parser.add_argument("--candle-steps", type=int, default=1)
    parser.add_argument("--candle-rounds", type=int, default=1, help="the first rounds, in which candle runs too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--imagen", type=Path, default=ROOT / "target" / "release" / "imagen")
    options = parser.parse_args()
    if not options.imagen.exists():
        sys.exit(f"{options.imagen} is not there; run: cargo build --release")
    torch, candle = importlib.util.find_spec("torch") is not None, CANDLE.exists() and options.candle_rounds > 0
    if options.device == "gpu":
        return on_gpu(options, torch)

    heads = ["workload", "figure", "imagen", "torch", "candle", "imagen/torch", "in each round", "imagen/candle"]
    table(
        options,
        heads,
        lambda workload, i: one_round(workload, options, torch, candle and i < options.candle_rounds),
        lambda workload, rounds: rows(workload, rounds, options.threads),
    )
    if candle:
        print(f"candle: {options.candle_steps} steps after one to warm up, in the first {options.candle_rounds} rounds only.")
    elif options.candle_rounds > 0:
        print("candle: left out, it is not built; run: (cd benches/peers/candle && cargo build --release)")
    if not torch:
        print("torch: left out, this Python does not have it.")


if __name__ == "__main__":
    main()
