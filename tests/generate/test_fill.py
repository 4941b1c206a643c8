"""Gaps against the model's own probabilities, and what has no gaps."""

import jax
import numpy as np
import pytest

from lm.generate.fill import fill
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.weights.place import Bundle


@pytest.fixture(scope="module")
def make(tiny, random_params):
    """Return a function: model options → a Bundle over bytes with a mask token."""

    def make(mask="[MASK]", **options):
        named = {f"model__{name}": value for name, value in options.items()}
        config = tiny(**{"model__architecture": "encoder", "model__vocabulary": 258, "model__layers": 2} | named)
        model = Transformer(config.model)
        tokenizer = learn(tiny(data__tokenizer="byte", data__mask_token=mask).data, [])
        return Bundle(config, model, random_params(model), tokenizer)

    return make


def test_gaps_have_the_models_likeliest_tokens(make):
    """Two of them, in a text between ends of text; the head's bias counts."""
    bundle = make(head="masked")
    end, mask = bundle.tokenizer.end, bundle.tokenizer.specials.mask
    gaps = fill(bundle, "a[MASK]cd[MASK]", 3)
    ids = np.array([[end, 97, mask, 99, 100, mask, end]])
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, np.arange(7)[None], np.ones_like(ids))
    logits = (np.asarray(out.hidden[0] @ out.unembed) + np.asarray(out.unembed_bias))[:, :258]
    expected = np.asarray(jax.nn.log_softmax(logits))
    assert len(gaps) == 2
    for place, fillings in zip((2, 5), gaps, strict=True):
        order = np.argsort(-expected[place])[:3]
        assert [filling.token for filling in fillings] == order.tolist()
        np.testing.assert_allclose([filling.logprob for filling in fillings], expected[place, order], atol=1e-4)
        assert [filling.text for filling in fillings] == [bundle.tokenizer.token(int(token)) for token in order]


@pytest.mark.parametrize(
    ("options", "text", "words"),
    [
        ({}, "nothing", r"no gap: write \[MASK\]"),
        ({}, "0123456789x[MASK]", "has 14 tokens"),
        ({"mask": ""}, "a[MASK]", "no mask token"),
        ({"head": "none"}, "a[MASK]", "model.head 'none'"),
        ({"architecture": "decoder"}, "a[MASK]", "model.architecture is 'decoder'"),
    ],
)
def test_what_cannot_be_filled_is_refused(make, options, text, words):
    with pytest.raises(Refusal, match=words):
        fill(make(**options), text)


def test_a_text_may_fill_the_context(make):
    assert len(fill(make(), "0123456789[MASK]")[0]) == 5
