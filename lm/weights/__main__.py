"""Convert a model from any form that is read to one that is written.

    python -m lm.weights --from=runs/quickstart --to=exported
    python -m lm.weights --from=exported --to=exported.gguf --dtype=bfloat16

--from is a run's workdir (or workdir@STEP, with :raw not averaged), a folder as Hugging Face publishes models in, a
.safetensors file with its config.json beside it, or a .gguf file. --to is a folder that Transformers opens, with the
same logits and the same token ids, or a .gguf file; it must not be there yet, and appears when all of it is written.
"""

import sys

from absl import flags

from lm import command

FROM = flags.DEFINE_string("from", None, "PLACE of the model", required=True)
TO = flags.DEFINE_string("to", None, "folder or .gguf file to write", required=True)
DTYPE = flags.DEFINE_string(
    "dtype", "", "of the parameters: float32 or bfloat16, of a .gguf file also float16 or q8_0; empty: as they are"
)


def main() -> None:
    """Open, write, say what."""
    from lm.weights.place import DTYPES, check_target, open_place, save_place

    check_target(TO.value, DTYPE.value)
    say = lambda words: print(words, file=sys.stderr, flush=True)
    bundle = open_place(FROM.value, say, DTYPE.value if DTYPE.value in DTYPES else "")
    save_place(bundle, TO.value, say, DTYPE.value)
    print(f"{TO.value}: {bundle.config.model.family}, {DTYPE.value or bundle.config.model.parameter_dtype}")


if __name__ == "__main__":
    command.run(main, __doc__)
