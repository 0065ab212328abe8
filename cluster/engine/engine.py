"""Engine: vLLM's AsyncLLM as this house uses it. Token ids in, token ids and log-probs out, weights that can change."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "TQDM_DISABLE": "1",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)  # vLLM reads some of these as it is imported

import numpy as np  # noqa: E402
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest  # noqa: E402
from vllm.sampling_params import RequestOutputKind, SamplingParams  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: E402

from cluster.config import EngineConfig  # noqa: E402
from cluster.engine import model_files, weights  # noqa: E402
from cluster.engine.history import Placeholders  # noqa: E402
from cluster.engine.node_files import NodeFiles  # noqa: E402
from cluster.engine.reply import EngineDead, History, Reply, WeightsRefused  # noqa: E402
from cluster.engine.settings import arguments, check_cache, check_model, environment  # noqa: E402
from cluster.weight_delta import WeightDelta  # noqa: E402
from cluster.weights import WeightBroadcast, WeightParcel, pack_weights  # noqa: E402
from envs.base import ConfigError, DataError  # noqa: E402
from trainers.eyes import Eyes  # noqa: E402

NEVER = -100.0  # the lowest bias vLLM takes: odds of e⁻¹⁰⁰
Announced = WeightParcel | WeightDelta | WeightBroadcast
CLOSE_S = 1.0  # then the engine's process is killed: it holds nothing that is worth waiting for


class Engine:
    """One model on one vLLM engine.

    Log-probs are those of the distribution sampled from: logits divided by the temperature, no top-p, no top-k.
    A weight update freezes the requests in flight, drops every cached key and value, and goes on: tokens after it
    are drawn by the new weights from a history computed anew with them.
    """

    def __init__(
        self, llm: AsyncLLM, shapes: model_files.TensorShapes, *, weight_version: int, eyes: Eyes | None = None
    ):
        self.llm = llm
        self.weight_version = weight_version
        self.weight_digest = ""
        """Digest of the last parcel; empty while the weights are those of the model's directory."""
        self._shapes = shapes
        self._placeholders = Placeholders(eyes)
        self._files = NodeFiles()
        self._refusal: str | None = None
        self._is_changing = asyncio.Lock()

    @classmethod
    async def start(cls, model_dir: Path | str, config: EngineConfig, *, weight_version: int = 0) -> "Engine":
        """An engine that answers.

        Raises:
            DataError: the directory holds no model that this engine can run.
            ConfigError: its settings do not fit the model.
            EngineDead: vLLM could not start; its log says why.
        """
        shapes = check_model(Path(model_dir))
        eyes = Eyes.load(model_dir)
        check_cache(Path(model_dir), config)
        with environment(config):
            try:
                llm = await asyncio.to_thread(AsyncLLM.from_engine_args, arguments(Path(model_dir), config))
            except ValueError as error:
                raise ConfigError(f"{model_dir}: vLLM refuses these engine settings for it ({_line(error)})") from error
            except RuntimeError as error:
                raise EngineDead(f"{model_dir}: vLLM did not start ({_line(error)}); its log above says why") from error
        engine = cls(llm, shapes, weight_version=weight_version, eyes=eyes)
        await llm.update_weight_version(str(weight_version))
        return engine

    @property
    def process_id(self) -> int:
        """Of the process that computes."""
        return self.llm.engine_core.resources.engine_manager.processes[0].pid

    async def generate(
        self, token_ids: Sequence[int], *, seed: int, temperature: float, max_tokens: int, stop_ids: Sequence[int],
        pictures: Sequence[np.ndarray] = (), banned_ids: Sequence[int] = (), request_id: str | None = None,
    ) -> Reply:  # fmt: skip
        """One response to `token_ids`. The same seed draws the same tokens, whatever else is running.

        Args:
            pictures: [H, W, 3] uint8 of every image whose placeholder, expanded, stands in `token_ids`, in order.
            banned_ids: tokens that are never drawn; log-probs are those of the distribution without them.
            temperature: 0 is greedy, and log-probs are then those at temperature 1.
            stop_ids: the only tokens that end it; the one that did is the reply's last.
        Raises:
            DataError: prompt and `max_tokens` do not fit the engine's longest sequence, or the engine would write an
                image with other tokens than these.
            EngineDead, WeightsRefused: it cannot answer any more, or not until good weights arrive.
        """
        parameters = SamplingParams(
            seed=seed, temperature=temperature, max_tokens=max_tokens, stop_token_ids=list(stop_ids), ignore_eos=True,
            logprobs=0, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True,
            logit_bias=dict.fromkeys(banned_ids, NEVER) or None,
        )  # fmt: skip
        output = await self._run(token_ids, pictures, parameters, request_id)
        answer = output.outputs[0]
        return Reply(
            token_ids=list(answer.token_ids),
            logp=list(answer.logprobs.logprobs) if answer.token_ids else [],
            weight_versions=self._versions(answer),
            finish_reason=answer.finish_reason or "abort",
            prompt_tokens=len(token_ids),
            cached_tokens=output.num_cached_tokens or 0,
        )

    async def score(self, histories: Sequence[History]) -> list[list[float]]:
        """Log-probs at temperature 1 of each history's tokens but its first, under the weights of now."""
        parameters = SamplingParams(
            max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY, temperature=0.0,
        )  # fmt: skip
        outputs = await asyncio.gather(*(self._run(*history, parameters.clone(), None) for history in histories))
        return [_prompt_logp(output) for output in outputs]

    def has_parcel(self, digest: str) -> bool:
        """Whether a delta from that parcel can be applied on this node, as things are now."""
        return self._files.has(digest)

    async def update_weights(self, parcel: WeightParcel | WeightDelta) -> None:
        """Return once the engine has confirmed the digest of the parcel, or of what a delta makes, and samples from it.

        Requests in flight wait meanwhile. After a refusal they keep waiting, for a good parcel or for `close`.

        Raises:
            BaseMissing: this node does not hold what the delta starts from; the engine goes on with what it has.
            WeightsRefused: another model's tensors, or bytes that do not match the digest. Nothing is sampled until
                an update succeeds.
            EngineDead: the engine died.
        """
        await self._change(parcel, lambda stack: self._files_update(parcel, stack))

    async def take_broadcast(self, broadcast: WeightBroadcast, worker: str) -> None:
        """Like `update_weights`, by what the learner is sending. Nothing passes through this process.

        Args:
            worker: the name under which the broadcast's channel knows this engine.
        Raises:
            WeightsRefused, EngineDead: as there. A broadcast cannot be taken again: ask for the parcel.
        """
        await self._change(broadcast, lambda _: weights.ParcelUpdate.through(broadcast, worker))

    async def _change(self, announced: Announced, update: Callable[[contextlib.ExitStack], dict[str, Any]]) -> None:
        async with self._is_changing:
            try:
                self._check_names(announced)
                await self._transfer(announced, update)
            except WeightsRefused as error:
                self._refusal = str(error)
                raise
            self._refusal = None
            self.weight_version, self.weight_digest = announced.version, announced.digest

    async def swap(self, model_dir: Path | str, version: int) -> None:
        """Take the weights of another checkpoint of the same architecture, in place.

        Raises:
            DataError: it is missing, damaged, or of another architecture; this engine goes on with what it has.
        """
        shapes = await asyncio.to_thread(model_files.tensor_shapes, Path(model_dir))
        if shapes != self._shapes:
            raise DataError(f"{model_dir}: {_difference(shapes, self._shapes)}; start an engine of its own for it")
        await self.update_weights(await asyncio.to_thread(_parcel_of, Path(model_dir), version))

    def require_weights(self) -> None:
        """Raises WeightsRefused while the last weights that came could not be confirmed."""
        if self._refusal is not None:
            raise WeightsRefused(self._refusal)

    async def check_health(self) -> None:
        """Raises EngineDead if it is."""
        with deaths_named():
            await self.llm.check_health()

    async def abort(self, request_id: str) -> None:
        """End a request; its `generate` returns what there is, with finish_reason "abort"."""
        await self.llm.abort(request_id)

    async def close(self) -> None:
        """Stop the engine's process and wait for it. Requests in flight raise EngineDead."""
        self.llm.output_processor.propagate_error(EngineDeadError())  # vLLM would leave those who wait waiting
        await asyncio.to_thread(_end, self.llm)
        self.llm.shutdown = _nothing  # its __del__ calls it once more, perhaps when the interpreter is half gone
        await asyncio.to_thread(self._files.close)

    async def _run(
        self, token_ids: Sequence[int], pictures: Sequence[np.ndarray], parameters: SamplingParams,
        request_id: str | None,
    ) -> Any:  # fmt: skip
        self.require_weights()
        room = self.llm.model_config.max_model_len - len(token_ids)
        if not token_ids or (parameters.max_tokens or 0) > room:
            raise DataError(
                f"a prompt of {len(token_ids)} tokens and an answer of {parameters.max_tokens} do not fit "
                f"max_model_len={self.llm.model_config.max_model_len}; shorten the answer or raise engine.max_model_len"
            )
        final = None
        with deaths_named():
            prompt = self._placeholders.prompt(token_ids, pictures)
            async for output in self.llm.generate(prompt, parameters, request_id or uuid.uuid4().hex):
                final = output
        assert final is not None
        if pictures:
            self._placeholders.check(token_ids, final.prompt_token_ids)
        return final

    def _files_update(self, parcel: WeightParcel | WeightDelta, stack: contextlib.ExitStack) -> dict[str, Any]:
        return weights.ParcelUpdate.in_file(parcel, stack.enter_context(self._files.holding(parcel)))

    async def _transfer(
        self, announced: Announced, update: Callable[[contextlib.ExitStack], dict[str, Any]]
    ) -> None:  # fmt: skip
        """Weights through vLLM's own update: pause, start, update, finish with the version, resume."""
        with deaths_named(), contextlib.ExitStack() as stack:
            request = WeightTransferUpdateRequest(await asyncio.to_thread(update, stack))
            # clear_cache: what is cached was computed by the old weights. It also sends the requests in flight back
            # to the queue, since blocks that are in use could not be dropped.
            await self.llm.pause_generation(mode="keep", clear_cache=True)
            try:
                await self.llm.start_weight_update()
                await self.llm.update_weights(request)
                await self.llm.finish_weight_update(str(announced.version))
            except EngineDeadError:
                raise
            except Exception as error:  # vLLM hands a worker's error over as a bare Exception with its text
                raise WeightsRefused(
                    f"weight version {announced.version} was refused: {_line(error)}; publish it again"
                ) from None
            await self.llm.resume_generation()

    def _check_names(self, announced: Announced) -> None:
        """vLLM only warns of a tensor that is not updated, and would go on with a mixture of two versions."""
        shapes = {place.name: place.shape for place in announced.index}
        if shapes != self._shapes:
            raise WeightsRefused(
                f"weight version {announced.version} was refused: {_difference(shapes, self._shapes)}; "
                "publish the weights of the model that the engine was started with"
            )

    def _versions(self, answer: Any) -> list[int]:
        spans = answer.weight_versions or []
        versions = [int(span.version) for span in spans for _ in range(span.start, span.end)]
        return versions if len(versions) == len(answer.token_ids) else [self.weight_version] * len(answer.token_ids)


@contextlib.contextmanager
def deaths_named() -> Iterator[None]:
    """vLLM's ways to say that the engine died, as EngineDead."""
    try:
        yield
    except EngineDeadError as error:
        raise EngineDead("the engine's process died; start another engine") from error
    except EngineGenerateError as error:
        cause = error.__cause__
        raise EngineDead(f"the engine failed in a request ({_line(cause or error)}); start another engine") from error


def _end(llm: AsyncLLM) -> None:
    processes = list(llm.engine_core.resources.engine_manager.processes)
    llm.shutdown(timeout=CLOSE_S)
    for process in processes:
        process.join()


def _nothing(timeout: float | None = None) -> None:
    del timeout


def _prompt_logp(output: Any) -> list[float]:
    return list(output.prompt_logprobs.logprobs)


def _parcel_of(model_dir: Path, version: int) -> WeightParcel:
    from safetensors.torch import load_file

    files = model_files.safetensors_files(model_dir)
    return pack_weights((item for file in files for item in load_file(file).items()), version=version)


def _difference(found: model_files.TensorShapes, expected: model_files.TensorShapes) -> str:
    """The first thing that sets two models apart, in words."""
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            words = [f"shape {list(s)}" if s is not None else "none" for s in (found.get(name), expected.get(name))]
            return f"it has for {name} {words[0]}, the engine's model {words[1]}"
    return "it is the same model"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
