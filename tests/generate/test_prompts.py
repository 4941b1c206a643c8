"""Prompts from the command line, a file, a stream; and what is none."""

import io
import re

import pytest

from lm.generate import prompts
from lm.refusal import Refusal


class Typed(io.BytesIO):
    """A stream at whose other end a person sits."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("prompt", "stream", "wanted"),
    [
        ("a\n", io.BytesIO(b"b"), ["a\n"]),
        ("", io.BytesIO(b"b"), [""]),
        (None, io.BytesIO(b""), [""]),
        (None, io.BytesIO("é\n\n".encode()), ["é\n"]),
        (None, io.BytesIO(b"a\r\nb\r\n"), ["a\r\nb"]),
        (None, Typed(b"b"), [""]),
        ("-", Typed(b"b"), ["b"]),
        (None, None, [""]),
        ("-", None, [""]),
    ],
)
def test_the_prompt_is_a_flag_or_what_stdin_holds(prompt, stream, wanted):
    assert prompts.read(prompt, None, stream) == wanted


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.txt", b"one\ntwo\n", ["one\ntwo"]),
        ("a", b"\xef\xbb\xbfone", ["one"]),
        ("a.txt", b"", [""]),
        ("a.jsonl", b'{"prompt": "1\\n"}\n\n{"prompt": "", "id": 3}\r\n{"prompt": "\xc2\x85"}', ["1\n", "", "\x85"]),
    ],
)
def test_a_file_holds_a_prompt_or_many(tmp_path, name, data, wanted):
    (tmp_path / name).write_bytes(data)
    assert prompts.read(None, str(tmp_path / name), io.BytesIO(b"unread")) == wanted


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.txt", None, "No such file or directory"),
        (".", None, "Is a directory"),
        ("a.txt", b"caf\xe9", "is no UTF-8 (byte 3)."),
        ("a.txt", b"a" * (prompts.LARGEST + 1), "has more than 16,777,216 bytes: no prompt is as long."),
        ("a.jsonl", b'{"prompt": "a"}\n{"text": "b"}', "line 2 of"),
        ("a.jsonl", b'{"prompt": 3}', 'is no {"prompt": TEXT}.'),
        ("a.jsonl", b"[" * 9999, 'is no {"prompt": TEXT}.'),
        ("a.jsonl", b"\n", "has no lines: there is nothing to do."),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, name, data, sentence):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(Refusal, match=re.escape(sentence)):
        prompts.read(None, str(tmp_path / name), None)


def test_one_source_alone():
    with pytest.raises(Refusal, match="--prompt and --prompt_file are both given"):
        prompts.read("a", "b", None)
    with pytest.raises(Refusal, match="what stdin holds is no UTF-8"):
        prompts.read("-", None, io.BytesIO(b"\xff"))
