"""What names a run's processes in; the processes out: which is the main one, and what all of them take from it.

They talk by JAX's coordination service, which costs the devices nothing. What ends one ends all, with a sentence.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

from lm.refusal import Refusal

Answer = TypeVar("Answer")

_JOINED_WITHIN = 300  # seconds that a process waits for all others to start
_SILENT = 60  # seconds after which a process that is not heard of counts as lost
_LOOK = 0.2  # seconds between looks at what the others have posted
_FAREWELL = 5.0  # seconds that the main process, whom all others talk through, waits for them when it fails
_LONG = 7 * 24 * 3600 * 1000  # milliseconds; a process that dies is noticed by its heartbeat instead
_BOARD, _END, _LEFT = "lm/board/", "end", "left"


class Named(NamedTuple):
    """What the flags say. coordinator: host:port of process 0. count, index: of the processes, and of this one."""

    coordinator: str
    count: int
    index: int


def named(coordinator: str | None, count: int | None, index: int | None) -> Named | None:
    """Return the processes that flags name, None if there are no such flags.

    Raises:
      Refusal: a flag is missing or senseless.
    """
    given = {"--coordinator": coordinator, "--processes": count, "--process": index}
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise Refusal(f"{missing[0]} is not given: {', '.join(given)} are given together or not at all.")
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise Refusal(f"--coordinator is {coordinator!r}: it must be HOST:PORT of process 0, such as 10.0.0.2:8476.")
    if count < 1:
        raise Refusal(f"--processes is {count}: it must be at least 1.")
    if not 0 <= index < count:
        raise Refusal(f"--process is {index}: it must be at least 0 and below --processes ({count}).")
    return Named(coordinator, count, index)


class Processes:
    """The processes of a run: this is number `index` of `count`, and the main one is number 0."""

    def __init__(self, count: int = 1, index: int = 0, client: Any = None):
        self.count, self.index, self.is_main = count, index, index == 0
        self._client = client
        self._agreed = 0
        self._closed, self._leaving = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._last: list[Callable[[], None]] = []

    def agree(self, make: Callable[[], Answer]) -> Answer:
        """Return what `make`, which the main process alone calls, returns there; its Refusal is everyone's.

        To be called by all, in the same order, and by all or none of a process's threads but the first.

        Args:
          make: () → a value of JSON.
        """
        if self.count == 1:
            return make()
        self._agreed += 1
        key = f"lm/agreed/{self._agreed}"
        if not self.is_main:
            answer, words = json.loads(self._client.blocking_key_value_get(key, _LONG))
            if words is not None:
                raise Refusal(words)
            return answer
        try:
            answer = make()
        except Refusal as refusal:
            self._client.key_value_set(key, json.dumps([None, str(refusal)]))
            raise
        self._client.key_value_set(key, json.dumps([answer, None]))
        return answer

    def at_once(self, do: Callable[[], None]) -> None:
        """Have `do` called should this process have to end at once, when no block is left in order."""
        self._last.append(do)

    def post(self, name: str, value: object) -> None:
        """Tell all processes a value of JSON; the first that is told by a name stays."""
        with contextlib.suppress(Exception):  # there already, or nobody is left to tell
            self._client.key_value_set(_BOARD + name, json.dumps(value))

    def watch(self, look: Callable[[Mapping[str, Any]], None]) -> None:
        """Let a thread hand all that was posted to `look` from time to time; and end this process if one failed."""
        if self.count > 1:
            self._thread = threading.Thread(target=self._watch, args=(look,), daemon=True, name="processes")
            self._thread.start()

    def _watch(self, look: Callable[[Mapping[str, Any]], None]) -> None:
        while not self._closed.wait(_LOOK):
            try:
                found = self._client.key_value_dir_get(_BOARD)
            except Exception:  # whatever the service raises
                if not self._closed.is_set():
                    self.leave(1, f"error: process {self.index} ends, as the main process cannot be reached.")
            board = {key.removeprefix(_BOARD): json.loads(value) for key, value in found}
            if _END in board:
                self.leave(*board[_END])
            look(board)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Let all processes leave the block together, or end with one status when one of them fails in it."""
        if self.count == 1:
            yield
            return
        import jax

        try:
            yield
            self._client.wait_at_barrier("lm/done", _LONG)
        except BaseException as error:  # the others would wait for this process
            self.leave(*_told(error, self.index))
        self._closed.set()
        if self._thread:
            self._thread.join()
        jax.distributed.shutdown()

    def leave(self, status: int, words: str) -> NoReturn:
        """End this process, and with it all, at once: to leave in order would be to wait for the others."""
        self._leaving.acquire()  # for good: a thread that comes second has nothing to say
        print(words, file=sys.stderr, flush=True)
        self.post(_END, (status, words))
        for do in self._last:
            with contextlib.suppress(Exception):
                do()
        self.post(f"{_LEFT}/{self.index}", True)
        if self.is_main:  # the service ends with it
            limit = threading.Event()
            for _ in range(int(_FAREWELL / _LOOK)):
                with contextlib.suppress(Exception):
                    if len(self._client.key_value_dir_get(f"{_BOARD}{_LEFT}/")) == self.count:
                        break
                limit.wait(_LOOK)
        os._exit(status)


def _told(error: BaseException, index: int) -> tuple[int, str]:
    """Return the status and the sentence of what ended process `index`."""
    if isinstance(error, Refusal):
        return 2, f"error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return 2, f"error: {str(error.filename)!r} cannot be written or read: {error.strerror}."
    words = " ".join(str(error).split())[:300]
    if type(error).__name__ == "JaxRuntimeError" or "Gloo" in words:  # a program's first call raises a ValueError
        return 1, f"error: process {index} failed in what it computes with others, one of which may be gone: {words}"
    traceback.print_exception(error)
    return 1, f"error: process {index} failed, and with it the run: {type(error).__name__}: {words}"


def join(named: Named | None) -> Processes:
    """Join the run's other processes: those that flags name, or that JAX finds on Cloud TPU, under Slurm or Open MPI.

    One process alone starts nothing. To be called before JAX is asked for a device.

    Raises:
      Refusal: the others do not come.
    """
    import jax

    if named is None:
        count = _detected()
        if count == 1:
            return Processes()
        given = {}
    elif named.count == 1:
        return Processes()
    else:
        coordinator, count, index = named
        if index == 0:
            _check_port(int(coordinator.rpartition(":")[2]))
        given = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
        given["cluster_detection_method"] = "deactivate"
    given |= {"initialization_timeout": 2 * _JOINED_WITHIN, "heartbeat_timeout_seconds": _SILENT}
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    jax.config.update(
        "jax_cpu_enable_async_dispatch", False
    )  # of two programs under way CPUs may wait in each for other
    where = f" at {named.coordinator}" if named else ""
    late = f"error: not all of the {count} processes of the run came together{where} within {_JOINED_WITHIN} s."
    limit = threading.Timer(_JOINED_WITHIN, _give_up, (late,))  # JAX itself would abort
    limit.daemon = True
    limit.start()
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:  # JaxRuntimeError is one
        words = " ".join(str(error).split())[:200]
        raise Refusal(f"the {count} processes of the run cannot come together{where}: {words}") from None
    finally:
        limit.cancel()
    state = _state()
    return Processes(state.num_processes, state.process_id, state.client)


def _check_port(port: int) -> None:
    """Refuse a port of this machine that something else has: JAX 0.10.2 would crash."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise Refusal(f"--coordinator names port {port}, which process 0 cannot have: {error.strerror}.") from None


def _give_up(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    os._exit(2)


def _detected() -> int:
    """Return how many processes JAX's detection finds.

    jax.distributed.initialize asks the same, but it would also give a lone process of a Slurm job one device only.
    """
    from jax._src.clusters import ClusterEnv

    _, count, _, _ = ClusterEnv.auto_detect_unset_distributed_params("", None, 0, [], None, _JOINED_WITHIN)
    return count or 1


def _state() -> Any:
    """Return what jax.distributed.initialize has made: its client of the coordination service has no public name."""
    from jax._src.distributed import global_state

    return global_state
