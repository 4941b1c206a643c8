"""The table of verdicts: its numbers, its marks, and its word on what does not compare."""

import pytest

from lm.report import record, verdict

TITLES = ["state", *(column.title for column in verdict.COLUMNS)]


def rows(losses, seconds):
    """Return rows of a log and of three validations."""
    found = [(step, {"tokens": 100 * step, "seconds": seconds * step / 31}) for step in (15, 31)]
    for step, loss in zip((10, 20, 31), losses, strict=True):
        found.append((step, {"valid/loss": loss, "valid/perplexity": 10 * loss, "valid/bits_per_byte": loss / 2}))
    return found


def cells(runs):
    """Return title → (texts, marks) of the table."""
    table = verdict.table(runs)
    return {
        title: ([row[place].text for row in table], [row[place].is_best for row in table])
        for place, title in enumerate(TITLES)
    }


@pytest.fixture
def pair(make_run):
    """Return a function: changes of the second run's facts → two records, the second better but for its speed."""

    def make(**facts):
        first = make_run("a", rows((4.0, 3.0, 3.5), 10.0))
        second = make_run("b", rows((5.0, 2.0, 1.5), 20.0), facts={"finished": False} | facts)
        return [record.read(first), record.read(second)]

    return make


def test_the_numbers_and_the_best_of_each(pair):
    assert cells(pair()) == {
        "state": (["finished", "step 31 of 31"], [False, False]),
        "parameters": (["7,919", "7,919"], [False, False]),
        "steps": (["31", "31"], [False, False]),
        "tokens": (["3,100", "3,100"], [False, False]),
        "seconds": (["10", "20"], [False, False]),
        "tokens/s": (["310", "155"], [True, False]),
        "valid loss, last": (["3.5000", "1.5000"], [False, True]),
        "valid loss, best": (["3.0000", "1.5000"], [False, True]),
        "perplexity, last": (["35.00", "15.00"], [False, True]),
        "perplexity, best": (["30.00", "15.00"], [False, True]),
        "bits/byte, last": (["1.7500", "0.7500"], [False, True]),
        "bits/byte, best": (["1.5000", "0.7500"], [False, True]),
    }


def test_a_run_without_rows_has_dashes_and_one_run_no_marks(make_run, pair):
    empty = record.read(make_run("c", has_facts=False))
    found = cells([*pair(), empty])
    assert [texts[2] for texts, _ in found.values()] == ["step 0 of 31", "–", "0", *["–"] * 9]
    assert found["valid loss, last"][1] == [False, True, False]
    assert not any(mark for _, marks in cells(pair()[:1]).values() for mark in marks)


@pytest.mark.parametrize(
    ("tokens", "text", "compare", "words"),
    [
        ("a", 4001, {"valid loss, best", "perplexity, best", "bits/byte, best"}, []),
        ("b", 4001, {"bits/byte, best"}, ["losses and perplexities do not compare", "same 4,001 bytes"]),
        ("b", 4003, set(), ["losses and perplexities do not compare", "nor do bits per byte"]),
    ],
)
def test_only_what_compares_is_marked_and_the_warning_says_what_does_not(pair, facts, tokens, text, compare, words):
    data = facts["data"] | {"fingerprint": tokens * 64, "valid": facts["data"]["valid"] | {"bytes": text}}
    runs = pair(data=data)
    assert {title for title, (_, marks) in cells(runs).items() if any(marks) and "best" in title} == compare
    warning = verdict.warning(runs)
    assert bool(warning) == bool(words) and all(part in warning for part in words)


def test_the_plain_table_has_a_line_a_run_in_columns(pair):
    first, second, *lines = verdict.plain(["a", "longer name"], pair()).split("\n")
    assert first.split()[:3] == ["run", "state", "parameters"] and second.split() == ["last", "best"] * 3
    assert lines[0].split() == ["a", "finished", "7,919", "31", "3,100", "10", "310*", "3.5000", "3.0000", "35.00",
                                "30.00", "1.7500", "1.5000"]  # fmt: skip
    assert lines[1].startswith("longer name  step 31 of 31 ") and lines[1].endswith(" 0.7500*")
    assert lines[0].index("3.0000") == lines[1].index("1.5000*", lines[1].index("1.5000*") + 1)
