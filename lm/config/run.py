"""The seed and the train and parallel sections: their fields, what is derived, what is refused."""

import math
from collections.abc import Mapping
from typing import Any

from lm.config.field import (
    ANY_TEXT,
    EITHER,
    FREE,
    HORIZON,
    Field,
    Rule,
    above,
    all_regex,
    any_of,
    at_least,
    fraction,
    one_of,
    spelled,
    within,
)
from lm.growth import Growth
from lm.refusal import Refusal

FIELDS = {
    "seed": Field(0, "seed of initialisation, data order and dropout", within(0, 2**31 - 1)),
    "init.from_place": Field(
        "",
        "PLACE whose model section, tokenizer and weights the run starts from: a workdir, a folder of Hugging Face's, "
        "a .safetensors or .gguf file; empty: none",
        spelled(r"[^\n]*", "text of one line"),
    ),
    "train.steps": Field(None, "length of the run in steps", at_least(1), HORIZON, kind=int),
    "train.tokens": Field(None, "length of the run in tokens, instead of steps", at_least(1), HORIZON, kind=int),
    "train.epochs": Field(
        None, "length in passes over the training text, instead of steps", above(0), HORIZON, kind=float
    ),
    "train.accumulate": Field(1, "micro-batches that a step's batch is computed in", at_least(1)),
    "train.batch_warmup_steps": Field(
        0, "steps in which the batch grows from one micro-batch to train.accumulate; 0: none", at_least(0)
    ),
    "train.ema": Field(0.0, "decay of the average of the weights that is evaluated and handed on; 0: none", fraction()),
    "train.noise_scale": Field(
        False, "measure the gradient's noise scale from micro-batches: McCandlish et al. 2018", EITHER, FREE
    ),
    "train.group_norms": Field(
        (),
        "regular expressions; the norms of each one's parameters, gradients and updates are measured",
        all_regex(),
        FREE,
        element=str,
    ),
    "train.log_every": Field(10, "steps between rows of metrics.jsonl", at_least(1), FREE),
    "train.mirrors": Field(
        ("tensorboard",),
        "where the rows go too; () for nowhere",
        any_of(
            tensorboard="event files in WORKDIR/tensorboard",
            wandb="a run of the project lm of Weights & Biases: pip install 'lm[wandb]'; its WANDB_MODE is obeyed",
        ),
        FREE,
        element=str,
    ),
    "train.evaluate_every": Field(
        500, "steps between full passes over the validation text; 0: at the end", at_least(0), FREE
    ),
    "train.checkpoint_every": Field(500, "steps between checkpoints; 0: at the end", at_least(0), FREE),
    "train.sample_every": Field(
        500,
        "steps between samples; 0: at the end; -1: never, nor are spans restored when they are measured",
        at_least(-1),
        FREE,
    ),
    "train.sample_prompt": Field("", "text that the samples continue; empty: a record's beginning", ANY_TEXT, FREE),
    "train.keep_latest": Field(2, "checkpoints kept, newest first", at_least(1), FREE),
    "train.keep_best": Field(1, "checkpoints kept for their validation loss", at_least(0), FREE),
    "train.skip_limit": Field(5, "non-finite steps in a row before the run stops", at_least(1), FREE),
    "train.profile_steps": Field(
        (),
        "first and last step of a JAX profile, written to WORKDIR/profile; (): none",
        Rule(
            "() or (first, last) with 2 ≤ first ≤ last",
            lambda value: not value or (len(value) == 2 and 2 <= value[0] <= value[1]),
        ),
        FREE,
        element=int,
    ),
    **{
        f"parallel.mesh.{axis}": Field(
            size, f"{words}; -1: the rest", Rule("-1 or at least 1", lambda v: v == -1 or v >= 1), FREE
        )
        for axis, size, words in (
            ("slice", 1, "slices of a TPU, or groups of devices far apart, along which rows are split"),
            ("data", -1, "devices along which rows are split"),
            ("fsdp", 1, "devices along which rows and parameters are split"),
            ("expert", 1, "devices along which rows and experts are split"),
            ("sequence", 1, "devices along which each row's tokens are split"),
            ("tensor", 1, "devices along which heads, feed-forward width and vocabulary are split"),
        )
    },
    "parallel.compile": Field(
        "jit",
        "how a step is compiled for several devices",
        one_of(jit="over the mesh", pmap="for each device and its rows, with a whole state: plain data parallelism"),
        FREE,
    ),
    "parallel.attention": Field(
        "auto",
        "how a step computes attention; refused where the model or the devices do not allow it",
        one_of(
            auto="splash on a TPU, cudnn on an NVIDIA GPU, where they can be; else xla there; einsum on a CPU",
            einsum="two products and a softmax, all scores at once",
            xla="the same as jax.nn.dot_product_attention writes it",
            cudnn="the flash attention of NVIDIA's cuDNN, in 16 bits: Dao 2023",
            splash="a TPU's kernel, which holds no scores: Dao et al. 2022",
        ),
        FREE,
    ),
    "parallel.matmul_precision": Field(
        "default",
        "precision of float32 matrix products (on TPU the default rounds to bfloat16)",
        one_of(default="the fastest", high="three bfloat16 passes on TPU", highest="float32 throughout"),
    ),
}


def fill(flat: dict[str, Any]) -> None:
    """Turn the run's length into steps, where the config alone says how many."""
    batch_size, accumulate = flat["data.batch_size"], flat["train.accumulate"]
    if batch_size % accumulate:
        raise Refusal(f"train.accumulate is {accumulate}: it must divide data.batch_size ({batch_size}).")
    given = [name for name in ("train.steps", "train.tokens", "train.epochs") if flat[name] is not None]
    if len(given) != 1:
        have = " and ".join(given) or "none of them"
        raise Refusal(
            f"the run's length must be given by one of train.steps, train.tokens, train.epochs: {have} is set."
        )
    if given == ["train.tokens"]:
        flat["train.steps"] = math.ceil(growth(flat).steps(flat["train.tokens"] / flat["model.context"]))
        flat["train.tokens"] = None


def growth(flat: Mapping[str, Any]) -> Growth:
    """Return how the rows of a run's steps grow."""
    return Growth(flat["data.batch_size"], flat["train.accumulate"], flat["train.batch_warmup_steps"])


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot run."""
    if (flat["data.tokenizer"] == "place") != bool(flat["init.from_place"]):
        raise Refusal(
            f"data.tokenizer is {flat['data.tokenizer']!r} and init.from_place {flat['init.from_place']!r}: the "
            "tokenizer is 'place' where a run starts from a PLACE, and only there."
        )
    steps = flat["train.steps"]
    profile = flat["train.profile_steps"]
    if profile and steps is not None and profile[1] > steps:
        raise Refusal(f"train.profile_steps is {profile}: its last step must be at most train.steps ({steps}).")
    accumulate, warmup = flat["train.accumulate"], flat["train.batch_warmup_steps"]
    if warmup and accumulate == 1:
        raise Refusal(f"train.batch_warmup_steps is {warmup}: it needs train.accumulate of at least 2, and that is 1.")
    if flat["train.noise_scale"] and accumulate == 1:
        raise Refusal("train.noise_scale is True: it compares micro-batches; set train.accumulate to 2 or more.")
    if flat["train.noise_scale"] and warmup:
        raise Refusal(
            f"train.batch_warmup_steps is {warmup}: train.noise_scale needs two micro-batches from the first step on."
        )
    if flat["parallel.compile"] == "pmap":
        others = [name for name in flat if name.startswith("parallel.mesh.") and not name.endswith(".data")]
        for name in others:
            if flat[name] != 1:
                raise Refusal(f"{name} is {flat[name]}: under parallel.compile=pmap there is only data; set it to 1.")
        if flat["train.noise_scale"]:
            raise Refusal("train.noise_scale is True: under parallel.compile=pmap it is not measured; set it to False.")
    rest = [name for name in flat if name.startswith("parallel.mesh.") and flat[name] == -1]
    if len(rest) > 1:
        raise Refusal(f"{' and '.join(rest)} are -1: only one of them can take the rest.")
