"""What plays in these tests in place of an engine: small, deterministic, and honest about tokens."""

import asyncio
from collections.abc import Sequence

import envs
from cluster.engine.reply import Reply
from cluster.rollout import Verify
from envs.base import seed_of
from envs.task import Environment, State, Task, Verdict
from trainers.chat import ChatFormat
from trainers.nano.phrases import phrases
from trainers.nano.tokenizer import build

WRONG = "I do not know."


def chat_format() -> ChatFormat:
    return ChatFormat(build(phrases()), source="nano")


def game(**options: object) -> Environment:
    return envs.make("general_points", **{"viter": 3, **options})


def here(environment: Environment) -> Verify:
    """Verdicts in this process."""

    async def verify(task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        return environment.verify(task, state, answer)

    return verify


class Script:
    """Says the given texts one after another, whatever it is asked; remembers what it was asked."""

    def __init__(self, chat: ChatFormat, texts: Sequence[str], *, finish_reason: str = "stop"):
        self._chat, self._texts, self._finish = chat, list(texts), finish_reason
        self.histories: list[list[int]] = []
        self.seeds: list[int] = []

    async def __call__(
        self, token_ids, *, seed, temperature, max_tokens, stop_ids, pictures=(), banned_ids=()
    ) -> Reply:
        self.histories.append(list(token_ids))
        self.seeds.append(seed)
        ids = self._chat.reply_ids(self._texts[len(self.seeds) - 1])
        if self._finish == "length":
            ids = ids[:-1]
        return reply(ids, prompt_tokens=len(token_ids), finish_reason=self._finish)


class WrongThenRight:
    """An engine that answers each task as its seed says: wrong for some turns, then as the expert would.

    It knows the task by its prompt. Like a real engine it is a function of history and seed alone, takes its time, and
    marks every token with the version of its weights.
    """

    def __init__(self, environment: Environment, chat: ChatFormat, tasks: Sequence[Task], *, turn_s: float = 0.0):
        self._chat, self._turn_s = chat, turn_s
        self._answers = {}
        for task in tasks:
            state = environment.start(task)
            prompt = tuple(chat.prompt_ids(environment.prompt(task, state)))
            self._answers[prompt] = chat.reply_ids(environment.expert(task, state, 0))
        self._wrong = chat.reply_ids(WRONG)
        self.weight_version = 0
        self.calls = 0
        self.is_dead = False

    async def generate(
        self, token_ids, *, seed, temperature, max_tokens, stop_ids, pictures=(), banned_ids=()
    ) -> Reply:
        self.calls += 1
        await asyncio.sleep(self._turn_s * (seed % 7))
        is_right = seed_of(seed, "luck") % 3 == 0
        right = next((a for p, a in self._answers.items() if tuple(token_ids[: len(p)]) == p), self._wrong)
        ids = right if is_right else self._wrong
        return reply(ids, prompt_tokens=len(token_ids), version=self.weight_version)

    async def check_health(self) -> None:
        if self.is_dead:
            raise RuntimeError("the engine is dead")


def reply(ids: Sequence[int], *, prompt_tokens: int, version: int = 0, finish_reason: str = "stop") -> Reply:
    return Reply(
        token_ids=list(ids),
        logp=[-0.5 - 0.01 * place for place in range(len(ids))],
        weight_versions=[version] * len(ids),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        cached_tokens=0,
    )
