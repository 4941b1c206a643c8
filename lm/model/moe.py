"""A feed-forward of experts in place of one for all: a router sends each token to some of them, and says how evenly."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.model.feedforward import ACTIVATIONS
from lm.model.init import initializer


class Routing(NamedTuple):
    """What a router did with each row's tokens, padding left out; float32, in an Output led by an axis of layers.

    They are of one row each, so that neither micro-batches nor devices change them.

    balance: `(B,)`, E/k · Σ f·P over experts, where f is the share of tokens that chose an expert and P the mean of
      its probability; 1 where all are used alike (Switch: Fedus et al. 2021, arXiv 2101.03961, §2.2; by sequence:
      DeepSeek-V3, arXiv 2412.19437, §2.1.2).
    z: `(B,)`, mean of log² of the router's denominator (ST-MoE: Zoph et al. 2022, arXiv 2202.08906, §2.2).
    load: `(B, E)`, tokens that chose each expert.
    dropped: `(B,)`, choices for which an expert had no place.
    """

    balance: Any
    z: Any
    load: Any
    dropped: Any


class Choice(NamedTuple):
    """Which experts each token takes, `(B, T, k)`: their numbers, and the weights of their answers in float32."""

    experts: Any
    weights: Any


class Slots(NamedTuple):
    """numbers: int32 `(B, T, k)`, where a token stands among a row's E·X places, or E·X. dropped: as in Routing."""

    numbers: Any
    dropped: Any


class Router(nn.Module):
    """`(B, T, D)` → a logit per expert, `(B, T, E)`; in float32 whatever the rest is (Fedus et al. 2021, §2.4)."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        shape, dtype = (c.width, c.experts), jnp.dtype(c.parameter_dtype)
        kernel_DE = self.param("kernel", initializer(c, "in", c.width), shape, dtype).astype(jnp.float32)
        return jnp.matmul(hidden_BTD.astype(jnp.float32), kernel_DE, precision=jax.lax.Precision.HIGHEST)


class ExpertsDense(nn.Module):
    """The weights of a linear map of every expert: kernel `(E, inputs, outputs)`, bias `(E, outputs)` or None."""

    config: object
    inputs: int
    outputs: int
    role: str = "in"

    @nn.compact
    def __call__(self):
        c = self.config
        dtype = jnp.dtype(c.parameter_dtype)
        initial = initializer(c, self.role, self.inputs)
        kernel = self.param("kernel", initial, (c.experts, self.inputs, self.outputs), dtype).astype(c.dtype)
        if not c.bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (c.experts, self.outputs), dtype).astype(c.dtype)


class Experts(nn.Module):
    """The weights of every expert's feed-forward, dense or gated: name → (kernel, bias)."""

    config: object

    @nn.compact
    def __call__(self):
        c = self.config
        inward = lambda name: ExpertsDense(c, c.width, c.feedforward_width, name=name)()
        layers = {name: inward(name) for name in (("gate", "in") if c.gated else ("in",))}
        return layers | {"out": ExpertsDense(c, c.feedforward_width, c.width, "out", name="out")()}


class MixtureOfExperts(nn.Module):
    """`(B, T, D)` → `(B, T, D)` and Routing: each token's mean of its experts' answers, weighted by the router.

    by_rows: function of (what all rows share, what is led by rows) → the same, as it is placed on a mesh.
    constrain: (array, name) → array, as it is placed on a mesh.
    """

    config: object
    by_rows: Callable = lambda function: function
    constrain: Callable = lambda array, name: array

    @nn.compact
    def __call__(self, hidden_BTD, segments_BT=None, dispatch: str = "ragged"):
        """Return what the experts answer, and the Routing.

        Args:
          hidden_BTD: tokens.
          segments_BT: 0 is padding; None, in a pass with a cache: all are tokens.
          dispatch: one of DISPATCHES.
        """
        c = self.config
        logits_BTE = Router(c, name="router")(hidden_BTD)
        shares_BTE = jax.nn.softmax(logits_BTE)
        likeliest = self.by_rows(lambda _, shares_BTE: jax.lax.top_k(shares_BTE, c.experts_per_token))
        weights_BTK, experts_BTK = likeliest(None, shares_BTE)
        if c.router_normalized:
            weights_BTK = weights_BTK / jnp.sum(weights_BTK, axis=-1, keepdims=True)
        is_text_BT = jnp.ones(hidden_BTD.shape[:2], bool) if segments_BT is None else segments_BT > 0
        taken_BTE = jnp.sum(jax.nn.one_hot(experts_BTK, c.experts), axis=2) * is_text_BT[..., None]
        hidden_BTD = jnp.asarray(hidden_BTD, c.dtype)
        rows = hidden_BTD, Choice(experts_BTK, weights_BTK), taken_BTE
        out_BTD, dropped_B = DISPATCHES[dispatch](c, Experts(c, name="experts")(), rows, self.by_rows, self.constrain)
        count_B = jnp.maximum(jnp.sum(is_text_BT, axis=1, dtype=jnp.float32), 1)
        load_BE = jnp.sum(taken_BTE, axis=1)
        share_BE = jnp.sum(shares_BTE * is_text_BT[..., None], axis=1)
        balance_B = c.experts / c.experts_per_token * jnp.sum(load_BE * share_BE, axis=1) / jnp.square(count_B)
        z_BT = jnp.square(jax.nn.logsumexp(logits_BTE, axis=-1))
        routing = Routing(balance_B, jnp.sum(z_BT * is_text_BT, axis=1) / count_B, load_BE, dropped_B)
        return out_BTD.astype(c.dtype), routing


def _ragged(config, layers, inputs, by_rows, constrain):
    """Sort the tokens by their expert; each multiplies as many as came (MegaBlocks: Gale et al. 2022, 2211.15841).

    On a mesh every device has all experts come to its rows.
    """
    return by_rows(functools.partial(_sorted, config))(layers, inputs)


def _sorted(config, layers, inputs):
    hidden_BTD, choice, _ = inputs
    rows, length, width = hidden_BTD.shape
    chosen_A = choice.experts.reshape(-1)  # every token's choices, one after another
    order_A = jnp.argsort(chosen_A)
    sorted_A = chosen_A[order_A]
    sizes_E = jnp.bincount(chosen_A, length=config.experts)

    def product(x_AI, kernel_EIO, bias_EO):
        out_AO = jax.lax.ragged_dot(x_AI, kernel_EIO, sizes_E)
        return out_AO if bias_EO is None else out_AO + bias_EO[sorted_A]

    x_AD = hidden_BTD.reshape(-1, width)[order_A // config.experts_per_token]
    answers_AD = _answers(config, layers, x_AD, product)[jnp.argsort(order_A)]
    answers_BTKD = answers_AD.reshape(rows, length, config.experts_per_token, width)
    return _weighted(choice.weights, answers_BTKD), jnp.zeros(rows)


def _capacity(config, layers, inputs, by_rows, constrain):
    """Give every expert X places for each row's tokens; those who find none go without its answer.

    Lepikhin et al. 2020, arXiv 2006.16668, §3.2, with places in the order of tokens, so that none loses its own to a
    later one. Padding takes no place. On a mesh what is placed goes to the devices that have the expert, and back.
    """

    def product(x_BEXI, kernel_EIO, bias_EO):
        out_BEXO = jnp.einsum("bexi,eio->bexo", x_BEXI, kernel_EIO)
        return out_BEXO if bias_EO is None else out_BEXO + bias_EO[None, :, None]

    x_BEXD, slots = by_rows(functools.partial(_put, config))(None, inputs)
    answers_BEXD = _answers(config, layers, constrain(x_BEXD, "experts"), product)
    return by_rows(_taken)(None, (constrain(answers_BEXD, "experts"), slots, inputs[1].weights))


def _put(config, _, inputs):
    """Return what stands in each place, `(B, E, X, D)`, and Slots."""
    hidden_BTD, choice, taken_BTE = inputs
    rows, _, width = hidden_BTD.shape
    places = capacity(config, hidden_BTD.shape[1])
    before_BTE = jnp.cumsum(taken_BTE.astype(jnp.int32), axis=1) - taken_BTE.astype(jnp.int32)
    place_BTK = jnp.take_along_axis(before_BTE, choice.experts, axis=2)
    is_text_BTK = jnp.take_along_axis(taken_BTE, choice.experts, axis=2) > 0
    has_place_BTK = is_text_BTK & (place_BTK < places)
    nowhere = config.experts * places
    slot_BTK = jnp.where(has_place_BTK, choice.experts * places + place_BTK, nowhere)
    x_BAD = jnp.repeat(hidden_BTD, config.experts_per_token, axis=1)
    put = lambda slot_A, x_AD: jnp.zeros((nowhere, width), x_AD.dtype).at[slot_A].set(x_AD, mode="drop")
    x_BEXD = jax.vmap(put)(slot_BTK.reshape(rows, -1), x_BAD).reshape(rows, config.experts, places, width)
    return x_BEXD, Slots(slot_BTK, jnp.sum(is_text_BTK & ~has_place_BTK, axis=(1, 2), dtype=jnp.float32))


def _taken(_, inputs):
    """Return each token's answer, and how many of a row's choices found no place."""
    answers_BEXD, slots, weights_BTK = inputs
    rows, _, _, width = answers_BEXD.shape
    take = lambda answers_SD, slot_A: answers_SD.at[slot_A].get(mode="fill", fill_value=0)
    answers_BAD = jax.vmap(take)(answers_BEXD.reshape(rows, -1, width), slots.numbers.reshape(rows, -1))
    return _weighted(weights_BTK, answers_BAD.reshape(*weights_BTK.shape, width)), slots.dropped


def capacity(config, length: int) -> int:
    """Return X, the places that an expert has for one row of that many tokens."""
    return min(length, math.ceil(config.expert_capacity * config.experts_per_token * length / config.experts))


def _answers(config, layers, x, product: Callable):
    """Return each expert's feed-forward of the tokens that it is given; `product` multiplies by a layer of all."""
    activation = ACTIVATIONS[config.activation]
    gate = product(x, *layers["gate"]) if config.gated else None
    inner = product(x, *layers["in"])
    return product(activation(inner) if gate is None else activation(gate) * inner, *layers["out"])


def _weighted(weights_BTK, answers_BTKD):
    return jnp.sum(weights_BTK[..., None] * answers_BTKD.astype(jnp.float32), axis=2)


# (config, Experts' layers, (hidden (B, T, D), Choice, who of the text takes which (B, T, E)), by_rows, constrain)
# → (out, dropped (B,))
DISPATCHES = {"ragged": _ragged, "capacity": _capacity}
