"""The receiving side of weights: an engine of vLLM's weight-transfer interface, loaded into vLLM as a plug-in.

It maps a parcel's node-local file, or joins the channel through which a learner sends it, hands the tensors to vLLM's
own layer-wise reload, and verifies the digest meanwhile. The update succeeds only if both do; after one that did not,
`Engine` does not sample.
"""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from cluster.engine.channel import Load, Receiver
from cluster.engine.node_files import MappedParcel
from cluster.weight_delta import WeightDelta
from cluster.weights import Channel, TensorPlace, WeightBroadcast, WeightParcel

BACKEND = "viter"
"""The name under which vLLM's configuration asks for it."""

PARENT_WATCH_S = 0.5


def register() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in every one of its processes, some of them twice."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, __name__, "ParcelReceiver")


@dataclass
class ParcelInit(WeightTransferInitInfo):
    """Nothing is agreed upon beforehand."""


@dataclass
class ParcelUpdate(WeightTransferUpdateInfo):
    """A parcel that lies in a file of this node, or comes through a channel.

    vLLM carries it as msgpack: `index` holds TensorPlace's fields in order, as lists, and `channel` Channel's by name.
    """

    digest: str
    index: list[list[Any]]
    path: str = ""
    channel: dict[str, Any] = field(default_factory=dict)
    rank: int = 0  # of the engine's first process in the channel

    @classmethod
    def in_file(cls, parcel: WeightParcel | WeightDelta, path: Path) -> dict[str, Any]:
        return {"digest": parcel.digest, "index": _listed(parcel.index), "path": str(path)}

    @classmethod
    def through(cls, broadcast: WeightBroadcast, worker: str) -> dict[str, Any]:
        channel = dataclasses.asdict(broadcast.channel)
        rank = broadcast.channel.ranks[worker]
        return {"digest": broadcast.digest, "index": _listed(broadcast.index), "channel": channel, "rank": rank}

    def places(self) -> list[TensorPlace]:
        return [
            TensorPlace(name=name, dtype=dtype, shape=tuple(shape), offset=offset, size_bytes=size)
            for name, dtype, shape, offset, size in self.index
        ]


def _listed(index: Sequence[TensorPlace]) -> list[list[Any]]:
    return [[p.name, p.dtype, list(p.shape), p.offset, p.size_bytes] for p in index]


class ParcelReceiver(WeightTransferEngine[ParcelInit, ParcelUpdate]):
    """One per vLLM worker."""

    init_info_cls = ParcelInit
    update_info_cls = ParcelUpdate
    supports_draft_weight_update = False

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._receiver = Receiver()
        if multiprocessing.parent_process() is not None:
            threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watch", daemon=True).start()

    def init_transfer_engine(self, init_info: ParcelInit) -> None:
        """There is no connection to make."""

    def start_weight_update(self) -> None:
        """The reload begins, and ends, where the weights are received."""

    def receive_weights(self, update_info: ParcelUpdate) -> None:
        """Raises ValueError or ChannelBroken: the model is as it was, or holds what came. `Engine` samples from neither."""
        if update_info.path:
            self._take_file(update_info)
        else:
            self._take_broadcast(update_info)

    def _take_file(self, update: ParcelUpdate) -> None:
        """Load and verify at the same time, each on a core of its own."""
        parcel = MappedParcel.open(Path(update.path), update.places())
        with ThreadPoolExecutor(1) as verifier:
            verdict = verifier.submit(parcel.verify, update.digest)
            with self._loading() as load:
                load(parcel.tensors())
            verdict.result()

    def _take_broadcast(self, update: ParcelUpdate) -> None:
        """Verify what arrives while it is loaded."""
        broadcast = WeightBroadcast(
            version=0, digest=update.digest, index=tuple(update.places()), channel=Channel(**update.channel)
        )
        rank = update.rank + self.parallel_config.rank
        with self._loading() as load:
            self._receiver.take(broadcast, rank, torch.device(self.device), load)

    @contextmanager
    def _loading(self) -> Iterator[Load]:
        """What takes tensors into the model, any number of times."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        initialize_layerwise_reload(self.model)
        try:
            yield lambda tensors: self.model.load_weights(iter(tensors))
        finally:  # also after a failure: the next update could not begin on layers that are half loaded
            finalize_layerwise_reload(self.model, self.model_config)

    def finish_weight_update(self) -> None:
        """It is finished."""

    def shutdown(self) -> None:
        """Mappings end with the update that made them; an end of a channel stays open until here."""
        self._receiver.close()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: vLLM's engine would stay, with its memory, after a killed worker."""
    while os.getppid() == parent:
        time.sleep(PARENT_WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)
