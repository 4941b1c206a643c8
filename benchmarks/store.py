"""The token store's build beside the bare tokenizers library: the same texts, in turn, in one process.

    python benchmarks/store.py --megabytes=1000 --workdir=DIR

Each round writes a file of text from Python's standard library in another order, builds its tokens with a tokenizer
that was learned before (reading, splitting, encoding, writing, digests), and then lets `encode_batch_fast` alone
encode the same texts, a megabyte at a time, counting nothing but that call. Prints megabytes per second of both,
their ratio, and the most memory that the process had. Expected on a quiet machine: a ratio of at least 0.9, and
memory that does not grow with --megabytes. DIR takes the text of a round and its tokens.
"""

import json
import random
import resource
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
from absl import app, flags

from lm.config import defaults
from lm.data import build, catalog, store
from lm.text import learn, tokenizer

MEGABYTES = flags.DEFINE_integer("megabytes", 1000, "text of all rounds together")
ROUNDS = flags.DEFINE_integer("rounds", 4, "times that both are measured")
TOKENIZER = flags.DEFINE_string("tokenizer", "bpe:4096", "kind of tokenizer, as data.tokenizer")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for the texts and tokens", required=True)


def main(_):
    """Measure, print what the docstring says."""
    folder = Path(WORKDIR.value)
    section = defaults("data")
    section.tokenizer = TOKENIZER.value
    records = [record.text for record in catalog.source("embedded", section).records()]
    learn.learn(section, records).save(folder / "tokenizer")
    rates: dict[str, list[float]] = {"store": [], "tokenizers": []}
    peaks = []
    for number in range(ROUNDS.value):
        path, size = write(folder / f"text{number}.jsonl", records, number)
        for name in sorted(rates, reverse=number % 2 == 0):
            if name == "store":
                rates[name].append(size / built(path, section, folder / "tokens"))
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            else:
                rates[name].append(size / bare(path, folder / "tokenizer" / tokenizer.FILE))
        words = ", ".join(f"{name} {rate[-1]:.2f} MB/s" for name, rate in rates.items())
        print(f"round {number + 1} of {ROUNDS.value}, {size:.0f} MB: {words}", flush=True)
        path.unlink()
    ratio = statistics.median(ours / theirs for ours, theirs in zip(*rates.values(), strict=True))
    words = ", ".join(f"{name} {statistics.median(rate):.2f} MB/s" for name, rate in rates.items())
    print(f"{MEGABYTES.value} MB of {TOKENIZER.value}, medians: {words}, ratio {ratio:.3f}")
    print(f"peak memory: {peaks[0]:.0f} MB in the first build, {peaks[-1]:.0f} MB after all")


def write(path: Path, records: list[str], seed: int) -> tuple[Path, float]:
    """Write a round's share of the text, a record a line in a random order; return the file and its megabytes."""
    draw, size = random.Random(seed), 0.0
    with open(path, "w", encoding="utf-8") as file:
        while size < MEGABYTES.value / ROUNDS.value:
            text = draw.choice(records)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            size += len(text.encode()) / 1e6
    return path, size


def built(path: Path, section: Any, folder: Path) -> float:
    """Return the seconds that a build takes for a file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    learned = tokenizer.load(path.parent / "tokenizer")
    begun = time.perf_counter()
    source = catalog.source(f"files:{path}", section)
    build.write(source, section, learned, store.id_type(learned), folder, lambda done: None)
    return time.perf_counter() - begun


def bare(path: Path, taught: Path) -> float:
    """Return the seconds that the library alone takes for the texts of a file."""
    inner = tokenizers.Tokenizer.from_file(str(taught))
    seconds = 0.0
    for texts in chunks(path):
        begun = time.perf_counter()
        inner.encode_batch_fast(texts, add_special_tokens=False)
        seconds += time.perf_counter() - begun
    return seconds


def chunks(path: Path) -> Iterator[list[str]]:
    """Yield the texts of a file, about a megabyte at a time."""
    texts, size = [], 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1])
            if size >= 1 << 20:
                yield texts
                texts, size = [], 0
    if texts:
        yield texts


if __name__ == "__main__":
    app.run(main)
