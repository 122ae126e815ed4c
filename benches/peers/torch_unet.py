"""The reference networks of `imagen bench` in PyTorch: the time of a training step and of a forward pass.

Usage: python torch_unet.py mnist28|cifar32 [--steps N] [--batch N] [--threads N] [--device cpu|cuda] [--tf32]
Prints one JSON line with the keys of `imagen bench --json`. On CUDA products are f32 throughout, or with --tf32 of factors
rounded to TF32, and cuDNN is let try which of its convolutions is fastest.
"""

import argparse
import json
import math
import resource
import time

import torch
from torch import nn
from torch.nn import functional as F

WORKLOADS = {
    # image (channels, side), images a step, base channels, multipliers, levels with attention
    "mnist28": ((1, 28), 64, 32, (1, 2, 2), (2,)),
    "cifar32": ((3, 32), 16, 64, (1, 2, 2, 2), (1,)),
}
BLOCKS, GROUPS, HEADS = 2, 8, 4


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + embedding)))"""

    def __init__(self, inputs, outputs, embedding):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.embedding = nn.Linear(embedding, outputs)
        self.second = nn.Sequential(nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, embedding):
        h = self.first(x) + self.embedding(embedding)[..., None, None]
        return self.second(h) + self.shortcut(x)


class SelfAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, HEADS, channels // HEADS, height * width).transpose(3, 4)
        values = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.out(values.transpose(2, 3).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, inputs, outputs, embedding, attends):
        super().__init__()
        self.residual = Residual(inputs, outputs, embedding)
        self.attention = SelfAttention(outputs) if attends else nn.Identity()

    def forward(self, x, embedding):
        return self.attention(self.residual(x, embedding))


class UNet(nn.Module):
    def __init__(self, image, base, multipliers, attention):
        super().__init__()
        self.base, embedding, levels = base, 4 * base, len(multipliers)
        self.time = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.conv_in = nn.Conv2d(image, base, 3, padding=1)
        channels, skips = base, [base]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            for _ in range(BLOCKS):
                self.down.append(Block(channels, base * multiplier, embedding, level in attention))
                channels = base * multiplier
                skips.append(channels)
            if level + 1 < levels:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)
        self.middle = nn.ModuleList([Block(channels, channels, embedding, True), Block(channels, channels, embedding, False)])
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            for _ in range(BLOCKS + 1):
                width = base * multipliers[level]
                self.up.append(Block(channels + skips.pop(), width, embedding, level in attention))
                channels = width
            if level > 0:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1)))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, image, 3, padding=1))

    def forward(self, x, t):
        half = self.base // 2
        angles = 1000 * t[:, None] * torch.exp(-math.log(10000) / half * torch.arange(half, device=t.device))
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        h = self.conv_in(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), embedding) if isinstance(layer, Block) else layer(h)
        return self.out(h)


def milliseconds(repetitions, synchronise, work):
    """Sorted times of `work`, after three that do not count."""
    times = []
    for i in range(3 + repetitions):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[3:])


def pipelined(repetitions, synchronise, work):
    """The time of `work` when none but the last of the repetitions is waited for."""
    repetitions = min(repetitions, 64)  # as imagen does
    synchronise()
    start = time.perf_counter()
    for _ in range(repetitions):
        work()
    synchronise()
    return 1e3 * (time.perf_counter() - start) / repetitions


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tf32", action="store_true")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise SystemExit("this PyTorch finds no CUDA")
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = cuda
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.manual_seed(0)

    (channels, side), batch, base, multipliers, attention = WORKLOADS[options.workload]
    batch = options.batch or batch
    net = UNet(channels, base, multipliers, attention).to(options.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    x, noise = torch.randn(2, batch, channels, side, side, device=options.device)
    t = (torch.arange(batch, device=options.device) + 0.5) / batch

    def step():
        optimizer.zero_grad()
        F.mse_loss(net(x, t), noise).backward()
        optimizer.step()

    @torch.no_grad()
    def forward():
        net(x, t)

    synchronise = torch.cuda.synchronize if cuda else lambda: None
    train = milliseconds(options.steps, synchronise, step)
    train_pipelined = pipelined(options.steps, synchronise, step) if cuda else None
    infer = milliseconds(options.steps, synchronise, forward)
    report = {
        "workload": options.workload,
        "framework": f"torch {torch.__version__}",
        "device": options.device,
        "threads": options.threads,
        "batch": batch,
        "parameters": sum(p.numel() for p in net.parameters()),
        "train_ms_median": train[len(train) // 2],
        "train_ms_min": train[0],
        "forward_ms_median": infer[len(infer) // 2],
        "forward_ms_min": infer[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    if cuda:
        report |= {
            "gpu": torch.cuda.get_device_name(),
            "tf32": options.tf32,
            "train_ms_pipelined": train_pipelined,
            # what is held of the driver, as imagen counts it, and how much of that was in use
            "gpu_peak_mb": torch.cuda.max_memory_reserved() / 1e6,
            "gpu_allocated_mb": torch.cuda.max_memory_allocated() / 1e6,
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
