"""The receiving side of weights: an engine of vLLM's weight-transfer interface, loaded into vLLM as a plug-in.

It maps a parcel's node-local file, hands views of the mapping to vLLM's own layer-wise reload, and verifies the digest
meanwhile. The update succeeds only if both do; after one that did not, `Engine` does not sample.
"""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from cluster.engine.node_files import MappedParcel
from cluster.weight_delta import WeightDelta
from cluster.weights import TensorPlace, WeightParcel

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
    """A parcel that lies in a file of this node. `index` holds TensorPlace's fields in order, as lists for msgpack."""

    path: str
    digest: str
    index: list[list[Any]]

    @classmethod
    def of(cls, parcel: WeightParcel | WeightDelta, path: Path) -> dict[str, Any]:
        index = [[p.name, p.dtype, list(p.shape), p.offset, p.size_bytes] for p in parcel.index]
        return {"path": str(path), "digest": parcel.digest, "index": index}

    def places(self) -> list[TensorPlace]:
        return [
            TensorPlace(name=name, dtype=dtype, shape=tuple(shape), offset=offset, size_bytes=size)
            for name, dtype, shape, offset, size in self.index
        ]


class ParcelReceiver(WeightTransferEngine[ParcelInit, ParcelUpdate]):
    """One per vLLM worker."""

    init_info_cls = ParcelInit
    update_info_cls = ParcelUpdate
    supports_draft_weight_update = False

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        if multiprocessing.parent_process() is not None:
            threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watch", daemon=True).start()

    def init_transfer_engine(self, init_info: ParcelInit) -> None:
        """There is no connection to make."""

    def start_weight_update(self) -> None:
        """The reload begins, and ends, where the weights are received."""

    def receive_weights(self, update_info: ParcelUpdate) -> None:
        """Load and verify at the same time, each on a core of its own.

        Raises:
            ValueError: the file is cut short, and the model is as it was; or the digest does not match, and the model
                holds what came. `Engine` samples from neither.
        """
        parcel = MappedParcel.open(Path(update_info.path), update_info.places())
        with ThreadPoolExecutor(1) as verifier:
            verdict = verifier.submit(parcel.verify, update_info.digest)
            self._load(parcel)
            verdict.result()

    def _load(self, parcel: MappedParcel) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        initialize_layerwise_reload(self.model)
        try:
            self.model.load_weights(iter(parcel.tensors()))
        finally:  # also after a failure: the next update could not begin on layers that are half loaded
            finalize_layerwise_reload(self.model, self.model_config)

    def finish_weight_update(self) -> None:
        """It is finished."""

    def shutdown(self) -> None:
        """Mappings end with the update that made them."""


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: vLLM's engine would stay, with its memory, after a killed worker."""
    while os.getppid() == parent:
        time.sleep(PARENT_WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)
