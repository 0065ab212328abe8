"""Settings of the learning: model, learner, SFT, PPO, store. Imports without torch."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_serializer, field_validator, model_validator

from envs.base import Config
from trainers import curriculum

CORPORA = ("expert", "nano-base")
"""The corpora that are no files."""


class ModelConfig(Config):
    """The language model and where it starts."""

    source: str = "nano"
    """Where the weights come from: `nano` (a small model made from scratch, which sees where the environment's modality
    is vision), a Hugging Face directory or hub name, or a checkpoint of the store as `RUN@step-000040` or `RUN@latest`."""
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Digest that the starting weights must have; null does not check."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of the learner's forward and backward passes, and the type of the published weights."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers. `flash_attention_2` needs a GPU and its package."""
    freeze: tuple[Literal["vision", "projector", "language"], ...] = ()
    """Parts of a vision-language model that keep their weights: the vision tower, the projector between the two, or the
    language model. Empty trains all."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


class LearnerConfig(Config):
    """How DeepSpeed updates the weights."""

    workers: int = Field(1, ge=1)
    """Learner ranks: Ray Train workers, each one process with one device."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage: 0 replicates, 1 shards optimizer state, 2 gradients too, 3 parameters too; bfloat16 makes 0 a 1."""
    offload_optimizer: bool = False
    """Keep optimizer state in host memory (ZeRO 1-3 on GPUs)."""
    row_tokens: int = Field(1024, ge=16)
    """Tokens of one packed row: the unit of a forward pass. At least the longest segment: close to it on CPU, where
    attention costs the square of a row, and several times it on GPUs."""
    rows_per_pass: int = Field(1, ge=1)
    """Packed rows in one forward and backward pass."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Global gradient norm above which the gradient is scaled down."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's moments."""
    adam_eps: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""


class ScheduleConfig(Config):
    """The learning rate over optimizer updates: linear warm-up, a plateau, then a decay to a floor."""

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    warmup_updates: int = Field(0, ge=0)
    """Optimizer updates of linear warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the plateau."""
    plateau: float = Field(0.0, ge=0, le=1)
    """Share of all updates, warm-up included, before the decay starts."""
    floor: float = Field(0.0, ge=0, le=1)
    """Final learning rate as a share of the peak."""


class SftConfig(Config):
    """Supervised fine-tuning on expert answers."""

    steps: int = Field(100, ge=1)
    """Optimizer updates."""
    documents: int = Field(64, ge=1)
    """Documents per update, over all learner ranks."""
    corpus: str = "expert"
    """`expert` (the environment's oracle), `nano-base` (the corpus that makes a nano base model), or a Parquet or
    JSON-lines file with an OpenAI `messages` column."""
    deals: int | None = Field(None, ge=1)
    """Only this many distinct tasks, repeated; null draws new ones without end."""
    retry_share: float = Field(0.0, ge=0, le=1)
    """Share of expert documents that hold a failed attempt and its feedback before the answer."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate of all weights."""
    seed: int = 0
    """Names every draw of the corpus."""
    checkpoint_every: int = Field(100, ge=1)
    """Updates between checkpoints; the last update is always one."""


class PpoConfig(Config):
    """How the policy learns from episodes."""

    steps: int = Field(20, ge=1)
    """Rounds of collect, learn, publish."""
    episodes: int = Field(256, ge=1)
    """Episodes per step, over all learner ranks."""
    viter: curriculum.Iterations = 5
    """Verification iterations: judged attempts per state. A number, or a curriculum of pairs [steps done, iterations]:
    `[[0, 1], [6, 3], [12, 5]]` is 1 at first, 3 after 6 steps and 5 after 12."""
    deals: int | None = Field(None, ge=1)
    """Only this many distinct tasks, repeated; null draws new ones without end."""
    profile: Literal["paper", "reference"] = "paper"
    """`paper` is PPO as written; `reference` is the original code's estimator: one ratio per response, weighted by
    `thought_weight`, and returns that run on past a truncated episode into the next."""
    unit: Literal["turn", "token"] = "turn"
    """The time step: one value and one advantage per turn, or per sampled token."""
    gamma: float = Field(0.9, ge=0, le=1)
    """Discount per turn, never per token: 0.9 to the power of a 200-token answer is nothing."""
    lam: float = Field(0.95, ge=0, le=1)
    """Decay of the generalised advantage estimate, per time step."""
    reward_scale: float = Field(1.0, gt=0)
    """Factor on every verdict's reward."""
    clip: float = Field(0.2, gt=0)
    """Half-width of the policy ratio's trust region."""
    value_clip: float | None = Field(0.2, gt=0)
    """Half-width of the critic's trust region, in value units; null does not clip."""
    value_coef: float = Field(0.5, ge=0)
    """Weight of the value loss."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the entropy bonus."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the KL penalty to the starting policy; above 0 a frozen copy of it is held."""
    thought_weight: float = Field(0.5, ge=0)
    """`reference` only: weight of the log-probs before the answer's `"formula":` or `"action":` key."""
    epochs: int = Field(2, ge=1)
    """Passes over a step's episodes."""
    minibatches: int = Field(4, ge=1)
    """Optimizer updates per pass."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; the learner divides logits by the same."""
    answer_tokens: int = Field(512, ge=1)
    """Longest response, in tokens."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate of the policy."""
    critic_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the value head."""
    critic_detached: bool = False
    """Stop the critic's gradient at the trunk."""
    critic_warmup_steps: int = Field(0, ge=0)
    """First steps that train the critic alone."""
    max_staleness: int = Field(0, ge=0)
    """Learner steps that an episode's weights may lag behind: 0 is synchronous PPO."""
    importance_cap: float = Field(2.0, ge=1)
    """Cap of the truncated importance weight between sampling and training policy; read where `max_staleness` > 0."""
    response_bound: float | None = Field(2.0, gt=1)
    """Responses whose mean ratio per token between training and sampling policy lies outside [1/bound, bound] are left out
    of the policy loss; null keeps all. Read where `max_staleness` > 0."""
    probe_tolerance: float = Field(0.05, gt=0)
    """Largest mean gap between learner and engine log-probs, in nats, after a weight sync; above it the run stops."""
    seed: int = 0
    """Names every draw of tasks, tokens and minibatches."""
    checkpoint_every: int = Field(10, ge=1)
    """Steps between checkpoints; the last step is always one."""

    @field_serializer("viter")  # by what it is: pydantic's serializer of this union warns of its own lists in JSON
    def _viter_as_it_is(self, value: Any) -> Any:
        return value

    @field_validator("viter", mode="plain")  # one sentence, where a union's validator would have one for each member
    @classmethod
    def _viter_is_a_number_or_a_curriculum(cls, value: Any, info: ValidationInfo) -> curriculum.Iterations:
        return curriculum.parsed(value, steps=info.data.get("steps"))

    @model_validator(mode="after")
    def _minibatches_are_equal(self) -> Self:
        if self.episodes % self.minibatches:
            raise ValueError(f"minibatches={self.minibatches} does not divide episodes={self.episodes}")
        return self

    @model_validator(mode="after")
    def _the_reference_is_synchronous(self) -> Self:
        if self.profile == "reference" and self.max_staleness:
            raise ValueError(
                f"profile=reference has no correction for stale episodes: set max_staleness={self.max_staleness} to 0, "
                "or use profile=paper"
            )
        return self


def without_keys(uri: str) -> str:
    """A store's URI that holds no keys to it: every run would keep them in its files. Raises ValueError."""
    if urlsplit(uri).password:
        raise ValueError(
            "leave keys out of it, where every run would keep them; AWS_ACCESS_KEY_ID and the like are read"
        )
    return uri


class StoreConfig(Config):
    """Where runs live."""

    uri: Annotated[str, AfterValidator(without_keys)] = "runs"
    """A local directory or any pyarrow.fs URI (`s3://bucket/prefix`), without the keys to it."""
    keep_last: int = Field(100, ge=1)
    """Newest checkpoints of a run that keep their learner state; older ones keep the model alone."""
