"""Next-token prediction: the row it shapes and the loss it names."""

import jax
import ml_collections
import numpy as np

from lm.batch import Batch
from lm.config import defaults
from lm.data.windows import Window
from lm.model.transformer import Output
from lm.objective.base import Setting
from lm.objective.catalog import objective
from lm.objective.losses import Logits
from lm.text.tokenizer import Specials

SETTING = Setting(Logits(11), "decoder", 5, Specials(11, 0))
GOAL = objective(ml_collections.FrozenConfigDict(defaults("objective")), SETTING)


def test_shape():
    window = Window(
        ids=np.array([5, 1, 2, 5, 3, 0], np.int32),
        segments=np.array([1, 1, 1, 2, 2, 0], np.int32),
        positions=np.array([4, 5, 6, 0, 1, 0], np.int32),
        is_scored=np.array([False, True, True, False, True, False]),
        source=7,
    )
    row = GOAL.shape(window, (0, 0))
    expected = Batch(
        inputs=[5, 1, 2, 5, 3],
        targets=[1, 2, 5, 3, 0],
        weights=[1, 1, 0, 1, 0],
        segments=[1, 1, 1, 2, 2],
        positions=[4, 5, 6, 0, 1],
        source=7,
    )
    for name in Batch._fields[:6]:
        np.testing.assert_array_equal(getattr(row, name), getattr(expected, name), err_msg=name)
        assert getattr(row, name).dtype == (np.float32 if name == "weights" else np.int32), name
    assert GOAL.length(5) == 5


def test_loss_of_an_even_guess_is_the_log_of_the_vocabulary():
    batch = Batch(*np.zeros((3, 2, 5), np.int32), *np.zeros((2, 2, 5), np.int32), np.zeros(2, np.int32))
    batch = batch._replace(weights=np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.float32))
    seen = []

    def forward(params, batch, key):
        seen.append((params, key))
        return Output(jax.numpy.ones((2, 5, 3)), jax.numpy.zeros((3, 13)), None)

    total, weight, (nats, weights, *_) = GOAL.loss(forward, "params", batch, "key")
    assert weight == 8 and seen == [("params", "key")]
    np.testing.assert_allclose(total / weight, np.log(11), rtol=1e-6)
    np.testing.assert_allclose(nats, np.log(11) * np.array([3, 5]), rtol=1e-6)
    np.testing.assert_array_equal(weights, [3, 5])


def test_only_training_smooths_and_adds():
    section = defaults("objective")
    section.update({"label_smoothing": 0.2, "z_loss": 0.1})
    goal = objective(ml_collections.FrozenConfigDict(section), SETTING)
    batch = Batch(*np.ones((5, 2, 5), np.int32), np.zeros(2, np.int32))
    out = Output(jax.numpy.eye(5)[None].repeat(2, 0), jax.numpy.ones((5, 13)).at[:, 1].set(3), None)
    forward = lambda params, batch, key: out
    total = lambda key: goal.loss(forward, "params", batch, key)[0] / 10
    log_total = np.log(10 * np.e + np.exp(3))
    np.testing.assert_allclose(total(None), log_total - 3, rtol=1e-6)
    expected = log_total - 3 + 0.2 * (3 - (10 + 3) / 11) + 0.1 * log_total**2
    np.testing.assert_allclose(total("key"), expected, rtol=1e-6)
