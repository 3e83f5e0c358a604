"""The yardstick of bench/train.mjs: GPT-2 training in plain PyTorch, the same model and recipe as a.yaml and b.yaml.

Prints one line of JSON: tokensPerSecond (median over the steps after --warmup), peakMiB (resident), loss (mean of
the last --tail steps), parameters.
"""

import argparse
import json
import math
import os
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time_steps, width = x.shape
        parts = self.query_key_value(self.attention_norm(x)).split(width, dim=2)
        query, key, value = (part.view(batch, time_steps, self.heads, -1).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, time_steps, width))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))


class GPT(nn.Module):
    def __init__(self, layers, heads, width, vocabulary, context):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_residual = name.endswith((".output.weight", ".down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if is_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens, labels):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)  # tied
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), labels.reshape(-1))


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("layers", "heads", "width", "vocabulary", "context", "batch", "steps", "warmup", "tail", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--tokens", required=True, help="file of token ids, uint16")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--optimizer", choices=("fused", "foreach", "loop"), default="fused", help="form of AdamW's step")
    return parser.parse_args()


def make_optimizer(model, lr, form):
    parameters = list(model.parameters())
    matrices = {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1}
    vectors = {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}
    return torch.optim.AdamW([matrices, vectors], lr=lr, betas=(0.9, 0.95), fused=form == "fused", foreach=form == "foreach")


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = GPT(args.layers, args.heads, args.width, args.vocabulary, args.context)
    optimizer = make_optimizer(model, args.lr, args.optimizer)
    tokens = torch.from_file(args.tokens, size=os.path.getsize(args.tokens) // 2, dtype=torch.uint16)  # mapped
    forward = torch.compile(model) if args.compile else model
    times, losses = [], []
    for _ in range(args.steps):
        start = time.perf_counter()
        starts = torch.randint(len(tokens) - args.context, (args.batch,)).tolist()
        windows = torch.stack([tokens[i : i + args.context + 1] for i in starts]).long()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            loss = forward(windows[:, :-1], windows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        times.append(time.perf_counter() - start)
    result = {
        "tokensPerSecond": args.batch * args.context / statistics.median(times[args.warmup :]),
        "peakMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": statistics.mean(losses[-args.tail :]),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    print(json.dumps(result))


main()
