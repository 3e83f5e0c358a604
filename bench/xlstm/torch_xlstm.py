"""The yardstick of bench/xlstm.mjs: the authors' package (NX-AI/xlstm) on the CPU, training steps or decoding.

Prints one line of JSON: milliseconds (median of a step after the first, or of a token), peakMiB (resident), parameters.
Cells: `parallel` is what the package runs by itself, `chunkwise` its other form of the mLSTM, set in its place.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("width", "depth", "heads", "vocabulary", "context", "batch", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--repository", required=True, help="a checkout of NX-AI/xlstm")
    parser.add_argument("--slstm", type=int, nargs="*", default=[], help="positions of the sLSTM blocks")
    parser.add_argument("--cell", choices=("parallel", "chunkwise"), required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--decode", action="store_true", help="steps: tokens, one after another; context: unused")
    return parser.parse_args()


def make_model(args):
    sys.path.insert(0, args.repository)
    from xlstm import (
        FeedForwardConfig,
        mLSTMBlockConfig,
        mLSTMLayerConfig,
        sLSTMBlockConfig,
        sLSTMLayerConfig,
        xLSTMLMModel,
        xLSTMLMModelConfig,
    )
    from xlstm.blocks.mlstm.backends import chunkwise_simple
    from xlstm.blocks.mlstm.cell import mLSTMCell

    scalar = sLSTMBlockConfig(
        slstm=sLSTMLayerConfig(backend="vanilla", num_heads=args.heads, dtype="float32"),
        feedforward=FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
    )
    model = xLSTMLMModel(
        xLSTMLMModelConfig(
            mlstm_block=mLSTMBlockConfig(mlstm=mLSTMLayerConfig(num_heads=args.heads)),
            slstm_block=scalar if args.slstm else None,
            slstm_at=args.slstm,
            context_length=args.context,
            num_blocks=args.depth,
            embedding_dim=args.width,
            vocab_size=args.vocabulary,
        )
    )
    model.reset_parameters()
    for module in model.modules():
        if isinstance(module, mLSTMCell) and args.cell == "chunkwise":
            module.backend_fn = chunkwise_simple
    return model


def train(args, model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if args.compile else model
    for _ in range(args.steps):
        start = time.perf_counter()
        windows = torch.randint(args.vocabulary, (args.batch, args.context + 1))
        logits = forward(windows[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, args.vocabulary), windows[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert loss.isfinite()
        yield time.perf_counter() - start


@torch.inference_mode()
def decode(args, model):
    model.eval()
    tokens, state = torch.zeros((args.batch, 1), dtype=torch.long), None
    for _ in range(args.steps):
        start = time.perf_counter()
        logits, state = model.step(tokens, state)
        tokens = logits[:, -1:].argmax(-1)
        yield time.perf_counter() - start


def main():
    args = arguments()
    # What does not fit fails by itself, instead of taking the machine with it.
    most = int(0.85 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = make_model(args)
    times = list((decode if args.decode else train)(args, model))
    result = {
        "milliseconds": 1000 * statistics.median(times[1:]),
        "peakMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    print(json.dumps(result))


main()
