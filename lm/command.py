"""What every command shares: flags in, one sentence and a non-zero exit for a mistake, help from the schema."""

import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from lm.config import reference, schema
from lm.config.files import as_tuples, check_flag_names
from lm.refusal import Refusal, nearest

USAGE_EXIT = 2

flags.disclaim_key_flags()  # a flag that is defined here is the door's that asked for it, so its help lists it


def run(
    main: Callable[..., int | None], description: str | None, sections: tuple[str, ...] = (), takes: str = ""
) -> None:
    """Parse the flags, call `main`, exit with its status; a Refusal becomes its sentence and exit 2.

    Args:
      main: the command; its arguments are those of the command line that are no flags.
      description: its help: what it does, and an example.
      sections: sections of the schema whose fields the help lists; "" is all.
      takes: what an argument that is no flag stands for, of which there must be one at least; "": none is allowed.
    """

    def parse(arguments: list[str]) -> list[str]:
        if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in arguments[1:]):
            with contextlib.suppress(BrokenPipeError):
                print(_help(description or "", sections), flush=True)
            os._exit(0)  # without a word about a reader that has gone
        try:
            check_flag_names(arguments[1:])
            rest = flags.FLAGS(as_tuples(arguments))
            if rest[1:] and not takes:
                raise Refusal(f"{rest[1]!r} is not a flag; see --help.")
            if takes and not rest[1:]:
                raise Refusal(f"name at least one {takes}; see --help.")
            return rest
        except Refusal as refusal:
            _fail(str(refusal))
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            _fail(_sentence(error))
        return []

    def call(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.WARNING)  # what libraries tell each other is not for the user
        try:
            return main(*arguments[1:])
        except Refusal as refusal:
            _fail(str(refusal))
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader of our output has gone
            with contextlib.suppress(OSError):
                sys.stdout.close()
            return 141
        except OSError as error:
            if error.filename is None:
                raise
            _fail(f"{str(error.filename)!r} cannot be written or read: {error.strerror}.")
        return None

    app.run(call, flags_parser=parse)


def define_config() -> flags.FlagHolder:
    """Define `--config=FILE.py[:arg]` with `--config.a.b=value` overrides; it must be given."""
    holder = config_flags.DEFINE_config_file(
        "config", None, "config file, with an argument after a colon: FILE.py[:arg]"
    )
    flags.mark_flag_as_required(holder)
    return holder


def define_section(name: str, what: str) -> flags.FlagHolder:
    """Define `--NAME.field=value` for the fields of a section of the schema; `what` says what they are."""
    try:
        check_flag_names(sys.argv[1:])  # since the definition itself looks at them
    except Refusal as refusal:
        _fail(str(refusal))
    return config_flags.DEFINE_config_dict(name, schema.defaults(name), what)


def define_extend() -> flags.FlagHolder:
    """Define `--extend=KIND:FACTOR`, as lm/weights/extend.py takes it."""
    words = (
        "KIND:FACTOR, such as yarn:4: a context FACTOR times as long as the model's, its positions squeezed by that "
        "kind of model.rotary_scaling; empty: as it was made"
    )
    return flags.DEFINE_string("extend", "", words)


def _sentence(error: Exception) -> str:
    """Return one sentence for what absl and ml_collections say of a flag."""
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"there is no flag --{error.flagname}{nearest(error.flagname, flags.FLAGS)}; see --help."
    words = str(error).strip().splitlines()[-1].strip() or type(error).__name__
    if missing := re.search(r"Flag (--\w+) must have a value other than None", words):
        return f"the flag {missing[1]} must be given; see --help."
    found = re.match(r"flag --(?:config\.)?([\w.]+)=(.*?): ", words)
    if found and found[1] in schema.FIELDS:
        field = schema.FIELDS[found[1]]
        return f"{found[1]} is {found[2]!r}: it must be {field.rule.words}, of type {field.type.__name__}."
    if "get_config() takes" in words:
        return "this config takes no argument after its name: leave out the colon and what follows it."
    return words if words.endswith(".") else f"{words}."


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(USAGE_EXIT)


def _help(description: str, sections: tuple[str, ...]) -> str:
    lines = [textwrap.dedent(description).strip()]
    found = sorted(flags.FLAGS.flags_by_module_dict().get(sys.argv[0], []), key=lambda flag: flag.name)
    lines += ["", "flags:"] if found else []
    for flag in found:
        default = "" if flag.default in (None, "") else f" (default {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    shown = [name for name in schema.FIELDS if any(name.startswith(section) for section in sections)]
    if shown:
        prefix = "config." if "config" in flags.FLAGS else ""
        lines += ["", "fields:", *reference.help_lines(shown, prefix)]
    return "\n".join(lines)
