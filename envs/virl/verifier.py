"""Judges an answer: (position, text) -> Verdict, each of them made beforehand. Pure and bounded.

| what is answered                                                                  | reward | status            |
|-----------------------------------------------------------------------------------|--------|-------------------|
| the right action                                                                  | +1     | correct           |
| another, while observing an intersection where there is none, or none where there is | -1.5 | wrong_recognition |
| another                                                                           | -1     | wrong_action      |
| anything, with no attempts left                                                   | -1     | limit             |

What the answer says of its observation and instruction counts for nothing where the action is right.
"""

from dataclasses import replace

from envs.answers import text_field
from envs.task import Status, Verdict
from envs.virl import prompts

CLAIM = "intersection"

CORRECT = Verdict(reward=1.0, status=Status.CORRECT, feedback=prompts.CORRECT)
ARRIVED = replace(CORRECT, terminated=True)
LIMIT = Verdict(reward=-1.0, status=Status.LIMIT, feedback=prompts.LIMIT, truncated=True)


class Verifier:
    """The verdicts of one variant."""

    def __init__(self, *, rewards: str, legacy_intersections: bool):
        """
        Args:
            rewards: `paper` truncates an episode with its last attempt; `reference` doubles the braces in its messages.
            legacy_intersections: read off the landmark, as the original does, whether there is an intersection.
        """
        self._legacy = legacy_intersections
        doubled = rewards == "reference"
        wrong = Verdict(reward=-1.0, status=Status.WRONG_ACTION, feedback=prompts.wrong_action(doubled=doubled))
        unseen = Verdict(
            reward=-1.5, status=Status.WRONG_RECOGNITION, feedback=prompts.not_at_intersection(doubled=doubled)
        )
        missed = replace(unseen, feedback=prompts.at_intersection(doubled=doubled))
        self._faults = (wrong, unseen, missed)
        self._last_faults = tuple(replace(fault, truncated=rewards == "paper") for fault in self._faults)

    def judge(self, action: str, landmark: str, is_intersection: bool, attempts_left: int, answer: str) -> Verdict:
        """Args: action: the right one; landmark: what is observed there; is_intersection: whether it is one."""
        if attempts_left <= 0:
            return LIMIT
        if text_field(answer, "action") == action:
            return ARRIVED if action == prompts.STOP else CORRECT
        fault = self._fault(landmark, is_intersection, text_field(answer, "current observation"))
        return (self._faults if attempts_left > 1 else self._last_faults)[fault]

    def _fault(self, landmark: str, is_intersection: bool, observed: str) -> int:
        """0 for the action alone, 1 for an intersection that is not there, 2 for one that is not observed."""
        if self._legacy:
            claims, is_there = CLAIM in observed, CLAIM in landmark
        else:  # a landmark may be named so
            claims, is_there = CLAIM in observed.replace(landmark, ""), is_intersection
        return 0 if claims == is_there else 1 if claims else 2
