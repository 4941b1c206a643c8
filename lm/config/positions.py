"""The fields of the model section that say how order enters, what is derived from them, what is refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.field import Field, Rule, above, at_least, check_readers, one_of
from lm.refusal import Refusal

FIELDS = {
    "model.positions": Field(
        None,
        "how order enters",
        one_of(
            none="not at all but by the causal mask: Kazemnejad et al. 2023",
            learned="a vector per position, added to the embedding",
            sinusoidal="sines and cosines, added to the embedding: Vaswani et al. 2017",
            rotary="queries and keys turned by their positions: Su et al. 2021",
            alibi="scores fall with distance, by a slope per head: Press et al. 2022",
            relative="a learned number per head and bucket of distances, added to the scores: Raffel et al. 2020",
        ),
        kind=str,
    ),
    "model.position_offset": Field(
        None, "rows of the table of learned positions before the first token's", at_least(0), kind=int
    ),
    "model.rotary_base": Field(None, "base of the rotary wavelengths", above(1), kind=float),
    "model.rotary_window_base": Field(
        None,
        "base in layers with a window, which are then not scaled: Gemma 3, arXiv 2503.19786; 0: as in the others",
        Rule("0 or above 1", lambda value: value == 0 or value > 1),
        kind=float,
    ),
    "model.rotary_share": Field(
        None,
        "share of a head that is turned, its beginning: GPT-NeoX, Black et al. 2022",
        Rule("above 0 and at most 1", lambda value: 0 < value <= 1),
        kind=float,
    ),
    "model.rotary_scaling": Field(
        "none",
        "how rotary positions are squeezed for a longer context",
        one_of(
            none="not at all",
            linear="all by rotary_factor: Chen et al. 2023",
            ntk="by a larger base, the slowest pair by rotary_factor, the fastest not: bloc97 2023",
            yarn="by rotary_factor what turns seldom, not at all what turns often, queries and keys stretched: "
            "Peng et al. 2023",
            llama3="by rotary_factor what turns seldom, not at all what turns often: Llama 3.1",
        ),
    ),
    "model.rotary_factor": Field(1.0, "by how much positions are squeezed (rotary_scaling)", at_least(1)),
    "model.rotary_low": Field(1.0, "turns in the original context up to which all is squeezed (llama3)", above(0)),
    "model.rotary_high": Field(4.0, "turns in the original context from which on nothing is (llama3)", above(0)),
    "model.rotary_slow": Field(1.0, "turns in the original context up to which all is squeezed (yarn)", above(0)),
    "model.rotary_fast": Field(32.0, "turns in the original context from which on nothing is (yarn)", above(0)),
    "model.rotary_attention": Field(
        0.0, "by what queries and keys are stretched (yarn); 0: by 0.1 · ln rotary_factor + 1", at_least(0)
    ),
    "model.rotary_original_context": Field(8192, "context before positions were squeezed (llama3, yarn)", at_least(1)),
    "model.relative_buckets": Field(32, "buckets of distances (relative positions)", at_least(2)),
    "model.relative_distance": Field(
        128, "distance from which on all share a bucket (relative positions)", at_least(2)
    ),
}

# The switches of rotary positions where positions are others.
_WITHOUT_ROTARY = {"rotary_base": None, "rotary_window_base": 0.0, "rotary_share": 1.0}

# Numbers, the field that decides whether they are read, and its choices that read them.
_READERS = {
    "model.rotary_factor": ("model.rotary_scaling", ("linear", "ntk", "yarn", "llama3")),
    "model.rotary_low": ("model.rotary_scaling", ("llama3",)),
    "model.rotary_high": ("model.rotary_scaling", ("llama3",)),
    "model.rotary_slow": ("model.rotary_scaling", ("yarn",)),
    "model.rotary_fast": ("model.rotary_scaling", ("yarn",)),
    "model.rotary_attention": ("model.rotary_scaling", ("yarn",)),
    "model.rotary_original_context": ("model.rotary_scaling", ("llama3", "yarn")),
    "model.relative_buckets": ("model.positions", ("relative",)),
    "model.relative_distance": ("model.positions", ("relative",)),
}


def fit(flat: Mapping[str, Any], family: dict[str, Any]) -> None:
    """Make the family's switches those of the positions that are set; refuse fields of rotary ones without them."""
    positions = flat["model.positions"] or family["positions"]
    if positions != "learned":
        family["position_offset"] = 0
    if positions == "rotary":
        family.setdefault("rotary_base", 10000.0)
        return
    for name, without in {**_WITHOUT_ROTARY, "rotary_scaling": "none"}.items():
        value = flat[f"model.{name}"]
        if value not in (None, without):
            raise Refusal(
                f"model.{name} is {value!r}, but model.positions is {positions!r}: it is for model.positions='rotary'."
            )
    family |= _WITHOUT_ROTARY


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be built."""
    if flat["model.position_offset"] and flat["model.positions"] != "learned":
        raise Refusal(
            f"model.position_offset is {flat['model.position_offset']}, but model.positions is "
            f"{flat['model.positions']!r}: it is for 'learned'."
        )
    buckets, farthest = flat["model.relative_buckets"], flat["model.relative_distance"]
    if flat["model.positions"] == "relative" and flat["model.architecture"] != "decoder" and buckets < 4:
        raise Refusal(f"model.relative_buckets is {buckets}: an encoder needs at least 4, two for keys after.")
    if flat["model.positions"] == "relative" and farthest <= buckets // 2:
        raise Refusal(f"model.relative_distance is {farthest}: it must be above half of the buckets ({buckets // 2}).")
    _check_rotary(flat)


def _check_rotary(flat: Mapping[str, Any]) -> None:
    width, share = flat["model.head_width"], flat["model.rotary_share"]
    turned = int(width * share)
    if flat["model.positions"] == "rotary" and (turned % 2 or not turned):
        raise Refusal(
            f"model.head_width is {width}: rotary positions would turn {turned} numbers of it "
            f"(model.rotary_share is {share}), which must be even and at least 2."
        )
    check_readers(flat, FIELDS, _READERS)
    for scaling, low, high in (("llama3", "rotary_low", "rotary_high"), ("yarn", "rotary_slow", "rotary_fast")):
        below, above = flat[f"model.{low}"], flat[f"model.{high}"]
        if flat["model.rotary_scaling"] == scaling and below >= above:
            raise Refusal(f"model.{high} is {above}: it must be above model.{low} ({below}).")
    if flat["model.rotary_scaling"] == "ntk" and turned < 4:
        raise Refusal(
            f"model.rotary_scaling is 'ntk': of a head {turned} numbers are turned, and it needs 4; use linear."
        )
