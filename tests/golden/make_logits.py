"""Nothing in; MODEL_tiny.npz beside this file out for every model of models.py: its weights, and what comes of them.

    python tests/golden/make_logits.py        (needs torch and transformers: pip install -e '.[parity]')

Made with torch 2.13.0 and transformers 5.23.0. The keys: `config`, its config.json; `ids` `(B, T)` with `mask`, what
of them is text, and `logits` `(B, T, V)`; `greedy`, what follows the first row, where something can;
and every tensor by name.
"""

import json
import tempfile
from pathlib import Path

import models
import numpy as np
from safetensors.numpy import load_file


def main() -> None:
    ids, mask = models.batch()
    for name, tiny in (models.MODELS | models.STACKS).items():
        model = models.make(tiny)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            tensors = load_file(Path(folder) / "model.safetensors")
        logits = models.logits(model, ids, mask) * mask[..., None]
        file = Path(__file__).parent / f"{name}_tiny.npz"
        np.savez_compressed(
            file,
            config=np.array(json.dumps(config)),
            ids=ids.astype(np.int32),
            mask=mask,
            logits=logits.astype(np.float32),
            **({"greedy": models.greedy(model, ids[0]).astype(np.int32)} if model.can_generate() else {}),
            **tensors,
        )
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
