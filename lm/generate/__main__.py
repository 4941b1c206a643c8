"""Continue a prompt with a trained model; an encoder_decoder answers it, an encoder fills its gaps; or talk with it.

    python -m lm.generate --from=runs/quickstart --prompt="def main" --sample.temperature=0.7
    python -m lm.generate --from=runs/bert --prompt="The [MASK] sat on the mat."
    python -m lm.generate --from=runs/quickstart --json < prompt.txt
    python -m lm.generate --from=SmolLM2-135M-Instruct --chat --system="You answer in one sentence."

The text goes to stdout as it appears, and nothing else does. The prompt is --prompt, or what --prompt_file holds, or
stdin; without any a new text begins. Of several texts (--sample.sequences, or a .jsonl file of prompts) one is printed
after another, a line of --- between them; with --json, one object a line. Of every gap the likeliest tokens are printed
in quotes, one a line behind its probability, with an empty line between two gaps. Fields that are not given are as the
run's config has them, or generation_config.json.
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from lm import command
from lm.config import sample
from lm.config.resolve import check_fields, flatten
from lm.refusal import Refusal

FROM = flags.DEFINE_string(
    "from",
    None,
    "PLACE of the model: a run's workdir, or workdir@STEP, with :raw not averaged; a folder of Hugging Face's; "
    "a .safetensors or .gguf file",
    required=True,
)
PROMPT = flags.DEFINE_string(
    "prompt", None, "text to continue, to answer, or with mask tokens; empty: begin a new text; -: what stdin holds"
)
PROMPT_FILE = flags.DEFINE_string(
    "prompt_file",
    None,
    'file whose whole text, but for its last line\'s end, is the prompt; .jsonl: a line a prompt, {"prompt": TEXT}',
)
STREAM = flags.DEFINE_bool("stream", None, "print the text as it appears; the default where it is one, without --json")
JSON = flags.DEFINE_bool(
    "json",
    False,
    "print one JSON object a sequence: prompt (its number), prompt_tokens (how many), text, tokens, logprobs, "
    "finish_reason, seconds (to the first token, and all), numbers (a reward and the like); or a list a gap: text, "
    "token, logprob",
)
CHAT = flags.DEFINE_bool(
    "chat", False, "answer line after line of stdin, by the model's own chat template; /help says more"
)
SYSTEM = flags.DEFINE_string("system", "", "what the model is told before a --chat")
EXTEND = command.define_extend()
SAMPLE = command.define_section("sample", "how text is drawn")


def main() -> None:
    """Open, generate, print."""
    given = _given()
    prompts = [] if CHAT.value else _prompts()

    from lm.generate import defaults
    from lm.parallel import host
    from lm.weights.extend import extended
    from lm.weights.place import describe, open_place

    host.keep_programs()
    try:
        sample.check(flatten(SAMPLE.value.to_dict(), "sample."))
    except Refusal:  # unless the model's own defaults make up for it, it is said before the model is read
        described = describe(FROM.value)
        defaults.section(described.config, described.tokenizer, given)
    bundle = extended(open_place(FROM.value), EXTEND.value)
    architecture = bundle.config.model.architecture
    if architecture != "decoder" and "" in prompts:
        what = "gap to fill" if architecture == "encoder" else "text to answer"
        raise Refusal(f"the prompt is empty: an {architecture} needs one, since there is no {what} without it.")
    if architecture == "encoder" and (unread := [flag.name for flag in (CHAT, STREAM) if flag.value] + sorted(given)):
        raise Refusal(f"--{unread[0]} is given, and the model is an encoder, which fills gaps: leave it out.")
    if architecture == "encoder":
        return _fill(bundle, prompts)
    say = lambda words: print(words, file=sys.stderr, flush=True)
    section = defaults.section(bundle.config, bundle.tokenizer, given, say)
    from lm.generate.generator import Generator

    draft = open_place(section.draft) if section.draft not in ("", "lookup") else None
    generator = Generator(bundle, draft, section.weight_dtype)
    if CHAT.value:
        from lm.generate.chat import talk

        return talk(generator, _single(section), SYSTEM.value)
    return _continue(generator, prompts, section)


def _given() -> dict[str, Any]:
    """Return the fields that are said, and refuse what can be refused before there is a model."""
    fields = flatten(SAMPLE.value.to_dict(), "sample.")
    check_fields(fields)
    given = {name: value for name, value in fields.items() if name in flags.FLAGS}  # only what is said is defined
    if CHAT.value:
        for flag in (PROMPT, PROMPT_FILE):
            if flag.value is not None:
                raise Refusal(f"--{flag.name} is given, and --chat reads what is said from stdin: leave out one.")
        if JSON.value or STREAM.value is False:
            raise Refusal(f"{'--json' if JSON.value else '--nostream'} is given: --chat writes text as it appears.")
        _single(SAMPLE.value)
    elif SYSTEM.value:
        raise Refusal("--system is given, which only --chat reads: put what it says into the prompt.")
    if STREAM.value and JSON.value:
        raise Refusal("--stream and --json are both given: leave out one, since an object is printed when it is whole.")
    return given


def _single(section: Any) -> Any:
    """Return the section of a conversation: one answer, and a history that is cut to the context."""
    if section.window:
        raise Refusal(f"sample.window is {section.window}: a --chat forgets its oldest exchanges instead; set it to 0.")
    if section.sequences > 1:
        raise Refusal(f"sample.sequences is {section.sequences}: in a --chat it must be 1.")
    return section


def _prompts() -> list[str]:
    from lm.generate import prompts

    return prompts.read(PROMPT.value, PROMPT_FILE.value, sys.stdin and sys.stdin.buffer)


def _continue(generator: Any, prompts: Sequence[str], section: Any) -> None:
    """Print the prompts and what follows, or the answers alone."""
    is_single = len(prompts) * section.sequences == 1
    if STREAM.value and not is_single:
        raise Refusal(f"--stream is given, and there are {len(prompts) * section.sequences} texts: only one can be.")
    is_streamed = is_single and not JSON.value and STREAM.value is not False
    befores = [""] * len(prompts) if generator.ready.is_answering else prompts
    unsaid = [befores[0]]

    def watch(index: int, text: str) -> None:
        sys.stdout.write((unsaid.pop() if unsaid else "") + text)
        sys.stdout.flush()

    rows = [generator.ids(prompt, section.window) for prompt in prompts]
    completions = generator(rows, section, watch if is_streamed else None)
    if is_streamed:
        return watch(0, "\n")
    owners = [number for number in range(len(prompts)) for _ in range(section.sequences)]
    if JSON.value:
        for number, one in zip(owners, completions, strict=True):
            counted = {"prompt": number, "prompt_tokens": len(rows[number])}
            found = one._asdict() | {"seconds": one.seconds._asdict(), "numbers": dict(one.numbers)}
            print(json.dumps(counted | found, ensure_ascii=False))
    else:
        print("\n---\n".join(befores[number] + one.text for number, one in zip(owners, completions, strict=True)))


def _fill(bundle: Any, prompts: Sequence[str]) -> None:
    """Print what may stand in the prompts' gaps."""
    from lm.generate.fill import fill

    gaps = [fillings for prompt in prompts for fillings in fill(bundle, prompt)]
    if JSON.value:
        for fillings in gaps:
            print(json.dumps([filling._asdict() for filling in fillings], ensure_ascii=False))
    else:
        line = lambda filling: f"{math.exp(filling.logprob):.4f} {json.dumps(filling.text, ensure_ascii=False)}"
        print("\n\n".join("\n".join(map(line, fillings)) for fillings in gaps))


if __name__ == "__main__":
    command.run(main, __doc__, sections=("sample.",))
