"""Makes 08_xlstm_large.safetensors and .tol.json from the authors' implementation of xLSTM 7B.

    python tests/goldens/08_xlstm_large.py <folder> [<output folder>]

<folder> holds the packages `xlstm` and `mlstm_kernels` as in the repositories NX-AI/xlstm, commit
032a6fb8ee19a8c0db80ae6111ff4744a09414a9, and NX-AI/mlstm_kernels, commit 39d3c61741e5d2c0e6ab8922106dd236632c5139. Ran with
Python 3.11.7, torch 2.13.0 (CPU), numpy 2.4.6, einops 0.8.2 and safetensors 0.8.0. README.md says what the tensors are.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import numpy as np
import torch
from safetensors.numpy import save_file
from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

OUTPUT = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent)
REFERENCE = (
    "NX-AI/xlstm 032a6fb8ee19a8c0db80ae6111ff4744a09414a9 (package version 2.0.5), xlstm_large, "
    "with NX-AI/mlstm_kernels 39d3c61741e5d2c0e6ab8922106dd236632c5139"
)
# `gate_noise` is the spread of the gates' weights and biases: that of `capped` drives them far beyond the cap.
CASES = {
    "two": {"B": 2, "S": 20, "vocab": 13, "emb": 24, "blocks": 2, "heads": 2, "gate_noise": 0.3},
    "capped": {"B": 2, "S": 20, "vocab": 11, "emb": 12, "blocks": 1, "heads": 3, "gate_noise": 12.0},
}
CHUNK = 10
# The error of float32 is the largest over these, since that of one small sum is luck.
CHUNKS_IN_FLOAT32 = (2, 4, 5, 10, 20)


def build(case, dtype, mode, chunk=CHUNK):
    config = xLSTMLargeConfig(
        embedding_dim=case["emb"],
        num_heads=case["heads"],
        num_blocks=case["blocks"],
        vocab_size=case["vocab"],
        norm_reduction_force_float32=False,
        chunkwise_kernel="chunkwise--native_autograd",
        sequence_kernel="native_sequence__native",
        step_kernel="native",
        mode=mode,
        chunk_size=chunk,
        return_last_states=True,
        autocast_kernel_dtype="float32",
        inference_state_dtype=str(dtype).removeprefix("torch."),
    )
    return xLSTMLarge(config).to(dtype)


def initial_values(case, seed):
    """PyTorch's initial values, gates apart, with noise on what would be constant; exact in float32."""
    torch.manual_seed(seed)
    values = build(case, torch.float32, "train").state_dict()
    for name, value in values.items():
        if "gate_preact" in name and "ogate" not in name:
            value.copy_(case["gate_noise"] * torch.randn_like(value))
        elif "norm" in name:
            value.add_(0.2 * torch.randn_like(value))
    return values


def run(case, values, tokens, dtype, chunk=CHUNK):
    """Outputs of the training form with every gradient, and of decoding with the last states."""
    model = build(case, dtype, "train", chunk)
    model.load_state_dict(values)
    logits, _ = model(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    results = {"out.logits": logits, "out.loss": loss}
    results |= {f"grad.{name}": value.grad for name, value in model.named_parameters()}

    decoder = build(case, dtype, "inference")
    decoder.load_state_dict(values)
    state, steps = None, []
    with torch.no_grad():
        for t in range(case["S"]):
            step, state = decoder(tokens[:, t : t + 1], state)
            steps.append(step)
    results["step.logits"] = torch.cat(steps, 1)
    for block, (memory, normalizer, maximum) in state.items():
        results |= {f"state.block_{block}.C": memory, f"state.block_{block}.n": normalizer}
        results[f"state.block_{block}.m"] = maximum.squeeze(-1)
    return {name: value.detach().double().numpy() for name, value in results.items()}


def main():
    tensors, tolerances = {}, {}
    for seed, (name, case) in enumerate(CASES.items()):
        values = initial_values(case, seed)
        tokens = torch.randint(case["vocab"], (case["B"], case["S"] + 1))
        exact = run(case, values, tokens, torch.float64)
        rounded = [run(case, values, tokens, torch.float32, chunk) for chunk in CHUNKS_IN_FLOAT32]
        tensors[f"{name}.in.tokens"] = tokens.numpy().astype(np.int32)
        tensors |= {f"{name}.param.{path}": value.numpy() for path, value in values.items()}
        for path, value in exact.items():
            largest = float(np.abs(value).max())
            error = max(float(np.abs(value - other[path]).max()) for other in rounded)
            atol = float(f"{max(10 * error, 3e-6 * largest):.2g}")
            tensors[f"{name}.{path}"] = np.ascontiguousarray(value, dtype=np.float32)
            tolerances[f"{name}.{path}"] = {"maxabs": float(f"{largest:.4g}"), "err32": float(f"{error:.3g}"), "atol": atol}
    metadata = {
        "reference": REFERENCE,
        "precision": "parameters and inputs exact in float32, reference run in float64, stored as float32",
        "cases": json.dumps(CASES),
    }
    save_file(tensors, OUTPUT / "08_xlstm_large.safetensors", metadata)
    (OUTPUT / "08_xlstm_large.tol.json").write_text(json.dumps(tolerances, indent=0) + "\n")


main()
