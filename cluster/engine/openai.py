"""OpenAI's chat and text completions over one engine: vLLM's own serving classes, without a web framework."""

from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError
from pydantic import BaseModel, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GenerationError, GracefulHTTPError, VLLMClientError
from vllm.renderers.online_renderer import OnlineRenderer

from cluster.engine.engine import Engine, deaths_named

Answer = dict[str, Any] | AsyncGenerator[str, None]
"""A response body, or server-sent events. A refusal is a body with an `error` whose `code` is the HTTP status."""

CALLERS_FAULTS = (VLLMClientError, GracefulHTTPError, GenerationError, ValueError, TypeError, OverflowError,
                  NotImplementedError, TemplateError)  # fmt: skip
"""What vLLM raises of a request it cannot serve; its own server answers these with a status, and so does this."""

_asked_name: ContextVar[str] = ContextVar("asked_name")


class OpenAi:
    """Any model name is taken and given back: which checkpoint it means was settled before the request came here.

    A request that names no number of tokens gets `max_tokens` at most, and never more than the model's length has room for.
    """

    def __init__(self, engine: Engine, *, max_tokens: int):
        llm, config = engine.llm, engine.llm.model_config
        self._engine = engine
        models = _AnyName(llm, [BaseModelPath(name=config.model, model_path=config.model)])
        renderer = OnlineRenderer(
            config, llm.renderer, request_logger=None, chat_template=None, chat_template_content_format="auto"
        )
        self._chat = OpenAIServingChat(
            llm, models, "assistant", online_renderer=renderer, request_logger=None, chat_template=None,
            chat_template_content_format="auto",
        )  # fmt: skip
        self._completion = OpenAIServingCompletion(llm, models, online_renderer=renderer, request_logger=None)
        self._chat.default_sampling_params["max_tokens"] = max_tokens

    async def chat(self, body: dict[str, Any]) -> Answer:
        """`POST /v1/chat/completions`. Closing the stream, or cancelling the call, aborts the engine's work.

        Raises:
            EngineDead, WeightsRefused: see `Engine.generate`.
        """
        return await self._serve(ChatCompletionRequest, self._chat.create_chat_completion, body)

    async def completion(self, body: dict[str, Any]) -> Answer:
        """`POST /v1/completions`; otherwise as `chat`."""
        return await self._serve(CompletionRequest, self._completion.create_completion, body)

    async def _serve(self, kind: type[BaseModel], create: Any, body: dict[str, Any]) -> Answer:
        self._engine.require_weights()
        try:
            request = kind.model_validate(body)
        except ValidationError as error:
            return create_error_response(_first_problem(error)).model_dump()
        _asked_name.set(str(body.get("model") or ""))
        try:
            with deaths_named():
                answer = await create(request)
        except CALLERS_FAULTS as error:
            return create_error_response(error).model_dump()
        if isinstance(answer, ErrorResponse):
            await self._engine.check_health()
        return answer.model_dump() if isinstance(answer, BaseModel) else answer


class _AnyName(OpenAIServingModels):
    """Serves under the name that the request gave."""

    def is_base_model(self, model_name: str) -> bool:  # noqa: ARG002  # vLLM's signature
        return True

    def model_name(self, lora_request: Any = None) -> str:
        return _asked_name.get("") or super().model_name(lora_request)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "body"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}"
