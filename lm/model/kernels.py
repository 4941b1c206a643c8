"""A model section and a device in; which ways to compute attention there are, and why one cannot be used, out."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from lm.model import attend, masks
from lm.model.cudnn import cudnn
from lm.model.positions import BIASES
from lm.model.splash import splash
from lm.refusal import Refusal


class Kernel(NamedTuple):
    """A way to compute attention.

    attend: as lm/model/attend.py's einsum.
    cannot: (config.model, whether a decoder sees prefixes, device) → why no step of the model can have it, or None.
    takes: names of further arguments, what a mesh says.
    call: what the text of a compiled step has, if the kernel is really in it; empty: nothing to tell it by.
    """

    attend: Callable
    cannot: Callable[[Any, bool, Any], str | None]
    takes: tuple[str, ...] = ()
    call: str = ""


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
        ways = (*_AUTO.get(device.platform, ()), "einsum")
        return next(way for way in ways if not ATTENDS[way].cannot(section, has_prefix, device))
    reason = ATTENDS[name].cannot(section, has_prefix, device)
    if reason:
        raise Refusal(f"parallel.attention is {name!r}: {reason}; set it to 'einsum', or to 'auto'.")
    return name


def _xla_cannot(section: Any, has_prefix: bool, device: Any) -> str | None:
    return _cap(section) or _softmax(section)


def _cap(section: Any) -> str | None:
    if section.attention_soft_cap:
        return f"it knows no model.attention_soft_cap, which is {section.attention_soft_cap}"
    return None


def _cudnn_cannot(section: Any, has_prefix: bool, device: Any) -> str | None:
    generation = _generation(device)
    if generation < 8:
        return f"it is for NVIDIA's GPUs from Ampere on (A100, RTX 30), and this is {_words(device)}"
    if section.dtype != "bfloat16":
        return f"its numbers have 16 bits, and model.dtype is {section.dtype!r}"
    most = 256 if generation >= 9 else 128
    if section.head_width % 8 or section.head_width > most:
        return f"it has heads of a multiple of 8 up to {most} there, and model.head_width is {section.head_width}"
    return _bias(section) or _cap(section) or _softmax(section)


def _generation(device: Any) -> int:
    """Return the first number of an NVIDIA GPU's compute capability; 0 of anything else."""
    if device.platform != "gpu" or not device.compute_capability[:1].isdigit():  # AMD's are such as gfx90a
        return 0
    return int(device.compute_capability.split(".")[0])


def _words(device: Any) -> str:
    return f"a {device.platform}" + (f" of {device.compute_capability}" if device.platform == "gpu" else "")


def _splash_cannot(section: Any, has_prefix: bool, device: Any) -> str | None:
    if device.platform not in ("tpu", "cpu"):
        return f"it is for TPUs (a CPU interprets it), and this is a {device.platform}"
    if has_prefix:
        return "it knows no prefix that is seen from everywhere, which objective.name or objective.prefix asks for"
    return _bias(section) or _softmax(section)


def _bias(section: Any) -> str | None:
    if section.positions in BIASES:
        return f"it adds nothing to scores, as model.positions {section.positions!r} do"
    return None


def _softmax(section: Any) -> str | None:
    if section.softmax_dtype != "float32":
        return f"its softmax is in float32, and model.softmax_dtype is {section.softmax_dtype!r}"
    return None


def _or_einsum(kernel: Callable, serves: Callable[[masks.Mask, Any, float], bool]) -> Callable:
    """Return the kernel for the calls that it serves, by mask, bias and soft cap, and einsum for the others.

    A step's calls are all served where `cannot` is None; the others are of decoding with a cache.
    """

    @functools.wraps(kernel)
    def either(query_BTHC, key_BSKC, value_BSKC, mask, softmax_dtype, bias=None, soft_cap=0.0, scale=None, **more):
        way = functools.partial(kernel, **more) if serves(mask, bias, soft_cap) else attend.einsum
        return way(query_BTHC, key_BSKC, value_BSKC, mask, softmax_dtype, bias, soft_cap, scale)

    return either


def _is_of_records(mask: masks.Mask) -> bool:
    """Say whether rows are given as segments with places in order, as in a step."""
    return mask.query_segments is not None and mask.distance is None


_XLA = _or_einsum(attend.xla, lambda mask, bias, soft_cap: not soft_cap)
_SPLASH = _or_einsum(splash, lambda mask, bias, soft_cap: _is_of_records(mask) and mask.prefix is None and bias is None)
_CUDNN = _or_einsum(cudnn, lambda mask, bias, soft_cap: _is_of_records(mask) and bias is None and not soft_cap)
ATTENDS = {
    "einsum": Kernel(attend.einsum, lambda section, has_prefix, device: None),
    "xla": Kernel(_XLA, _xla_cannot),
    "cudnn": Kernel(_CUDNN, _cudnn_cannot, ("split", "parts"), "__cudnn$fmha"),
    "splash": Kernel(_SPLASH, _splash_cannot, ("split", "parts", "interpret")),
}
# What "auto" tries by platform, in this order, and then einsum.
_AUTO = {"tpu": ("splash", "xla"), "gpu": ("cudnn", "xla")}
