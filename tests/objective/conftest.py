"""Windows of random records, and the settings of objectives."""

import numpy as np
import pytest


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
