"""Which checkpoints one engine can hold one after another."""

import hashlib
import json
from pathlib import Path

COSMETIC = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Keys of config.json that say how a model was made or saved, and not what it is."""
TEXT_AND_IMAGES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json",
    "preprocessor_config.json",
)  # fmt: skip


def kind_of(directory: Path) -> str:
    """Names what an engine cannot change in place: architecture, tokenizer, image processor, chat template.

    Equal kinds can swap.
    """
    config = json.loads((directory / "config.json").read_text())
    lasting = {key: value for key, value in config.items() if key not in COSMETIC}
    kind = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode())
    for name in TEXT_AND_IMAGES:
        path = directory / name
        kind.update(path.read_bytes() if path.exists() else b"-")
    return kind.hexdigest()
