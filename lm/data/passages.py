"""A module of Python in; its passages, each with a line of it, out: docstrings, blocks of comments, functions' code."""

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each docstring, those of the outermost first."""
    for node in ast.walk(_parsed(text)):
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield node.body[0].lineno, docstring


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield (last line, text) of each block of lines that are comments and nothing else."""
    comment: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            if comment and token.start[0] != last + 1:
                yield last, "\n".join(comment)
                comment = []
            comment.append(token.string.lstrip("#").strip())
            last = token.start[0]
    if comment:
        yield last, "\n".join(comment)


def functions(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, code) of each function outside of others, as Python prints it: no docstrings, no comments."""
    waiting: list[ast.AST] = [_parsed(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, _DOCUMENTED) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:] or [ast.Pass()]
            yield node.lineno, ast.unparse(node)
        else:
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning of old escapes
        return ast.parse(text)


KINDS = {"docstring": docstrings, "comment": comments, "code": functions}
