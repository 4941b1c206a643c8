"""Print every field of a config with its default, type, range, mark and meaning, in Markdown.

    python -m lm.config > docs/config.md

The page is of the schema as it stands; a test holds docs/config.md equal to it.
"""

from lm import command
from lm.config import reference


def main() -> None:
    """Print the page."""
    print(reference.page())


if __name__ == "__main__":
    command.run(main, __doc__)
