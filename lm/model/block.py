"""One block: norm → attention → residual → norm → feed-forward → residual."""

from collections.abc import Callable

import flax.linen as nn

from lm.model.attention import Attention
from lm.model.feedforward import FeedForward
from lm.model.norms import NORMS


class Block(nn.Module):
    """`(B, T, D)` → `(B, T, D)`, with one layer's cache in and out; the pre-norm wiring of GPT-2 and Llama."""

    config: object
    attend: Callable
    constrain: Callable

    @nn.compact
    def __call__(self, hidden_BTD, cache, positions_BT, mask, train):
        c = self.config
        norm = NORMS[c.norm]
        drop = nn.Dropout(c.dropout, deterministic=not train)
        branch_BTD, cache = Attention(c, self.attend, name="attention")(
            norm(c, name="attention_norm")(hidden_BTD), positions_BT, mask, cache
        )
        hidden_BTD = self.constrain(hidden_BTD + drop(branch_BTD), "hidden")
        branch_BTD = FeedForward(c, name="feedforward")(norm(c, name="feedforward_norm")(hidden_BTD))
        hidden_BTD = self.constrain(hidden_BTD + drop(branch_BTD), "hidden")
        return hidden_BTD, cache
