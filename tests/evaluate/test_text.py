"""What a model cannot be measured on, refused before any text is read; the rest in tests/weights/test_main.py."""

import numpy as np
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


@pytest.mark.parametrize(
    ("options", "stride", "words"),
    [
        ({}, 14, r"--stride is 14: it must be at most --context \(13\)"),
        ({"objective__name": "prefix"}, 5, "--stride is 5: 'prefix' does not predict every token of a text"),
    ],
)
def test_strides_that_would_not_score_every_token_once_are_refused(tiny, options, stride, words):
    config = tiny(**options, model__vocabulary=257)
    bundle = Bundle(config, Transformer(config.model), {}, learn(tiny(data__tokenizer="byte").data, []))
    with pytest.raises(Refusal, match=words):
        measure(bundle, defaults("data"), 13, print, stride)


def test_records_no_longer_than_a_window_are_measured_alike_packed_and_by_strides(tiny, random_params, tmp_path):
    letters = np.random.default_rng(0).integers(97, 123, (30, 30), np.uint8)
    for number, row in enumerate(letters):  # of which the last 1 to 12 are held out
        (tmp_path / f"{number}.txt").write_bytes(row[: number + 1].tobytes())
    options = {"data__source": f"files:{tmp_path}/*.txt", "data__store": str(tmp_path / "store")}
    options |= {"data__tokenizer": "byte", "data__packing": "first_fit", "data__valid_fraction": 0.4}
    config = tiny(**options, model__vocabulary=257)
    model = Transformer(config.model)
    bundle = Bundle(config, model, random_params(model), learn(config.data, []))
    packed, strided = (measure(bundle, config.data, 13, lambda words: None, stride) for stride in (0, 5))
    assert packed.keys() == {"loss", "perplexity", "accuracy", "baseline_accuracy", "bits_per_byte"}
    assert strided == pytest.approx(packed, rel=1e-5)
    shorter = measure(bundle, config.data, 7, lambda words: None, 1)
    assert shorter.keys() == packed.keys() and abs(shorter["loss"] / packed["loss"] - 1) > 1e-3
