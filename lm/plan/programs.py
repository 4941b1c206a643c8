"""A config and a mesh in; the programs of its run, lowered for the mesh's devices from shapes alone, out.

Nothing is allocated and no data is read, so the devices may be those of a topology (lm/parallel/topology.py), and the
model larger than this machine.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.batch import Batch
from lm.config.objective import has_prefix
from lm.data.pairs import Pair
from lm.data.windows import Window
from lm.generate import decode, prepare, samplers
from lm.model import attend, kernels
from lm.model.transformer import Transformer, forward, initial
from lm.objective.base import Objective, Setting, placed
from lm.objective.catalog import objective
from lm.objective.losses import logits_of
from lm.optim import build, schedules
from lm.parallel import attention, prepared, rules
from lm.parallel import compile as compiling
from lm.text.tokenizer import Specials
from lm.train import state as states
from lm.train.step import make_step
from lm.weights.bundle import shapes


def train_step(config: ml_collections.FrozenConfigDict, mesh: Mesh) -> jax.stages.Lowered:
    """Return the lowered step of training under jit: (State, Batch) → (State, metrics), the State donated.

    Args:
      config: resolved; its model has a vocabulary.
    """
    model = _model(config, mesh)
    goal = objective(config.objective, placed(_setting(config.model), rules.apart(mesh)))
    schedule = schedules.schedule(config.schedule, config.train.steps)
    optimizer = build.optimizer(config.optimizer, schedule)
    across = compiling.ACROSS["jit"](mesh, config.train, config.model)
    step = make_step(goal, forward(model), optimizer, schedule, config.seed, config.train, across=across)

    def create() -> states.State:
        params = initial(model, jax.random.key(config.seed))
        return states.create(params, optimizer, is_averaged=config.train.ema > 0)

    state = jax.eval_shape(create)
    batch = batch_shapes(goal, config.model.context, config.data.batch_size)
    return compiling.compile_step(step, state, mesh).lower(state, batch)


def batch_shapes(goal: Objective, context: int, rows: int) -> Batch:
    """Return the shapes of a Batch of an objective, for which a window of text stands."""
    length = goal.length(context) + 1
    ids = np.zeros(length, np.int32)
    unit = {
        "text": lambda: Window(ids, ids + 1, np.arange(length, dtype=np.int32), ids == 0, np.int32(0)),
        "pair": lambda: Pair(ids[: context // 4], ids[: context // 4], np.int32(0)),
    }[goal.unit]()
    row = goal.shape(unit, (0, 0))
    return jax.tree.map(
        lambda field: jax.ShapeDtypeStruct((rows, *np.shape(field)), jax.dtypes.canonicalize_dtype(field.dtype)), row
    )


def decode_step(config: ml_collections.FrozenConfigDict, mesh: Mesh, rows: int) -> jax.stages.Lowered:
    """Return the lowered program that adds tokens to so many texts: (parameters, Reading, keys, Settings, count) →
    Reading, a loop over one step; the Reading is donated. Half of the context is prompt.

    Args:
      config: resolved; its model has a vocabulary.
    """
    model = _model(config, mesh).clone(attend=attend.einsum)  # as generation has it
    params = jax.eval_shape(partial(prepare.ready, model.config), shapes(model))
    ids = jax.ShapeDtypeStruct((rows, config.model.context // 2), jnp.int32)
    lengths = jax.ShapeDtypeStruct((rows,), jnp.int32)
    prefill = partial(decode.prefill, model, slots=config.model.context)
    reading = _as_on_accelerators(jax.eval_shape(prefill, params, ids, lengths), config.model.dtype)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    whole = NamedSharding(mesh, PartitionSpec())
    layout = prepared.shardings(reading, mesh, prepared.READING)
    program = jax.jit(
        lambda params, *rest: decode.extend(model, params, *rest),
        in_shardings=(prepared.shardings(params, mesh), layout, rules.rows(mesh), whole, whole),
        out_shardings=layout,
        donate_argnums=1,
    )
    return program.lower(params, reading, keys, samplers.Settings(), np.int32(1))


def _model(config: ml_collections.FrozenConfigDict, mesh: Mesh) -> Transformer:
    """Return the model on the mesh, as a run on its devices has it."""
    kernel = kernels.chosen(config.parallel.attention, config.model, has_prefix(config), mesh.devices.flat[0])
    attend = attention.placed(kernels.ATTENDS[kernel].attend, kernels.ATTENDS[kernel].takes, mesh, "jit")
    return Transformer(compiling.settled(config.model, mesh), attend, rules.constrain(mesh), rules.by_rows(mesh))


def _setting(model: ml_collections.FrozenConfigDict) -> Setting:
    """Return an objective's Setting; which ids have a meaning of their own, no program depends on."""
    specials = Specials(model.vocabulary, end=0, mask=1, sentinels=tuple(range(2, model.vocabulary)))
    return Setting(logits_of(model), model.architecture, model.context, specials, model.head)


def _as_on_accelerators(reading: decode.Reading, dtype: str) -> decode.Reading:
    """Return the shapes of a Reading whose caches are kept as there, where this machine's are of 32 bits."""
    kept = lambda leaf: leaf if leaf is None else jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype))
    return reading._replace(
        cache=tuple(layer._replace(key=kept(layer.key), value=kept(layer.value)) for layer in reading.cache)
    )
