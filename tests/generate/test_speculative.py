"""Texts with a draft against texts without, token for token; draws against the probabilities they should have."""

import numpy as np
import pytest

from lm.generate.generator import Generator, generate

PROMPTS = ["Hello", "a", "nine long", ""]


@pytest.fixture(scope="module")
def bundle(byte_bundle):
    return byte_bundle(model__family="llama", model__tied=False)


MODELS = {
    "windows": {"model__family": "gemma3", "model__context": 29},
    "rotary": {"model__family": "llama"},
    "learned": {"model__family": "gpt2"},
    "alibi": {"model__positions": "alibi"},
    "answering": {
        "model__architecture": "encoder_decoder",
        "model__positions": "relative",
        "model__encoder_layers": 3,
    },
}


@pytest.mark.parametrize("draft", ["lookup", "itself", "other"])
@pytest.mark.parametrize("model", MODELS)
def test_greedy_is_plain_greedy(byte_bundle, sampling, random_params, model, draft):
    """Rows of various lengths, side by side, beyond the context."""
    bundle = byte_bundle(**MODELS[model], model__tied=False)
    plain = generate(bundle, PROMPTS, sampling(max_new_tokens=31))
    other = bundle._replace(params=random_params(bundle.model, seed=1))
    drafts = {"lookup": None, "itself": bundle, "other": other}
    section = sampling(max_new_tokens=31, draft="lookup" if draft == "lookup" else "PLACE", draft_tokens=3)
    completions = Generator(bundle, drafts[draft])(PROMPTS, section)
    for ours, theirs in zip(completions, plain, strict=True):
        assert ours.tokens == theirs.tokens and ours.finish_reason == theirs.finish_reason
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
