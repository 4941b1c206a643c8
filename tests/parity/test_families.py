"""Every family beside Hugging Face Transformers: their folder opens here and ours there, with the same results."""

import json

import jax
import models
import numpy as np
import pytest
import transformers

from lm.weights.place import open_place, save_place

ALL = models.MODELS | models.FORMS


def ours(bundle, ids, mask):
    """Return a Bundle's logits `(B, T, V)`."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, positions, mask.astype(np.int32))
    logits = np.asarray(out.hidden @ out.unembed)
    logits = logits if out.unembed_bias is None else logits + np.asarray(out.unembed_bias)
    cap = bundle.config.model.logits_soft_cap
    return cap * np.tanh(logits / cap) if cap else logits


def theirs(folder):
    """Return what Transformers makes of a folder, nothing missing and nothing left over."""
    auto = {"Causal": transformers.AutoModelForCausalLM, "Masked": transformers.AutoModelForMaskedLM}
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    kind = next((auto[word] for word in auto if word in architecture), transformers.AutoModelForCausalLM)
    model, report = kind.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ALL)
def test_logits_and_tokens_agree_both_ways(name, tmp_path, agree, greedy):
    model = models.make(ALL[name])
    model.save_pretrained(tmp_path / "theirs")
    ids, mask = models.batch()
    logits = models.logits(model, ids, mask)
    assert np.ptp(logits[mask]) > 5
    bundle = open_place(str(tmp_path / "theirs"))
    agree(name, ours(bundle, ids, mask)[mask], logits[mask])
    save_place(bundle, str(tmp_path / "ours"))
    again = theirs(tmp_path / "ours")
    agree(name, models.logits(again, ids, mask)[mask], logits[mask])
    if model.can_generate():
        tokens = models.greedy(model, ids[0])
        np.testing.assert_array_equal(greedy(bundle.model, bundle.params, ids[:1], models.NEW)[0], tokens)
        np.testing.assert_array_equal(models.greedy(again, ids[0]), tokens)


OLD = {  # what configurations said before transformers 5, and what to take out for it
    "llama": ({"rope_theta": 500.0, "rope_scaling": None, "torch_dtype": "float32"}, ("rope_parameters", "dtype")),
    "gpt2": ({"n_ctx": models.CONTEXT, "torch_dtype": "float32"}, ("dtype",)),
    "llama_3": (
        {
            "rope_theta": 500.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        ("rope_parameters",),
    ),
    "gpt_neox": ({"rotary_pct": 0.25, "rotary_emb_base": 500.0}, ("rope_parameters",)),
    "qwen2_tied_and_late_windows": ({"rope_theta": 500.0}, ("rope_parameters", "layer_types")),
    "gemma2": ({"rope_theta": 500.0, "hidden_act": "gelu_pytorch_tanh"}, ("rope_parameters", "layer_types")),
    "gemma3": (
        {
            "rope_theta": 900.0,
            "rope_local_base_freq": 70.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 6,
        },
        ("rope_parameters", "layer_types", "_sliding_window_pattern"),
    ),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", OLD)
def test_the_older_form_means_the_same(name, tmp_path):
    model = models.make(ALL[name])
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    path = tmp_path / "theirs" / "config.json"
    new, old = OLD[name]
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in old} | new
    path.write_text(json.dumps(config))
    ids, mask = models.batch()
    bundle = open_place(str(tmp_path / "theirs"))
    np.testing.assert_allclose(ours(bundle, ids, mask)[mask], models.logits(model, ids, mask)[mask], rtol=0, atol=1e-4)
