"""Experts against a loop over tokens and experts, their two ways of dispatch, and what is said of each row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import schema
from lm.model import cache as caches
from lm.model.feedforward import ACTIVATIONS
from lm.model.moe import DISPATCHES, MixtureOfExperts, capacity
from lm.model.transformer import Tokens, Transformer
from lm.refusal import Refusal

ROWS, LENGTH, EXPERTS = 3, 7, 5
X = np.random.default_rng(0).normal(size=(ROWS, LENGTH, 24)).astype(np.float32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 2, 2]], np.int32)
DIRECTION = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)

OPTIONS = {
    "gated": {"k": 2, "gated": True, "activation": "silu"},
    "dense, with biases, one of the experts": {"k": 1, "bias": True, "router_normalized": False},
    "gated, with biases, weights of all experts": {"k": 3, "gated": True, "bias": True, "router_normalized": False},
    "all of the experts": {"k": 5, "gated": True},
}
FORMULAS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


@pytest.fixture(scope="module")
def section(tiny):
    """Return a function: options, how tokens get to the experts, and a factor → config.model."""

    def make(options, dispatch="ragged", factor=99.0):
        given = {"bias": False} | options | {"experts": EXPERTS, "dispatch": dispatch}
        given |= {"expert_capacity": factor} if dispatch == "capacity" else {}
        given["experts_per_token"] = given.pop("k")
        return tiny(**{f"model__{name}": value for name, value in given.items()}).model

    return make


def _params(section, seed=2):
    module = MixtureOfExperts(section)
    leaves = jax.eval_shape(lambda: module.init(jax.random.key(0), X, SEGMENTS))["params"]
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * generator.normal(size=leaf.shape), jnp.float32), leaves)


@functools.partial(jax.jit, static_argnums=0)
def _run(section, params, x=X, segments=SEGMENTS):
    return MixtureOfExperts(section).apply({"params": params}, x, segments, section.dispatch)


def _shares(x, kernel_DE):
    logits = np.float64(x) @ np.float64(kernel_DE)
    raised = np.exp(logits)
    return logits, raised / raised.sum(-1, keepdims=True)


def _slow(section, params, x=X):
    """Return each token's answer in float64, one token and one expert after another."""
    params = jax.tree.map(np.float64, params)
    activation = FORMULAS[section.activation]
    _, shares = _shares(x, params["router"]["kernel"])
    out = np.zeros(x.shape)
    for b, t in np.ndindex(*x.shape[:2]):
        chosen = sorted(range(EXPERTS), key=lambda expert, b=b, t=t: -shares[b, t, expert])
        chosen = chosen[: section.experts_per_token]
        total = sum(shares[b, t, expert] for expert in chosen) if section.router_normalized else 1.0
        for expert in chosen:

            def apply(name, x, expert=expert):
                layer = params["experts"][name]
                return x @ layer["kernel"][expert] + (layer["bias"][expert] if section.bias else 0)

            inner = activation(apply("gate" if section.gated else "in", x[b, t]))
            inner = inner * apply("in", x[b, t]) if section.gated else inner
            out[b, t] += shares[b, t, expert] / total * apply("out", inner)
    return out


def _everywhere(section, params, x):
    """Return the same with every expert asked about every token, and the weights of most of them zero."""
    shares = jax.nn.softmax(x @ params["router"]["kernel"])
    least = jnp.sort(shares, axis=-1)[..., -section.experts_per_token, None]
    weights = jnp.where(shares >= least, shares, 0)
    if section.router_normalized:
        weights = weights / weights.sum(-1, keepdims=True)

    def apply(name, x):
        layer = params["experts"][name]
        out = jnp.einsum("...i,eio->...eo" if x.ndim == 3 else "btei,eio->bteo", x, layer["kernel"])
        return out + layer["bias"][None, None] if section.bias else out

    activation = ACTIVATIONS[section.activation]
    inner = activation(apply("gate", x)) * apply("in", x) if section.gated else activation(apply("in", x))
    return jnp.einsum("bte,bted->btd", weights, apply("out", inner))


def test_dispatches_are_the_schemas():
    assert set(DISPATCHES) == set(schema.FIELDS["model.dispatch"].rule.choices)


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("options", list(OPTIONS.values())[:3], ids=list(OPTIONS)[:3])
def test_answers_and_gradients(section, options, dispatch):
    """Where there are places for all."""
    section = section(options, dispatch)
    params = _params(section)
    out, routing = _run(section, params)
    is_text = (SEGMENTS > 0)[..., None]
    np.testing.assert_allclose(out * is_text, _slow(section, params) * is_text, rtol=1e-4, atol=2e-5)
    assert not np.asarray(routing.dropped).any()
    loss = lambda run: lambda params, x: jnp.sum(run(params, x) * DIRECTION * is_text)
    ours = loss(lambda params, x: _run(section, params, x)[0])
    exact = loss(lambda params, x: _everywhere(section, params, x))
    gradients = [jax.jit(jax.grad(one, (0, 1)))(params, jnp.asarray(X)) for one in (ours, exact)]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert np.any(other)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(np.abs(other).max()))


@pytest.mark.parametrize("options", list(OPTIONS.values())[:3], ids=list(OPTIONS)[:3])
def test_statistics_of_each_row(section, options):
    section = section(options)
    params = _params(section)
    _, routing = _run(section, params)
    logits, shares = _shares(X, params["router"]["kernel"])
    for b in range(ROWS):
        text = SEGMENTS[b] > 0
        chosen = np.argsort(-shares[b, text], axis=-1)[:, : section.experts_per_token]
        load = np.array([(chosen == expert).sum() for expert in range(EXPERTS)])
        np.testing.assert_array_equal(routing.load[b], load)
        balance = EXPERTS / section.experts_per_token * np.sum(load / text.sum() * shares[b, text].mean(0))
        np.testing.assert_allclose(routing.balance[b], balance, rtol=1e-5)
        z = np.mean(np.log(np.exp(logits[b, text]).sum(-1)) ** 2)
        np.testing.assert_allclose(routing.z[b], z, rtol=1e-5)
        _, alone = _run(section, params, X[[b]], SEGMENTS[[b]])
        for one, other in zip(alone, routing, strict=True):
            np.testing.assert_allclose(one[0], other[b], rtol=1e-6)


def test_an_even_router_is_balanced_and_a_row_of_padding_is_nothing(section):
    section = section(OPTIONS["all of the experts"])
    params = _params(section)
    params["router"]["kernel"] *= 0
    _, routing = _run(section, params, segments=SEGMENTS * np.array([[1], [1], [0]]))
    np.testing.assert_allclose(routing.balance, [1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(routing.z, [np.log(5) ** 2, np.log(5) ** 2, 0], rtol=1e-6)
    np.testing.assert_array_equal(routing.load, [[7] * 5, [4] * 5, [0] * 5])


@pytest.mark.parametrize(("factor", "places"), [(5 / 7, 1), (1.0, 2), (2.0, 3), (5.0, 7), (50.0, 7)])
def test_places(section, factor, places):
    assert capacity(section({"k": 1}, "capacity", factor), LENGTH) == places


@pytest.mark.parametrize("places", [1, 2, 3])
def test_those_who_come_too_late_are_dropped(section, places):
    """All tokens want expert 3, then expert 1: of each row the first who are text get there, the others get nothing."""
    section = section({"k": 2, "gated": True}, "capacity", places * EXPERTS / (2 * LENGTH) - 1e-3)
    assert capacity(section, LENGTH) == places
    params = _params(section)
    x = X.copy()
    x[..., 0] = 1
    params["router"]["kernel"] = jnp.zeros((24, EXPERTS)).at[0, 3].set(3.0).at[0, 1].set(2.0)
    out, routing = _run(section, params, x)
    exact = _slow(section, params, x)
    for b in range(ROWS):
        text = np.flatnonzero(SEGMENTS[b])
        np.testing.assert_allclose(out[b, text[:places]], exact[b, text[:places]], rtol=1e-4, atol=2e-5)
        assert not np.asarray(out[b, text[places:]]).any()
        assert routing.dropped[b] == 2 * (len(text) - places)
        np.testing.assert_array_equal(routing.load[b], np.array([0, 1, 0, 1, 0]) * len(text))


def test_each_expert_drops_by_itself(section):
    """The places of one expert are taken by those who chose it, whether first or second."""
    section = section({"k": 2, "gated": True}, "capacity", 1.0)
    params = _params(section)
    out, routing = _run(section, params)
    _, shares = _shares(X, params["router"]["kernel"])
    taken, dropped = np.zeros((ROWS, EXPERTS), int), np.zeros(ROWS, int)
    for b, t in np.ndindex(ROWS, LENGTH):
        if SEGMENTS[b, t]:
            chosen = np.argsort(-shares[b, t])[:2]
            without = params | {"experts": jax.tree.map(jnp.copy, params["experts"])}
            for expert in chosen:
                if taken[b, expert] == capacity(section, LENGTH):
                    dropped[b] += 1
                    kernel = without["experts"]["out"]["kernel"]
                    without["experts"]["out"]["kernel"] = kernel.at[expert].set(0)
                else:
                    taken[b, expert] += 1
            exact = _slow(section, without, X[b : b + 1, t : t + 1])[0, 0]
            np.testing.assert_allclose(out[b, t], exact, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(routing.dropped, dropped)
    assert dropped.any() and not np.all(dropped == dropped[0])


def test_what_comes_later_takes_no_place(section):
    section = section({"k": 2}, "capacity", 0.6)
    params = _params(section)
    segments = np.ones_like(SEGMENTS)
    out, _ = _run(section, params, segments=segments)
    other = np.concatenate([X[:, :4], 5 * X[:, ::-1][:, :3]], axis=1)
    changed, routing = _run(section, params, other, segments)
    assert np.asarray(routing.dropped).all()
    np.testing.assert_allclose(changed[:, :4], out[:, :4], rtol=1e-6)


def test_generation_drops_none(tiny, random_params):
    """Nor does the encoder that it reads prompts with, whose padding would take no place but make more of them."""
    overrides = {"model.architecture": "encoder_decoder", "model.experts": 3}
    outs = []
    for dispatch in ({"model.dispatch": "ragged"}, {"model.dispatch": "capacity", "model.expert_capacity": 0.1}):
        model = Transformer(tiny(**overrides, **dispatch).model)
        params = random_params(model)
        ids = np.random.default_rng(0).integers(0, 61, (2, 7))
        rows = ids, np.broadcast_to(np.arange(7), (2, 7)), np.ones_like(ids)
        whole = model.apply({"params": params}, *rows, encoder=Tokens(*rows))
        cache = caches.empty(model.config, 2, 7)
        cached = model.apply({"params": params}, *rows[:2], cache=cache, encoder=Tokens(*rows))
        outs.append((whole, cached))
        assert whole.routing.load.shape == (6, 2, 3)  # of both stacks
    (whole, cached), (dropped, as_cached) = outs
    np.testing.assert_allclose(cached.hidden, whole.hidden, atol=2e-5)
    np.testing.assert_array_equal(as_cached.hidden, cached.hidden)
    assert np.asarray(dropped.routing.dropped).all() and np.abs(dropped.hidden - whole.hidden).max() > 0.1


def test_more_experts_a_token_than_there_are(section):
    with pytest.raises(Refusal, match=r"model\.experts_per_token is 6: it must be at most model\.experts \(5\)"):
        section({"k": 6})
