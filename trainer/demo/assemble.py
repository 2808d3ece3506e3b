"""The thinking checkpoint, assembled from the embedded one and what was tuned of it.

    python -m trainer.demo.assemble DIR    writes it; then: evoquality serve --checkpoint DIR --profile evoquality

`thinking/` holds the language model in half precision and a larger tokenizer. Vision tower, processor and the rest are
the embedded checkpoint's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from trainer.files import read_json, write_json

EMBEDDED = Path(__file__).with_name("checkpoint")
THINKING = Path(__file__).with_name("thinking")
POSITIONS = 4096
"""Room for prompts with answers of up to 1,024 tokens."""


def thinking_checkpoint(directory: Path) -> Path:
    """Writes the whole thinking checkpoint, the same files every time. Returns the directory.

    Raises:
        FileExistsError: there is such a directory.
    """
    shutil.copytree(EMBEDDED, directory)
    shutil.copytree(THINKING, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    tuned = {name: half.astype(np.float32) for name, half in load_file(THINKING / "language_model.safetensors").items()}
    weights = {**load_file(EMBEDDED / "model.safetensors"), **tuned}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = read_json(directory / "config.json")
    config["text_config"] |= {
        "max_position_embeddings": POSITIONS,
        "vocab_size": len(weights["model.embed_tokens.weight"]),
    }
    write_json(directory / "config.json", config)
    return directory


if __name__ == "__main__":
    print(thinking_checkpoint(Path(sys.argv[1])))
