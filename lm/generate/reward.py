"""The name of a function of the user's in; the function, whose every answer is a finite number, out."""

import importlib
import math
from collections.abc import Callable

from lm.refusal import Refusal, nearest


def load(name: str) -> Callable[[str], float]:
    """Return the reward that `module:function` names, found as Python finds modules.

    Raises:
      Refusal: there is none; and, when it is called, it raises or gives no finite number.
    """
    module, function = name.split(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Refusal(
            f"sample.reward is {name!r}: there is no module {error.name!r} here; python -m looks in the current folder."
        ) from None
    except Exception as error:
        raise Refusal(f"sample.reward is {name!r}: importing it raised {_said(error)}.") from error
    reward = getattr(found, function, None)
    if not callable(reward):
        callables = [other for other in vars(found) if callable(vars(found)[other])]
        raise Refusal(
            f"sample.reward is {name!r}: {module} has no function {function!r}{nearest(function, callables)}."
        )
    return lambda text: _number(name, reward, text)


def _number(name: str, reward: Callable, text: str) -> float:
    try:
        answer = reward(text)
    except Exception as error:
        raise Refusal(f"sample.reward {name} raised {_said(error)}, given {_short(text)}.") from error
    try:
        number = float(answer) if hasattr(answer, "__float__") or hasattr(answer, "__index__") else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Refusal(f"sample.reward {name} gave {_short(answer)} for {_short(text)}: it must give a finite number.")
    return number


def _said(error: Exception) -> str:
    """Return an error's name and what it says, on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__} ({words})" if words else type(error).__name__


def _short(value: object) -> str:
    written = " ".join(repr(value).split())
    return written if len(written) <= 60 else f"{written[:57]}..."
