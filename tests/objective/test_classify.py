"""Classes: where a row names its class, what is cut, and which examples are refused."""

import numpy as np
import pytest

from lm.batch import Batch
from lm.data.pairs import Pair
from lm.objective.catalog import objective
from lm.objective.losses import Logits, cross_entropy
from lm.refusal import Refusal

PAIRS = {"objective__name": "classify", "data__source": "embedded:kinds"}
LABELS = ("no", "perhaps", "yes")


class Words:
    """A tokenizer of single bytes."""

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids):
        return bytes(ids.tolist()).decode()


def pair(ids, label):
    return Pair(np.array(ids, np.int32), Words().encode(label), 1)


@pytest.fixture(scope="module")
def goal_of(tiny, setting):
    """Return a function: architecture → its objective with a context of 5 tokens; a text's first token is 39."""

    def make(architecture):
        config = tiny(**PAIRS, objective__labels=LABELS, model__architecture=architecture, model__context=5)
        assert config.model.head == "classify" and config.model.labels == 3
        here = setting(config.model)
        return objective(config.objective, here._replace(specials=here.specials._replace(first=39), tokenizer=Words()))

    return make


@pytest.mark.parametrize(
    ("architecture", "ids", "inputs", "place"),
    [
        ("encoder", [1, 2], [39, 1, 2, 0], 0),
        ("encoder", [], [39, 0], 0),
        ("encoder", [1, 2, 3, 4, 5, 6], [39, 1, 2, 3, 0], 0),
        ("decoder", [1, 2], [1, 2, 0], 2),
        ("decoder", [], [0], 0),
        ("decoder", [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 0], 4),
    ],
)
@pytest.mark.parametrize("label", LABELS)
def test_a_row_names_its_class_at_one_place(goal_of, architecture, ids, inputs, place, label):
    goal = goal_of(architecture)
    row = goal.shape(pair(ids, label), (0, 0))
    assert row.inputs.tolist() == inputs + [0] * (5 - len(inputs)) and row.segments.sum() == len(inputs)
    assert np.flatnonzero(row.weights).tolist() == [place] and row.targets[place] == LABELS.index(label)
    assert goal.unit == "pair" and row.source == 1 and all(len(field) == 5 for field in row[:5])


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_the_loss_is_that_of_the_place(goal_of, architecture):
    from lm.model.transformer import Output

    goal = goal_of(architecture)
    rows = [goal.shape(pair(range(1, n), LABELS[n % 3]), (0, 0)) for n in range(1, 7)]
    batch = Batch(*(None if field[0] is None else np.stack(field) for field in zip(*rows, strict=True)))
    draw = np.random.default_rng(0).normal
    out = Output(draw(size=(6, 5, 4)).astype(np.float32), draw(size=(4, 3)).astype(np.float32), None, draw(size=3))
    total, weight, found = goal.loss(lambda params, batch, key: out, None, batch, None)
    whole = cross_entropy(
        out.hidden, out.unembed, batch.targets, batch.weights, Logits(3), 99, bias_V=out.unembed_bias, is_counting=True
    )
    assert weight == 6
    np.testing.assert_allclose(total, whole[0], rtol=1e-6)
    np.testing.assert_allclose(found.correct, whole[2].correct)


def test_a_class_without_a_name_and_a_model_without_the_head_are_refused(goal_of, tiny, setting):
    with pytest.raises(Refusal, match=r"objective\.labels is \('no', 'perhaps', 'yes'\), .* target is 'maybe'"):
        goal_of("encoder").shape(pair([1], "maybe"), (0, 0))
    config = tiny(objective__name="masked", model__architecture="encoder")
    with pytest.raises(Refusal, match=r"model\.head is 'classify', but objective\.name is 'masked'"):
        objective(config.objective, setting(config.model)._replace(head="classify"))
    with pytest.raises(Refusal, match=r"objective\.labels has 2 texts, but model\.labels is 3"):
        tiny(**PAIRS, objective__labels=("a", "b"), model__labels=3, model__architecture="encoder")


def test_labels_of_the_same_tokens_are_refused(tiny, setting):
    class Lower(Words):
        def encode(self, text):
            return super().encode(text.lower())

    config = tiny(**PAIRS, objective__labels=("no", "Yes", "yes"), model__architecture="encoder")
    with pytest.raises(Refusal, match=r"objective\.labels has 'Yes' and 'yes', which data\.tokenizer makes the same"):
        objective(config.objective, setting(config.model)._replace(tokenizer=Lower()))
