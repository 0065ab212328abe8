"""ServiceConfig: what is served, where, to whom, and within which limits. Imports without torch, Ray and vLLM."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cluster.config import EngineConfig
from envs import suites
from envs.base import Config, ViterError
from trainers.config import without_keys

SERVED_ENGINE = EngineConfig(max_num_seqs=128)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LimitsConfig(Config):
    """What one client may ask for."""

    body_bytes: int = Field(1 << 20, ge=1024)
    """Largest request body; a larger one is answered 413 before it is read."""
    body_s: float = Field(10.0, gt=0)
    """Seconds within which a body must have come; a slower one is answered 408."""
    deadline_s: float = Field(120.0, gt=0)
    """Seconds a request may take, streaming included. No header of the client's changes it."""
    max_tokens: int = Field(4096, ge=1)
    """Most tokens a request may ask for; one that names no number gets these, as far as the model's length goes."""
    choices: int = Field(16, ge=1)
    """Most completions of one prompt (`n`), and most prompts of one completion request."""
    images: int = Field(8, ge=0)
    """Most images of one request; each comes within it, as a data: URI."""
    image_pixels: int = Field(1 << 22, ge=1)
    """Most pixels of an image: a small file can unfold into gigabytes."""
    answers: int = Field(256, ge=1)
    """Most answers of one verify request."""
    requests: int = Field(256, ge=1)
    """Completions and episodes answered at once; one more is told 429 and when to come back."""
    streams: int = Field(64, ge=1)
    """Event streams followed at once: they last, so they take no places of `requests`."""
    calls: int = Field(64, ge=1)
    """Every other request answered at once."""
    token_share: float = Field(0.75, gt=0, le=1)
    """Share of each of these that one token may hold, so that others still get in."""
    evaluations: int = Field(64, ge=1)
    """Evaluations queued or running; one more is told 429."""


class EvaluateNew(Config):
    """How each checkpoint is measured that is committed while the service runs."""

    n: int = Field(64, ge=1, le=2000)
    """Tasks of each suite."""
    viter: int = Field(5, ge=1, le=50)
    """Judged attempts per state."""
    suites: tuple[str, ...] = ()
    """Suites by name; empty takes the first ID and the first OOD suite of what a checkpoint trained on."""

    @field_validator("suites")
    @classmethod
    def _suites_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                suites.check(name)
            except ViterError as error:
                raise ValueError(str(error)) from None
        return names


class ServiceConfig(Config):
    """One service over one store of checkpoints."""

    store: Annotated[str, AfterValidator(without_keys)] = "runs"
    """The store whose checkpoints are served: a local directory or any pyarrow.fs URI."""
    state: str | None = None
    """Local directory of token hashes, and of what reading checkpoints has shown (`service/`). Null is the
    store itself, which must then be a local directory."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """Port of the Prometheus metrics of a Ray that the service starts itself; null takes a free one. A cluster that
    runs already has its own on every node, by `ray start --metrics-export-port`."""
    logs: Literal["json", "text"] = "json"
    """Form of the lines in Serve's log files, one for each request."""
    auth: Literal["token", "none"] = "token"
    """`token` asks every request for a bearer token, but those for health, the page and the API's documents; `none` is for
    loopback alone, and refuses requests that name another host."""
    tokens: str | None = None
    """File of token hashes to read instead of `state`'s `service/tokens.json`: the one to mount from a secret, so that
    every node knows the same tokens. It is made by `viter token create`, in any directory; the service never writes it."""
    engine: EngineConfig = SERVED_ENGINE
    """The engine of each replica."""
    replicas: int = Field(1, ge=1)
    """Engine replicas: one engine each."""
    max_replicas: int | None = Field(None, ge=1)
    """Replicas are added up to these while requests pile up, and taken away again. Null keeps to `replicas`."""
    replica_cpus: float = Field(1.0, gt=0)
    """CPUs a replica reserves."""
    replica_gpus: float = Field(0.0, ge=0)
    """GPUs a replica reserves; its engine's `tensor_parallel`."""
    verifiers: int = Field(1, ge=1)
    """Verifier processes of each replica: what evaluations and episodes are judged by."""
    warm: str | None = None
    """Checkpoint the engines load first, e.g. `run@latest`. Null takes the newest of the store."""
    patience_s: float = Field(1.0, ge=0)
    """How long requests for the loaded checkpoint may overtake one that waits for another checkpoint."""
    episodes_in_flight: int = Field(128, ge=1)
    """Episodes an evaluation plays at once on a replica."""
    evaluate_new: EvaluateNew | None = None
    """Evaluations of each new checkpoint that the service orders by itself; they wait while others do. Null orders none."""
    training: bool = True
    """Runs are trained over HTTP, as Ray jobs. False lists them alone; a Ray of the service's own then has no dashboard."""
    jobs: str | None = None
    """Dashboard of the Ray cluster that trains, e.g. http://head:8265. Null is the cluster that the service runs on."""
    limits: LimitsConfig = LimitsConfig()
    """What one client may ask for."""

    @model_validator(mode="after")
    def _is_safe_and_complete(self) -> Self:
        if self.auth == "none" and self.host not in LOOPBACK:
            raise ValueError(
                f"auth 'none' would open {self.host} to everybody; keep auth 'token', or listen on 127.0.0.1"
            )
        if self.state is None and "://" in self.store:
            raise ValueError(f"the store {self.store} is remote; name a local directory for tokens in `state`")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is less than replicas={self.replicas}")
        return self

    @property
    def state_directory(self) -> Path:
        """Where tokens lie."""
        return Path(self.state or self.store).expanduser().absolute()

    @property
    def tokens_path(self) -> Path:
        """The file of token hashes, or the directory of `tokens.json`."""
        return Path(self.tokens).expanduser().absolute() if self.tokens else self.state_directory / "service"

    def anchored(self) -> Self:
        """The same with absolute paths, for processes that start elsewhere."""
        update: dict[str, str] = {"state": str(self.state_directory)}
        if self.tokens:
            update["tokens"] = str(self.tokens_path)
        if "://" not in self.store:
            update["store"] = str(Path(self.store).expanduser().absolute())
        return self.model_copy(update=update)
