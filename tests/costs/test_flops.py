"""Parameters as the model has them (as published: tests/families), and FLOPs counted in the program itself."""

import jax
import numpy as np
import pytest

from lm.config import defaults
from lm.config.resolve import resolve
from lm.costs import flops
from lm.families.catalog import FAMILIES
from lm.model.moe import capacity
from lm.model.transformer import Transformer, forward, padded
from lm.objective.catalog import objective
from lm.weights.bundle import counted, shapes


def test_rows_that_pad_the_vocabulary_are_not_counted():
    config = defaults()
    config.model.update(FAMILIES["gpt2"].SIZES["124m"])
    config.train.steps = 1
    model = resolve(config).model
    held = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(Transformer(model))))
    assert flops.parameters(counted(model)) == 124_439_808 == held - (50304 - 50257) * 768


@pytest.mark.parametrize(
    ("family", "size", "billions"),
    [("mixtral", "8x7b", 12.9), ("qwen3_moe", "30b-a3b", 3.3), ("qwen3_moe", "235b-a22b", 22)],
)
def test_active_parameters_are_as_published(family, size, billions):
    """Jiang et al. 2024, arXiv 2401.04088; the model cards of Qwen3-30B-A3B and Qwen3-235B-A22B."""
    config = defaults()
    config.model.family = family
    config.model.update(FAMILIES[family].SIZES[size])
    config.train.steps = 1
    model = resolve(config).model
    assert flops.active_parameters(model, counted(model)) / 1e9 == pytest.approx(billions, rel=0.02)


# Whatever changes the number of parameters or of (query, key) pairs.
VARIANTS = {
    "alibi, parallel, dense": {"positions": "alibi", "wiring": "parallel", "activation": "relu_squared"},
    "none, post, scalars, values": {
        "positions": "none",
        "wiring": "post",
        "residual_scalars": True,
        "value_embeddings": 2,
        "tied": False,
        "windows": (5,),
    },
    "relative, sandwich, head norms": {
        "positions": "relative",
        "relative_buckets": 6,
        "relative_distance": 9,
        "wiring": "sandwich",
        "qk_norm": True,
        "windows": (3, 0),
    },
    "sinusoidal, gated, head norms without bias": {
        "positions": "sinusoidal",
        "gated": True,
        "bias": False,
        "qk_norm": True,
        "windows": (99, 1, 7),
    },
    "some of five experts, with biases": {"experts": 5, "experts_per_token": 2, "bias": True, "windows": (4, 0)},
    "experts with places": {"family": "mixtral", "dispatch": "capacity", "expert_capacity": 4.0, "tied": True},
    "encoder": {"architecture": "encoder", "positions": "relative", "windows": (3, 0)},
    "encoder–decoder": {"architecture": "encoder_decoder", "encoder_layers": 2, "tied": False},
    "encoder–decoder with experts": {"architecture": "encoder_decoder", "experts": 3, "gated": True},
    "RMS norms of heads": {"family": "llama", "qk_norm": True, "wiring": "sandwich", "value_embeddings": 3},
}


def _of_model(options):
    return {f"model__{name}": value for name, value in options.items()}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_parameters_of_options(tiny, options):
    """As many as the model holds, less the rows that pad the vocabulary in the embedding, the head and the tables."""
    model = tiny(**_of_model(options)).model
    held = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(Transformer(model))))
    spare = padded(model.vocabulary, model.vocabulary_multiple) - model.vocabulary
    assert spare == 3
    tables = model.value_embeddings * model.kv_heads * model.head_width
    assert held - spare * (model.width * (1 if model.tied else 2) + tables) == flops.parameters(counted(model))


def _pairs(context, window):
    """Return how many (query, key) pairs a layer's attention has in one row, counted one by one."""
    return sum(1 for query in range(context) for key in range(query + 1) if not window or query - key < window)


@pytest.mark.parametrize("windows", [(), (5,), (1,), (3, 0), (99, 1, 7)])
def test_attention_flops_are_those_of_the_pairs(tiny, windows):
    """A pair costs 12 · head_width a head: two products of two FLOPs, forward and backward by both operands.

    T / 2 keys a token, as published, leave out T / 2 of the T · (T + 1) / 2 pairs; a window leaves out half of itself.
    """
    model = tiny(model__windows=windows, model__layers=5).model
    plain = tiny(model__windows=(1,), model__layers=5).model
    per_key = 12 * model.heads * model.head_width

    def keys(section):
        seen = [(section.windows or (0,))[layer % max(1, len(section.windows))] for layer in range(5)]
        return sum((_pairs(13, window) - min(window or 13, 13) / 2) / 13 for window in seen)

    cost = lambda section: flops.training_flops_per_token(section, counted(section))
    assert cost(model) - cost(plain) == pytest.approx(per_key * (keys(model) - keys(plain)), abs=1)
    weights = cost(plain) - per_key * keys(plain)
    attention = 24 * (2 * 4 + 2 * 2) * 6
    assert weights == pytest.approx(6 * (5 * (attention + 2 * 24 * 40) + 61 * 24), abs=1)


def _spent(model, length):
    """Return what the program computes beside: scores that the mask hides, and of experts' places those left empty.

    The masked objective does not compute the logits of what it does not predict: of all but 2 tokens of 13.
    """
    context, windows = model.context, model.windows or (0,)
    in_all = lambda layers, of: [min(windows[layer % len(windows)] or of, of) for layer in range(layers)]
    shown = lambda layers, sides, of: sum(sides * (window - window**2 / (2 * of)) for window in in_all(layers, of))
    is_encoder = model.architecture == "encoder"
    hidden = (length * model.layers - shown(model.layers, 2 if is_encoder else 1, length)) * length / context
    if model.architecture == "encoder_decoder":
        hidden += context * model.encoder_layers - shown(model.encoder_layers, 2, context)
    spent = 12 * model.heads * model.head_width * hidden
    if model.experts and model.dispatch == "capacity":
        empty = model.experts * capacity(model, context) / context - model.experts_per_token
        spent += 6 * model.layers * empty * (3 if model.gated else 2) * model.width * model.feedforward_width
    if is_encoder:
        spent -= 6 * model.width * model.vocabulary * (context - 2) / context
    return spent


CASES = {name: _of_model({"family": name}) for name in FAMILIES} | {
    name: _of_model(options) for name, options in VARIANTS.items()
}


_OTHERS = [("gpt2", 3, 13), ("mixtral", 3, 13), ("t5", 1, 5), ("encoder–decoder", 1, 7)]


@pytest.mark.parametrize(("case", "unroll", "length"), [*((case, 1, 13) for case in CASES), *_OTHERS])
def test_training_flops_are_the_matrix_products_of_the_program(
    tiny, equations, random_params, random_batch, setting, case, unroll, length
):
    """But for what it computes in vain; of an encoder–decoder with another length of its decoder's part too."""
    config = tiny(**CASES[case], model__vocabulary_multiple=1, model__unroll=unroll, model__head_width=8)
    model = Transformer(config.model)
    goal = objective(config.objective, setting(config.model))
    batch = random_batch()
    if config.model.architecture == "encoder_decoder":
        rows = {f"encoder_{name}": getattr(batch, name) for name in ("inputs", "segments", "positions")}
        cut = {name: getattr(batch, name)[:, :length] for name in batch._fields[:5]}
        batch = batch._replace(**rows, **cut)

    def products(program, *arguments):
        total = 0
        for equation, times in equations(program, *arguments):
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                inner = int(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
                total += 2 * times * inner * int(np.prod(equation.outvars[0].aval.shape))
            elif equation.primitive.name == "ragged_dot_general":  # each row meets one of the kernels
                shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
                kernel = next(shape for shape in shapes if len(shape) == 3)
                total += 2 * times * shapes[0][0] * kernel[1] * kernel[2]
        return total

    loss = lambda params: goal.loss(forward(model), params, batch, None)[0]
    params = random_params(model)
    tokens = 8 * 13
    counts = flops.training_flops_per_token(config.model, counted(config.model), length)
    expected = tokens * (counts + _spent(config.model, length))
    assert products(jax.value_and_grad(loss), params) == pytest.approx(expected, abs=tokens / 2)
    assert products(loss, params) == pytest.approx(expected / 3, abs=tokens / 2)
