"""Measure a model on held-out text by its own objective: loss in nats per target, perplexity, accuracy; where every
token is a target bits per byte, and of spans how many are restored.

    python -m lm.evaluate --from=runs/quickstart
    python -m lm.evaluate --from=exported --data.source='files:docs/*.txt' --context=512
    python -m lm.evaluate --from=exported --data.source='files:books/*.txt' --stride=256 --extend=yarn:4

The text is the validation split of data.source, as a training run would hold it out; of a run's workdir, its own where
nothing else is said. A table goes to stdout, or with --json one object.
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from lm import command
from lm.config.resolve import check_fields
from lm.refusal import Refusal

LONGEST = 4096  # tokens of a window where --context says nothing

FROM = flags.DEFINE_string(
    "from",
    None,
    "PLACE of the model: a run's workdir, or workdir@STEP, a folder of Hugging Face's, a .safetensors or .gguf file",
    required=True,
)
CONTEXT = flags.DEFINE_integer("context", 0, f"tokens in a window; 0: the model's, at most {LONGEST}", lower_bound=0)
STRIDE = flags.DEFINE_integer(
    "stride",
    0,
    "score long records in windows that move on by so many tokens, so that each token is read with at least --context "
    "minus this many before it; 0: windows side by side, packed as in training",
    lower_bound=0,
)
EXTEND = command.define_extend()
JSON = flags.DEFINE_bool("json", False, "print one JSON object")
DATA = command.define_section("data", "the text")


def main() -> None:
    """Open, measure, print."""
    given = {f"data.{name}": value for name, value in DATA.value.to_dict().items()}
    check_fields(given)
    given = {name: value for name, value in given.items() if name in flags.FLAGS and flags.FLAGS[name].present}
    if "data.tokenizer" in given:
        raise Refusal(f"data.tokenizer is {given['data.tokenizer']!r}: a model reads text by its own.")
    import jax

    from lm.evaluate.text import measure
    from lm.weights.extend import extended
    from lm.weights.place import open_place

    say = lambda words: print(words, file=sys.stderr, flush=True)
    bundle = extended(open_place(FROM.value, say), EXTEND.value)
    jax.config.update("jax_default_matmul_precision", bundle.config.parallel.matmul_precision)
    context = CONTEXT.value or min(bundle.config.model.context, LONGEST)
    values = measure(bundle, _section(bundle.config, given), context, say, STRIDE.value)
    if JSON.value:
        print(json.dumps({"from": str(Path(FROM.value)), "context": context, "stride": STRIDE.value, **values}))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {value:.6g}")


def _section(config: Any, given: dict[str, Any]) -> Any:
    """Return the data section of the place's config with what the flags say."""
    from lm.config.resolve import flatten, resolve
    from lm.config.schema import defaults

    flat = flatten(config) | given
    if "data.source" in given:
        flat |= {"data.mixture": given.get("data.mixture", ())}
    whole = defaults()
    whole.update_from_flattened_dict(flat)
    return resolve(whole).data


if __name__ == "__main__":
    command.run(main, __doc__, sections=("data.",))
