"""Write the page of a run, or one page that compares several; runs may be going on.

    python -m lm.report runs/wide runs/deep --out=compare.html

One DIR: its report.html is written anew. Several: the page --out has their verdicts, their curves over steps, tokens
and seconds, and what differs in their configs and machines. The table of verdicts is printed too, a * at the best.
"""

from pathlib import Path

from absl import flags

from lm import command, storage, workdir

OUT = flags.DEFINE_string("out", "compare.html", "the page that compares several runs")


def main(*places: str) -> None:
    """Read, write, print."""
    from lm.report import record, verdict

    folders = list({storage.absolute(folder): folder for folder in map(storage.place, places)}.values())
    runs = [record.read(folder) for folder in folders]
    print(verdict.plain(record.names(folders), runs))
    if warning := verdict.warning(runs):
        print(f"\n{warning}")
    from lm.report import compare, page  # Matplotlib takes a second to import

    if len(runs) > 1:
        compare.write(runs, Path(OUT.value))
    else:
        page.write(folders[0])
    print(f"\nwritten: {OUT.value if len(runs) > 1 else folders[0] / workdir.REPORT}")


if __name__ == "__main__":
    command.run(main, __doc__, takes="DIR")
