"""Steps compiled by libtpu for a slice of eight TPUs, in a process of their own, where there is libtpu and no TPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm.parallel import topology

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="there is no libtpu: pip install 'lm[tpu]'"
)

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json
from lm.config import defaults
from lm.config.resolve import bind, resolve
from lm.costs.compiled import compiled
from lm.parallel import topology
from lm.parallel.mesh import make_mesh
from lm.plan import programs
from lm.refusal import Refusal

def words(function):
    try:
        return function()
    except Refusal as refusal:
        return str(refusal)

devices = topology.devices("v5e:2x4")

def lowered(**model):
    config = defaults()
    sizes = {"family": "llama", "width": 256, "layers": 3, "heads": 4, "kv_heads": 4, "context": 128, "vocabulary": 512}
    config.model.update(sizes | model)
    config.model.dtype = "bfloat16"
    config.data.batch_size = 16
    config.parallel.mesh.update({"fsdp": 4, "tensor": 2})
    config.train.steps = 3
    config = resolve(config)
    return config, make_mesh(config.parallel.mesh, 16, 1, devices)

small = lowered()
train = programs.train_step(*small)
print(json.dumps({
    "train": compiled(train),
    "kernels": train.as_text().count("tpu_custom_call"),
    "decode": compiled(programs.decode_step(*small, rows=8)),
    "large": words(lambda: compiled(programs.train_step(*lowered(width=32768, layers=96)))),
    "unknown": words(lambda: topology.devices("v5e:3x5")),
    "slices": [device.slice_index for device in topology.devices("v5e:2x2", 2)],
}))
"""


@pytest.fixture(scope="module")
def found():
    """Return what the program found."""
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | topology.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_train_step_gathers_and_scatters_weights_in_every_layer(found):
    peak, arguments, temporaries, outputs, collectives, _ = found["train"]
    assert peak < arguments + temporaries + outputs < 16 * 2**30
    for kind in ("all-gather", "reduce-scatter", "all-reduce"):
        _, in_loops, runs = collectives[kind]
        assert in_loops > 0 and runs >= 3, kind


def test_its_attention_is_the_kernel_of_a_tpu_forward_and_backward(found):
    assert found["kernels"] >= 2


def test_a_decode_step_sums_what_tensor_parallel_layers_give(found):
    peak, arguments, _, _, collectives, _ = found["decode"]
    assert arguments <= peak < 2**30
    _, in_loops, runs = collectives["all-reduce"]
    assert in_loops > 0 and runs >= 2 * 3  # two a layer: attention's and the feed-forward's


def test_a_model_that_is_too_large_is_refused(found):
    assert found["large"].startswith("the program needs at least ")
    assert "of memory on a device, which has 15.75G: give it more devices" in found["large"]


def test_unknown_topologies_are_refused_and_slices_numbered(found):
    assert found["unknown"].startswith("the topology is 'v5e:3x5': it must be one such as v5e:2x4")
    assert found["slices"] == [0] * 4 + [1] * 4
