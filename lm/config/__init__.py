"""Configs: the schema of every field, their resolution, and their files and flags."""

from lm.config.files import parse_arg
from lm.config.schema import defaults

__all__ = ["defaults", "parse_arg"]
