"""The fields of the sample section: how text is drawn from a model, and what combinations are refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.field import (
    ANY_TEXT,
    FREE,
    SOME_TEXTS,
    Field,
    Rule,
    above,
    at_least,
    one_of,
    pairs,
    spelled,
    split,
    within,
)
from lm.config.regex import translated
from lm.refusal import Refusal

FIELDS = {
    "sample.temperature": Field(0.8, "divides the logits; 0: the likeliest token", at_least(0), FREE),
    "sample.top_k": Field(0, "draw among this many likeliest tokens; 0: all", at_least(0), FREE),
    "sample.top_p": Field(
        1.0,
        "draw among the likeliest tokens that hold this much probability",
        Rule("above 0 and at most 1", lambda value: 0 < value <= 1),
        FREE,
    ),
    "sample.min_p": Field(
        0.0,
        "draw among tokens at least this share as probable as the likeliest: Nguyen et al. 2024",
        within(0, 1),
        FREE,
    ),
    "sample.repetition_penalty": Field(
        1.0,
        "divides the scores of tokens of prompt and text that are positive, multiplies others: Keskar et al. 2019",
        above(0),
        FREE,
    ),
    "sample.frequency_penalty": Field(
        0.0, "taken from the score of a token for every time that the text has it", within(-100, 100), FREE
    ),
    "sample.presence_penalty": Field(0.0, "taken from the score of a token that the text has", within(-100, 100), FREE),
    "sample.no_repeat_ngram": Field(
        0, "so many tokens in a row stand only once in prompt and text; 0: they may repeat", at_least(0), FREE
    ),
    "sample.logit_bias": Field(
        (),
        "what is added to the score of a text's last token after its others",
        pairs("TEXT", -1000, 1000),
        FREE,
        element=str,
    ),
    "sample.banned": Field(
        (), "texts whose tokens are not written in a row, after a space or not", SOME_TEXTS, FREE, element=str
    ),
    "sample.min_new_tokens": Field(0, "tokens before an end may be drawn", at_least(0), FREE),
    "sample.max_new_tokens": Field(256, "most tokens to add", at_least(1), FREE),
    "sample.stop": Field(
        (), "texts that end the text where they stand, and are left out", SOME_TEXTS, FREE, element=str
    ),
    "sample.sequences": Field(1, "texts per prompt", at_least(1), FREE),
    "sample.seed": Field(
        0, "seed of the draws; a prompt's texts depend on no other prompt", within(0, 2**31 - 1), FREE
    ),
    "sample.beams": Field(
        1, "texts that a search for the likeliest goes on from, whatever the temperature; 1: none", at_least(1), FREE
    ),
    "sample.length_penalty": Field(
        1.0,
        "power of the length that divides a beam's log-probability: above 0 favours long texts",
        within(-5, 5),
        FREE,
    ),
    "sample.early_stopping": Field(
        "likely",
        "when a beam search ends",
        one_of(
            first="once as many texts are done as there are beams",
            likely="once no beam, were it to end now, is better than the worst of those",
            never="once none can become better",
        ),
        FREE,
    ),
    "sample.reward": Field(
        "",
        "module:function from a text (prompt and answer) to a number that is to be high; empty: none",
        spelled(r"([\w.]+:\w+)?", "module:function, or empty"),
        FREE,
    ),
    "sample.guidance": Field(
        "best_of",
        "how the reward guides",
        one_of(
            best_of="of sample.candidates whole texts the best is taken",
            stepwise="every sample.reward_every tokens one of sample.candidates ways on is drawn by its reward",
        ),
        FREE,
    ),
    "sample.candidates": Field(8, "texts, or ways on, that a reward chooses from", at_least(2), FREE),
    "sample.reward_every": Field(8, "tokens between two choices (stepwise)", at_least(1), FREE),
    "sample.reward_scale": Field(
        1.0, "ways on are drawn in proportion to exp(reward / reward_scale) (stepwise)", above(0), FREE
    ),
    "sample.regex": Field(
        "",
        "regular expression in Python's syntax that the whole text matches: pip install 'lm[constrain]'",
        ANY_TEXT,
        FREE,
    ),
    "sample.json_schema": Field(
        "",
        "JSON schema, or its file, that the whole text obeys: pip install 'lm[constrain]'",
        ANY_TEXT,
        FREE,
    ),
    "sample.draft": Field(
        "",
        "what guesses tokens ahead for the model to check: 'lookup' in the text so far, or a PLACE; empty: none",
        spelled(r"[^\n]*", "lookup, or a PLACE"),
        FREE,
    ),
    "sample.draft_tokens": Field(4, "tokens guessed ahead", within(1, 64), FREE),
    "sample.window": Field(
        0,
        "tokens kept in sight of a text of any length: the first sample.sinks and the last; 0: the context must do",
        Rule("0 or at least 2", lambda value: value == 0 or value >= 2),
        FREE,
    ),
    "sample.sinks": Field(4, "first tokens that a window keeps in sight: Xiao et al. 2024", at_least(0), FREE),
    "sample.weight_dtype": Field(
        "model",
        "how weights are held",
        one_of(
            model="as the model computes",
            bfloat16="16 bits, in which the model then computes too",
            int8="whole numbers, a scale per output; not those of experts",
        ),
        FREE,
    ),
    "sample.cache_dtype": Field(
        "model",
        "how keys and values of what a decoder reads are held",
        one_of(
            model="as the model computes; on a CPU, which reads 32 bits faster than 16, in float32",
            int8="whole numbers, a scale per head and position",
        ),
        FREE,
    ),
}


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be drawn."""
    value = lambda name: flat[f"sample.{name}"]
    texts = [text for text, _ in split(value("logit_bias"))]
    for text in texts:
        if texts.count(text) > 1:
            raise Refusal(f"sample.logit_bias has {text!r} twice: give it one number.")
    if value("min_new_tokens") > value("max_new_tokens"):
        raise Refusal(
            f"sample.min_new_tokens is {value('min_new_tokens')}: it must be at most sample.max_new_tokens "
            f"({value('max_new_tokens')})."
        )
    if value("beams") > 1 and value("sequences") > value("beams"):
        raise Refusal(
            f"sample.sequences is {value('sequences')}: a search of {value('beams')} beams ends with so many."
        )
    methods = {
        "sample.beams": value("beams") > 1,
        "sample.reward": bool(value("reward")),
        "sample.draft": bool(value("draft")),
        "sample.regex": bool(value("regex")),
        "sample.json_schema": bool(value("json_schema")),
    }
    if value("reward") and value("temperature") == 0:
        raise Refusal(
            "sample.temperature is 0: sample.reward chooses among drawn texts, so give it a temperature above 0."
        )
    if value("reward") and value("guidance") == "best_of" and value("candidates") < value("sequences"):
        raise Refusal(
            f"sample.candidates is {value('candidates')}: the best sample.sequences ({value('sequences')}) of them are "
            "taken, so draw at least as many."
        )
    chosen = [name for name, is_chosen in methods.items() if is_chosen]
    if len(chosen) > 1:
        raise Refusal(f"{' and '.join(chosen)} are set: each is a way of its own, so leave all but one.")
    for name in chosen if value("window") else ():
        raise Refusal(f"sample.window is {value('window')}: it goes with plain sampling, not with {name}.")
    if value("window") and 2 * value("sinks") >= value("window"):
        raise Refusal(
            f"sample.sinks is {value('sinks')}: it must be less than half of sample.window ({value('window')})."
        )
    try:
        translated(value("regex"))
    except ValueError as error:
        raise Refusal(f"sample.regex is {value('regex')!r}: it cannot be followed ({error}).") from None
