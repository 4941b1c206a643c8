r"""The switches of a model where its family has none; and the rows in which a family says how it is published.

A family's file has SWITCHES, SIZES and LAYOUT, all data. LAYOUT is one `Layout`: how Hugging Face Transformers writes
the family's models, read by lm/weights/config.py (config.json ↔ model section) and lm/weights/layout.py (tensors ↔
parameters), both ways. What to write in it:

model_types: the `model_type` of config.json, several where the same layout goes by several names; the first is written.

architectures: each class name that may stand in `architectures` → the model fields that it stands for, such as
    {"BertForMaskedLM": {"head": "masked"}, "BertModel": {"head": "none"}}; {} where it says nothing more. Another
    name is refused. Export writes the first whose fields are the model's. A file whose config names none is the first.

attributes: a row for every attribute of config.json that changes the logits. An attribute that no row of the family's
    and none of COMMON or SILENT below names is refused by its name, so look through the configuration class.
    Attribute("hidden_size", "width", 4096): the attribute is model.width; where it is absent Transformers' class takes
        4096. Null leaves our field to be derived and is allowed for kv_heads, head_width and feedforward_width only.
        values=ACTIVATIONS: what their words mean in ours. older=("n_ctx",): other names it is read by. plus=2: theirs
        is ours + 2 (RoBERTa counts two positions that no token has). power=-0.5: ours is theirs to that power.
        null=0.0: what null means in ours. like="tied": where it is absent or null, the field is as that one, which a
        row before says.
    Words("feed_forward_proj", "relu", {"relu": {"activation": "relu", "gated": False}, …}): a word that stands for
        several fields; the second is the word where it is absent.
    Labels(): how many classes there are, in models with the head classify.
    Only("attention_bias", False): honoured with this value alone, which Transformers also assumes where it is absent;
        Only("is_decoder", True, absent=False): not what it assumes, so export writes it.
    Rotary(10000.0): rotary positions, in today's form (rope_parameters) and the older one (rope_theta, rope_scaling);
        the number is the class's default base. See the class for a share of a head, and for a base of sliding layers.
    Windows(absent, layers): sliding windows, after the row of layers; see the class.
    Silent(r"summary_\w+"): attributes that say nothing about the logits.
    What no row says must be what the family's SWITCHES and the schema's defaults say: export reads its own config.json
    back and refuses the model, by the field's name, where a field would come back with another value. So a row is
    needed only for what differs between models of the family.

weights: rows Weight(our path, their name, how). Our paths are those of the parameters; rows whose path the model at
    hand lacks are passed over, so list all that any model of the family may have (biases, heads, poolers). Where its
    name depends on the model, there are several, each with the fields that it is for: when={"gated": True}. `{layer}`
    in their name counts our first axis, `{expert}` the next. `how` is words, applied to theirs in this order:
    from:N         the first N rows are left out (of positions that begin at N); export writes zeros there.
    vocabulary     the first axis is the vocabulary: zero rows are added up to our padded one.
    each           the first axis is kept out of all that follows (experts that are one tensor).
    transpose      (outputs, inputs) becomes (inputs, outputs), as torch.nn.Linear needs it.
    part           rows that share a tensor take their parts of its outputs, one behind the other, in the order of the
                   rows: GPT-2's c_attn, Phi-3's qkv_proj and gate_up_proj.
    grouped        the same, but the outputs are groups, one for each key/value head, and the parts lie so in every
                   group: GPT-NeoX's, Bloom's and Falcon's query_key_value.
    Nothing ("") takes theirs as it is. At the end it is reshaped to ours (heads and their width are one axis there).

aliases: (name, other): tensors that repeat another one; they may be there if they are equal, and are not written.
    Those that a row has claimed for this model are no aliases, so a head that may be tied is a row and an alias.

renamed: (regular expression, replacement) of names in older files.

untied: the head's name, where a head that is no copy of the embedding counts though tie_word_embeddings is true: so
    Transformers 5 writes T5 v1.1.

prefix: what all names but the head's begin with in models with a head; files of the bare model lack it.

ignored: regular expressions of names that hold no parameter (buffers) or none that we have; they are passed over.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

SWITCHES = {
    "architecture": "decoder",
    "wiring": "pre",
    "experts": 0,
    "experts_per_token": 2,
    "router_normalized": True,
    "unit_offset": False,
    "scaled_embedding": False,
    "rotary_share": 1.0,
    "rotary_window_base": 0.0,
    "qk_norm": False,
    "attention_soft_cap": 0.0,
    "logits_soft_cap": 0.0,
    "position_offset": 0,
    "token_types": 0,
    "embedding_norm": False,
    "head": "language",
    "scaled_head": False,
}


class Attribute(NamedTuple):
    """An attribute of config.json that is one of our model fields; see above."""

    name: str
    field: str
    absent: Any
    values: Mapping[Any, Any] = {}
    older: tuple[str, ...] = ()
    plus: int = 0
    power: float = 1.0
    null: Any = None
    like: str = ""


class Words(NamedTuple):
    """An attribute whose words stand for several of our model fields; see above."""

    name: str
    absent: str
    values: Mapping[str, Mapping[str, Any]]


class Labels(NamedTuple):
    """The number of classes: of `id2label`, or `num_labels`, or 2."""


SAME = object()


class Only(NamedTuple):
    """An attribute that is honoured with one value alone.

    absent: what Transformers takes where it is absent. or_null: whether it takes null for the value too.
    """

    name: str
    value: Any
    absent: Any = SAME
    or_null: bool = False


class Rotary(NamedTuple):
    """Rotary positions.

    base: the class's default. older: other names of rope_theta.
    share: the class's default of partial_rotary_factor, None where it has none. shares: other names of it.
    window_base: its default base of sliding layers, None where theirs is that of the others.
    """

    base: float
    older: tuple[str, ...] = ()
    share: float | None = None
    shares: tuple[str, ...] = ()
    window_base: float | None = None


class Windows(NamedTuple):
    """Sliding windows: `sliding_window`, in the layers that `layer_types` calls sliding_attention, where it is there.

    absent: the width that the class takes where `sliding_window` is absent, None for no windows; null is none.
    layers: which layers slide where `layer_types` is absent: "all"; "not:N", all but every N-th; or "above:N", those
      from `max_window_layers` on (N where it is absent), and none in any case without `use_sliding_window`.
    types: whether the class knows `layer_types`, so that export can write it.
    pattern: whether it knows `sliding_window_pattern`, which overrides the N of "not:N".
    """

    absent: int | None
    layers: str = "all"
    types: bool = False
    pattern: bool = False


class Silent(NamedTuple):
    """Attributes, by a regular expression of their whole names, that say nothing about the logits."""

    names: str


class Weight(NamedTuple):
    """Our parameter at `path` is their tensor `name`; how: see above."""

    path: str
    name: str
    how: str = ""
    when: Mapping[str, Any] = {}


class Layout(NamedTuple):
    """How a family is published; see above."""

    model_types: tuple[str, ...]
    architectures: Mapping[str, Mapping[str, Any]]
    attributes: tuple[Attribute | Words | Labels | Only | Rotary | Windows | Silent, ...]
    weights: tuple[Weight, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    untied: str = ""


# Their names of activations; of those that mean the same the first is written.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
}

# Attributes of every configuration class; a family's own rows go before.
COMMON = (
    Only("is_encoder_decoder", False),
    Only("is_decoder", False),
    Only("add_cross_attention", False),
    Only("cross_attention_hidden_size", None),
    Only("pruned_heads", {}),
    Only("per_layer_config", None),
)

# Attributes that say nothing about the logits: what a run was, how it is trained on, which ids end a text.
SILENT = Silent(
    r"_?name_or_path|architectures|model_type|transformers_version|_commit_hash|adapter_\w+|torchscript|"
    r"transformers\.js_config|cache_implementation|"
    r"(torch_)?dtype|use_cache|return_dict|output_\w+|\w*gradient_checkpointing|chunk_size_feed_forward|"
    r"_?attn_implementation(_\w+)?|_?experts_implementation(_\w+)?|pretraining_tp|tf_legacy_loss|use_bfloat16|"
    r"\w+_token_id|\w*dropout(_prob|_rate)?|\w+_pdrop|initializer_(range|factor)|layerdrop|"
    r"id2label|label2id|num_labels|_num_labels|problem_type|finetuning_task|task_specific_params|tokenizer_class|"
    r"prefix|max_length|min_length|do_sample|early_stopping|num_beams|num_beam_groups|diversity_penalty|temperature|"
    r"top_k|top_p|typical_p|repetition_penalty|length_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size|"
    r"bad_words_ids|num_return_sequences|remove_invalid_values|exponential_decay_length_penalty|suppress_tokens|"
    r"begin_suppress_tokens|tie_encoder_decoder|tie_last_hidden_states|keys_to_ignore_at_inference"
)
