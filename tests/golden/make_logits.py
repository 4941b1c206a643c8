"""Nothing in; gpt2_tiny.npz and llama_tiny.npz beside this file out: random weights and Hugging Face's logits of them.

    python tests/golden/make_logits.py        (needs torch and transformers: pip install -e '.[parity]')

Made with torch 2.13.0 and transformers 5.23.0. The keys: `ids` (B, T), `logits` (B, T, V), and every tensor by name.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

GPT2 = GPT2Config(
    vocab_size=61,
    n_positions=13,
    n_embd=24,
    n_layer=3,
    n_head=4,
    n_inner=40,
    bos_token_id=0,
    eos_token_id=0,
    attn_implementation="eager",
)
LLAMA = LlamaConfig(
    vocab_size=61,
    max_position_embeddings=13,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=40,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    tie_word_embeddings=False,
    attn_implementation="eager",
)


def main() -> None:
    for name, model in (("gpt2_tiny", GPT2LMHeadModel(GPT2)), ("llama_tiny", LlamaForCausalLM(LLAMA))):
        generator = torch.Generator().manual_seed(7)
        model = model.float().eval()
        with torch.no_grad():
            for path, tensor in model.named_parameters():
                center = 1.0 if path.endswith("weight") and tensor.ndim == 1 else 0.0
                tensor.copy_(center + 0.3 * torch.randn(tensor.shape, generator=generator))
            ids = torch.randint(0, 61, (3, 11), generator=generator)
            logits = model(ids).logits
        tensors = {path: tensor.detach().numpy() for path, tensor in model.named_parameters()}
        file = Path(__file__).parent / f"{name}.npz"
        np.savez_compressed(file, ids=ids.numpy().astype(np.int32), logits=logits.numpy(), **tensors)


if __name__ == "__main__":
    main()
