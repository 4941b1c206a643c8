"""Print every field of a config with its default, type, range, mark and meaning, in Markdown.

python -m lm.config > docs/config.md
"""

from lm import command
from lm.config import reference


def main() -> None:
    """Print the page."""
    print(reference.page())


if __name__ == "__main__":
    command.run(main, __doc__)
