"""Models to generate with."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm.config import defaults
from lm.model.transformer import Transformer
from lm.text.learn import learn
from lm.weights.place import Bundle


@pytest.fixture(scope="session")
def sampling():
    """Return a function: overrides → a sample section."""

    def make(**fields):
        section = defaults("sample")
        section.update({"temperature": 0.0, "max_new_tokens": 9} | fields)
        return ml_collections.FrozenConfigDict(section)

    return make


@pytest.fixture(scope="session")
def byte_bundle(tiny, random_params):
    """Return a function: config overrides → a Bundle over the 257 ids of bytes, random but for a mute end of text."""

    def make(**overrides):
        config = tiny(**{"model__vocabulary": 257, "model__layers": 2} | overrides)
        model, tokenizer = Transformer(config.model), learn(tiny(data__tokenizer="byte").data, [])
        params = random_params(model)
        params["embed"]["embedding"] = params["embed"]["embedding"].at[tokenizer.end].set(0)
        if not config.model.tied:
            params["head"]["kernel"] = params["head"]["kernel"].at[:, tokenizer.end].set(0)
        return Bundle(config, model, params, tokenizer)

    return make


@pytest.fixture(scope="session")
def parrot(tiny, random_params):
    """Return a function: text, context → a Bundle that says the text's bytes (all different) round and round."""

    def make(text, context):
        ids = list(text.encode())
        assert len(set(ids)) == len(ids)
        config = tiny(model__family="llama", model__vocabulary=257, model__layers=1, model__context=context)
        model = Transformer(config.model)
        params = random_params(model)
        for part in ("attention", "feedforward"):
            params["decoder"]["block"][part]["out"]["kernel"] *= 0
        embedding = np.zeros(params["embed"]["embedding"].shape, np.float32)
        kernel = np.zeros(params["head"]["kernel"].shape, np.float32)
        for axis, (now, after) in enumerate(zip(ids, ids[1:] + ids[:1], strict=True)):
            embedding[now, axis] = kernel[axis, after] = 5
        params["decoder"]["norm"]["scale"] = jnp.ones(config.model.width)
        params["embed"]["embedding"], params["head"]["kernel"] = jnp.asarray(embedding), jnp.asarray(kernel)
        return Bundle(config, model, params, learn(tiny(data__tokenizer="byte").data, []))

    return make
