"""Causal transformer layers that run in two ways with one set of weights: on a whole sequence, and token by token with the keys
and values of the tokens before kept, so that a token costs the same however many came before (Vaswani et al. 2017)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.nn.dense import Dense
from jgen.nn.precision import at_least_float32
from jgen.types import Array


class KeysValues(NamedTuple):
    """Keys and values of the tokens so far."""

    keys: Array
    """[B, T, heads, c]."""
    values: Array


def attend(q: Array, kept: KeysValues, seen: Array | None, temperature: float = 1.0) -> Array:
    """Attention of q [B, Q, heads, c] to kept keys; seen bool [B or 1, Q, T]: which of them, None for all.

    The softmax is computed in float32 at least.
    """
    scale = q.shape[-1] ** -0.5 / temperature
    logits = at_least_float32(jnp.einsum("bqhc,bkhc->bhqk", q * scale, kept.keys))
    if seen is not None:
        logits = jnp.where(seen[:, None], logits, -jnp.inf)
    return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits, -1).astype(kept.values.dtype), kept.values)


def causal(length: int) -> Array:
    """bool [1, T, T]: every token sees itself and those before."""
    return jnp.tril(jnp.ones((1, length, length), bool))


class DecoderLayer(nn.Module):
    """Self-attention, attention to a context where there is one, and an MLP, each after a layer norm and beside a shortcut.

    dropout: of the outputs of all three, in training.
    """

    heads: int
    width: int
    cross: bool = False
    mlp_ratio: int = 4
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        self.norm, self.qkv, self.proj = self._norm(), self._dense(3), self._dense()
        self.mlp_norm, self.mlp_in, self.mlp_out = self._norm(), self._dense(self.mlp_ratio), self._dense()
        self.drop = nn.Dropout(self.dropout)
        if self.cross:
            self.cross_norm, self.cross_q = self._norm(), self._dense()
            self.cross_kv, self.cross_proj = self._dense(2), self._dense()

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)

    def _dense(self, times: int = 1) -> Dense:
        return Dense(times * self.width, dtype=self.dtype)

    def _heads(self, x: Array, parts: int) -> list[Array]:
        """[B, T, parts * width] -> parts of [B, T, heads, c]."""
        x = x.reshape(*x.shape[:2], parts, self.heads, self.width // self.heads)
        return [x[:, :, i] for i in range(parts)]

    def __call__(
        self, x: Array, context: KeysValues | None = None, seen: Array | None = None, temperature: float = 1.0,
        train: bool = False,
    ) -> Array:  # fmt: skip
        """x [B, T, C] -> [B, T, C]; context: `context_keys` of it. seen bool [B or 1, T, T]: causal where not given."""
        q, k, v = self._heads(self.qkv(self.norm(x)), 3)
        own = attend(q, KeysValues(k, v), causal(x.shape[1]) if seen is None else seen, temperature)
        return self._rest(x + self.drop(self.proj(own.reshape(x.shape)), not train), context, train)

    def step(
        self, x: Array, kept: KeysValues, place: Array, context: KeysValues | None = None, temperature: float = 1.0
    ) -> tuple[Array, KeysValues]:
        """The token number `place` x [B, 1, C], after those that are kept; gives what is kept then."""
        q, k, v = self._heads(self.qkv(self.norm(x)), 3)
        kept = KeysValues(*(jax.lax.dynamic_update_slice_in_dim(old, new, place, 1) for old, new in zip(kept, (k, v))))
        seen = (jnp.arange(kept.keys.shape[1]) <= place)[None, None]
        own = attend(q, kept, seen, temperature)
        return self._rest(x + self.proj(own.reshape(x.shape)), context), kept

    def _rest(self, x: Array, context: KeysValues | None, train: bool = False) -> Array:
        if self.cross and context is not None:
            (q,) = self._heads(self.cross_q(self.cross_norm(x)), 1)
            x = x + self.drop(self.cross_proj(attend(q, context, None).reshape(x.shape)), not train)
        return x + self.drop(self.mlp_out(nn.gelu(self.mlp_in(self.mlp_norm(x)), approximate=False)), not train)

    def context_keys(self, context: Array) -> KeysValues:
        """The keys and values of a context [B, L, C]."""
        return KeysValues(*self._heads(self.cross_kv(context), 2))

    def empty(self, batch: int, length: int) -> KeysValues:
        """Room for the keys and values of `length` tokens."""
        zeros = jnp.zeros((batch, length, self.heads, self.width // self.heads))
        return KeysValues(zeros, zeros)
