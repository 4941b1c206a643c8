"""Every family's published model: Transformers' logits and tokens of its folder; written again, the same tensors."""

import jax
import numpy as np
from safetensors.numpy import load_file

from lm import trees
from lm.model.transformer import Tokens
from lm.weights.place import describe, open_place, save_place


def test_folders_give_their_logits_and_tokens_and_are_written_exactly(family, tmp_path, greedy):
    bundle = open_place(str(family.write(tmp_path / "theirs")))
    ids, mask, logits = (family.results[name] for name in ("ids", "mask", "logits"))
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    rows = ids, positions, mask.astype(np.int32)
    encoder = None
    if bundle.config.model.architecture == "encoder_decoder":
        encoder, rows = Tokens(*rows), (ids[:, ::-1], positions, np.ones_like(ids))
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, *rows, encoder=encoder)
    ours = np.asarray(out.hidden @ out.unembed)
    if out.unembed_bias is not None:
        ours = ours + np.asarray(out.unembed_bias)
    if cap := bundle.config.model.logits_soft_cap:
        ours = cap * np.tanh(ours / cap)
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(ours[mask], logits[mask], rtol=0, atol=2e-5)

    if "greedy" in family.results:
        prompt = ids[:1, mask[0]]
        count = len(family.results["greedy"])
        (tokens,) = greedy(bundle.model, bundle.params, list(prompt), count)
        np.testing.assert_array_equal(tokens, family.results["greedy"])

    save_place(bundle, str(tmp_path / "ours"))
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == family.tensors.keys()
    for name, tensor in family.tensors.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name, strict=True)
    again = open_place(str(tmp_path / "ours"))
    assert again.config == bundle.config == describe(str(tmp_path / "ours")).config
    same = lambda path, one, other: np.testing.assert_array_equal(one, other, err_msg=path, strict=True)
    jax.tree.map(same, trees.mapped(lambda path, _: path, again.params), again.params, bundle.params)
