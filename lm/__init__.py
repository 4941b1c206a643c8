"""A language-model laboratory in JAX and Flax: one config is one run."""

__version__ = "0.1.0"
