"""What it takes to open a published model: seconds, and memory beside what the process has at its start.

    python benchmarks/weights.py --size=135m --dtype=bfloat16

Writes a checkpoint of random numbers of a published size (of lm/families/llama.py), in shards as those are, opens it
in a process of its own and writes it again in another; prints the seconds of each, and the most memory that was
resident beyond the start's, as a multiple of the parameters' bytes.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

SIZE = flags.DEFINE_string("size", "135m", "of lm/families/llama.py")
STORED = flags.DEFINE_string("dtype", "bfloat16", "that the checkpoint is stored in: float32, float16 or bfloat16")
ASKED = flags.DEFINE_string("open", "", "dtype to open it in: float32 or bfloat16; empty: as it is stored")

_CHILD = """
import json, sys, time
import jax
from lm.weights.place import open_place, save_place

place, dtype, target = sys.argv[1:]
jax.block_until_ready(jax.numpy.zeros(3) + 1)
status = lambda name: next(
    int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name + ":")
)
bundle = open_place(place, dtype=dtype) if target else None
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before, begun = status("VmRSS"), time.monotonic()
if target:
    save_place(bundle, target)
else:
    bundle = open_place(place, dtype=dtype)
jax.block_until_ready(bundle.params)
seconds = time.monotonic() - begun
size = sum(leaf.nbytes for leaf in jax.tree.leaves(bundle.params))
print(json.dumps({"seconds": seconds, "peak": (status("VmHWM") - before) / size, "gigabytes": size / 1e9}))
"""


def main(_) -> None:
    """Write, open, write again."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        _make(place)
        for what, target in (("open", ""), ("write", str(Path(folder) / "again"))):
            line = [sys.executable, "-c", _CHILD, str(place), ASKED.value, target]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{what}: {found['gigabytes']:.2f} GB in {found['seconds']:.1f} s; "
                f"most memory beyond the start {found['peak']:.2f} × that"
            )


def _make(place: Path) -> None:
    """Write a checkpoint, tensor by tensor."""
    from lm.config import defaults
    from lm.config.resolve import resolve
    from lm.families import llama
    from lm.weights import config as configs
    from lm.weights import folder, layout
    from lm.weights.bundle import shapes
    from lm.weights.published import Published, Tensor

    config = defaults()
    config.model.family = "llama"
    config.model.update(llama.SIZES[SIZE.value])
    config.model.vocabulary_multiple = 1
    config.train.steps = 1
    section = resolve(config).model
    from lm.model.transformer import Transformer

    generator = np.random.default_rng(0)

    def tensor(like: Tensor) -> Tensor:
        draw = lambda: (0.02 * generator.standard_normal(like.shape, np.float32)).astype(STORED.value)
        return Tensor(like.shape, STORED.value, draw)

    begun = time.monotonic()
    names = layout.theirs(shapes(Transformer(section)), section)
    tensors = {name: tensor(one) for name, one in names.items()}
    folder.write(place, Published(configs.to_theirs(section), {}, tensors, None), shard=2_000_000_000)
    print(f"{SIZE.value}, {STORED.value}: written in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    app.run(main)
