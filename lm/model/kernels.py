"""A model section and a device in; which ways to compute attention there are, and why one cannot be used, out."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from lm.model import attend, masks
from lm.refusal import Refusal


class Kernel(NamedTuple):
    """A way to compute attention.

    attend: as lm/model/attend.py's einsum.
    cannot: (config.model, whether a decoder sees prefixes, device) → why no step of the model can have it, or None.
    """

    attend: Callable
    cannot: Callable[[Any, bool, Any], str | None]


def chosen(name: str, section: Any, has_prefix: bool, device: Any) -> str:
    """Return the key of ATTENDS that config.parallel.attention asks for.

    Args:
      section: config.model.
      has_prefix: whether a step has masks with a prefix.
      device: one of those that run it.

    Raises:
      Refusal: the model cannot have it there.
    """
    if name == "auto":
        return next(kind for kind in _AUTO[device.platform] if not ATTENDS[kind].cannot(section, has_prefix, device))
    reason = ATTENDS[name].cannot(section, has_prefix, device)
    if reason:
        raise Refusal(f"parallel.attention is {name!r}: {reason}; set it to 'einsum', or to 'auto'.")
    return name


def _xla_cannot(section: Any, has_prefix: bool, device: Any) -> str | None:
    if section.attention_soft_cap:
        return f"it knows no model.attention_soft_cap, which is {section.attention_soft_cap}"
    return _softmax(section)


def _softmax(section: Any) -> str | None:
    if section.softmax_dtype != "float32":
        return f"its softmax is in float32, and model.softmax_dtype is {section.softmax_dtype!r}"
    return None


def _or_einsum(kernel: Callable, serves: Callable[[masks.Mask, Any, float], bool]) -> Callable:
    """Return the kernel for the calls that it serves, by mask, bias and soft cap, and einsum for the others.

    A step's calls are all served where `cannot` is None; the others are of decoding with a cache.
    """

    @functools.wraps(kernel)
    def either(query_BTHC, key_BSKC, value_BSKC, mask, softmax_dtype, bias=None, soft_cap=0.0, scale=None):
        way = kernel if serves(mask, bias, soft_cap) else attend.einsum
        return way(query_BTHC, key_BSKC, value_BSKC, mask, softmax_dtype, bias, soft_cap, scale)

    return either


ATTENDS = {
    "einsum": Kernel(attend.einsum, lambda section, has_prefix, device: None),
    "xla": Kernel(_or_einsum(attend.xla, lambda mask, bias, soft_cap: not soft_cap), _xla_cannot),
}
# What "auto" tries, in this order.
_AUTO = {"tpu": ("xla", "einsum"), "gpu": ("xla", "einsum"), "cpu": ("einsum",)}
