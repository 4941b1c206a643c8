"""Nothing in; samplers.npz beside this file out: logits as Transformers' processors make them of the same logits.

    python tests/golden/make_samplers.py        (needs torch and transformers: pip install -e '.[parity]')

Made with torch 2.13.0 and transformers 5.23.0. The keys: `cases`, what each sets of the sample section; `logits`
`(B, V)`; `ids` `(B, S)` with `begun` and `lengths` `(B,)`, the text before them; `ends`; and, of every case, `adjusted`
`(cases, B, V)`, what greedy search takes the likeliest of, and `drawn`, the natural logs of a draw's probabilities.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

_BIASES = ["3=2.5", "1 4=-3", "2 5 2=6", "7 7=1.5", "6=-2"]  # a text's words are ids
_BANNED = ["5", "2 3", "1 4 2", "8 9"]
_ALL = {
    "logit_bias": _BIASES,
    "banned": _BANNED,
    "repetition_penalty": 1.4,
    "no_repeat_ngram": 2,
    "min_new_tokens": 4,
    "temperature": 1.3,
    "top_k": 7,
    "top_p": 0.85,
    "min_p": 0.05,
}
CASES: list[dict[str, Any]] = [
    {},
    *({"temperature": value} for value in (0.5, 2.0)),
    *({"top_k": value} for value in (1, 4, 50)),
    *({"top_p": value} for value in (0.01, 0.6, 0.95)),
    *({"min_p": value} for value in (0.05, 0.3, 1.0)),
    *({"repetition_penalty": value} for value in (0.6, 1.3, 20.0)),
    *({"no_repeat_ngram": value} for value in (1, 2, 3, 40)),
    *({"min_new_tokens": value} for value in (1, 4)),
    {"logit_bias": _BIASES},
    {"banned": _BANNED},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.9, "min_p": 0.1},
    {"repetition_penalty": 1.4, "logit_bias": _BIASES, "no_repeat_ngram": 2},
    _ALL,
]


def case_of(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Return logits, ids of few kinds (so that they repeat), where what was added begins and ends, and the ends."""
    logits = draw.normal(0, 3, (5, 13)).astype(np.float32)
    ids = draw.integers(1, 8, (5, 17)).astype(np.int32)
    ids[4, 14:] = ids[4, 5:8]
    return logits, ids, np.array([1, 3, 2, 7, 11], np.int32), np.array([1, 6, 11, 13, 17], np.int32), [0, 12]


def _ids(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def theirs(case, logits, ids, begun, lengths, ends) -> tuple[np.ndarray, np.ndarray]:
    """Return what Transformers makes of the logits, its own way of putting processors together, row for row.

    Returns:
      The logits without sampling, and the natural logs of the probabilities with it, float32 `(B, V)` both.
    """
    sizes = {"vocab_size": logits.shape[1], "n_embd": 2, "n_layer": 1, "n_head": 1}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=ends))
    biases = [text.split("=") for text in case.get("logit_bias", ())]
    fields = {
        "sequence_bias": [[_ids(text), float(bias)] for text, bias in biases] or None,
        "bad_words_ids": [_ids(text) for text in case.get("banned", ())] or None,
        "repetition_penalty": case.get("repetition_penalty"),
        "no_repeat_ngram_size": case.get("no_repeat_ngram"),
        "min_new_tokens": case.get("min_new_tokens"),
    }
    drawn = {"temperature": case.get("temperature", 1.0), "top_k": case.get("top_k", 0)}
    drawn |= {"top_p": case.get("top_p", 1.0), "min_p": case.get("min_p")}

    def run(row, **more):
        config = GenerationConfig(eos_token_id=ends, pad_token_id=0, **fields, **more)
        model._prepare_special_tokens(config)
        chain = model._get_logits_processor(config, input_ids_seq_length=int(begun[row]), device="cpu")
        text = torch.tensor(ids[row : row + 1, : lengths[row]], dtype=torch.long)
        return chain(text, torch.tensor(logits[row : row + 1]))[0]

    rows = range(len(logits))
    adjusted = np.stack([run(row, do_sample=False).numpy() for row in rows])
    logs = np.stack([torch.log_softmax(run(row, do_sample=True, **drawn), -1).numpy() for row in rows])
    return adjusted, logs


def main() -> None:
    logits, ids, begun, lengths, ends = case_of(np.random.default_rng(0))
    results = [theirs(case, logits, ids, begun, lengths, ends) for case in CASES]
    file = Path(__file__).parent / "samplers.npz"
    np.savez_compressed(
        file,
        cases=np.array(json.dumps(CASES)),
        logits=logits,
        ids=ids,
        begun=begun,
        lengths=lengths,
        ends=np.array(ends, np.int32),
        adjusted=np.stack([adjusted for adjusted, _ in results]),
        drawn=np.stack([drawn for _, drawn in results]),
    )
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
