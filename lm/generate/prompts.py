"""What a command line says of prompts in; the prompts out, of a flag, a file or a stream."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from lm.refusal import Refusal

STREAM = "-"  # as --prompt: the prompt is what stdin holds
LARGEST = 1 << 24  # bytes: of more no model's context has room
MANY = ".jsonl"  # a file of prompts, each a line: {"prompt": TEXT}


def read(prompt: str | None, file: str | None, stream: BinaryIO | None) -> list[str]:
    """Return the prompts; without any, the empty one, which begins a text.

    Args:
      prompt: the text itself, or STREAM.
      file: one whose whole text is the prompt, or of MANY.
      stream: stdin, which is read where neither is given and no person types there; its whole text is the prompt.

    Raises:
      Refusal: both are given, or there is no such file, or it is too large, or no UTF-8, or no JSON lines.
    """
    if prompt is not None and file is not None:
        raise Refusal("--prompt and --prompt_file are both given: leave out one.")
    if file is not None:
        try:
            with open(file, "rb") as opened:  # a pipe, too
                text = _text(opened, f"--prompt_file {file!r}")
        except OSError as error:
            raise Refusal(f"--prompt_file {file!r} cannot be read ({error.strerror}).") from None
        return _many(text, file) if Path(file).suffix == MANY else [_ended(text)]
    if stream is not None and (prompt == STREAM or (prompt is None and not stream.isatty())):
        return [_ended(_text(stream, "what stdin holds"))]
    return ["" if prompt in (None, STREAM) else prompt]


def _text(stream: BinaryIO, what: str) -> str:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Refusal(f"{what} has more than {LARGEST:,} bytes: no prompt is as long.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(f"{what} is no UTF-8 (byte {error.start}).") from None


def _ended(text: str) -> str:
    """Return a text without its last line's end, which editors and `echo` put there."""
    return text.removesuffix("\n").removesuffix("\r")


def _many(text: str, file: str) -> list[str]:
    """Return the prompts of JSON lines."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = _object(line)
            if not isinstance(value.get("prompt"), str):
                raise Refusal(f'line {number} of --prompt_file {file!r} is no {{"prompt": TEXT}}.')
            found.append(value["prompt"])
    if not found:
        raise Refusal(f"--prompt_file {file!r} has no lines: there is nothing to do.")
    return found


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
