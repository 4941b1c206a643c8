"""A conversation: what is remembered, forgotten, begun anew; and Ctrl-C."""

import io
import os
import signal

import pytest

from lm.generate import chat
from lm.text.chat import Message


def _ids(messages):
    """As a template would, but that anyone can read: an id a character."""
    return list(map(ord, "".join(f"{role[0]}{content};" for role, content in messages)))


def _converse(lines, room=99, system=""):
    """Answer with the number of the answer; return what the model read each time, and what was said besides."""
    read, said = [], []

    def answer(ids):
        read.append("".join(map(chr, ids)))
        return str(len(read))

    chat.converse(iter(lines), answer, _ids, room, said.append, system)
    return read, said


def test_history_is_kept_until_reset():
    read, said = _converse(["Hi\n", "", "  You  \n", "/reset", "A /reset is", "/etc/a is"], system="Be")
    assert read == ["sBe;uHi;", "sBe;uHi;a1;uYou;", "sBe;uA /reset is;", "sBe;uA /reset is;a3;u/etc/a is;"]
    assert said == ["A new conversation."]


def test_commands():
    read, said = _converse(["/help", "/rest", "a", "/exit", "b"])
    assert read == ["ua;"] and said == [chat.HELP, f"There is no /rest: {chat.HELP}"]


def test_the_oldest_exchanges_are_forgotten_and_that_is_said_once():
    read, said = _converse(["aaaa", "bbbb", "cccc", "dddd", "e"], room=22, system="Be")
    assert read == [
        "sBe;uaaaa;",
        "sBe;uaaaa;a1;ubbbb;",
        "sBe;ubbbb;a2;ucccc;",
        "sBe;ucccc;a3;udddd;",
        "sBe;udddd;a4;ue;",
    ]
    assert len(said) == 1 and "oldest part is forgotten" in said[0]


def test_what_is_too_long_is_not_answered_and_not_kept():
    read, said = _converse(["a", "b" * 30, "c"], room=20)
    assert read == ["ua;", "ua;a1;uc;"]
    assert said == ["This has 32 tokens, and the model's context has room for 20: say it in fewer words."]


@pytest.mark.parametrize("is_said", [True, False])
def test_fitted_keeps_what_is_said_first_and_last(is_said):
    head = [Message("system", "s" * 9)] * is_said
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "c" * 50)]
    kept, ids = chat.fitted([*head, *talk], 30, _ids)
    assert kept == [*head, talk[-1]] and ids == _ids(kept)


def test_an_answer_is_shown_as_it_comes():
    out = io.StringIO()
    assert chat.shown(lambda watch: [watch(0, part) for part in ("a", "b\n", "c")], out) == "ab\nc"
    assert out.getvalue() == "ab\nc\n"


def test_ctrl_c_stops_an_answer_whose_beginning_counts():
    out, before = io.StringIO(), signal.getsignal(signal.SIGINT)

    def generate(watch):
        watch(0, "a")
        os.kill(os.getpid(), signal.SIGINT)
        watch(0, "b")
        raise AssertionError("went on")

    assert chat.shown(generate, out) == "a" and out.getvalue() == "a\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_is_raised():
    def generate(watch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        chat.shown(generate, io.StringIO())


def test_lines_of_a_stream_are_what_it_holds():
    assert list(chat.typed(io.StringIO("a\nb"))) == ["a\n", "b"]
