"""Tokens a second, greedily: ours, Hugging Face Transformers' on the same weights, and what memory allows.

    python benchmarks/generate.py                                  (needs: pip install -e '.[parity]')
    python benchmarks/generate.py --family=llama --size=1.1b --dtypes=bfloat16 --rows=1 --nobeside      (a GPU)

A prompt of 32 tokens, 128 new ones, random weights. Each of both runs in a process of its own, in turns, so that both
see the same noise; the best of the rounds counts. The share is of the bandwidth at which this machine was seen to read
memory, when every parameter is read once a token. Both must write the same tokens in float32.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

FAMILY = flags.DEFINE_string("family", "gpt2", "family of the model")
SIZE = flags.DEFINE_string("size", "124m", "size of the model, of that family")
DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "dtypes of weights and arithmetic")
ROWS = flags.DEFINE_list("rows", ["1", "8"], "prompts at once")
ROUNDS = flags.DEFINE_integer("rounds", 3, "processes of each, in turns", lower_bound=1)
PROMPT = flags.DEFINE_integer("prompt", 32, "tokens of a prompt")
NEW = flags.DEFINE_integer("new", 128, "new tokens")
BESIDE = flags.DEFINE_bool("beside", True, "run Transformers too")
_PART = flags.DEFINE_string("part", "", "what this process does: ours, theirs or bandwidth; empty: all")
_PLACE = flags.DEFINE_string("place", "", "folder of the model, of a part")


def main(_) -> None:
    """Run the parts in turns, print a line for each dtype and number of rows."""
    if _PART.value:
        parts = {"ours": _ours, "theirs": _theirs, "bandwidth": _bandwidth}
        print(json.dumps(parts[_PART.value](DTYPES.value[0], int(ROWS.value[0]))))
        return
    line = [sys.executable, __file__, "--part=bandwidth"]
    machine = json.loads(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    bandwidth = machine["speed"]
    print(f"{machine['name']}: reads {bandwidth:.1f} GB/s; {FAMILY.value} {SIZE.value}")
    for dtype in DTYPES.value:
        with tempfile.TemporaryDirectory() as folder:
            place = str(Path(folder) / "model")
            subprocess.run([sys.executable, __file__, *_flags(dtype, 1), "--part=ours", f"--place={place}"], check=True)
            for rows in ROWS.value:
                _compare(dtype, int(rows), place, bandwidth)


def _flags(dtype: str, rows: int) -> list[str]:
    same = [f"--{flag.name}={flag.value}" for flag in (FAMILY, SIZE, PROMPT, NEW)]
    return [*same, f"--dtypes={dtype}", f"--rows={rows}"]


def _compare(dtype: str, rows: int, place: str, bandwidth: float) -> None:
    found: dict[str, list] = {}
    for _ in range(ROUNDS.value):
        for part in ("ours", "theirs") if BESIDE.value else ("ours",):
            line = [sys.executable, __file__, *_flags(dtype, rows), f"--part={part}", f"--place={place}"]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            found.setdefault(part, []).append(json.loads(done.stdout.splitlines()[-1]))
    best = {part: max(one["speed"] for one in ones) for part, ones in found.items()}
    share = found["ours"][0]["bytes"] * best["ours"] / rows / 1e9 / bandwidth
    words = [f"{dtype}, {rows} at once: ours {best['ours']:.1f} tokens/s, {share:.0%} of bandwidth"]
    if BESIDE.value:
        alike = found["ours"][0]["tokens"] == found["theirs"][0]["tokens"]
        words.append(f"Transformers {best['theirs']:.1f}; {best['ours'] / best['theirs']:.2f} ×; same tokens: {alike}")
        assert alike or dtype != "float32", "the tokens differ"
    print("; ".join(words), flush=True)


def _prompts(rows: int, vocabulary: int) -> list[list[int]]:
    return np.random.default_rng(0).integers(0, vocabulary, (rows, PROMPT.value)).tolist()


def _ours(dtype: str, rows: int) -> dict:
    """Write the model where there is none, else generate with it."""
    import jax
    import ml_collections

    from lm.config import defaults
    from lm.generate.generator import Generator
    from lm.text.learn import learn
    from lm.weights.place import open_place, save_place

    tokenizer = learn(_config("byte").data, [])  # of which only the end matters
    if not Path(_PLACE.value).exists():
        save_place(_random(dtype)._replace(tokenizer=None), _PLACE.value)
        return {}
    bundle = open_place(_PLACE.value)._replace(tokenizer=tokenizer)
    section = defaults("sample")
    section.update({"temperature": 0.0, "max_new_tokens": NEW.value, "min_new_tokens": NEW.value})
    section.weight_dtype = "model" if dtype == "float32" else dtype
    section = ml_collections.FrozenConfigDict(section)
    generator = Generator(bundle, weight_dtype=section.weight_dtype)
    prompts = _prompts(rows, bundle.config.model.vocabulary)
    seconds, tokens = [], []
    for _ in range(4):
        begun = time.perf_counter()
        tokens = [done.tokens for done in generator(prompts, section)]
        seconds.append(time.perf_counter() - begun)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(generator.ready.params))
    return {"speed": rows * NEW.value / min(seconds[1:]), "tokens": tokens, "bytes": size}


def _config(tokenizer: str, **fields):
    from lm.config import defaults
    from lm.config.resolve import resolve

    config = defaults()
    config.data.tokenizer = tokenizer
    config.train.steps = 1
    config.model.update(fields)
    return resolve(config)


def _random(dtype: str):
    import importlib

    import jax

    from lm.model.transformer import Transformer, initial
    from lm.weights.bundle import Bundle

    size = importlib.import_module(f"lm.families.{FAMILY.value}").SIZES[SIZE.value]
    config = _config("byte", family=FAMILY.value, **size, dtype=dtype, parameter_dtype=dtype)
    model = Transformer(config.model)
    return Bundle(config, model, jax.jit(lambda key: initial(model, key))(jax.random.key(0)), None)


def _theirs(dtype: str, rows: int) -> dict:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(_PLACE.value, dtype=getattr(torch, dtype)).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids = torch.tensor(_prompts(rows, model.config.vocab_size), device=model.device)
    seconds, tokens = [], []
    for _ in range(4):
        begun = time.perf_counter()
        with torch.no_grad():
            done = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW.value,
                min_new_tokens=NEW.value,
                do_sample=False,
                eos_token_id=256,  # the end of the tokenizer above
                pad_token_id=0,
            )
        tokens = done[:, PROMPT.value :].tolist()
        seconds.append(time.perf_counter() - begun)
    return {"speed": rows * NEW.value / min(seconds[1:]), "tokens": tokens}


def _bandwidth(dtype: str, rows: int) -> dict:
    """Return the machine's name and its GB/s, in a process of its own, since an accelerator is one process's."""
    import jax

    where = jax.devices()[0]
    return {"name": where.device_kind, "speed": _host_bandwidth() if where.platform == "cpu" else _device_bandwidth()}


def _host_bandwidth() -> float:
    """Return the GB/s at which all cores together read memory."""
    parts = [np.ones(1 << 26, np.float32) for _ in range(len(os.sched_getaffinity(0)))]
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            list(pool.map(np.max, parts))
            seconds.append(time.perf_counter() - begun)
    return sum(part.nbytes for part in parts) / min(seconds) / 1e9


def _device_bandwidth() -> float:
    """Return the GB/s at which the accelerator reads memory."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones(1 << 31, jnp.bfloat16)
    read = jax.jit(lambda array: jnp.max(array))
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        read(array).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return array.nbytes / min(seconds) / 1e9


if __name__ == "__main__":
    app.run(main)
