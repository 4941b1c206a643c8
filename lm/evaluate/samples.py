"""A Bundle, held-out rows and a prompt in; what the model makes of them, for people to read, out: by objective."""

from collections.abc import Sequence

import numpy as np

from lm.batch import Batch
from lm.evaluate import gaps
from lm.generate.generator import generate
from lm.weights.place import Bundle

ROWS = 4  # held-out rows that are shown


def draw(bundle: Bundle, rows: Sequence[Batch], prompt: str) -> list[str]:
    """Return texts: of a model that goes on with text what it makes of the prompt, of others held-out rows filled in.

    In these ⟦…⟧ was hidden from the model: ⟦guess⟧ is right, ⟦guess‖truth⟧ is not.
    """
    config = bundle.config
    if config.objective.name == "masked":
        return _spelled(bundle, gaps.masked(bundle, rows))
    if config.objective.name == "classify":
        return _classes(bundle, rows)
    if gaps.has_spans(config):
        return _spelled(bundle, gaps.spans(bundle, rows))
    if config.objective.name == "seq2seq":
        return _answers(bundle, rows)
    return [prompt + done.text for done in generate(bundle, [prompt], config.sample)]


def _spelled(bundle: Bundle, texts: Sequence[Sequence[gaps.Piece]]) -> list[str]:
    """Return the first texts, each behind what share of its gaps is filled as it was."""
    shown = []
    for text in texts[:ROWS]:
        hidden = [piece for piece in text if piece.truth is not None]
        right = sum(piece.ids == piece.truth for piece in hidden)
        shown.append(f"── {right} of {len(hidden)} right\n{gaps.spelled(text, bundle.tokenizer)}")
    return shown


def _answers(bundle: Bundle, rows: Sequence[Batch]) -> list[str]:
    """Return inputs with the likeliest answer and the target."""
    read = bundle.tokenizer.decode
    tasks = [task for row in rows[:ROWS] for task in gaps.tasks(row)]
    said = gaps.answers(bundle, tasks)
    return [
        f"── {read(given)}\n→ {read(answer)}\ntarget: {read(wanted)}"
        for (given, wanted), answer in zip(tasks, said, strict=True)
    ]


def _classes(bundle: Bundle, rows: Sequence[Batch]) -> list[str]:
    """Return texts with the likeliest class and the right one."""
    labels, shown = bundle.config.objective.labels, []
    for row, guesses in zip(rows[:ROWS], gaps.likeliest(bundle, rows[:ROWS]), strict=True):
        place = int(np.argmax(row.weights))
        text = bundle.tokenizer.decode(row.inputs[row.segments > 0])
        guess, truth = labels[guesses[place]], labels[row.targets[place]]
        shown.append(f"── {text}\n→ ⟦{guess}⟧" if guess == truth else f"── {text}\n→ ⟦{guess}‖{truth}⟧")
    return shown
