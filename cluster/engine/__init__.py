"""The only home of vLLM: one engine, its weights, and its OpenAI face.

    rollout, replica ─► engine.Engine ─► vLLM's AsyncLLM ─► engine process ◄─ weights.ParcelReceiver (a vLLM plug-in)
                            ▲                                                       │ takes and verifies
                  openai.OpenAi                    node_files.NodeFiles ─► a file in shared memory, or
                                          Broadcaster ─► channel.ChannelEnd ═► channel.Receiver

`history` hands vLLM a prompt with images and proves that it reads it as it was written. `reply`, `model_files`,
`node_files` and `channel` import without vLLM; `Engine` loads it on first use. Start reading at
`engine.Engine.generate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.engine.engine import Engine
    from cluster.engine.openai import OpenAi

__all__ = ["Engine", "OpenAi"]

_HOMES = {"Engine": "cluster.engine.engine", "OpenAi": "cluster.engine.openai"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
