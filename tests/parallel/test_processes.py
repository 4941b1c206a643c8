"""Several real processes as one run: the same batches, the same losses, one end, one status."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lm import checkpoint, metrics, workdir
from lm.parallel import processes
from lm.refusal import Refusal

ROOT = Path(__file__).parents[2]
STEPS = 20
TINY = {
    "data.tokenizer": "char", "data.batch_size": 8, "model.width": 24, "model.layers": 2, "model.heads": 3,
    "model.context": 17, "train.steps": STEPS, "train.log_every": 1, "train.checkpoint_every": 7,
    "train.evaluate_every": 10, "train.sample_every": 10, "train.mirrors": "()", "train.sample_prompt": "a",
    "schedule.name": "constant", "schedule.warmup_steps": 0, "parallel.mesh.data": 1, "parallel.mesh.fsdp": -1,
    "sample.max_new_tokens": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with a text, a config, and the stores that all runs here share."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
    lines = (" ".join(draw.choices(words, k=9)) + "." for _ in range(200))
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "config.py").write_text("from lm.config import defaults as get_config\n", encoding="utf-8")
    return folder


def started(corpus, folder, count, devices, *, launch=(), **overrides):
    """Start a run of so many processes of so many devices each."""
    values = TINY | {"data.source": f"files:{corpus}/text.txt", "data.store": str(corpus / "store")}
    values |= {name.replace("__", "."): value for name, value in overrides.items()}
    line = [sys.executable, "-m", "lm.train", f"--config={corpus}/config.py", f"--workdir={corpus / folder}"]
    line += [f"--config.{name}={value}" for name, value in values.items()]
    return launched(corpus / f"{folder}.log", line, count, devices, *launch)


def launched(log, line, count, devices, *more):
    """Start a command as several processes."""
    launch = [sys.executable, "-m", "lm.parallel.launch", f"--processes={count}", f"--devices={devices}", *more, "--"]
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiled in half the time
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen([*launch, *line], env=environment, cwd=ROOT, stdout=file, stderr=file)


def ended(corpus, folder, process, status=0):
    """Wait for a run; return what it has said."""
    found = process.wait(timeout=200)
    words = (corpus / f"{folder}.log").read_text(encoding="utf-8")
    assert found == status, words
    return words


def losses(corpus, folder):
    """Return the training losses of a run, the norms of its gradients, and its losses of validation, by step."""
    rows = metrics.read(corpus / folder)
    found = [[(row.step, row.value) for row in rows if row.name == name] for name in ("train/loss", "grad_norm")]
    assert all([step for step, _ in part] == list(range(1, STEPS + 1)) for part in found)
    found.append([(row.step, row.value) for row in rows if row.name == "valid/loss" and row.step in (10, STEPS)])
    assert len(found[-1]) == 2
    return np.array([value for part in found for _, value in part])


@pytest.fixture(scope="module")
def straight(corpus):
    """Return the losses of a run of one process with one device."""
    ended(corpus, "one", started(corpus, "one", 1, 1))
    return losses(corpus, "one")


@pytest.fixture(scope="module")
def four(corpus):
    """Let one process train with four devices."""
    ended(corpus, "four", started(corpus, "four", 1, 4))


def test_losses_are_those_of_one_process(corpus, straight, four):
    np.testing.assert_allclose(losses(corpus, "four"), straight, rtol=1e-5)
    words = ended(corpus, "two", started(corpus, "two", 2, 2))
    np.testing.assert_allclose(losses(corpus, "two"), straight, rtol=1e-5)
    spoken = [line for line in words.splitlines() if re.search(r"checkpoint|validation|sample|resuming|done", line)]
    assert len(spoken) > 5 and not any(line.startswith("[1]") for line in spoken), "the main process speaks alone"
    folder = corpus / "two"
    facts = json.loads((folder / workdir.RUN).read_text())
    assert facts["finished"] and facts["devices"] == 4 and facts["mesh"]["fsdp"] == 4
    said = [(corpus / name / workdir.SAMPLES).read_text(encoding="utf-8") for name in ("one", "two")]
    assert said[0] == said[1]
    assert not (folder / workdir.LOCK).exists() and (folder / workdir.REPORT).exists()
    kept = checkpoint.steps(folder / workdir.CHECKPOINTS)
    assert kept[-2:] == [14, 20] and not any(checkpoint.damage(folder / workdir.CHECKPOINTS / str(s)) for s in kept)


IDS = """
import json, sys
from pathlib import Path
from lm.config.files import from_json
from lm.parallel import processes

def main():
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
    together = processes.join(processes.named(given["coordinator"], int(given["processes"]), int(given["process"])))
    import numpy as np
    from jax.experimental import multihost_utils
    from lm.train.setup import setup

    built, found = [], []
    with together.ending():
        run = setup(from_json(Path(sys.argv[1]).read_text()), Path("nowhere"), lambda words: None)
        for k in (0, 1, 5):
            batch = run.batch(k)
            assert not batch.inputs.is_fully_addressable
            built += [shard.data.shape[0] for shard in batch.inputs.addressable_shards]
            whole = multihost_utils.process_allgather((batch.inputs, batch.targets, batch.weights), tiled=True)
            found.append([np.asarray(field).tolist() for field in whole])
        if together.is_main:
            print(json.dumps({"rows": built, "batches": found}))

main()
"""


def test_batches_hold_the_same_ids_and_a_process_has_its_own_rows(corpus):
    from lm.config import defaults
    from lm.config.files import to_json
    from lm.config.resolve import resolve
    from lm.train.setup import setup

    config = defaults()
    for name, value in (
        TINY | {"data.source": f"files:{corpus}/text.txt", "data.store": str(corpus / "store")}
    ).items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[leaf] = () if value == "()" else value
    config = resolve(config)
    (corpus / "config.json").write_text(to_json(config), encoding="utf-8")
    (corpus / "ids.py").write_text(IDS, encoding="utf-8")
    line = [sys.executable, str(corpus / "ids.py"), str(corpus / "config.json")]
    words = ended(corpus, "ids", launched(corpus / "ids.log", line, 2, 2))
    answer = json.loads(next(row for row in words.splitlines() if row.startswith("{")))
    assert answer["rows"] == [2, 2] * 3
    run = setup(config, Path("nowhere"), lambda words: None)
    for k, theirs in zip((0, 1, 5), answer["batches"], strict=True):
        mine = run.batch(k)
        assert len(mine.inputs.sharding.device_set) == jax.device_count() == 8
        for field, values in zip((mine.inputs, mine.targets, mine.weights), theirs, strict=True):
            assert np.array_equal(field, values)


def until(condition):
    """Wait for a condition."""
    limit = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.faults
def test_a_signal_to_one_process_stops_both_at_the_same_step(corpus, straight):
    found = lambda: checkpoint.steps(corpus / "stopped" / workdir.CHECKPOINTS)
    begin = lambda: started(corpus, "stopped", 2, 2, launch=["--hand_to=1"], train__checkpoint_every=3)
    process = begin()
    until(lambda: found() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    words = ended(corpus, "stopped", process, 128 + signal.SIGTERM)
    (step,) = map(int, re.findall(r"stopped by SIGTERM after step (\d+);", words))
    assert 3 <= step < STEPS and found()[-1] == step
    assert not (corpus / "stopped" / workdir.LOCK).exists()
    words = ended(corpus, "stopped", begin())
    assert f"resuming after step {step}" in words
    np.testing.assert_allclose(losses(corpus, "stopped"), straight, rtol=1e-5)


def test_a_signal_before_the_first_step_ends_both_at_once(corpus):
    process = started(corpus, "early", 2, 1, launch=["--hand_to=1"])
    until((corpus / "early" / workdir.LOCK).exists)
    process.send_signal(signal.SIGTERM)
    words = ended(corpus, "early", process, 128 + signal.SIGTERM)
    assert "process 1 was stopped, and with it the run." in words
    assert not (corpus / "early" / workdir.LOCK).exists()


@pytest.mark.faults
def test_a_run_goes_on_with_other_devices_also_after_a_kill(corpus, straight, four):
    shutil.copytree(corpus / "four", corpus / "moved")
    shutil.rmtree(corpus / "moved" / workdir.CHECKPOINTS / str(STEPS))  # so that it is to go on after step 14
    process = started(corpus, "moved", 2, 1, train__checkpoint_every=1)
    until(lambda: checkpoint.steps(corpus / "moved" / workdir.CHECKPOINTS)[-1] > 14 or process.poll() is not None)
    other = re.search(r"1 is (\d+)", (corpus / "moved.log").read_text(encoding="utf-8"))
    os.kill(int(other[1]), signal.SIGKILL)
    assert "error: process 0 failed" in ended(corpus, "moved", process, 128 + signal.SIGKILL)
    ended(corpus, "moved", started(corpus, "moved", 1, 1))
    np.testing.assert_allclose(losses(corpus, "moved"), straight, rtol=1e-5)


def test_a_mistake_ends_all_with_one_sentence(corpus):
    fields = {"parallel__compile": "pmap", "parallel__mesh__data": -1, "parallel__mesh__fsdp": 1}
    words = ended(corpus, "wrong", started(corpus, "wrong", 2, 1, **fields), 2)
    assert words.count("error: parallel.compile is 'pmap'") == 2 and "Traceback" not in words
    assert not (corpus / "wrong" / workdir.LOCK).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("a:1", 2, None), "--process is not given"),
        ((None, None, 0), "--coordinator is not given"),
        (("a", 2, 0), "--coordinator is 'a'"),
        (("a:0", 2, 0), "--coordinator is 'a:0'"),
        ((":80", 2, 0), "--coordinator is ':80'"),
        (("a:1", 0, 0), "--processes is 0"),
        (("a:1", 2, 2), "--process is 2"),
        (("a:1", 2, -1), "--process is -1"),
    ],
    ids=str,
)
def test_bad_flags_are_refused(flags, words):
    with pytest.raises(Refusal, match=words):
        processes.named(*flags)


def test_no_flags_name_nothing():
    assert processes.named(None, None, None) is None
    assert processes.named("[::1]:80", 3, 2) == ("[::1]:80", 3, 2)


@pytest.mark.parametrize("count", [1, 3])
def test_slurm_and_open_mpi_are_detected(monkeypatch, count):
    assert processes._detected() == 1
    with monkeypatch.context() as patch:
        for name, value in (("JOB_ID", 7), ("STEP_NODELIST", "a"), ("NTASKS", count), ("PROCID", 0), ("LOCALID", 0)):
            patch.setenv(f"SLURM_{name}", str(value))
        assert processes._detected() == count
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1531576320.0;tcp://10.96.0.1:34911")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", str(count))
    assert processes._detected() == count


JOIN = """
import sys
from lm.parallel import processes

processes._JOINED_WITHIN = 2
processes.join(processes.named(sys.argv[1], 2, int(sys.argv[2])))
"""


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_does_not_wait_for_ever(index):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    line = [sys.executable, "-c", JOIN, address, str(index)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    words = f"error: not all of the 2 processes of the run came together at {address} within 2 s."
    assert done.returncode == 2 and done.stderr.strip().endswith(words), done.stderr


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refusal, match=f"names port {port}, which process 0 cannot have: Address already in use"):
            processes.join(processes.Named(f"localhost:{port}", 2, 0))


def test_one_process_alone_starts_nothing():
    assert processes.join(processes.Named("localhost:1", 1, 0)).count == processes.join(None).count == 1
    assert not jax.distributed.is_initialized()
