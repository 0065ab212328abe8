"""Episodes for tests that are not about playing them."""

import numpy as np

from envs.task import Status, Task
from trainers.episode import Episode, Segment, Turn, Usage


def plain_episode(index: int = 0, *, step: int = 1) -> Episode:
    """Two turns on one hand, wrong then right: tokens P P A A F F A A."""
    turns = (
        Turn(
            start=2, stop=4, reward=-1.0, status=Status.WRONG_VALUE, answer="7*7", feedback="no", finish_reason="stop"
        ),
        Turn(start=6, stop=8, reward=5.0, status=Status.CORRECT, answer="24", feedback="yes", finish_reason="stop"),
    )
    sampled = np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    segment = Segment(
        token_ids=np.arange(8, dtype=np.int32),
        sampled=sampled,
        engine_logp=np.where(sampled, np.float32(-0.25), np.float32(0)),
        weight_versions=np.where(sampled, 3, -1).astype(np.int32),
        turns=turns,
    )
    usage = Usage(prefill_tokens=4, cached_tokens=0, sampled_tokens=4, generate_s=0.5, verify_s=0.25)
    task = Task(environment="general_points", options={"target": 24}, id="C7-CK", data={"cards": ["C7", "CK"]})
    return Episode(
        step=step,
        index=index,
        task=task,
        segments=(segment,),
        terminated=True,
        truncated=False,
        usage=usage,
        worker="w0",
    )


def assert_same(found: Episode, expected: Episode) -> None:
    """Equal field by field; arrays bit by bit, so NaN equals NaN."""
    for name in ("step", "index", "task", "terminated", "truncated", "usage", "worker"):
        assert getattr(found, name) == getattr(expected, name)
    assert len(found.segments) == len(expected.segments)
    for mine, theirs in zip(found.segments, expected.segments, strict=True):
        assert (mine.turns, mine.images) == (theirs.turns, theirs.images)
        for name in ("token_ids", "sampled", "engine_logp", "weight_versions"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
