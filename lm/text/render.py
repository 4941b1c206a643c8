"""A chat template and a conversation in as JSON on stdin, the text out as JSON on stdout: a process of its own.

Templates come from whoever published a checkpoint. lm.text.chat runs this file beside itself, so that what a template
may take of time, memory and output is bounded by the system, whatever jinja2's sandbox leaves open.
"""

import contextlib
import datetime
import json
import resource
import sys
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser, sandbox

_SECONDS = 2  # of the processor's time
_MEMORY = 1 << 29  # bytes of addresses, the interpreter's own among them
_TEXT = 1 << 22  # characters


class _Generation(ext.Extension):
    """`{% generation %}` … `{% endgeneration %}` marks what a model said; the text is what stands between."""

    tags = {"generation"}  # noqa: RUF012, as jinja2 has it

    def parse(self, source: parser.Parser) -> nodes.Node:
        line = next(source.stream).lineno
        return nodes.Scope(source.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _rendered(template: str, values: dict[str, Any]) -> str:
    """Return the text of a template, in the environment that Transformers gives one."""
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.datetime.now().strftime(form),
        "dict": lambda *pairs, **named: dict(*pairs, **named),
    }
    parts, size = [], 0
    for part in environment.from_string(template).generate(**values):
        parts.append(part)
        size += len(part)
        if size > _TEXT:
            raise jinja2.TemplateError(f"its text has more than {_TEXT:,} characters")
    return "".join(parts)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    with contextlib.suppress(ValueError):  # macOS lets no process bound its addresses
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        said = {"text": _rendered(asked["template"], asked["values"])}
    except Exception as error:
        said = {"error": str(error) or type(error).__name__}
    json.dump(said, sys.stdout)
