"""Samplers beside Transformers' processors, put together its own way: the cases of the golden file, other logits."""

import jax
import make_samplers
import ml_collections
import models
import numpy as np
import pytest
import torch

from lm.config import defaults
from lm.generate import decode, prepare, samplers
from lm.weights.place import open_place

adjusted, log_probabilities = jax.jit(samplers.adjusted), jax.jit(samplers.log_probabilities)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", make_samplers.CASES, ids=lambda case: " ".join(case) or "none")
def test_logits_are_theirs(numbers, case):
    section = defaults("sample")
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in case.items()}
    section.update({"temperature": 1.0} | fields)
    settings = samplers.settings(ml_collections.FrozenConfigDict(section), numbers)
    for seed in range(1, 6):
        logits, ids, begun, lengths, ends = make_samplers.case_of(np.random.default_rng(seed))
        expected, drawn = make_samplers.theirs(case, logits, ids, begun, lengths, ends)
        text = samplers.Text(ids, begun, lengths)
        np.testing.assert_allclose(adjusted(logits, text, settings), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_probabilities(logits, text, settings), drawn, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize(
    "fields", [{"repetition_penalty": 1.3}, {"no_repeat_ngram": 2}, {"repetition_penalty": 2.0, "no_repeat_ngram": 3}]
)
def test_texts_are_theirs(name, fields, tmp_path):
    """The whole way: what generate() writes, greedily, with what stands before it in view."""
    model = models.make((models.MODELS | models.STACKS)[name])
    model.save_pretrained(tmp_path)
    bundle = open_place(str(tmp_path))
    ids, _ = models.batch()
    row, count = ids[0], 24
    options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {{"no_repeat_ngram": "no_repeat_ngram_size"}.get(name, name): value for name, value in fields.items()}
    text = torch.tensor(row)[None]
    with torch.no_grad():
        expected = model.generate(text, attention_mask=torch.ones_like(text), **options)[0, -count:].tolist()
    params = prepare.ready(bundle.model.config, bundle.params)
    reading = decode.prefill(bundle.model, params, row[None], np.array([len(row)]), slots=len(row) + count)
    numbers = {field: getattr(samplers.Settings(), field).dtype.type(value) for field, value in fields.items()}
    keys = jax.random.split(jax.random.key(0), 1)
    settings = samplers.Settings(**numbers)
    (written,) = decode.extend(bundle.model, params, reading, keys, settings, count).text.ids.tolist()
    begun = 1 if model.config.is_encoder_decoder else len(row)
    assert written[begun : begun + count] == expected
    assert expected != models.greedy(model, row)[:count].tolist()
