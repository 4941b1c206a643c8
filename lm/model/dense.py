"""Learned linear maps over the last axes of their input."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.model import whole
from lm.model.init import initializer
from lm.model.product import by_rows


class Dense(nn.Module):
    """The weights of a map from axes `inputs` to axes `outputs`: kernel `(*inputs, *outputs)`, bias `outputs`.

    config: config.model. role: of the kernel, as lm/model/init.py has them. has_bias: None: as config.bias says.
    """

    config: object
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    role: str = "in"
    has_bias: bool | None = None

    def setup(self):
        dtype = jnp.dtype(self.config.parameter_dtype)
        # Prepared for reading token by token (lm/generate/prepare.py): the kernel's outputs lead, `(outputs, inputs)`,
        # an array or a whole.Whole.
        self.rows = self.get_variable("params", "rows") if self.has_variable("params", "rows") else None
        if self.rows is None:
            initial = initializer(self.config, self.role, math.prod(self.inputs))
            self.kernel = self.param("kernel", initial, (*self.inputs, *self.outputs), dtype)
        has_bias = self.config.bias if self.has_bias is None else self.has_bias
        self.bias = self.param("bias", nn.initializers.zeros, self.outputs, dtype) if has_bias else None

    def __call__(self, x):
        """Return `(B, T, *outputs)` of `(B, T, *inputs)`."""
        return together(x, self)[0]

    def flat(self):
        """Return kernel and bias (or None) with the axes of inputs and of outputs made one each, in dtype."""
        dtype = self.config.dtype
        kernel = self.kernel.astype(dtype).reshape(math.prod(self.inputs), -1)
        return kernel, self.flat_bias()

    def flat_bias(self):
        """Return the bias with its axes made one, in dtype, or None."""
        return None if self.bias is None else self.bias.astype(self.config.dtype).reshape(-1)


def together(x, *layers: Dense) -> list:
    """Return each layer's map of the same input, computed as one matrix product or apart; all have a bias, or none.

    The input's rows are flattened to one axis: XLA:CPU then needs no transposed copies in the backward pass,
    which cost more than the product itself; and there one wide product beats several narrow ones. Where devices split
    the outputs, what is joined would have to be dealt out anew.
    """
    first = layers[0]
    rows = x.shape[: x.ndim - len(first.inputs)]
    flat = x.astype(first.config.dtype).reshape(math.prod(rows), -1)
    if first.rows is not None:
        parts = [_by_rows(flat, layer) for layer in layers]
    elif first.config.projections == "apart":
        parts = [_by_kernel(flat, layer) for layer in layers]
    else:
        kernels, biases = zip(*(layer.flat() for layer in layers), strict=True)
        flat = flat @ jnp.concatenate(kernels, axis=1)
        if biases[0] is not None:
            flat = flat + jnp.concatenate(biases)[None]
        parts = jax.lax.split(flat, [math.prod(layer.outputs) for layer in layers], axis=1)
    return [part.reshape(*rows, *layer.outputs) for part, layer in zip(parts, layers, strict=True)]


def _by_kernel(x_NI, layer: Dense):
    """Return one layer's map, `(N, O)`."""
    kernel, bias = layer.flat()
    return x_NI @ kernel if bias is None else x_NI @ kernel + bias[None]


def _by_rows(x_NI, layer: Dense):
    """Return a prepared layer's map, `(N, O)`."""
    bias = layer.flat_bias()
    out_NO = times_rows(x_NI, layer.rows).astype(layer.config.dtype)
    return out_NO if bias is None else out_NO + bias[None]


def times_rows(x_NI, rows_OI):
    """Return x · rowsᵀ in float32, `(N, O)`, of an array or a whole.Whole."""
    return whole.times(x_NI, rows_OI) if isinstance(rows_OI, whole.Whole) else by_rows(x_NI, rows_OI, jnp.float32)
