"""A run's folder: the names of its files, and atomic writes."""

import json
import os
import uuid
from pathlib import Path

from lm import storage

CONFIG = "config.json"
RUN = "run.json"
METRICS = "metrics.jsonl"
PARTS = "metrics"  # of an object store, where nothing is appended: a folder of parts
SAMPLES = "samples.txt"
REPORT = "report.html"
TOKENIZER = "tokenizer"
CHECKPOINTS = "checkpoints"
PROFILE = "profile"
TENSORBOARD = "tensorboard"
WANDB = "wandb"  # W&B itself names its folder so
LOCK = "lock"


def write(path: Path, text: str) -> None:
    """Write text so that a reader, or a kill at any moment, sees the old file or the new one, whole."""
    if storage.is_far(path):
        storage.write(path, text.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write(path, json.dumps(value, indent=1) + "\n")
