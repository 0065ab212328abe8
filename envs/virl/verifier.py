"""Judges an action: (position, text) -> Verdict, all of them made beforehand. Pure and bounded.

| what is answered                                            | reward | status            |
|-------------------------------------------------------------|--------|-------------------|
| the right action                                            | +1     | correct           |
| another one, while claiming an intersection that is not there, or none where there is one | -1.5 | wrong_recognition |
| another one                                                 | -1     | wrong_action      |
| nothing is judged any more                                  | -1     | limit             |

What the answer says of its observation and instruction counts for nothing where the action is right.
"""

from dataclasses import dataclass

from envs.answers import text_field
from envs.task import Status
from envs.virl import prompts

CLAIM = "intersection"


@dataclass(frozen=True, slots=True)
class Grade:
    """Reward, status and words for one answer."""

    reward: float
    status: Status
    feedback: str


CORRECT = Grade(1.0, Status.CORRECT, prompts.CORRECT)
LIMIT = Grade(-1.0, Status.LIMIT, prompts.LIMIT)


class Grader:
    """The verdicts of one variant."""

    def __init__(self, *, doubled: bool, legacy_intersections: bool):
        """Args: doubled: braces stand twice in messages; legacy_intersections: see `VirlOptions`."""
        self._legacy = legacy_intersections
        self._wrong = Grade(-1.0, Status.WRONG_ACTION, prompts.wrong_action(doubled=doubled))
        self._not_at = Grade(-1.5, Status.WRONG_RECOGNITION, prompts.not_at_intersection(doubled=doubled))
        self._at = Grade(-1.5, Status.WRONG_RECOGNITION, prompts.at_intersection(doubled=doubled))

    def grade(self, action: str, landmark: str, is_intersection: bool, answer: str) -> Grade:
        """Args: action: the right one; landmark: what is observed there; is_intersection: whether it is one."""
        if text_field(answer, "action") == action:
            return CORRECT
        claims = CLAIM in text_field(answer, "current observation")
        is_there = CLAIM in landmark if self._legacy else is_intersection
        if claims == is_there:
            return self._wrong
        return self._not_at if claims else self._at
