"""A Bundle and prompts in; texts out, piece by piece where someone is watching."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from lm.generate import guided, speculative
from lm.generate.beam import search
from lm.generate.constrain import constrained
from lm.generate.method import Written, ready, said
from lm.generate.sampling import sample
from lm.refusal import Refusal
from lm.text.tokenizer import Tokenizer
from lm.weights.bundle import Bundle

Watch = Callable[[int, str], None]  # (number of a text, what is new of it)


class Seconds(NamedTuple):
    """From the call on: until the first token of any text, and until this text was done."""

    first: float
    total: float


class Completion(NamedTuple):
    """text: what follows the prompt, without a stop string. tokens, logprobs: its ids (with the end, if reached, and
    what was written of a stop string) and their natural logs under the model. finish_reason: "stop" (end of text),
    "stop_string" (of sample.stop) or "length". numbers: what else the way of writing found out, such as a reward.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str
    seconds: Seconds
    numbers: Mapping[str, float] = MappingProxyType({})


class Generator:
    """A Bundle's model, ready to write many times."""

    def __init__(self, bundle: Bundle, draft: Bundle | None = None, weight_dtype: str = "model"):
        """Take a model, what guesses for it where sample.draft is a PLACE, and sample.weight_dtype.

        Raises:
          Refusal: it is none that continues text, or the draft's tokens are others.
        """
        self._is_marked = bundle.config.objective.name in ("span", "mixture")
        self.ready = ready(bundle, weight_dtype)
        self._draft = draft and ready(draft, weight_dtype)
        if self._draft:
            speculative.check(self.ready, self._draft)

    def __call__(
        self, prompts: Sequence[str | Sequence[int]], section: Any, watch: Watch | None = None
    ) -> list[Completion]:
        """Return `section.sequences` completions of every prompt, those of one prompt side by side.

        An encoder_decoder's encoder reads the prompt, once, closed by end-of-text, sentinels in it being those; what
        its decoder says is the text, and ends at the context at last.

        Args:
          prompts: texts to continue, or to answer, of which an empty one begins a record; or ids, taken as they are.
          section: the sample section.
          watch: receives (index, new text) as it appears.

        Raises:
          Refusal: a prompt that leaves no room in the context, or weights that are held in another way.
        """
        if section.weight_dtype != self.ready.weight_dtype:
            raise Refusal(
                f"sample.weight_dtype is {section.weight_dtype!r}: this Generator was made for "
                f"{self.ready.weight_dtype!r}, so make another."
            )
        rows = [self.ids(prompt, section.window) for prompt in prompts]
        known = [() if self.ready.is_answering else tuple(ids) for ids in rows for _ in range(section.sequences)]
        desk = _Desk(self.ready.tokenizer, known, tuple(section.stop), watch)
        ready = self.ready._replace(cache_dtype=section.cache_dtype)
        written = self._way(section)(ready, rows, section, desk.see)
        return [desk.completed(index, one) for index, one in enumerate(written)]

    def _way(self, section: Any) -> Callable[..., list[Written]]:
        """Return what writes as a sample section says."""
        if section.reward:
            return guided.GUIDANCES[section.guidance]
        if section.draft not in ("", "lookup") and self._draft is None:
            raise Refusal(f"sample.draft is {section.draft!r}: it is a PLACE, and nobody opened it; give its Bundle.")
        if section.draft:
            draft = self._draft and self._draft._replace(cache_dtype=section.cache_dtype)
            return partial(speculative.speculate, draft=None if section.draft == "lookup" else draft)
        if section.regex or section.json_schema:
            return constrained
        return search if section.beams > 1 else sample

    def ids(self, prompt: str | Sequence[int], window: int) -> list[int]:
        """Return the ids that the model reads of a prompt; refuse those that leave no room in the context.

        window: sample.window, in which there is room for any.
        """
        tokenizer, context = self.ready.tokenizer, self.ready.model.config.context
        is_answering = self.ready.is_answering
        if isinstance(prompt, str):
            is_marked = is_answering or self._is_marked
            text = tokenizer.marked(prompt) if is_marked else tokenizer.encode(prompt).tolist()
            prompt = [*tokenizer.opening, *text] or ([] if is_answering else [tokenizer.end])
            prompt = [*prompt, tokenizer.end] if is_answering else prompt
        most = context if is_answering else context - 1
        if len(prompt) > most and not window:
            further = "" if is_answering else "; longer ones are read with sample.window"
            raise Refusal(
                f"the prompt has {len(prompt)} tokens: it must have at most {most}, since the model's context is "
                f"{context}{further}."
            )
        return [int(token) for token in prompt]


def generate(
    bundle: Bundle,
    prompts: Sequence[str | Sequence[int]],
    section: Any,
    watch: Watch | None = None,
    draft: Bundle | None = None,
) -> list[Completion]:
    """Return what a Generator does once.

    Raises:
      Refusal: the model is none that continues text, the draft's tokens are others, or a prompt leaves no room in its
        context.
    """
    return Generator(bundle, draft, section.weight_dtype)(prompts, section, watch)


class _Desk:
    """Where the texts of one call lie while they are written."""

    def __init__(self, tokenizer: Tokenizer, known: list[tuple[int, ...]], stops: tuple[str, ...], watch: Watch | None):
        """known: what stands before each text."""
        self._tokenizer, self._known, self._stops, self._watch = tokenizer, known, stops, watch
        self._begun = time.perf_counter()
        self._first = 0.0
        self._shown = [""] * len(known)
        self._ended = [0.0] * len(known)

    def see(self, index: int, tokens: list[int]) -> bool:
        """Take a text's tokens so far; show what is sure of it, and say whether a stop string ends it."""
        now = time.perf_counter() - self._begun
        self._first = self._first or now
        self._ended[index] = now
        if not (self._watch or self._stops):
            return False
        text, is_stopped = self._text(index, tokens)
        if self._watch:
            sure = text if is_stopped else text.rstrip("\ufffd")  # until all bytes of it come
            self._show(index, sure if is_stopped else sure[: len(sure) - _begun(sure, self._stops)])
        return is_stopped

    def completed(self, index: int, written: Written) -> Completion:
        """Return the text as it is at its end, having shown the rest of it."""
        text, _ = self._text(index, written.tokens)
        if self._watch:
            self._show(index, text)
        return Completion(text, *written[:3], Seconds(self._first, self._ended[index]), written.numbers)

    def _text(self, index: int, tokens: list[int]) -> tuple[str, bool]:
        """Return the tokens' text up to a stop string, and whether there is one."""
        return said(self._tokenizer, tokens, self._known[index], self._stops)

    def _show(self, index: int, text: str) -> None:
        if len(text) > len(self._shown[index]):
            self._watch(index, text[len(self._shown[index]) :])
            self._shown[index] = text


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """Return the length of the text's longest end that a stop string begins with."""
    longest = max(map(len, stops), default=1) - 1
    is_begun = lambda count: any(stop.startswith(text[-count:]) for stop in stops)
    return next((count for count in range(min(longest, len(text)), 0, -1) if is_begun(count)), 0)
