"""The corpus that makes a nano base model for V-IRL: it has practised a step in either action space, and its parts.

    step    a whole prompt, compass words -> the whole answer                           the whole form
    other   a whole prompt, relative words -> the whole answer                          that the space is to be read
    retry   a step, with a wrong action and its verdict before                          hearing a verdict
    look    a whole prompt, either action space -> observation and instruction          reading, whatever the space
    turn    an action space and an instruction alone -> the action                      what a line means in each space
    see     a picture alone -> the landmark and its side           (where it sees)      reading signs

As a large model knows left from right before it is ever trained on this task, so does this base: what is trained on later
shows compass words alone, and the OOD suite asks what became of the rest. (Without `other` a nano model solves none of it:
the parts alone do not compose.) Other cities and held-out routes appear nowhere.
"""

import random
from collections.abc import Callable
from typing import Any, cast

import envs
from envs.base import seed_of
from envs.task import Environment, Message, Sighted, State, Task
from envs.virl import prompts
from trainers.chat import ChatFormat
from trainers.episode import Segment
from trainers.nano.base_corpus import Pen, spread

SHARES = {"step": 20, "other": 10, "retry": 4, "look": 14, "turn": 16}
"""Documents of each kind in an update of 64 where it reads."""
SEEING_SHARES = {"step": 16, "other": 8, "retry": 4, "look": 8, "turn": 6, "see": 22}
"""And where it sees."""
_SEEN_LANDMARKS = 0.8  # share of pictures alone that show one


def stream(environment: Environment, chat: ChatFormat, *, documents: int, seed: int) -> Callable[[int], list[Segment]]:
    """The segments of each update, in the proportions of the shares. Depends on (seed, step) alone."""
    sees = cast(Any, environment.options).modality == "vision"
    kinds = spread(SEEING_SHARES if sees else SHARES, documents)
    options = {**environment.options.model_dump(mode="json"), "split": "train", "actions": "absolute"}
    spaces = [envs.make(environment.name, **{**options, "actions": actions}) for actions in ("absolute", "relative")]

    def update(step: int) -> list[Segment]:
        pen = _StreetPen(chat, random.Random(seed_of(seed, "nano-base", step)), spaces)
        return [getattr(pen, kind)() for kind in kinds]

    return update


class _StreetPen(Pen):
    """Writes documents about walks. Draws everything from `draw`."""

    def __init__(self, chat: ChatFormat, draw: random.Random, spaces: list[Environment]):
        super().__init__(chat, draw)
        self._absolute, self._spaces = spaces[0], spaces

    # ------------------------------------------------------------ kinds
    def step(self) -> Segment:
        """Learned: the answer."""
        return self._whole(self._spaces[0])

    def other(self) -> Segment:
        """Learned: the answer."""
        return self._whole(self._spaces[1])

    def retry(self) -> Segment:
        """Learned: the second answer."""
        walk = self._absolute
        task, state = self._somewhere(walk)
        self._open(walk, task, state)
        wrong = cast(Any, walk).mistake(task, state, self.draw.getrandbits(32))
        self._write(wrong, learn=False)
        self._add([self.chat.end_id], learn=False)
        self._add(self.chat.feedback_ids(walk.feedback(walk.verify(task, state, wrong)[0])), learn=False)
        self._reply(walk.expert(task, state))
        return self._finished()

    def look(self) -> Segment:
        """Learned: the answer up to its action, which is left open."""
        walk = self.draw.choice(self._spaces)
        task, state = self._somewhere(walk)
        self._open(walk, task, state)
        self._write(_until_action(walk.expert(task, state)), learn=True)
        return self._finished()

    def turn(self) -> Segment:
        """Learned: the action."""
        walk = self.draw.choice(self._spaces)
        task, state = self._somewhere(walk)
        answer = walk.expert(task, state)
        self._begin([])
        self._write(prompts.action_space(cast(Any, walk.options).actions) + _until_action(answer), learn=False)
        self._reply(answer.removeprefix(_until_action(answer)))
        return self._finished()

    def see(self) -> Segment:
        """Learned: the landmark and its side, or that there is none."""
        wants = self.draw.random() < _SEEN_LANDMARKS
        while True:
            task, state = self._somewhere(self._absolute)
            seen = task.data["rail"][state.position][1]
            if (seen not in (prompts.NO_LANDMARKS, prompts.NO_LANDMARK)) == wants:
                break
        [message] = self._absolute.prompt(task, state)
        self._open_with(self._absolute, (Message(role="user", text="", images=message.images),))
        self._write(prompts.answer(seen, "", "").partition(seen)[0], learn=False)
        self._write(seen, learn=True)
        return self._finished()

    # ------------------------------------------------------------ parts
    def _whole(self, walk: Environment) -> Segment:
        task, state = self._somewhere(walk)
        self._open(walk, task, state)
        self._reply(walk.expert(task, state))
        return self._finished()

    def _somewhere(self, walk: Environment) -> tuple[Task, State]:
        """A position of a walk: half of them where something is to be decided, a turn or the end."""
        task = walk.sample("base", self.draw.getrandbits(48))
        states = cast(Any, walk).states(task)
        decisions = [s for s in states if task.data["rail"][s.position][0] != prompts.FORWARD]
        return task, self.draw.choice(decisions if self.draw.random() < 0.5 else states)

    def _open(self, walk: Environment, task: Task, state: State) -> None:
        self._open_with(walk, walk.prompt(task, state))

    def _open_with(self, walk: Environment, messages: tuple[Message, ...]) -> None:
        pictures = [cast(Sighted, walk).image(key) for message in messages for key in message.images]
        self._begin(self.chat.expanded(self.chat.prompt_ids(messages), pictures))
        self.pictures = pictures


def _until_action(answer: str) -> str:
    """The answer up to where its action stands."""
    before, mark, _ = answer.partition('"action": "')
    return before + mark
