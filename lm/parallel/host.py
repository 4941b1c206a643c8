"""The process that runs a model: what its memory allocator keeps."""

import contextlib
import ctypes
import os
import sys

PROGRAMS = "~/.cache/lm/programs"


def keep_memory() -> None:
    """Let glibc's allocator keep what XLA:CPU frees after every step.

    Otherwise the kernel takes the temporary buffers back and gives them again page by page: 15,000 page faults
    a step for a small model, up to a fifth of its time. To be called before any thread starts: a thread may have
    an arena of its own by then, and what is large is always mapped and unmapped there. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    mallopt(trim_threshold, -1)  # never, where a number ends at 2 GiB
    mallopt(top_pad, 2**28)
    mallopt(mmap_max, 0)
    mallopt(arena_max, 1)  # one heap for all threads


def keep_programs() -> None:
    """Let JAX keep what it compiles for processes to come, where nothing else is said and the folder can be written."""
    import jax

    folder = os.path.expanduser(PROGRAMS)
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    if jax.config.jax_compilation_cache_dir is None and os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
