"""Parameter counts as published, and FLOPs counted in the program itself."""

import jax
import numpy as np
import pytest

from lm.config import defaults
from lm.config.resolve import bind, resolve
from lm.costs import flops
from lm.families.catalog import FAMILIES
from lm.model.transformer import Transformer, padded
from lm.objective.catalog import objective
from lm.objective.losses import logits_of
from lm.weights.place import shapes

# Counted on the weights that Hugging Face publishes under these names.
PUBLISHED = {
    ("gpt2", "124m"): 124_439_808,  # gpt2
    ("gpt2", "355m"): 354_823_168,  # gpt2-medium
    ("gpt2", "774m"): 774_030_080,  # gpt2-large
    ("gpt2", "1.5b"): 1_557_611_200,  # gpt2-xl
    ("llama", "135m"): 134_515_008,  # SmolLM2-135M
    ("llama", "1.1b"): 1_100_048_384,  # TinyLlama-1.1B
    ("llama", "7b"): 6_738_415_616,  # Llama-2-7b
    ("llama", "8b"): 8_030_261_248,  # Meta-Llama-3-8B
}


def test_every_size_has_a_published_count():
    assert {(name, size) for name, family in FAMILIES.items() for size in family.SIZES} == set(PUBLISHED)


@pytest.mark.parametrize(("family", "size"), PUBLISHED)
def test_parameters(family, size):
    config = defaults()
    config.model.family = family
    config.model.update(FAMILIES[family].SIZES[size])
    config.train.steps = 1
    model = bind(resolve(config), vocabulary=config.model.vocabulary, tokens=1).model
    assert flops.parameters(model) == PUBLISHED[family, size]
    held = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(Transformer(model))))
    spare = padded(model.vocabulary, model.vocabulary_multiple) - model.vocabulary
    assert held - spare * model.width * (1 if model.tied else 2) == PUBLISHED[family, size]


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_flops_are_the_matrix_products_of_the_program(
    tiny, assembled, equations, random_params, random_batch, family, unroll
):
    """The program computes the scores that the causal mask hides: attention is twice what is counted."""
    config = tiny(model__family=family, model__vocabulary_multiple=1, model__unroll=unroll, model__head_width=8)
    model = Transformer(config.model)
    goal = objective(config.objective, logits_of(config.model))
    batch = random_batch()

    def forward(params, batch, key):
        out = model.apply({"params": params}, batch.inputs, batch.positions, batch.segments)
        return out.hidden, out.unembed

    def products(program, *arguments):
        total = 0
        for equation, times in equations(program, *arguments):
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                inner = int(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
                total += 2 * times * inner * int(np.prod(equation.outvars[0].aval.shape))
        return total

    loss = lambda params: goal.loss(forward, params, batch, None)[0]
    params = random_params(model)
    hidden = 6 * config.model.layers * config.model.heads * config.model.head_width * config.model.context
    expected = batch.inputs.size * (flops.training_flops_per_token(config.model) + hidden)
    assert products(jax.value_and_grad(loss), params) == expected
    assert products(loss, params) == expected / 3
