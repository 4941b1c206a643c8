"""Every source, tokenizer, packing and normal form feeds a training whose loss falls."""

import functools
import gzip
import json
import sysconfig

import jax
import numpy as np
import pytest
import tensorflow_datasets

from lm.config import schema
from lm.data import batches, store, windows
from lm.objective.base import setting_of
from lm.objective.catalog import objective
from lm.text import learn

TEXTS = [f"{number}: the quick brown fox ﬁnds naïve cafés and jumps over the lazy dog\n" * 3 for number in range(131)]

# What the data section sets; FOLDER is where the fixture puts files. Together they have every choice of every field.
CASES = {
    "embedded": {"data.source": "embedded", "data.tokenizer": "byte"},
    "embedded:prose": {"data.source": "embedded:prose", "data.tokenizer": "byte"},
    "embedded:code": {"data.source": "embedded:code", "data.tokenizer": "byte", "data.packing": "first_fit"},
    "embedded:summaries": {
        "data.source": "embedded:summaries",
        "data.tokenizer": "byte",
        "data.valid_fraction": 0.2,
        "objective.name": "seq2seq",
    },
    "embedded:kinds": {
        "data.source": "embedded:kinds",
        "data.tokenizer": "bpe:300",
        "data.valid_fraction": 0.2,
        "objective.name": "seq2seq",
    },
    "files:GLOB .txt, char": {"data.source": "files:FOLDER/*.txt", "data.tokenizer": "char"},
    "files:GLOB .jsonl.gz, bpe": {"data.source": "files:FOLDER/*.jsonl.gz", "data.tokenizer": "bpe:300"},
    "files:GLOB .parquet, unigram": {
        "data.source": "files:FOLDER/*.parquet",
        "data.tokenizer": "unigram:300",
        "data.packing": "first_fit",
        "data.normalization": "nfc",
    },
    "tfds, wordpiece": {
        "data.source": "tfds:fox_text",
        "data.folder": "FOLDER",
        "data.tokenizer": "wordpiece:300",
        "data.normalization": "nfkc",
    },
    "file": {
        "data.source": "files:FOLDER/*.txt",
        "data.tokenizer": "file:FOLDER/tokenizer/tokenizer.json",
        "data.normalization": "nfd",
    },
    "sentencepiece": {
        "data.source": "files:FOLDER/*.txt",
        "data.tokenizer": "sentencepiece:FOLDER/a.model",
        "data.normalization": "nfkd",
    },
    "mixture": {
        "data.mixture": ("files:FOLDER/*.txt=0.25", "files:FOLDER/*.parquet=0.75"),
        "data.tokenizer": "byte",
        "data.cross_records": True,
    },
}


class FoxText(tensorflow_datasets.core.GeneratorBasedBuilder):
    """The texts, as a set."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features.FeaturesDict({"text": tensorflow_datasets.features.Text()})
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, downloads):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from ((number, {"text": text}) for number, text in enumerate(TEXTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """Return a folder that holds the texts in every form, and two tokenizers."""
    import pyarrow
    import pyarrow.parquet
    import sentencepiece

    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text("".join(TEXTS), encoding="utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "a.parquet")
    FoxText(data_dir=folder, file_format="array_record").download_and_prepare()
    learn.learn(tiny(data__tokenizer="bpe:280").data, TEXTS).save(folder / "tokenizer")
    prefix = str(folder / "a")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=prefix, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return folder


@pytest.fixture(scope="module")
def trained(tiny, assembled):
    """Return a function: batches → the losses of a step on each; compiled once for all cases."""

    @functools.cache
    def made():
        create, step = assembled(_sized(tiny))
        run = lambda batches: jax.lax.scan(step, create(), batches)[1]["loss"]
        return jax.jit(run)

    return lambda batches: np.asarray(made()(jax.tree.map(lambda *fields: np.stack(fields), *batches)))


def _sized(tiny, **fields):
    sizes = {"model.vocabulary": 512, "model.layers": 1, "schedule.name": "constant", "schedule.peak": 1e-2}
    return tiny(**sizes | fields)


def test_every_choice_is_in_a_case():
    form = lambda text: text.partition(":")[0] if text.partition(":")[2][:1].isupper() else text  # of KIND:REST
    kind = lambda text: text.partition(":")[0]
    for name in ("data.source", "data.tokenizer", "data.packing", "data.normalization"):
        field = schema.FIELDS[name]
        used = {str(case.get(name, field.default)) for case in CASES.values()}
        for choice in set(field.rule.choices) - {"place"}:  # that is tests/weights/test_start.py's
            is_used = choice in used or (form(choice) != choice and form(choice) in map(kind, used))
            assert is_used, f"{name} {choice} trains in no case"


@pytest.mark.parametrize("case", CASES)
def test_the_loss_falls(folder, trained, tiny, tmp_path, monkeypatch, case):
    library = sysconfig.get_path("stdlib")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: f"{library}/asyncio")  # a part of it is enough here
    place = lambda value: value.replace("FOLDER", str(folder)) if isinstance(value, str) else tuple(map(place, value))
    given = {name: place(value) if isinstance(value, str | tuple) else value for name, value in CASES[case].items()}
    config = _sized(tiny, **given | {"data.store": str(tmp_path)})
    opened = store.open_store(config.data)
    assert opened.tokenizer.size <= config.model.vocabulary
    goal = objective(config.objective, setting_of(config.model, opened.tokenizer))
    plans = windows.planned(opened.parts, "train", config.data, goal.length(config.model.context))
    rows = batches.train_rows(opened.parts, plans, goal.shape, config.seed)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    losses = trained([batches.batch(rows, k, 8, sharding) for k in range(24)])
    assert losses[-4:].mean() < losses[0] - 0.5, losses
