"""Continue a prompt with a trained model.

    python -m lm.generate --from=runs/quickstart --prompt="def main" --sample.temperature=0.7

The text goes to stdout as it appears, and nothing else does. With --sample.sequences above 1 the texts are
printed one after another, a line of --- between them; with --json, one object a line.
"""

import json
import sys

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
PROMPT = flags.DEFINE_string("prompt", "", "text to continue; empty: begin a new text")
JSON = flags.DEFINE_bool("json", False, "print one JSON object a sequence: text, tokens, logprobs, finish_reason")
SAMPLE = command.define_section("sample", "how text is drawn")


def main() -> None:
    """Open, generate, print."""
    section = SAMPLE.value
    check_fields(section.to_dict(), "sample.")
    import ml_collections

    from lm.generate.generator import generate
    from lm.weights.place import open_place

    bundle = open_place(FROM.value)

    unsaid = [PROMPT.value]

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
        print("\n---\n".join(PROMPT.value + completion.text for completion in completions))


if __name__ == "__main__":
    command.run(main, __doc__, sections=("sample.",))
