"""What a model cannot be measured on, refused before any text is read; the rest in tests/weights/test_main.py."""

import pytest

from lm.config import defaults
from lm.evaluate.text import measure
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.weights.bundle import Bundle


@pytest.mark.parametrize(
    ("kind", "context", "words"),
    [
        (None, 13, "the model has no tokenizer, so it cannot read text"),
        ("byte", 14, "--context is 14: the model was made for at most 13 tokens"),
        ("byte", 13, "the tokenizer has 257 ids: the model has 61"),
    ],
)
def test_what_cannot_be_measured_is_refused(tiny, kind, context, words):
    config = tiny()
    tokenizer = learn(tiny(data__tokenizer=kind).data, []) if kind else None
    bundle = Bundle(config, Transformer(config.model), {}, tokenizer)
    with pytest.raises(Refusal, match=words):
        measure(bundle, defaults("data"), context, print)
