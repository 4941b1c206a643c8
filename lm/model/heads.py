"""Hidden states and the embedding in; the hidden states, weights and bias that logits are made of out."""

import flax.linen as nn
import jax.numpy as jnp

from lm.model.dense import Dense
from lm.model.feedforward import ACTIVATIONS
from lm.model.init import initializer
from lm.model.norms import NORMS
from lm.model.whole import Whole

# Each is called with (hidden `(B, T, D)`, embedding `(V padded, D)`, train) and returns (hidden `(B, T, D)`,
# unembed `(D, V padded)` or `(D, labels)`, bias or None): logits are hidden · unembed + bias. An embedding of whole
# numbers, which is for generation alone, stays one, `(V padded, D)`.


class Language(nn.Module):
    """Scores of ids: by the embedding (Press & Wolf 2017, arXiv 1608.05859) or by a kernel."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD, table_VD, train: bool):
        c = self.config
        if c.scaled_head:
            hidden_BTD = hidden_BTD * jnp.asarray(c.width**-0.5, hidden_BTD.dtype)
        return hidden_BTD, _unembed(self, table_VD), None


class Masked(nn.Module):
    """Scores of ids after one more layer and norm, with a bias (BERT: Devlin et al. 2019, published code)."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD, table_VD, train: bool):
        c = self.config
        hidden_BTD = ACTIVATIONS[c.activation](Dense(c, (c.width,), (c.width,), name="dense")(hidden_BTD))
        hidden_BTD = NORMS[c.norm](c, name="norm")(hidden_BTD)
        return hidden_BTD, _unembed(self, table_VD), _bias(self, _height(table_VD))


class Classify(nn.Module):
    """Scores of classes at every place, of which an objective's weights take one (Devlin et al. 2019, §4.1)."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD, table_VD, train: bool):
        c = self.config
        hidden_BTD = nn.Dropout(c.dropout, deterministic=not train)(hidden_BTD)
        return hidden_BTD, _kernel(self, c.labels), _bias(self, c.labels)


class Nothing(nn.Module):
    """No scores: hidden states are what is asked for."""

    config: object

    def __call__(self, hidden_BTD, table_VD, train: bool):
        return hidden_BTD, None, None


def _unembed(head: nn.Module, table_VD):
    if not head.config.tied:
        return _kernel(head, _height(table_VD))
    return table_VD if isinstance(table_VD, Whole) else table_VD.T


def _height(table_VD) -> int:
    return (table_VD.numbers if isinstance(table_VD, Whole) else table_VD).shape[0]


def _kernel(head: nn.Module, outputs: int):
    c = head.config
    if head.has_variable("params", "rows"):  # as in lm/model/dense.py
        rows = head.get_variable("params", "rows")
        return rows if isinstance(rows, Whole) else rows.T
    initial = initializer(c, "in", c.width)
    return head.param("kernel", initial, (c.width, outputs), jnp.dtype(c.parameter_dtype)).astype(c.dtype)


def _bias(head: nn.Module, outputs: int):
    c = head.config
    if not c.bias:
        return None
    return head.param("bias", nn.initializers.zeros, (outputs,), jnp.dtype(c.parameter_dtype)).astype(c.dtype)


HEADS = {"language": Language, "masked": Masked, "classify": Classify, "none": Nothing}
