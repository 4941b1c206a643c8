"""Programs whose collectives and bytes are known, over the 8 fake devices; and a text as TPU compilers write it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.costs.compiled import Collective, collectives, compiled
from lm.refusal import Refusal

ROWS = PartitionSpec("x")


@pytest.fixture(scope="module")
def lowered():
    """Return a function: (this device's part of an array) → the same, shape → the lowered program over the devices."""
    mesh = Mesh(np.asarray(jax.devices()), "x")

    def lower(function, shape, donated=()):
        program = jax.shard_map(function, mesh=mesh, in_specs=ROWS, out_specs=ROWS, check_vma=False)
        struct = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, ROWS))
        return jax.jit(program, donate_argnums=donated).lower(struct)

    return lower


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("all-gather", lambda x: jax.lax.all_gather(x, "x", tiled=True)),
        ("all-reduce", lambda x: jax.lax.psum(x, "x")),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "x", tiled=True)),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "x", 0, 0, tiled=True)),
        ("collective-permute", lambda x: jax.lax.ppermute(x, "x", [(i, (i + 1) % 8) for i in range(8)])),
    ],
)
def test_each_kind_is_counted(lowered, kind, function):
    assert compiled(lowered(function, (64, 3))).collectives == {kind: Collective(1, 0, 1)}


def test_those_in_loops_are_run_as_often_as_the_loop_turns(lowered):
    def turn(x, scale):
        return jnp.sin(jax.lax.psum(x, "x") * scale), None

    def looped(x):
        x, _ = jax.lax.scan(turn, jax.lax.all_gather(x, "x", tiled=True), jnp.arange(5.0))
        return jax.lax.scan(lambda x, scale: (jax.lax.scan(turn, x, scale)[0], None), x, jnp.ones((7, 3)))[0]

    found = compiled(lowered(looped, (8, 3))).collectives
    assert found == {"all-gather": Collective(1, 0, 1), "all-reduce": Collective(2, 2, 5 + 7 * 3)}


@pytest.mark.parametrize("donated", [(), (0,)])
def test_bytes_are_of_one_device_and_donated_ones_count_once(lowered, donated):
    found = compiled(lowered(lambda x: x + 1, (8 * 1024, 5), donated))
    size = 1024 * 5 * 4
    assert (found.arguments, found.outputs) == (size, size)
    assert found.peak == found.temporaries + (1 if donated else 2) * size and found.seconds > 0


# Abridged from what libtpu 0.0.52 gives: a gather whose beginning, middle and end are three fusions of one channel, a
# reduce-scatter as an all-reduce in a computation of that name, a loop whose turns stand in its condition alone.
ON_TPU = """\
HloModule jit_f, is_scheduled=true, num_partitions=8
%begin (param: bf16[1,256]) -> (bf16[1,256], bf16[1,1024]) {
  %all-gather.25 = bf16[1,1024]{1,0:T(8,128)} all-gather(%param), channel_id=9, replica_groups=[2,4]<=[8]
}
%meanwhile (param.1: bf16[1,256]) -> bf16[1,1024] {
  %all-gather.27 = bf16[1,1024]{1,0:T(8,128)} all-gather(%param.1), channel_id=9, replica_groups=[2,4]<=[8]
}
%end (param.2: bf16[1,256]) -> bf16[1,1024] {
  %all-gather.29 = bf16[1,1024]{1,0:T(8,128)} all-gather(%param.2), channel_id=9, replica_groups=[2,4]<=[8]
}
%add.2.clone (x: f32[], y: f32[]) -> f32[] {
  ROOT %add = f32[]{:T(128)} add(%x, %y)
}
%all-reduce-scatter.clone.1 (input.2: f32[1024,512]) -> f32[256,512] {
  %all-reduce.6 = f32[1024,512]{1,0} all-reduce(%input.2), channel_id=7, to_apply=%add.2.clone
  ROOT %slice = f32[256,512]{1,0} dynamic-slice(%all-reduce.6, %at)
}
%body.1 (wide: (s32[], f32[64,1024])) -> (s32[], f32[64,1024]) {
  %async-collective-start = (bf16[1,256], bf16[1,1024]) fusion(%x), kind=kCustom, calls=%begin
  %fusion.1 = bf16[1,1024] fusion(%x), kind=kOutput, calls=%meanwhile
  %async-collective-done = bf16[1,1024] fusion(%x), kind=kCustom, calls=%end
  ROOT %fusion.32 = f32[256,512] fusion(%y), kind=kCustom, calls=%all-reduce-scatter.clone.1
}
%condition.1 (wide.1: (s32[], f32[64,1024])) -> pred[] {
  %constant.52 = s32[]{:T(128)} constant(7)
  %number = s32[]{:T(128)} get-tuple-element(%wide.1), index=0
  ROOT %lt.10 = pred[]{:T(512)} compare(%number, %constant.52), direction=LT, metadata={op_name="while/cond/lt"}
}
ENTRY %main.5 (param.5: f32[7,256]) -> f32[7,256] {
  %all-to-all-start = (f32[8], f32[8]) all-to-all-start(%param.5), channel_id=3
  %all-to-all-done = f32[8] all-to-all-done(%all-to-all-start), channel_id=3
  ROOT %while.31 = (s32[], f32[64,1024]) while(%tuple), condition=%condition.1, body=%body.1
}
"""


def test_what_a_tpus_compiler_writes():
    found = {
        "all-gather": Collective(1, 1, 7),
        "reduce-scatter": Collective(1, 1, 7),
        "all-to-all": Collective(1, 0, 1),
    }
    assert collectives(ON_TPU) == found
    without = ON_TPU.replace("%constant.52)", "%limit)")  # nothing says how often the loop turns
    assert collectives(without) == found | dict.fromkeys(("all-gather", "reduce-scatter"), Collective(1, 1, 1))


class Failing:
    """A lowered program whose compilation fails."""

    def __init__(self, words):
        self.compile = partial(self._fail, words)

    def _fail(self, words):
        raise JaxRuntimeError(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (45.18G) exceeds available HBM (15.75G). HLO module: jit_f.",
            r"needs at least 45\.18G of memory on a device, which has 15\.75G: give it more devices",
        ),
        ("RESOURCE_EXHAUSTED: of something else", "needs more memory than a device has: give it more devices"),
    ],
)
def test_what_does_not_fit_is_refused(words, sentence):
    with pytest.raises(Refusal, match=sentence):
        compiled(Failing(words))


def test_other_failures_are_no_matter_of_size():
    with pytest.raises(JaxRuntimeError, match="INTERNAL"):
        compiled(Failing("INTERNAL: a mistake of the compiler's"))


def test_a_text_that_this_jaxlib_cannot_read_leaves_the_other_numbers(lowered, monkeypatch):
    def unreadable(self):
        raise JaxRuntimeError("INTERNAL: RET_CHECK failure: async-update instruction should have 1 operands")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", unreadable)
    found = compiled(lowered(lambda x: x + 1, (64, 3)))
    assert found.collectives is None and found.arguments == 8 * 3 * 4
