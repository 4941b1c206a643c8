"""Session-wide: 8 fake devices, and an array silently broadcast over a missing axis is an error.

Processes that tests start have one device each, and compile as the tests do: to compile is most of their time.
"""

import gc
import importlib.metadata
import os
import subprocess
import sys
import uuid
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # halves the time to compile
os.environ["XLA_FLAGS"] = ""
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know the flag and would stop at it
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"  # halves it once more

import jax
import jax.extend
import numpy as np
import pytest

gc.set_threshold(100_000, 20, 20)  # or else a fifteenth of the time is spent on looking for garbage
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Let the processes that tests start share what they compile, in a folder of this session and worker alone."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("programs"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session")
def store_of_objects():
    """Start an object store on this machine, which all that reads gs:// here, and in processes started, then asks."""
    program = [sys.executable, str(Path(__file__).with_name("emulator.py"))]
    served = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    where = f"http://localhost:{served.stdout.readline().strip()}"
    told = {
        "STORAGE_EMULATOR_HOST": where,  # to gcsfs
        "TENSORSTORE_GCS_HTTP_URL": where,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask Google what kind of bucket it is
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    yield
    served.kill()
    served.communicate()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def far(store_of_objects):
    """Return an empty folder of an object store."""
    from lm import storage

    return storage.place(f"gs://bucket/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def tiny():
    """Return a function: dotted overrides → a resolved and bound config of odd sizes, vocabulary 61."""
    from lm.config import defaults
    from lm.config.objective import USUAL
    from lm.config.resolve import bind, resolve
    from lm.families.catalog import switches

    def make(**overrides):
        config = defaults()
        sizes = {
            "model.width": 24,
            "model.layers": 3,
            "model.heads": 4,
            "model.head_width": 6,
            "model.kv_heads": 2,
            "model.feedforward_width": 40,
            "model.context": 13,
            "model.vocabulary_multiple": 8,
            "data.batch_size": 8,
            "train.steps": 20,
        }
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        family = switches(given.get("model.family", config.model.family))
        sizes["objective.name"] = USUAL[given.get("model.architecture") or family["architecture"]]
        for name, value in (sizes | given).items():
            *sections, leaf = name.split(".")
            node = config
            for section in sections:
                node = node[section]
            node[leaf] = value
        return bind(resolve(config), vocabulary=61, tokens=10_000)

    return make


def _noise(leaves, seed):
    from lm import trees

    generator = np.random.default_rng(seed)
    draw = lambda leaf, mean: jax.numpy.asarray(mean + 0.3 * generator.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(draw, leaves, trees.select(leaves, [("scale$", 1.0), ("", 0.0)]))


@pytest.fixture(scope="session")
def random_params():
    """Return a function: a model → parameters, every leaf random, biases (around 0) and scales (around 1) too."""
    from lm.weights.place import shapes

    return lambda model, seed=0: _noise(shapes(model), seed)


@pytest.fixture(scope="session")
def greedy():
    """Return a function: model, parameters, rows of ids, count → the likeliest tokens behind them, or of answers."""
    from lm.generate import decode, prepare, samplers
    from lm.generate.method import padded

    def write(model, params, rows, count):
        params, longest = prepare.ready(model.config, params), max(map(len, rows))
        reading = decode.prefill(model, params, *padded(rows, longest), slots=longest + count)
        begun, keys = np.asarray(reading.text.begun), jax.random.split(jax.random.key(0), len(rows))
        written = decode.extend(model, params, reading, keys, samplers.Settings(), count).text.ids
        return [ids[start : start + count] for ids, start in zip(np.asarray(written), begun, strict=True)]

    return write


@pytest.fixture(scope="session")
def equations():
    """Return a function: a program and its arguments → (equation, times it runs) of its jaxpr and those inside it."""
    is_jaxpr = lambda value: isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)

    def walk(jaxpr, times):
        for equation in jaxpr.eqns:
            yield equation, times
            inner = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(value):
                    yield from walk(getattr(value, "jaxpr", value), inner)

    return lambda program, *arguments: walk(jax.make_jaxpr(program)(*arguments).jaxpr, 1)


@pytest.fixture(scope="session")
def setting():
    """Return a function: a bound model section → the Setting of an objective for it, with a tokenizer of letters."""
    from lm.objective.base import Setting
    from lm.objective.losses import logits_of
    from lm.text.tokenizer import Specials

    special = Specials(61, end=0, start=0, mask=60, sentinels=tuple(range(40, 60)), unwritten=(0, *range(40, 61)))

    class Letters:
        """A tokenizer of one letter an id, A being 1; of an end that says nothing."""

        specials, ends = special, frozenset({special.end})

        def encode(self, text):
            return np.array([ord(letter) - 64 for letter in text], np.int32)

        def decode(self, ids, after=()):
            return "".join(chr(64 + index) for index in ids if index)

    def make(section):
        specials = special._replace(size=section.vocabulary)
        logits = logits_of(section)
        return Setting(logits, section.architecture, section.context, specials, section.head, Letters())

    return make


@pytest.fixture(scope="session")
def numbers():
    """Return a tokenizer of the ids 0 to 12, spelled so: of the text "3 1" they are 3 and 1; 0 and 12 are ends."""
    import tokenizers

    from lm.text.tokenizer import Tokenizer

    words = tokenizers.models.WordLevel({str(index): index for index in range(13)}, unk_token="0")
    inner = tokenizers.Tokenizer(words)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(inner, "numbers", "0", others=[12])


@pytest.fixture(scope="session")
def assembled(setting):
    """Return a function: a bound config → (create: () → State, step: (state, batch) → (state, metrics)), as written."""
    from lm.model.transformer import Transformer, forward, initial
    from lm.objective.base import placed
    from lm.objective.catalog import objective
    from lm.optim import build, schedules
    from lm.parallel import rules
    from lm.parallel.compile import ACROSS, of_all
    from lm.train import state as states
    from lm.train.step import make_step

    def assemble(config, mesh=None):
        how, over, given = config.parallel.compile, {}, setting(config.model)
        if mesh is not None and how == "jit":
            over = {"constrain": rules.constrain(mesh), "by_rows": rules.by_rows(mesh)}
            given = placed(given, rules.apart(mesh))
        model = Transformer(config.model, **over)
        schedule = schedules.schedule(config.schedule, config.train.steps)
        optimizer = build.optimizer(config.optimizer, schedule)

        def create():
            params = initial(model, jax.random.key(config.seed))
            return states.create(params, optimizer, is_averaged=config.train.ema > 0)

        goal = objective(config.objective, given)
        summed = of_all if mesh is None else ACROSS[how](mesh, config.train, config.model)
        return create, make_step(goal, forward(model), optimizer, schedule, config.seed, config.train, across=summed)

    return assemble


@pytest.fixture(scope="session")
def random_batch():
    """Return a function: seed → a Batch of 8 rows of 13 tokens below 61, with records, padding and uneven weights.

    For an encoder there are 11 tokens a row, some of whose records the decoder does not have, and the other way round.
    Both lengths can be given.
    """
    from lm.batch import Batch

    def make(seed=0, length=13, encoder_length=11):
        generator = np.random.default_rng(seed)
        inputs, targets = generator.integers(0, 61, (2, 8, length), np.int32)
        segments = np.sort(generator.integers(1, 4, (8, length), np.int32), axis=1)
        starts = np.array([np.searchsorted(row, row) for row in segments])
        is_text = np.arange(length)[None] < generator.integers(5, length + 1, (8, 1))
        encoder_segments = np.sort(generator.integers(0, 5, (8, encoder_length), np.int32), axis=1)[:, ::-1]
        return Batch(
            inputs=inputs * is_text,
            targets=targets * is_text,
            weights=(is_text * generator.choice([0.25, 1.0], (8, 1))).astype(np.float32),
            segments=segments * is_text,
            positions=((np.arange(length)[None] - starts) * is_text).astype(np.int32),
            source=generator.integers(0, 3, 8, np.int32),
            types=generator.integers(0, 2, (8, length), np.int32),
            encoder_inputs=generator.integers(0, 61, (8, encoder_length), np.int32),
            encoder_segments=np.ascontiguousarray(encoder_segments),
            encoder_positions=np.broadcast_to(np.arange(encoder_length, dtype=np.int32), (8, encoder_length)),
        )

    return make


@pytest.fixture(scope="session")
def random_window():
    """Return a function: number of tokens, seed → a Window of records of ids 1 to 39, each opened by 0.

    As packing makes it: a record cut by the window's beginning has no 0, and the window's first token is not scored.
    What is not full ends with padding.
    """
    from lm.data.windows import Window

    def make(tokens, seed=0, is_full=True):
        generator = np.random.default_rng((tokens, seed))
        ids = np.zeros(tokens, np.int32)
        segments, positions = np.zeros((2, tokens), np.int32)
        stop = tokens if is_full else int(generator.integers(0, tokens + 1))
        start, record = 0, 0
        while start < stop:
            end = min(stop, start + int(generator.integers(1, 24)))
            record += 1
            ids[start:end] = generator.integers(1, 40, end - start)
            if start or generator.random() < 0.5:
                ids[start] = 0
            segments[start:end] = record
            positions[start:end] = np.arange(end - start)
            start = end
        is_scored = segments > 0
        is_scored[0] = False
        return Window(ids, segments, positions, is_scored, 3)

    return make


@pytest.fixture(scope="session")
def shaped(setting, random_window):
    """Return a function: a bound config → 8 rows of its objective, of random windows, or of pairs of class C to E."""
    from lm.data.pairs import Pair
    from lm.objective.catalog import objective

    def make(config):
        goal = objective(config.objective, setting(config.model))
        generator = np.random.default_rng(0)
        ids = lambda count: generator.integers(6, 40, count, np.int32)
        texts = lambda sample: Pair(ids(sample), np.array([3 + sample % 3], np.int32), 0)
        windows = lambda sample: random_window(goal.length(config.model.context) + 1, sample)
        unit = {"pair": texts, "text": windows}[goal.unit]
        rows = [goal.shape(unit(sample), (0, sample)) for sample in range(8)]
        return jax.tree.map(lambda *fields: np.stack(fields), *rows)

    return make


@pytest.fixture(scope="session")
def random_state():
    """Return a function: create → the State before the first step, but its parameters random; compiles nothing."""

    def make(create, seed=0):
        state = jax.eval_shape(create)
        zeros = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), state)
        return zeros._replace(params=_noise(state.params, seed))

    return make
