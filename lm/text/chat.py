"""A conversation in, the ids that a published checkpoint's own chat template makes of it out.

Templates are programs (Jinja) of whoever published the checkpoint: lm/text/render.py runs them, in a process of its
own. What a person says cannot give the model a special token: those are the template's alone.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lm.refusal import Refusal, extra
from lm.text import published
from lm.text.tokenizer import Tokenizer

_WAIT = 30.0  # seconds for the process, whose time of the processor is bounded by itself
_PRIVATE = range(0xF0000, 0xFFFFE)  # characters that mean nothing to anybody
_SAID = 200  # characters of a complaint


class Message(NamedTuple):
    """What one side said. role: system, user or assistant."""

    role: str
    content: str


class Template(NamedTuple):
    """A checkpoint's template. text: in Jinja. names: of special tokens, such as `eos_token`, to their spellings."""

    text: str
    names: dict[str, str]


def template(tokenizer: Tokenizer | None) -> Template:
    """Return the chat template that a tokenizer was published with.

    Raises:
      Refusal: there is none, or jinja2, which runs it, is not installed.
    """
    files = tokenizer.published if tokenizer else {}
    found = published.template(files)
    if found is None:
        raise Refusal(
            f"the model has no chat template (no {published.TEMPLATE}, no chat_template in {published.CONFIG} or in "
            "the .gguf file): continue a text with --prompt instead."
        )
    extra("jinja2", "chat", "a chat template is run by jinja2")
    return Template(found, published.specials(files))


def ids(tokenizer: Tokenizer, template: Template, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a conversation up to where the assistant is to speak.

    Those that Transformers' apply_chat_template gives; only where a message spells a special token they differ: that
    is text here, as in its sanitize_control_tokens.

    Raises:
      Refusal: the template fails, or takes too much of time or memory, or refuses the messages.
    """
    said = "".join(message.content for message in messages)
    spelled = sorted((name for name in tokenizer.spellings if name in said), key=len, reverse=True)
    if not spelled:
        return tokenizer.templated(render(template, messages))
    begin, end = _unused(said)
    hide = lambda text: re.sub("|".join(map(re.escape, spelled)), lambda match: f"{begin}{match[0]}{end}", text)
    text = render(template, [message._replace(content=hide(message.content)) for message in messages])
    found: list[int] = []
    for place, piece in enumerate(re.split(f"{begin}(.*?){end}", text, flags=re.DOTALL)):
        piece = piece.replace(begin, "").replace(end, "")  # where a template has parted what belongs together
        found += tokenizer.encode(piece).tolist() if place % 2 else tokenizer.templated(piece)
    return found


def render(template: Template, messages: Sequence[Message]) -> str:
    """Return the text of a conversation up to where the assistant is to speak.

    Raises:
      Refusal: as `ids` does.
    """
    values = {
        **template.names,
        "messages": [message._asdict() for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    asked = json.dumps({"template": template.text, "values": values})
    program = [sys.executable, "-P", str(Path(__file__).with_name("render.py"))]
    try:
        done = subprocess.run(program, input=asked, capture_output=True, text=True, timeout=_WAIT, encoding="utf-8")
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise Refusal("the model's chat template takes too much time or memory, so it is not used.") from None
    if "error" in answer:
        words = " ".join(answer["error"].split())[:_SAID].rstrip(".")
        raise Refusal(f"the model's chat template cannot be used for this conversation ({words}).")
    return answer["text"]


def _unused(text: str) -> tuple[str, str]:
    """Return two characters that a text does not have."""
    free = (mark for mark in map(chr, _PRIVATE) if mark not in text)
    return next(free), next(free)
