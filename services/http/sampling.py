"""What a completion request may hold, field by field: OpenAI's, and those of vLLM's own that are safe to give away.

A field stands either in a model below, with its bounds, or in `REFUSED`, with the reason; anything else is unknown and
refused too, so that what a later vLLM adds is closed until somebody looked at it. A test holds this list against the
installed vLLM. Null means left out, as it does to OpenAI.
"""

import base64
import binascii
import io
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from services.config import LimitsConfig
from services.http.problems import TooMuch

GRAMMAR = "a grammar is compiled beside the engine, and a hostile one holds up everybody; judge the answer instead"
RENDERED = "it goes into the chat template, which was trained without it"
CONNECTOR = "it moves caches between engines, and is not for clients"
PIXELS = "it changes how images are read, to any size"
TOOLS = "no checkpoint here has learned to call tools"
REASONING = "no reasoning parser is configured"
RENDER_ONLY = "it belongs to vLLM's rendering routes, which are not served"
REFUSED = {
    "structured_outputs": GRAMMAR,
    "guided_json": GRAMMAR,
    "guided_regex": GRAMMAR,
    "guided_choice": GRAMMAR,
    "guided_grammar": GRAMMAR,
    "guided_decoding_backend": GRAMMAR,
    "guided_whitespace_pattern": GRAMMAR,
    "chat_template": "a template is a program that the server would run; the checkpoint's own is used",
    "chat_template_kwargs": RENDERED,
    "documents": RENDERED,
    "tools": TOOLS,
    "tool_choice": TOOLS,
    "parallel_tool_calls": TOOLS,
    "reasoning_effort": REASONING,
    "include_reasoning": REASONING,
    "thinking_token_budget": REASONING,
    "media_io_kwargs": PIXELS,
    "mm_processor_kwargs": PIXELS,
    "prompt_embeds": "it is a tensor to deserialise, and goes around the tokenizer",
    "use_beam_search": "beams multiply the work of a request; ask for `n` answers",
    "length_penalty": "only beam search reads it",
    "priority": "requests are answered in the order they come",
    "request_id": "two of the same would meet in the engine; send the header X-Request-Id",
    "session_id": CONNECTOR,
    "kv_transfer_params": CONNECTOR,
    "ec_transfer_params": CONNECTOR,
    "vllm_xargs": "it reaches extensions of the engine unchecked",
    "logprob_token_ids": "ask for `top_logprobs` or `logprobs`",
    "allowed_token_ids": "a mask over the vocabulary for every request; use `logit_bias`",
    "bad_words": "it is searched in Python at every token; use `logit_bias`",
    "repetition_detection": "it is searched in Python at every token; `max_tokens` ends an answer",
    "watermarking": "it changes the distribution that is measured here",
    "routed_experts_prompt_start": "routed experts are not returned",
    "return_token_offsets": RENDER_ONLY,
    "mm_payload": RENDER_ONLY,
    "return_mm_kwargs": RENDER_ONLY,
    "suffix": "no checkpoint here fills in the middle",
}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow reads many more, some by starting other programs
DATA_URI = "data:image/"

Penalty = Annotated[float, Field(ge=-2, le=2)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "text"


class Part(BaseModel):
    """What stands in a request. Null means left out."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class TextPart(Part):
    """A text."""

    type: Literal["text"]
    text: str


class ImageUrl(Part):
    """An image within the request."""

    url: str = Field(pattern=f"^{DATA_URI}")
    """`data:image/png;base64,…`, JPEG or WebP too. Nothing is fetched from anywhere."""
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Part):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


ContentParts = Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(fail_fast=True)]
Stop = Annotated[
    Annotated[StopText, Tag("text")] | Annotated[list[StopText], Field(max_length=4), Tag("list")],
    Discriminator(_is_list),
]


class Message(Part):
    """One turn of the conversation. What OpenAI's clients give back of an answer and is empty is left out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[ContentParts, Field(max_length=256), Tag("list")],
        Discriminator(_is_list),
    ]
    name: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_is_left_out(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item != []} if isinstance(value, dict) else value


class ResponseFormat(Part):
    """Text alone: JSON and schemas are grammars."""

    type: Literal["text"]


class StreamOptions(Part):
    """What a stream tells besides the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class SamplingRequest(Part):
    """What both routes take. A number that is left out is vLLM's, or the model's own."""

    model: str = Field(min_length=1, max_length=400)
    """A checkpoint, e.g. run@step-000040 or run@latest; GET /v1/models lists them."""
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=0)
    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=64)
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, max_length=300)
    prompt_logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: int | None = Field(None, ge=1, le=1024)
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1, lt=2**31)
    truncation_side: Literal["left", "right"] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: ResponseFormat | None = None
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    user: str | None = Field(None, max_length=256)

    @property
    def asked(self) -> dict[str, Any]:
        """The request as vLLM takes it: what the client named, and nothing else."""
        return self.model_dump(exclude_unset=True)

    def within(self, limits: LimitsConfig) -> None:
        """Returns if it asks for no more than the service gives.

        Raises:
            TooMuch: names the field, the value and what is allowed.
        """
        at_most(self.n, limits.choices, "n")
        at_most(self.max_tokens, limits.max_tokens, "max_tokens")
        at_most(self.min_tokens, limits.max_tokens, "min_tokens")


class ChatRequest(SamplingRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    return_prompt_text: bool | None = None

    def within(self, limits: LimitsConfig) -> None:
        super().within(limits)
        at_most(self.max_completion_tokens, limits.max_tokens, "max_completion_tokens")
        images = list(self._images())
        at_most(len(images), limits.images, "messages")
        for place, uri in images:
            check_image(uri, place, limits.image_pixels)

    def _images(self) -> Iterator[tuple[str, str]]:
        for turn, message in enumerate(self.messages):
            for number, part in enumerate(message.content if isinstance(message.content, list) else []):
                if isinstance(part, ImagePart):
                    yield f"messages.{turn}.content.{number}.image_url.url", part.image_url.url


def _kind_of_prompt(value: Any) -> str:
    if not isinstance(value, list):
        return "text"
    first = value[0] if value else ""
    return "lists" if isinstance(first, list) else "ids" if isinstance(first, int) else "texts"


class CompletionRequest(SamplingRequest):
    """`POST /v1/completions`."""

    prompt: Annotated[
        Annotated[str, Tag("text")]
        | Annotated[list[str], Field(fail_fast=True), Tag("texts")]
        | Annotated[TokenIds, Tag("ids")]
        | Annotated[list[TokenIds], Field(fail_fast=True), Tag("lists")],
        Discriminator(_kind_of_prompt),
    ]
    logprobs: int | None = Field(None, ge=0, le=20)

    def within(self, limits: LimitsConfig) -> None:
        super().within(limits)
        if isinstance(self.prompt, list) and _kind_of_prompt(self.prompt) != "ids":
            at_most(len(self.prompt), limits.choices, "prompt")


def check_image(uri: str, place: str, most_pixels: int) -> None:
    """Returns if a data: URI holds an image that may be decoded. Only its header is read here.

    Raises:
        TooMuch: it is none, or too large unfolded.
    """
    head, _, data = uri.partition(",")
    if not head.endswith(";base64"):
        raise TooMuch(f"{place}: an image comes as data:image/png;base64,… (or jpeg, webp)")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=IMAGE_FORMATS)
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise TooMuch(f"{place}: not a PNG, JPEG or WebP image in base64") from None
    width, height = image.size
    if width * height > most_pixels:
        raise TooMuch(f"{place}: {width}x{height} pixels are more than {most_pixels}, the most this service reads")


def at_most(asked: int | None, most: int, field: str) -> None:
    """Returns if `asked` is within the service's limit.

    Raises:
        TooMuch: it is not.
    """
    if asked is not None and asked > most:
        raise TooMuch(f"{field}: {asked} is more than {most}, the most this service gives; ask for less")
