"""A Bundle and held-out rows in; their gaps, hidden tokens or spans, as the model fills them, beside the truth, out."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.batch import Batch
from lm.config.objective import has_prefix
from lm.generate import decode, prepare, samplers
from lm.model.transformer import forward
from lm.objective.losses import log_softmax_parts, logits_of
from lm.text.tokenizer import Specials
from lm.weights.place import Bundle

ROWS = 64  # held-out rows whose spans are restored when they are measured
_TASKS = 64  # that are answered at once


class Piece(NamedTuple):
    """A stretch of a text. ids: as the model has it. truth: as it was, where it was hidden; None: it was seen."""

    ids: list[int]
    truth: list[int] | None = None


def masked(bundle: Bundle, rows: Sequence[Batch]) -> list[list[Piece]]:
    """Return the text of each row with the likeliest tokens in the places that are scored (an encoder)."""
    return [
        [
            Piece([int(guess)], [int(target)]) if weight else Piece([int(token)])
            for token, guess, target, weight, segment in zip(
                row.inputs, guesses, row.targets, row.weights, row.segments, strict=True
            )
            if segment
        ]
        for row, guesses in zip(rows, likeliest(bundle, rows), strict=True)
    ]


def likeliest(bundle: Bundle, rows: Sequence[Batch]) -> np.ndarray:
    """Return the likeliest id, or class, at every place of the rows, `(B, T)`."""
    batch = jax.tree.map(lambda *fields: np.stack(fields), *rows)
    return np.asarray(_likeliest(bundle.model, bundle.params, batch))


@partial(jax.jit, static_argnums=0)
def _likeliest(model, params, batch):
    out = forward(model)(params, batch, None)
    logits_BTV, _ = log_softmax_parts(out.hidden, out.unembed, logits_of(model.config), out.unembed_bias)
    return jnp.argmax(logits_BTV, axis=-1)


def spans(bundle: Bundle, rows: Sequence[Batch]) -> list[list[Piece]]:
    """Return the text of each segment of the rows, its spans as the model says them, greedily.

    What it says is generated token by token from its own words, and read up to end-of-text.
    """
    found = [task for row in rows for task in tasks(row)]
    said = answers(bundle, found)
    specials = bundle.tokenizer.specials
    texts = []
    for (given, wanted), answer in zip(found, said, strict=True):
        truth, guess = cut(wanted, specials), cut(answer, specials)
        texts.append(
            [
                Piece(guess.get(token, []), truth[token]) if token in truth else Piece([token])
                for token in given
                if token != specials.end
            ]
        )
    return texts


def tasks(row: Batch) -> Iterable[tuple[list[int], list[int]]]:
    """Yield what is given and what is wanted, of every segment of a row in which something is."""
    for number in range(1, int(row.segments.max()) + 1):
        here = np.flatnonzero(row.segments == number)
        scored = here[row.weights[here] > 0]
        if len(scored) and row.encoder_inputs is None:
            yield row.inputs[here[0] : scored[0] + 1].tolist(), row.targets[scored].tolist()
        elif len(scored):
            yield row.encoder_inputs[row.encoder_segments == number].tolist(), row.targets[scored].tolist()


def answers(bundle: Bundle, found: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
    """Return the likeliest tokens that the model says to what is given in each task, up to end-of-text.

    At least as many as are wanted of it, where it goes on so long. Some tasks at a time, all in one shape.
    """
    prompts, wanted = ([len(task[part]) for task in found] for part in (0, 1))
    rows, longest, count = min(_TASKS, _rounded(len(found))), _rounded(max(prompts)), _rounded(max(wanted))
    longest = min(longest, bundle.model.config.context)
    groups = [found[start : start + rows] for start in range(0, len(found), rows)]
    params = prepare.ready(bundle.model.config, bundle.params)
    return [answer for group in groups for answer in _answers(bundle, params, group, rows, longest, count)]


def _answers(bundle: Bundle, params: Any, group: Sequence[tuple[list[int], list[int]]], rows: int, longest: int, count):
    """Return the answers to at most so many prompts of at most so many tokens, `count` at most in each."""
    specials, section = bundle.tokenizer.specials, bundle.model.config
    ids, lengths = np.zeros((rows, longest), np.int32), np.ones(rows, np.int32)
    for row, (given, _) in enumerate(group):
        ids[row, : len(given)], lengths[row] = given, len(given)
    read = 1 if section.architecture == "encoder_decoder" else longest
    slots = min(section.context, read + count)  # a task fits with what is wanted; what is beyond is not read
    prefix = has_prefix(bundle.config)
    reading = decode.prefill(bundle.model, params, ids, lengths, specials.start, has_prefix=prefix, slots=slots)
    keys = jax.random.split(jax.random.key(0), rows)
    reading = decode.extend(bundle.model, params, reading, keys, samplers.greedy(bundle.tokenizer), count)
    texts = jax.device_get(reading.text)
    said = [row[start:stop].tolist() for row, start, stop in zip(*texts, strict=True)][: len(group)]
    return [row[: row.index(specials.end)] if specials.end in row else row for row in said]


def _rounded(count: int) -> int:
    """Return the power of two from `count` on, so that few programs are compiled."""
    return 1 << (count - 1).bit_length()


def cut(ids: Iterable[int], specials: Specials) -> dict[int, list[int]]:
    """Return the tokens behind each sentinel; only the first time that a sentinel stands there counts."""
    found: dict[int, list[int]] = {}
    span: list[int] = []
    for token in ids:
        if token in specials.sentinels:
            span = []
            found.setdefault(token, span)
        elif token != specials.end:
            span.append(token)
    return found


def has_spans(config: Any) -> bool:
    """Say whether an objective hides spans."""
    return config.objective.name in ("span", "mixture")


def measure(bundle: Bundle, rows: Callable[[int], Sequence[Batch]], usual: int) -> dict[str, float]:
    """Return what `exact` does of the spans in ROWS held-out rows, of an objective that has any.

    Args:
      bundle: the model.
      rows: count → so many held-out rows.
      usual: the most frequent token of the text.
    """
    if not has_spans(bundle.config):
        return {}
    return exact(spans(bundle, rows(ROWS)), usual)


def exact(texts: Iterable[Sequence[Piece]], usual: int) -> dict[str, float]:
    """Return the share of hidden pieces that are as they were: span_exact_match.

    And baseline_span_exact_match, of a model that always says the one token `usual`.
    """
    pieces = [piece for text in texts for piece in text if piece.truth is not None]
    share = lambda hits: sum(hits) / max(1, len(pieces))
    return {
        "span_exact_match": share(piece.ids == piece.truth for piece in pieces),
        "baseline_span_exact_match": share(piece.truth == [usual] for piece in pieces),
    }


def spelled(text: Sequence[Piece], tokenizer: Any) -> str:
    """Return a text, its gaps as ⟦guess⟧ where that is right, and as ⟦guess‖truth⟧ where it is not."""
    words, before = [], []
    for piece in text:
        read = lambda ids: tokenizer.decode(ids, before)  # noqa: B023 (called here)
        if piece.truth is None:
            words.append(read(piece.ids))
        else:
            truth = read(piece.truth)
            words.append(f"⟦{truth}⟧" if piece.ids == piece.truth else f"⟦{read(piece.ids)}‖{truth}⟧")
        before = piece.ids if piece.truth is None else piece.truth
    return "".join(words)
