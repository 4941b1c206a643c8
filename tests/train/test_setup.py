"""A run as the loop gets it: growing batches, averaged weights, measurements, and what a restore brings back."""

import contextlib
import io
import random
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import checkpoint, metrics, trees, workdir
from lm.config.files import to_json
from lm.evaluate import gaps, heldout
from lm.optim import build
from lm.refusal import Refusal
from lm.train import hooks
from lm.train import state as states
from lm.train.setup import parameter_names, setup
from lm.weights import place as places
from lm.weights.bundle import counted
from lm.weights.place import open_place


@pytest.fixture(scope="module")
def settled(tiny, tmp_path_factory):
    """Return a function: folder and overrides → a run over a small text, its batches 16 rows in 2 micro-batches."""
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(3)
    (folder / "text.txt").write_text(" ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(900)))
    sizes = {
        "data__batch_size": 16,
        "train__accumulate": 2,
        "model__layers": 1,
        "train__steps": 6,
        "train__log_every": 1,
    }
    source = {"data__source": f"files:{folder}/text.txt", "data__store": f"{folder}/store", "data__tokenizer": "char"}
    return lambda place, **fields: setup(tiny(**sizes, **source, **fields), place, lambda words: None)


def _same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_a_run_with_everything_on(settled, tmp_path, monkeypatch):
    """Four steps: micro-batches 1, 1, 1 and 2; then what is logged, saved, opened and restored."""
    measured = {"train__batch_warmup_steps": 3, "train__ema": 0.8, "train__group_norms": ("kernel$",)}
    run = settled(tmp_path, **measured, model__experts=3, model__experts_per_token=1)
    plain = np.concatenate([settled(tmp_path).batch(k).inputs for k in range(3)])
    progress = metrics.Progress(0, 6, io.StringIO())
    writer, saver = metrics.Writer(tmp_path, 0), checkpoint.Saver(tmp_path / workdir.CHECKPOINTS, 2, 0, progress.say)
    with contextlib.closing(writer), contextlib.closing(saver), contextlib.closing(progress):
        state = run.create()
        log = hooks.Log(run, parameter_names(run.bundle(state).model), writer, progress, 0, 0.0)
        for number in range(4):
            batch = run.batch(number)
            joined = 1 if number < 3 else 2
            rows = np.asarray(batch.inputs).reshape(8, 2, -1)[:, :joined].reshape(8 * joined, -1)
            assert np.array_equal(rows, plain[8 * number :][: 8 * joined])
            assert np.asarray(batch.weights).reshape(8, 2, -1)[:, joined:].sum() == 0
            state, values = run.step(state, batch)
            log(number + 1, state, values)
        hooks.Saving(saver, run, log, writer, lambda number: None)(4, state)
    rows = {(row.step, row.name): row.value for row in metrics.read(tmp_path)}
    assert [rows[step, "tokens"] for step in (1, 2, 3, 4)] == [13 * count for count in (8, 16, 24, 40)]
    assert rows[2, "train/objective"] > rows[2, "train/loss"] and rows[2, "experts/load_max"] > 1
    assert run.facts["parameters"] - run.facts["active_parameters"] == 2 * (2 * 24 * 40 + 40 + 24)  # of 2 experts
    assert rows[2, "update_norm/kernel$"] > 0 and rows[2, "grad_norm/kernel$"] < rows[2, "grad_norm"]

    assert not _same(state.params, state.ema) and states.evaluated(state) is state.ema
    assert _same(run.restore(4), state) and run.restore(4).ema is not None
    workdir.write(tmp_path / workdir.CONFIG, to_json(run.config))
    run.store.tokenizer.save(tmp_path / workdir.TOKENIZER)
    with monkeypatch.context() as patch:
        patch.setattr(places, "shapes", pytest.fail)  # the checkpoint knows them, of this config and this code
        for place, wanted in (("", state.ema), ("@4", state.ema), (":raw", state.params), ("@4:raw", state.params)):
            assert _same(open_place(f"{tmp_path}{place}").params, wanted), place
    other = to_json(run.config).replace('"model.feedforward_width": 40', '"model.feedforward_width": 48')
    workdir.write(tmp_path / workdir.CONFIG, other)
    with pytest.raises(Refusal, match=r"does not fit: decoder/block.*saved float32\[.*40.*, wanted float32\[.*48"):
        open_place(str(tmp_path))
    assert _same(run.bundle(state).params, state.ema)


def test_held_out_spans_are_measured_beside_the_most_frequent_target(settled, tmp_path):
    spans = {"model__architecture": "encoder_decoder", "objective__name": "span", "data__sentinels": 20}
    run = settled(tmp_path, model__context=23, **spans)
    state = run.create()
    parts = [(part.name, part.valid.bytes) for part in run.store.parts]
    values = heldout.measure(run.score, state.params, run.valid(), parts, run.is_whole)
    values |= gaps.measure(run.bundle(state), run.held_out, run.usual)
    rows = [jax.device_get(batch) for _, batch in run.valid()]
    targets, weights = (np.concatenate([getattr(row, name).ravel() for row in rows]) for name in ("targets", "weights"))
    trained = [run.batch(k) for k in range(8)]
    counts = np.bincount(
        np.concatenate([np.asarray(batch.targets)[np.asarray(batch.weights) > 0] for batch in trained]),
        minlength=run.config.model.vocabulary,
    )
    specials = run.store.tokenizer.specials
    assert counts.argmax() in (*specials.sentinels[:2], specials.end)
    assert values["baseline_accuracy"] == pytest.approx((targets[weights > 0] == counts.argmax()).mean())
    assert run.store.tokenizer.token(run.usual) in "abcdefgh "
    assert values.keys() == {"loss", "perplexity", "accuracy", "baseline_accuracy", "span_exact_match",
                             "baseline_span_exact_match"}  # fmt: skip
    some = run.held_out(3)
    assert len(some) == 3 and not np.array_equal(some[0].encoder_inputs, some[1].encoder_inputs)


def test_schedule_free_saves_what_is_to_be_evaluated(tiny, tmp_path):
    config = tiny(optimizer__name="schedule_free")
    optimizer = build.optimizer(config.optimizer, lambda step: 0.1)
    state = states.create({"head": {"kernel": jnp.ones((3, 2))}}, optimizer)
    state = state._replace(params={"head": {"kernel": jnp.full((3, 2), 1.9)}})  # y = 0.1 z + 0.9 x of z = 1: x = 2
    saver = checkpoint.Saver(tmp_path, 1, 0, lambda words: None)
    run = SimpleNamespace(store=SimpleNamespace(fingerprint=""), config=config)
    log = SimpleNamespace(paused=contextlib.nullcontext)
    hooks.Saving(saver, run, log, SimpleNamespace(sync=lambda: None), lambda number: None)(1, state)
    saver.close()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state.params)
    for item, value in (("averaged", 2.0), ("params", 1.9)):
        np.testing.assert_allclose(checkpoint.restore(tmp_path / "1", item, like)["head"]["kernel"], value, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer__rates": ("block=0.5", "blokc=0")}, "optimizer.rates has 'blokc'"),
        ({"train__group_norms": ("kernel$", "^scale$")}, "train.group_norms has '^scale$'"),
    ],
)
def test_a_pattern_that_matches_no_parameter_is_refused(settled, tmp_path, fields, words):
    with pytest.raises(Refusal) as refusal:
        settled(tmp_path, **fields)
    assert words in str(refusal.value) and "no parameter's path matches it" in str(refusal.value)


def test_without_an_average_there_is_one_set_of_weights(settled, tmp_path):
    state = jax.eval_shape(settled(tmp_path).create)
    assert state.ema is None and "ema" not in {path.split("/")[0] for path in trees.paths(state)}


def test_flops_are_those_of_the_decoder_that_is_there(settled, tmp_path):
    """Spans to give back are a few tokens, next to the context that the encoder reads."""
    run = settled(tmp_path, model__family="t5", model__kv_heads=4, model__context=16, data__sentinels=8)
    length = run.batch(0).inputs.shape[1]
    leaves = counted(run.config.model)
    encoder = [np.prod(shape) for path, shape in leaves.items() if path.endswith("kernel") and _is_of_encoder(path)]
    decoder = [np.prod(shape) for path, shape in leaves.items() if path.endswith("kernel") and not _is_of_encoder(path)]
    head = run.config.model.vocabulary * 24
    keys = 16 * 16 + length * length / 2 + length * 16
    expected = 6 * (16 * sum(encoder) + length * (sum(decoder) + head)) + 12 * 4 * 6 * keys
    assert length < 8 and run.facts["tokens_per_step"] == 16 * 16
    assert run.facts["flops_per_token"] == round(expected / 16)


def _is_of_encoder(path):
    return path.startswith("encoder/") or "cross_attention/key" in path or "cross_attention/value" in path


def test_a_step_with_a_kernel_over_devices_is_that_of_einsum(settled, tmp_path):
    """On 8 devices, 2 for the tokens of a row and 2 for heads, or all for rows; the kernel of TPUs is interpreted."""

    def ran(name, **fields):
        run = settled(tmp_path, parallel__attention=name, model__context=12, **fields)
        assert run.facts["attention"] == name
        state = run.create()
        scored = run.score(state.params, next(run.valid())[1]) if "parallel__compile" in fields else None
        return run.step(state, run.batch(0))[1], scored

    plain, plain_scored = ran("einsum", parallel__compile="jit")
    mapped, mapped_scored = ran("splash", parallel__compile="pmap")
    split, _ = ran("splash", parallel__mesh__sequence=2, parallel__mesh__tensor=2)
    for found in (mapped, split):
        np.testing.assert_allclose(found["loss"], plain["loss"], rtol=1e-5)
        np.testing.assert_allclose(found["grad_norm"], plain["grad_norm"], rtol=1e-4)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4), mapped_scored, plain_scored)


def test_a_kernel_that_the_model_cannot_have_is_refused(settled, tmp_path):
    with pytest.raises(Refusal, match=r"parallel\.attention is 'splash': it adds nothing to scores"):
        settled(tmp_path, parallel__attention="splash", model__positions="relative")
