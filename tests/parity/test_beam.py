"""Beam search beside Hugging Face Transformers' own: the same texts and scores."""

from typing import NamedTuple

import ml_collections
import models
import numpy as np
import pytest
import torch

from lm.config.schema import defaults
from lm.generate import beam, prepare
from lm.generate.method import Ready
from lm.text.tokenizer import Specials
from lm.weights.place import open_place

NAMES = {"gpt2": models.MODELS, "mistral": models.MODELS, "t5": models.STACKS}
STOPPING = {"first": True, "likely": False, "never": "never"}
THEIRS = {"no_repeat_ngram": "no_repeat_ngram_size"}
NEW = 17
CASES = [  # beams, texts of a prompt, length penalty, early stopping, other fields
    (3, 3, 1.0, "first", {}),
    (3, 3, 1.0, "likely", {}),
    (3, 2, 1.0, "never", {}),
    (3, 2, 0.0, "never", {}),
    (3, 3, 2.5, "likely", {}),
    (3, 3, 2.5, "never", {}),
    (3, 3, -1.0, "likely", {}),
    (3, 1, 0.6, "likely", {"repetition_penalty": 1.7, "min_new_tokens": 7}),
    (3, 3, 1.5, "first", {"no_repeat_ngram": 2, "repetition_penalty": 0.8}),
    (5, 4, 1.0, "likely", {"min_new_tokens": 4}),
]


class Ends(NamedTuple):
    """What a search asks of a tokenizer."""

    ends: frozenset[int]
    specials: Specials


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Return a model of theirs; the same, opened here; and two ids that its texts come to."""
    model, folder = models.make(NAMES[request.param][request.param]), tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    bundle = open_place(str(folder))
    said = models.greedy(model, models.batch()[0][0])
    ends = [int(said[4]), int(said[11])]
    params = prepare.ready(bundle.model.config, bundle.params)
    return model, Ready(bundle.model, params, Ends(frozenset(ends), Specials(61, ends[0], start=0)), False), ends


def theirs(model, row, ends, case):
    """Return (tokens, score) of the texts that follow a row."""
    beams, texts, penalty, stopping, others = case
    ids = torch.tensor(row)[None]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=texts,
        length_penalty=penalty,
        early_stopping=STOPPING[stopping],
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **{THEIRS.get(name, name): value for name, value in others.items()},
    )
    head = 1 if model.config.is_encoder_decoder else len(row)
    found = []
    for text, score in zip(out.sequences[:, head:].tolist(), out.sequences_scores.tolist(), strict=True):
        last = next((place for place, token in enumerate(text) if token in ends), NEW - 1)
        found.append((text[: last + 1], score))
    return found


@pytest.mark.filterwarnings("default")
def test_texts_and_scores_are_theirs(both):
    """Rows of different lengths, here in one batch."""
    model, ready, ends = both
    ids, mask = models.batch()
    rows = [row[is_text] for row, is_text in zip(ids, mask, strict=True)]
    lengths = set()
    for case in CASES:
        beams, texts, penalty, stopping, others = case
        section = defaults("sample")
        section.update({"beams": beams, "sequences": texts, "length_penalty": penalty, "max_new_tokens": NEW} | others)
        section.early_stopping = stopping
        section = ml_collections.FrozenConfigDict(section)
        written = beam.search(ready, [row.tolist() for row in rows], section, lambda index, tokens: False)
        expected = [one for row in rows for one in theirs(model, row, ends, case)]
        for one, (tokens, score) in zip(written, expected, strict=True):
            assert one.tokens == tokens, case
            np.testing.assert_allclose(one.numbers["score"], score, rtol=1e-4, atol=1e-4)
            lengths.add(len(tokens))
    assert len(lengths) > 3 and NEW in lengths
