"""What a person says, line by line, in; what the model answers out, with a history that fits its context."""

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TextIO

import ml_collections

from lm.generate.generator import Generator
from lm.refusal import Refusal
from lm.text import chat
from lm.text.chat import Message

HELP = "/reset begins anew, /exit or the end of input leaves, /help says this; Ctrl-C stops an answer."

_Say = Callable[[str], None]


class Stopped(Exception):
    """Raised where the person wants no more of an answer."""


def converse(
    lines: Iterable[str],
    answer: Callable[[list[int]], str],
    ids_of: Callable[[list[Message]], list[int]],
    room: int,
    say: _Say,
    system: str = "",
) -> None:
    """Answer every line until one is /exit, or they end.

    Args:
      lines: what is said.
      answer: ids of a conversation → the text of the answer, which it shows.
      ids_of: messages → ids.
      room: most ids that a conversation may have.
      say: hears what is not the model's.
      system: what stands before every conversation; empty: nothing.
    """
    history = opening = [Message("system", system)] if system else []
    has_told = False
    for line in lines:
        said = line.strip()
        if said == "/exit":
            return
        if said == "/reset":
            history = opening
            say("A new conversation.")
        elif re.fullmatch(r"/\w*", said):
            say(HELP if said == "/help" else f"There is no {said}: {HELP}")
        elif said:
            messages = [*history, Message("user", said)]
            try:
                kept, ids = fitted(messages, room, ids_of)
            except Refusal as refusal:  # of the template, of this message
                say(str(refusal))
                continue
            if len(ids) > room:
                say(f"This has {len(ids)} tokens, and the model's context has room for {room}: say it in fewer words.")
                continue
            if len(kept) < len(messages) and not has_told:
                say("The conversation is longer than the model's context: from here on its oldest part is forgotten.")
                has_told = True
            if answered := answer(ids):  # not stopped before there was any
                history = [*kept, Message("assistant", answered)]


def fitted(
    messages: list[Message], room: int, ids_of: Callable[[list[Message]], list[int]]
) -> tuple[list[Message], list[int]]:
    """Return the messages, and their ids, without the oldest exchanges where there are more ids than there is room.

    What a system message says stays, and so does the last message, whatever its length.
    """
    head = messages[: messages[0].role == "system"]
    rest = messages[len(head) :]
    ids = ids_of([*head, *rest])
    while len(ids) > room and len(rest) > 2:
        rest = rest[2:]
        ids = ids_of([*head, *rest])
    return [*head, *rest], ids


def talk(generator: Generator, section: Any, system: str) -> None:
    """Answer what stdin says on stdout; what else there is to say goes to stderr.

    Args:
      generator: of a model that was published with a chat template.
      section: the sample section; max_new_tokens is the longest answer.
      system: what stands before every conversation; empty: nothing.

    Raises:
      Refusal: there is no template, or it cannot be used.
    """
    tokenizer, context = generator.ready.tokenizer, generator.ready.model.config.context
    template = chat.template(tokenizer)
    longest = min(section.max_new_tokens, context // 2)
    turns = iter(range(2**31 - section.seed))

    def answer(ids: list[int]) -> str:
        fields = {"max_new_tokens": longest, "seed": section.seed + next(turns)}  # else answers would begin alike
        return shown(lambda watch: generator([ids], _with(section, **fields), watch), sys.stdout)

    ids_of = lambda messages: chat.ids(tokenizer, template, messages)
    ids_of([Message("user", "?")])  # so that a template that is of no use is refused at once
    say = lambda words: print(words, file=sys.stderr, flush=True)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    converse(typed(sys.stdin), answer, ids_of, context - longest, say, system)


def shown(generate: Callable[[Callable[[int, str], None]], Any], out: TextIO) -> str:
    """Write a text as it comes until it ends, or Ctrl-C is pressed; return what was written. A second one is raised."""
    parts: list[str] = []
    with _noting() as is_asked:

        def watch(index: int, text: str) -> None:
            if is_asked():
                raise Stopped
            parts.append(text)
            out.write(text)
            out.flush()

        with contextlib.suppress(Stopped):
            generate(watch)
    out.write("\n")
    out.flush()
    return "".join(parts)


@contextlib.contextmanager
def _noting() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C, so that no work on the device is cut in two; another raises KeyboardInterrupt."""
    noted: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = signal.signal(signal.SIGINT, take)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def typed(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream; of a terminal as they are typed, which can be edited, behind a prompt."""
    if not (stream.isatty() and sys.stdout.isatty()):
        yield from stream
        return
    import readline  # noqa: F401, gives input() its editing

    with contextlib.suppress(EOFError):
        while True:
            yield input("> ")
    print()


def _with(section: Any, **fields: Any) -> ml_collections.FrozenConfigDict:
    other = ml_collections.ConfigDict(section)
    other.update(fields)
    return ml_collections.FrozenConfigDict(other)
