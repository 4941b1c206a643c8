"""Published weights read further than they were made for: the same tensors, other positions; or a sentence."""

import jax
import numpy as np
import pytest

from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights.bundle import Bundle
from lm.weights.extend import extended


def bundle_of(config, params=None):
    return Bundle(config, Transformer(config.model), params, None)


@pytest.mark.parametrize(
    ("how", "fields"),
    [
        ("none:3", {"rotary_scaling": "none", "rotary_factor": 1.0}),
        ("linear:3", {"rotary_scaling": "linear", "rotary_factor": 3.0}),
        ("ntk:3.1", {"rotary_scaling": "ntk", "rotary_factor": 3.1, "context": 40}),
        ("yarn:3", {"rotary_scaling": "yarn", "rotary_factor": 3.0, "rotary_original_context": 13}),
        ("llama3:3", {"rotary_scaling": "llama3", "rotary_factor": 3.0, "rotary_original_context": 13}),
    ],
)
def test_context_and_scaling_are_what_is_said_and_all_else_stays(tiny, how, fields):
    before = bundle_of(tiny(model__positions="rotary"))
    after = extended(before, how)
    changed = {name: value for name, value in after.config.model.items() if before.config.model[name] != value}
    wanted = {"context": 39, **fields}
    assert changed == {name: value for name, value in wanted.items() if before.config.model[name] != value}
    assert after.model.config == after.config.model and after.params is before.params


def test_nothing_asked_for_changes_nothing(tiny):
    before = bundle_of(tiny())
    assert extended(before, "") is before


def test_linear_positions_thrice_as_far_apart_are_as_before(tiny, random_params):
    """Queries and keys at 3p, squeezed by 3, are those at p."""
    before = bundle_of(tiny(model__positions="rotary"))
    after = extended(before._replace(params=random_params(before.model)), "linear:3")
    ids, places = np.random.default_rng(0).integers(0, 61, (1, 13)), np.arange(13)[None]
    hidden = lambda model, places: jax.jit(model.apply)({"params": after.params}, ids, places, ids * 0 + 1).hidden
    np.testing.assert_allclose(hidden(after.model, 3 * places), hidden(before.model, places), atol=1e-5)
    assert np.abs(hidden(after.model, places) - hidden(before.model, places)).max() > 0.05


ROTARY = {"model__positions": "rotary"}


@pytest.mark.parametrize(
    ("options", "how", "words"),
    [
        (ROTARY, "yarn", "--extend is 'yarn': it must be KIND:FACTOR, KIND one of none, linear, ntk, yarn, llama3"),
        (ROTARY, "dynamic:2", "--extend is 'dynamic:2': it must be"),
        (ROTARY, "yarn:0.5", "FACTOR from 1"),
        (ROTARY, "yarn:nan", "FACTOR from 1"),
        (ROTARY, "yarn:4x", "FACTOR from 1"),
        (ROTARY, "yarn:1e999", "FACTOR from 1"),
        ({"model__positions": "alibi"}, "yarn:2", "model.positions is 'alibi', and only 'rotary' are squeezed"),
        ({"model__positions": "learned"}, "none:2", "the model has learned 13 positions, and has no others"),
        (
            ROTARY | {"model__rotary_scaling": "linear", "model__rotary_factor": 2.0},
            "yarn:2",
            "squeezed already .linear",
        ),
    ],
)
def test_what_cannot_be_squeezed_is_refused(tiny, options, how, words):
    with pytest.raises(Refusal, match=words):
        extended(bundle_of(tiny(**options)), how)
