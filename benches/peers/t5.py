"""Random T5 checkpoints, and how long `imagen text` and transformers take to read with them.

Usage, with a Python that has torch, transformers, safetensors and sentencepiece, after cargo build --release:
  python t5.py make small|xl FOLDER      makes a random checkpoint: t5-v1_1-small, f32, whole (77 million parameters), or the
                                         encoder of t5-v1_1-xl in shards of bf16 (1.22 billion, 2.4 GB)
  python t5.py time FOLDER               times transformers: one JSON line
  python t5.py compare FOLDER [--rounds 3]  both in turn, each in a process of its own: medians and ratios
What is read: 8 prompts of 64 tokens each, the end token included.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SPIECE = ROOT / "tests/fixtures/t5-v1_1-tiny/spiece.model"
SIZES = {
    "small": dict(d_model=512, d_ff=1024, num_layers=8, num_heads=6),
    "xl": dict(d_model=2048, d_ff=5120, num_layers=24, num_heads=32),
}
PROMPTS, TOKENS = 8, 64


def make(size, folder):
    import torch
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128, d_kv=64, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, **SIZES[size]
    )
    if size == "small":
        model, shard = T5ForConditionalGeneration(config), "5GB"
    else:
        model, shard = T5EncoderModel(config).to(torch.bfloat16), "1GB"
    model.save_pretrained(folder, max_shard_size=shard)
    shutil.copy(SPIECE, folder)


def prompts():
    """Texts of exactly TOKENS tokens for this tokenizer: "▁seven" is one of its pieces."""
    return [" ".join(["seven"] * (TOKENS - 1))] * PROMPTS


def time_torch(folder, repeats):
    import sentencepiece
    import torch
    from transformers import T5EncoderModel

    torch.set_num_threads(2)
    start = time.perf_counter()
    model = T5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    load = time.perf_counter() - start
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(Path(folder) / "spiece.model"))
    ids = torch.tensor([tokenizer.encode(text) + [1] for text in prompts()])
    assert ids.shape == (PROMPTS, TOKENS), ids.shape
    best = float("inf")
    with torch.no_grad():
        for _ in range(repeats):
            start = time.perf_counter()
            model(input_ids=ids)
            best = min(best, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"load_seconds": load, "seconds": best, "peak_mb": peak}


def time_imagen(folder, repeats):
    command = [ROOT / "target/release/imagen", "text", "--json", "--device", "cpu", "--threads", "2"]
    command += ["--model", folder, "--time", str(repeats), *prompts()]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert all(len(text["ids"]) == TOKENS for text in report["texts"])
    return report["timing"]


def compare(folder, rounds, repeats):
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(time_imagen(folder, repeats))
        command = [sys.executable, __file__, "time", folder, "--repeats", str(repeats)]
        theirs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]))
    for key in ("seconds", "load_seconds", "peak_mb"):
        ratios = [a[key] / b[key] for a, b in zip(ours, theirs)]
        a, b = (statistics.median(r[key] for r in runs) for runs in (ours, theirs))
        print(f"{key:14} imagen {a:10.3f}  transformers {b:10.3f}  ratio {statistics.median(ratios):.2f}  ({', '.join(f'{r:.2f}' for r in ratios)})")
    print("streamed" if ours[0]["streamed"] else "in memory")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "time", "compare"])
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.action == "make":
        make(*options.arguments)
    elif options.action == "time":
        print(json.dumps(time_torch(options.arguments[0], options.repeats)))
    else:
        compare(options.arguments[0], options.rounds, options.repeats)


main()
