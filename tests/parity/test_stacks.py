"""Encoders and encoder–decoders beside Hugging Face Transformers: folders both ways, with the same results."""

import json

import jax
import models
import numpy as np
import pytest
import torch
import transformers

from lm.model.transformer import Tokens
from lm.weights.place import open_place, save_place

ALL = models.STACKS | models.STACK_FORMS


def types(model, ids):
    """Return token types, the second half of every row of the last type there is."""
    last = getattr(model.config, "type_vocab_size", 1) - 1
    return np.where(np.arange(ids.shape[1]) < ids.shape[1] // 2, 0, last) + 0 * ids


def theirs(model, ids, mask):
    """Return what a model makes of padded rows: logits, or hidden states and what is pooled of the first."""
    inputs = models.inputs(model, ids, mask)
    if not model.config.is_encoder_decoder:
        inputs["token_type_ids"] = torch.tensor(types(model, ids))
    with torch.no_grad():
        out = model(**inputs)
    return (out.logits,) if "logits" in out else (out.last_hidden_state, out.pooler_output)


def ours(bundle, model, ids, mask):
    """Return the same of a Bundle; `model` is theirs, for the types."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    segments = mask.astype(np.int32)
    if bundle.config.model.architecture == "encoder_decoder":
        encoder = Tokens(ids, positions, segments)
        run = lambda params: bundle.model.apply(
            {"params": params}, ids[:, ::-1], positions, np.ones_like(segments), encoder=encoder
        )
    else:
        kinds = types(model, ids)
        run = lambda params: bundle.model.apply({"params": params}, ids, positions, segments, types_BT=kinds)
    out = jax.jit(run)(bundle.params)
    if out.unembed is None:
        return np.asarray(out.hidden), np.asarray(out.pooled)[:, 0]
    logits = np.asarray(out.hidden @ out.unembed)
    logits = logits if out.unembed_bias is None else logits + np.asarray(out.unembed_bias)
    return (logits[:, 0] if bundle.config.model.head == "classify" else logits,)


def flat(results, mask):
    """Return all numbers of some results that are not of padding."""
    return np.concatenate([np.asarray(x)[mask].ravel() if x.ndim == 3 else np.asarray(x).ravel() for x in results])


def assert_same_kind(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.shape == theirs.shape and np.ptp(theirs) > 1


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ALL)
def test_results_agree_both_ways(name, tmp_path, agree, greedy):
    model = models.make(ALL[name])
    model.save_pretrained(tmp_path / "theirs")
    ids, mask = models.batch()
    expected = theirs(model, ids, mask)
    bundle = open_place(str(tmp_path / "theirs"))
    found = ours(bundle, model, ids, mask)
    assert_same_kind(found, expected)
    agree(name, flat(found, mask), flat(expected, mask))
    save_place(bundle, str(tmp_path / "ours"))
    kind = getattr(transformers, ALL[name].model)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [ALL[name].model]
    again, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), report
    agree(name, flat(theirs(again.eval(), ids, mask), mask), flat(expected, mask))
    for path, tensor in model.named_parameters():
        np.testing.assert_array_equal(tensor.detach(), again.get_parameter(path).detach(), err_msg=path)
    if model.can_generate():
        for row in (ids[0], ids[1][:11]):
            tokens = models.greedy(model, row)
            np.testing.assert_array_equal(greedy(bundle.model, bundle.params, [row], models.NEW)[0], tokens)
            np.testing.assert_array_equal(models.greedy(again, row), tokens)
