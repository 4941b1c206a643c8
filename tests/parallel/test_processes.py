"""Several real processes as one run: the same batches, the same losses, one end, one status."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lm import checkpoint, workdir
from lm.parallel import processes
from lm.parallel.processes import Processes
from lm.parallel.stop import Stop
from lm.refusal import Refusal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def four(runs):
    """Let one process train with four devices."""
    runs.end("four", runs.start("four", 1, 4))


def test_losses_are_those_of_one_process(runs, straight, four):
    np.testing.assert_allclose(runs.losses("four"), straight, rtol=1e-5)
    words = runs.end("two", runs.start("two", 2, 2))
    np.testing.assert_allclose(runs.losses("two"), straight, rtol=1e-5)
    spoken = [line for line in words.splitlines() if re.search(r"checkpoint|validation|sample|resuming|done", line)]
    assert len(spoken) > 5 and not any(line.startswith("[1]") for line in spoken), "the main process speaks alone"
    folder = runs.folder / "two"
    facts = json.loads((folder / workdir.RUN).read_text())
    assert facts["finished"] and facts["devices"] == 4 and facts["mesh"]["fsdp"] == 4
    said = [(runs.folder / name / workdir.SAMPLES).read_text(encoding="utf-8") for name in ("one", "two")]
    assert said[0] == said[1]
    assert not (folder / workdir.LOCK).exists() and (folder / workdir.REPORT).exists()
    kept = checkpoint.steps(folder / workdir.CHECKPOINTS)
    assert kept[-2:] == [14, 20] and not any(checkpoint.damage(folder / workdir.CHECKPOINTS / str(s)) for s in kept)


IDS = """
import json, sys
from pathlib import Path
from lm.config.files import from_json
from lm.parallel import processes
from lm.parallel.processes import Processes
from lm.parallel.stop import Stop

def main():
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
    together = processes.join(processes.named(given["coordinator"], int(given["processes"]), int(given["process"])))
    import jax
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
        state = run.create()
        theirs, mine = (jax.tree.leaves(tree) for tree in (state.params, run.bundle(state).params))
        assert all(leaf.is_fully_addressable for leaf in mine)
        pairs = zip(theirs, mine, strict=True)
        gather = lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        same = [np.array_equal(one, gather(whole)) for whole, one in pairs]
        largest = max(mine, key=lambda leaf: leaf.size)
        share = largest.size // largest.addressable_shards[0].data.size
        if together.is_main:
            print(json.dumps({"rows": built, "batches": found, "same": all(same), "share": share}))

main()
"""


def test_batches_hold_the_same_ids_and_a_process_has_its_own_rows_and_parameters(runs):
    from lm.config import defaults
    from lm.config.files import to_json
    from lm.config.resolve import resolve
    from lm.train.setup import setup

    config = defaults()
    for name, value in runs.values.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[leaf] = () if value == "()" else value
    config = resolve(config)
    (runs.folder / "config.json").write_text(to_json(config), encoding="utf-8")
    (runs.folder / "ids.py").write_text(IDS, encoding="utf-8")
    line = [sys.executable, str(runs.folder / "ids.py"), str(runs.folder / "config.json")]
    words = runs.end("ids", runs.launch("ids", line, 2, 2))
    answer = json.loads(next(row for row in words.splitlines() if row.startswith("{")))
    assert answer["rows"] == [2, 2] * 3
    assert answer["same"] and answer["share"] == 2, "the parameters are the process's own, split between its devices"
    run = setup(config, Path("nowhere"), lambda words: None)
    for k, theirs in zip((0, 1, 5), answer["batches"], strict=True):
        mine = run.batch(k)
        assert len(mine.inputs.sharding.device_set) == jax.device_count() == 8
        for field, values in zip((mine.inputs, mine.targets, mine.weights), theirs, strict=True):
            assert np.array_equal(field, values)


def test_a_signal_before_the_first_step_ends_both_at_once(runs, until):
    process = runs.start("early", 2, 1, launch=["--hand_to=1"])
    until((runs.folder / "early" / workdir.LOCK).exists)
    process.send_signal(signal.SIGTERM)
    words = runs.end("early", process, 128 + signal.SIGTERM)
    assert "process 1 was stopped, and with it the run." in words
    assert not (runs.folder / "early" / workdir.LOCK).exists()


def test_a_mistake_ends_all_with_one_sentence(runs):
    fields = {"parallel__compile": "pmap", "parallel__mesh__data": -1, "parallel__mesh__fsdp": 1}
    words = runs.end("wrong", runs.start("wrong", 2, 1, **fields), 2)
    assert words.count("error: parallel.compile is 'pmap'") == 2 and "Traceback" not in words
    assert not (runs.folder / "wrong" / workdir.LOCK).exists()


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
from lm.parallel.processes import Processes
from lm.parallel.stop import Stop

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


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_while_processes_come_together_is_obeyed_when_they_have(monkeypatch, count):
    left = []
    monkeypatch.setattr(Processes, "watch", lambda self, look: look({}))
    monkeypatch.setattr(Processes, "leave", lambda self, *told: left.append(told))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = Stop()
        signal.raise_signal(signal.SIGTERM)  # nobody to tell yet
        with pytest.raises(SystemExit, match="143") if count == 1 else contextlib.nullcontext():
            stop.join(Processes(count, count - 1))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left == ([] if count == 1 else [(143, "process 1 was stopped, and with it the run.")])
