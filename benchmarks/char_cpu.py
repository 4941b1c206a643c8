"""configs/char_cpu.py beside PyTorch: same shape, same initial weights, same batches, same schedule, in one process.

Blocks of steps alternate, so that both see the same noise; then both models read the whole validation text.

    python benchmarks/char_cpu.py --text=TEXT_FILE --workdir=DIR      (needs: pip install -e '.[parity]')

Prints medians of milliseconds a step, their ratio, and both validation losses.
"""

# ruff: noqa: E402
from lm.parallel.host import keep_memory

keep_memory()  # as lm.train does

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from lm.config.resolve import resolve
from lm.train.setup import setup

TEXT = flags.DEFINE_string("text", None, "a text file of about 1 MB", required=True)
STEPS = flags.DEFINE_integer("steps", 2000, "steps of each")
BLOCK = 50


def main(_):
    """Train both, print what the docstring says."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "configs"))
    import char_cpu

    try:
        import torch
    except ImportError:
        sys.exit("error: PyTorch is needed for the comparison: .venv/bin/pip install -e '.[parity]'")
    config = char_cpu.get_config()
    config.data.source = f"files:{TEXT.value}"
    config.train.steps = STEPS.value
    with tempfile.TemporaryDirectory() as folder:
        config.data.store = folder
        run = setup(resolve(config), Path(folder), print)
        config = run.config
        state = run.create()
        torch.set_num_threads(2)
        model = Reference(config.model, torch)
        model.load(state.params)
        optimizer = model.optimizer(config)
        times = {"lm": [], "torch": []}
        for first in range(0, STEPS.value, BLOCK):
            batches = [run.batch(k) for k in range(first, min(first + BLOCK, STEPS.value))]
            pairs = [tuple(torch.tensor(np.asarray(field)).long() for field in batch[:2]) for batch in batches]
            rates = [rate(config, k) for k in range(first, first + len(batches))]
            begun = time.perf_counter()
            for batch in batches:
                state, metrics = run.step(state, batch)
            ours = float(metrics["loss"])
            times["lm"].append((time.perf_counter() - begun) / len(batches))
            begun = time.perf_counter()
            for (inputs, targets), learning_rate in zip(pairs, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                loss = model.loss(inputs, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters, config.optimizer.clip)
                optimizer.step()
            theirs = loss.item()
            times["torch"].append((time.perf_counter() - begun) / len(batches))
            print(f"step {first + len(batches)}: lm {ours:.4f}, torch {theirs:.4f}", file=sys.stderr)
        medians = {name: 1e3 * statistics.median(values[1:] or values) for name, values in times.items()}
        nats = {"lm": 0.0, "torch": 0.0}
        tokens = 0.0
        for _, batch in run.valid():
            total, weight = run.score(state.params, batch)
            nats["lm"] += float(total)
            tokens += float(weight)
            with torch.no_grad():
                logs = model.log_losses(*(torch.tensor(np.asarray(field)).long() for field in batch[:2]))
            nats["torch"] += float((logs * torch.tensor(np.asarray(batch.weights))).sum())
    losses = {name: value / tokens for name, value in nats.items()}
    ratio = medians["lm"] / medians["torch"]
    print(f"ms per step (median): lm {medians['lm']:.1f}, torch {medians['torch']:.1f}, ratio {ratio:.2f}")
    print(
        f"validation loss: lm {losses['lm']:.4f}, torch {losses['torch']:.4f}, "
        f"difference {100 * (losses['lm'] / losses['torch'] - 1):+.2f} %"
    )


def rate(config, step: int) -> float:
    """Return the learning rate of a step: linear warmup, then a cosine to the final rate."""
    schedule, steps = config.schedule, config.train.steps
    if step < schedule.warmup_steps:
        return schedule.peak * step / schedule.warmup_steps
    share = (step - schedule.warmup_steps) / (steps - schedule.warmup_steps)
    return schedule.final + 0.5 * (schedule.peak - schedule.final) * (1 + np.cos(np.pi * share))


class Reference:
    """The same decoder in plain PyTorch: fused attention, no biases, tied head, exact GELU."""

    def __init__(self, section, torch):
        self.section, self.torch = section, torch

    def load(self, params):
        """Take our initial parameters."""
        torch = self.torch
        leaf = lambda array: torch.tensor(np.asarray(array)).requires_grad_()
        block, width = params["decoder"]["block"], self.section.width
        attention, feedforward = block["attention"], block["feedforward"]
        self.embedding = leaf(params["embed"]["embedding"])
        self.positions = leaf(params["positions"]["embedding"])
        self.norm = leaf(params["decoder"]["norm"]["scale"])
        self.layers = []
        for i in range(self.section.layers):
            parts = [np.asarray(attention[name]["kernel"][i]).reshape(width, -1) for name in ("query", "key", "value")]
            self.layers.append(
                (
                    leaf(block["attention_norm"]["scale"][i]),
                    leaf(np.concatenate(parts, axis=1)),
                    leaf(np.asarray(attention["out"]["kernel"][i]).reshape(-1, width)),
                    leaf(block["feedforward_norm"]["scale"][i]),
                    leaf(feedforward["in"]["kernel"][i]),
                    leaf(feedforward["out"]["kernel"][i]),
                )
            )
        stacked = [leaf for layer in self.layers for leaf in layer]
        self.parameters = [self.embedding, self.positions, self.norm, *stacked]

    def optimizer(self, config):
        """Return AdamW with the decay groups of the config."""
        section = config.optimizer
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": section.weight_decay},
            {"params": [p for p in self.parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        return self.torch.optim.AdamW(groups, lr=1.0, betas=(section.b1, section.b2), eps=section.epsilon)

    def logits(self, inputs):
        """Return `(B, T, V)`."""
        functional, section = self.torch.nn.functional, self.section
        rows, length = inputs.shape
        normed = lambda x, scale: functional.layer_norm(x, scale.shape, scale, None, section.norm_epsilon)
        x = functional.embedding(inputs, self.embedding) + self.positions[:length]
        for attention_norm, fused, out, feedforward_norm, inward, outward in self.layers:
            heads = (normed(x, attention_norm) @ fused).split(section.width, dim=2)
            heads = [h.view(rows, length, section.heads, -1).transpose(1, 2) for h in heads]
            mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(rows, length, -1) @ out
            x = x + functional.gelu(normed(x, feedforward_norm) @ inward) @ outward
        return normed(x, self.norm) @ self.embedding.T

    def log_losses(self, inputs, targets):
        """Return −log p of every target, `(B, T)`."""
        logits = self.logits(inputs)
        flat = self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return flat.view(targets.shape)

    def loss(self, inputs, targets):
        """Return the mean of them."""
        return self.torch.nn.functional.cross_entropy(self.logits(inputs).flatten(0, 1), targets.flatten())


if __name__ == "__main__":
    app.run(main)
