"""Nothing in; parameter_counts.json beside this file out: of every published size, how many parameters it has.

    python tests/golden/make_parameter_counts.py        (needs torch and transformers: pip install -e '.[parity]')

Made with torch 2.13.0 and transformers 5.23.0: their own classes are built on the meta device, which holds no numbers,
and their parameters counted. What the configurations are given is what was published; it is not read from ours.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers


class Size(NamedTuple):
    """A size: its configuration's class's name, what the configuration is given, and the model's class's name.

    has_own_head: the published head is not tied, though the class makes it so where no file holds one.
    """

    configuration: str
    options: dict[str, Any]
    model: str = "AutoModelForCausalLM"
    has_own_head: bool = False


def _sizes(configuration: str, names: str, rows: dict[str, tuple[int, ...]], **common: Any) -> dict[str, Size]:
    """Return a Size for every row of numbers, which are the configuration's attributes of those names."""
    return {
        size: Size(configuration, {**common, **dict(zip(names.split(), row, strict=True))})
        for size, row in rows.items()
    }


def _of_class(model: str, sizes: dict[str, Size], has_own_head: bool = False) -> dict[str, Size]:
    """Return the sizes as those of a model's class."""
    return {name: size._replace(model=model, has_own_head=has_own_head) for name, size in sizes.items()}


_NAMES = "num_hidden_layers hidden_size num_attention_heads num_key_value_heads intermediate_size vocab_size"
_TIED = {"tie_word_embeddings": True}
_BERT_NAMES = "num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size"
_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
_T5_NAMES = "num_layers d_model num_heads d_kv d_ff"
_V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

FAMILIES = {
    "gpt2": _sizes(
        "GPT2Config",
        "n_layer n_embd n_head",
        {"124m": (12, 768, 12), "355m": (24, 1024, 16), "774m": (36, 1280, 20), "1.5b": (48, 1600, 25)},
    ),
    "gpt_neox": _sizes(
        "GPTNeoXConfig",
        "num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size",
        {
            "70m": (6, 512, 8, 2048, 50304),
            "160m": (12, 768, 12, 3072, 50304),
            "410m": (24, 1024, 16, 4096, 50304),
            "1b": (16, 2048, 8, 8192, 50304),
            "1.4b": (24, 2048, 16, 8192, 50304),
            "2.8b": (32, 2560, 32, 10240, 50304),
            "6.9b": (32, 4096, 32, 16384, 50432),
            "12b": (36, 5120, 40, 20480, 50688),
            "20b": (44, 6144, 64, 24576, 50432),
        },
    ),
    "llama": _sizes(
        "LlamaConfig",
        _NAMES,
        {
            "1.1b": (22, 2048, 32, 4, 5632, 32000),
            "7b": (32, 4096, 32, 32, 11008, 32000),
            "13b": (40, 5120, 40, 40, 13824, 32000),
            "70b": (80, 8192, 64, 8, 28672, 32000),
            "8b": (32, 4096, 32, 8, 14336, 128256),
            "3-70b": (80, 8192, 64, 8, 28672, 128256),
            "3.1-8b": (32, 4096, 32, 8, 14336, 128256),
            "3.1-70b": (80, 8192, 64, 8, 28672, 128256),
        },
    )
    | _sizes(
        "LlamaConfig",
        _NAMES,
        {
            "135m": (30, 576, 9, 3, 1536, 49152),
            "360m": (32, 960, 15, 5, 2560, 49152),
            "1.7b": (24, 2048, 32, 32, 8192, 49152),
            "3.2-1b": (16, 2048, 32, 8, 8192, 128256),
            "3.2-3b": (28, 3072, 24, 8, 8192, 128256),
        },
        **_TIED,
    ),
    "mistral": _sizes(
        "MistralConfig",
        _NAMES,
        {"7b": (32, 4096, 32, 8, 14336, 32000), "7b-v0.3": (32, 4096, 32, 8, 14336, 32768)},
    ),
    "mixtral": _sizes(
        "MixtralConfig",
        f"{_NAMES} num_local_experts num_experts_per_tok",
        {"8x7b": (32, 4096, 32, 8, 14336, 32000, 8, 2)},
    ),
    "qwen2": _sizes("Qwen2Config", _NAMES, {"7b": (28, 3584, 28, 4, 18944, 152064)})
    | _sizes(
        "Qwen2Config",
        _NAMES,
        {
            "0.5b": (24, 896, 14, 2, 4864, 151936),
            "1.5b": (28, 1536, 12, 2, 8960, 151936),
            "3b": (36, 2048, 16, 2, 11008, 151936),
        },
        **_TIED,
    ),
    "qwen3": _sizes(
        "Qwen3Config",
        _NAMES,
        {
            "8b": (36, 4096, 32, 8, 12288, 151936),
            "14b": (40, 5120, 40, 8, 17408, 151936),
            "32b": (64, 5120, 64, 8, 25600, 151936),
        },
    )
    | _sizes(
        "Qwen3Config",
        _NAMES,
        {
            "0.6b": (28, 1024, 16, 8, 3072, 151936),
            "1.7b": (28, 2048, 16, 8, 6144, 151936),
            "4b": (36, 2560, 32, 8, 9728, 151936),
        },
        **_TIED,
    ),
    "qwen3_moe": _sizes(
        "Qwen3MoeConfig",
        f"{_NAMES} moe_intermediate_size",
        {
            "30b-a3b": (48, 2048, 32, 4, 6144, 151936, 768),
            "235b-a22b": (94, 4096, 64, 4, 12288, 151936, 1536),
        },
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "gemma2": _sizes(
        "Gemma2Config",
        f"{_NAMES} head_dim",
        {
            "2b": (26, 2304, 8, 4, 9216, 256000, 256),
            "9b": (42, 3584, 16, 8, 14336, 256000, 256),
            "27b": (46, 4608, 32, 16, 36864, 256000, 128),
        },
    ),
    "gemma3": _sizes(
        "Gemma3TextConfig",
        f"{_NAMES} head_dim",
        {
            "270m": (18, 640, 4, 1, 2048, 262144, 256),
            "1b": (26, 1152, 4, 1, 6912, 262144, 256),
            "4b": (34, 2560, 8, 4, 10240, 262208, 256),
            "12b": (48, 3840, 16, 8, 15360, 262208, 256),
            "27b": (62, 5376, 32, 16, 21504, 262208, 128),
        },
    ),
    "bert": _of_class(
        "BertForMaskedLM",
        _sizes(
            "BertConfig",
            _BERT_NAMES,
            {
                "base": (12, 768, 12, 3072, 30522),
                "base-cased": (12, 768, 12, 3072, 28996),
                "large": (24, 1024, 16, 4096, 30522),
                "large-cased": (24, 1024, 16, 4096, 28996),
            },
        ),
    )
    | _of_class("BertModel", _sizes("BertConfig", _BERT_NAMES, {"minilm": (6, 384, 12, 1536, 30522)})),
    "roberta": _of_class(
        "RobertaForMaskedLM",
        _sizes(
            "RobertaConfig",
            _BERT_NAMES,
            {"base": (12, 768, 12, 3072, 50265), "large": (24, 1024, 16, 4096, 50265)},
            **_ROBERTA,
        ),
    ),
    "t5": _of_class(
        "T5ForConditionalGeneration",
        _sizes(
            "T5Config",
            _T5_NAMES,
            {
                "small": (6, 512, 8, 64, 2048),
                "base": (12, 768, 12, 64, 3072),
                "large": (24, 1024, 16, 64, 4096),
                "3b": (24, 1024, 32, 128, 16384),
            },
        ),
    )
    | _of_class(
        "T5ForConditionalGeneration",
        _sizes(
            "T5Config",
            _T5_NAMES,
            {
                "v1.1-small": (8, 512, 6, 64, 1024),
                "v1.1-base": (12, 768, 12, 64, 2048),
                "v1.1-large": (24, 1024, 16, 64, 2816),
                "v1.1-xl": (24, 2048, 32, 64, 5120),
            },
            **_V1_1,
        ),
        has_own_head=True,
    ),
}


def count(size: Size) -> int:
    """Return the number of parameters, each once however many modules share it."""
    configuration = getattr(transformers, size.configuration)(**size.options)
    kind = getattr(transformers, size.model)
    with torch.device("meta"):
        model = kind.from_config(configuration) if size.model.startswith("Auto") else kind(configuration)
        if size.has_own_head:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    counts = {name: {size: count(row) for size, row in sizes.items()} for name, sizes in FAMILIES.items()}
    file = Path(__file__).parent / "parameter_counts.json"
    file.write_text(json.dumps(counts, indent=1) + "\n")
    print(f"{file.name}: {sum(map(len, counts.values()))} sizes")


if __name__ == "__main__":
    main()
