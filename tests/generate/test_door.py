"""`python -m lm.generate` as people call it, in processes: prompts, what is printed, a conversation, mistakes."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.weights.place import save_place

ROOT = Path(__file__).parents[2]
TEMPLATE = "{% for message in messages %}{{ message.role[0] }}{{ message.content }};{% endfor %}"
ROUND = ";abcdefg"


HEAVY = ("orbax", "grain", "matplotlib", "tensorboardX", "optax", "jinja2", "gguf", "lm.data", "lm.train", "lm.report")


def environment():
    """Return an environment of a terminal that knows nothing."""
    return os.environ | {"TERM": "dumb"}


def call(place, *arguments, said=b""):
    """Run the door; return its exit status, standard output and error output."""
    line = [sys.executable, "-m", "lm.generate", f"--from={place}", *arguments]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, input=said, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="module")
def place(parrot, tmp_path_factory):
    """Return a folder of a model that says ROUND over and over, and how it is to be used."""
    folder = tmp_path_factory.mktemp("place") / "parrot"
    save_place(parrot(ROUND, 1 << 16), str(folder))
    said = json.loads((folder / "generation_config.json").read_text())
    said |= {"do_sample": False, "max_new_tokens": 7, "top_p": 1.5, "max_length": 20}
    (folder / "generation_config.json").write_text(json.dumps(said))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def small(place, tmp_path_factory):
    """Return the same of a context of 32."""
    folder = tmp_path_factory.mktemp("place") / "small"
    shutil.copytree(place, folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 32}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_stdin_is_continued_as_generation_config_says(place):
    code, out, err = call(place, said=b"xa\n")
    assert (code, out) == (0, "xabcdefg;\n")
    assert err == "generation_config.json: passed over top_p (1.5), max_length\n"


def test_json_says_all_of_every_text(place, tmp_path):
    (tmp_path / "some.jsonl").write_text('{"prompt": "a"}\n{"prompt": "abc"}\n')
    code, out, _ = call(
        place, f"--prompt_file={tmp_path}/some.jsonl", "--json", "--sample.sequences=2", "--sample.stop=f, g"
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(row["prompt"], row["prompt_tokens"]) for row in rows] == [(0, 1), (0, 1), (1, 3), (1, 3)]
    assert [row["text"] for row in rows] == ["bcdefg;"] * 2 + ["defg;ab"] * 2
    for row in rows:
        assert bytes(row["tokens"]).decode() == row["text"] and row["finish_reason"] == "length"
        assert len(row["logprobs"]) == 7 and all(logprob <= 0 for logprob in row["logprobs"])
        assert 0 < row["seconds"]["first"] <= row["seconds"]["total"] and row["numbers"] == {}


def test_several_texts_stand_apart(place):
    code, out, _ = call(place, "--prompt=a", "--sample.sequences=2", "--sample.stop=f")
    assert (code, out) == (0, "abcde\n---\nabcde\n")


def test_lines_are_answered_and_the_oldest_forgotten(small):
    said = "abc\n/reset\nabc\nabc\nabc\n" + "x" * 99 + "\n"
    code, out, err = call(small, "--chat", "--system=abc", "--sample.stop=g", said=said.encode())
    assert code == 0 and out == "abcdef\n" * 4
    assert re.sub(r"\d+", "N", err).splitlines()[1:] == [
        "A new conversation.",
        "The conversation is longer than the model's context: from here on its oldest part is forgotten.",
        "This has N tokens, and the model's context has room for N: say it in fewer words.",
    ]


def test_what_it_does_not_need_is_not_imported(place):
    """All of it would stand between the person and the first token."""
    program = f"""
import sys
from lm import command
from lm.generate import chat, defaults, fill, generator, prompts
from lm.weights.place import open_place
generator.Generator(open_place({str(place)!r}))
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


class Terminal:
    """The door in a terminal of its own."""

    def __init__(self, *arguments):
        self.number, other = pty.openpty()
        line = [sys.executable, "-m", "lm.generate", *arguments]
        streams = {"stdin": other, "stdout": other, "stderr": other}
        # A session of its own, whose terminal this is: Ctrl-C reaches it, and nobody else; where tests run in the
        # background it would be ignored.
        setup = "import fcntl, os, signal, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        setup += "signal.signal(signal.SIGINT, signal.SIG_DFL); "
        line = [sys.executable, "-c", setup + "os.execv(sys.argv[1], sys.argv[1:])", *line]
        self.process = subprocess.Popen(line, cwd=ROOT, env=environment(), **streams)
        os.close(other)

    def write(self, text):
        os.write(self.number, text.encode())

    def until(self, pattern):
        """Return what is shown up to the end of what the pattern matches."""
        shown, last = "", time.monotonic() + 60
        while not re.search(pattern, shown):
            assert time.monotonic() < last, shown
            if select.select([self.number], [], [], 1)[0]:
                shown += os.read(self.number, 4096).decode(errors="replace")
        return shown

    def leave(self):
        """Return the exit status after Ctrl-C, pressed anew each second: readline may lose one before it waits."""
        for _ in range(60):
            self.write("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(1)
                os.close(self.number)
                return code
        raise AssertionError("it does not end")


def test_ctrl_c_stops_an_answer_and_then_the_conversation(place):
    terminal = Terminal(f"--from={place}", "--chat", "--sample.max_new_tokens=30000")
    terminal.until("> $")
    terminal.write("ab\n")
    terminal.until("abcdefg;abcdefg")
    terminal.write("\x03")
    shown = terminal.until(r"\n> $")
    assert len(shown) < 20_000
    terminal.write("/reset\n")
    terminal.until(r"A new conversation\.\r?\n> $")
    assert terminal.leave() == 130


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--chat", "--json"], "--json is given: --chat writes text as it appears."),
        (["--chat", "--prompt=a"], "--prompt is given, and --chat reads what is said from stdin: leave out one."),
        (["--chat", "--sample.sequences=2"], "sample.sequences is 2: in a --chat it must be 1."),
        (["--system=a"], "--system is given, which only --chat reads: put what it says into the prompt."),
        (["--prompt=a", "--prompt_file=b"], "--prompt and --prompt_file are both given: leave out one."),
        (["--prompt_file=none.txt"], "--prompt_file 'none.txt' cannot be read (No such file or directory)."),
        (
            ["--chat", "--sample.window=8"],
            "sample.window is 8: a --chat forgets its oldest exchanges instead; set it to 0.",
        ),
        (["--sample.temperature=-1"], "sample.temperature is -1.0: it must be at least 0."),
        (["--sample.temperature=nan"], "sample.temperature is nan: it must be at least 0."),
        (["--sample.top_p=1.5"], "sample.top_p is 1.5: it must be above 0 and at most 1."),
        (
            ["--stream", "--json"],
            "--stream and --json are both given: leave out one, since an object is printed when it is whole.",
        ),
        ([], "'nowhere' is not a PLACE (there is none): name the workdir of a run, a folder of Hugging Face's, or a "
         ".safetensors or .gguf file."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_before_a_model_is_opened(arguments, sentence):
    assert call("nowhere", *arguments) == (2, "", f"error: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sample.min_new_tokens=300"], "sample.min_new_tokens is 300: it must be at most sample.max_new_tokens"),
        (["--prompt=a", "--stream", "--sample.sequences=2"], "--stream is given, and there are 2 texts"),
    ],
)
def test_a_mistake_that_the_model_makes_one(place, arguments, words):
    code, out, err = call(place, *arguments)
    assert (code, out) == (2, "") and f"error: {words}" in err and "Traceback" not in err


_SAVED = {"model__kv_heads": 4, "model__head_width": None}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model__family": "bert"}, "an encoder needs one, since there is no gap to fill without it."),
        ({"model__family": "t5"}, "an encoder_decoder needs one, since there is no text to answer without it."),
    ],
    ids=["encoder", "encoder_decoder"],
)
def test_who_reads_a_text_needs_one(byte_bundle, tmp_path, overrides, words):
    save_place(byte_bundle(**_SAVED, **overrides), str(tmp_path / "place"))
    code, out, err = call(tmp_path / "place", "--prompt=")
    assert (code, out) == (2, "") and err.endswith(f"error: the prompt is empty: {words}\n")
