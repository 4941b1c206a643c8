"""Continue a prompt with a trained model; an encoder_decoder answers it, an encoder fills its gaps.

    python -m lm.generate --from=runs/quickstart --prompt="def main" --sample.temperature=0.7
    python -m lm.generate --from=runs/bert --prompt="The [MASK] sat on the mat."

The text goes to stdout as it appears, and nothing else does. With --sample.sequences above 1 the texts are
printed one after another, a line of --- between them; with --json, one object a line. Of every gap the likeliest
tokens are printed in quotes, one a line behind its probability, with an empty line between two gaps.
"""

import json
import math
import sys
from typing import Any

from absl import flags

from lm import command
from lm.config.resolve import check_fields

FROM = flags.DEFINE_string(
    "from",
    None,
    "PLACE of the model: a run's workdir, or workdir@STEP, with :raw not averaged; a folder of Hugging Face's; "
    "a .safetensors or .gguf file",
    required=True,
)
PROMPT = flags.DEFINE_string("prompt", "", "text to continue, to answer, or with mask tokens; empty: begin a new text")
JSON = flags.DEFINE_bool(
    "json",
    False,
    "print one JSON object a sequence: text, tokens, logprobs, finish_reason; or a list a gap: text, token, logprob",
)
SAMPLE = command.define_section("sample", "how text is drawn")


def main() -> None:
    """Open, generate, print."""
    section = SAMPLE.value
    check_fields(section.to_dict(), "sample.")
    import ml_collections

    from lm.generate.generator import generate
    from lm.weights.place import open_place

    bundle = open_place(FROM.value)
    architecture = bundle.config.model.architecture
    if architecture == "encoder":
        return _fill(bundle)

    before = "" if architecture == "encoder_decoder" else PROMPT.value
    unsaid = [before]

    def watch(index: int, text: str) -> None:
        sys.stdout.write((unsaid.pop() if unsaid else "") + text)
        sys.stdout.flush()

    is_streamed = section.sequences == 1 and not JSON.value
    completions = generate(
        bundle, [PROMPT.value], ml_collections.FrozenConfigDict(section), watch if is_streamed else None
    )
    if is_streamed:
        watch(0, "\n")
    elif JSON.value:
        for completion in completions:
            print(json.dumps(completion._asdict(), ensure_ascii=False))
    else:
        print("\n---\n".join(before + completion.text for completion in completions))


def _fill(bundle: Any) -> None:
    """Print what may stand in the prompt's gaps."""
    from lm.generate.fill import fill

    gaps = fill(bundle, PROMPT.value)
    if JSON.value:
        for fillings in gaps:
            print(json.dumps([filling._asdict() for filling in fillings], ensure_ascii=False))
    else:
        line = lambda filling: f"{math.exp(filling.logprob):.4f} {json.dumps(filling.text, ensure_ascii=False)}"
        print("\n\n".join("\n".join(map(line, fillings)) for fillings in gaps))


if __name__ == "__main__":
    command.run(main, __doc__, sections=("sample.",))
