"""What plays on the head of a rig while nodes are killed and links cut: steps, each told as a line of JSON.

    python -m services.chaos.afar MODEL WORKERS MOST EPISODES STALENESS SEED [TOKENS_PER_S]     until standard input ends

A line holds the step, whether its episodes are those expected, the seconds it took, sums, and events.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from services.chaos import play, stand_in


def main(words: Sequence[str]) -> None:
    """See the module."""
    import ray
    from ray.exceptions import ObjectLostError

    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    ray.init(log_to_driver=False, logging_level="error")
    workers, most, episodes, staleness, seed = (int(word) for word in words[1:6])
    tokens_per_s = float(words[6]) if len(words) > 6 else None
    of = play.config(
        Path(words[0]), seed=seed, steps=100_000, workers=workers, max_workers=most, episodes=episodes, staleness=staleness,
        in_flight=16, rollout_cpus=1.5,
    )  # fmt: skip
    with play.playing(of, actor=stand_in.actor(tokens_per_s=tokens_per_s)) as run:
        step = again = 0
        while not over.is_set():
            started = time.monotonic()
            try:
                home = run.step(step)
            except ObjectLostError:  # a node went with episodes on it: as a learner would, publish and take again
                again += 1
                continue
            line = {
                "step": step,
                "as_expected": tokens_per_s is not None or play.told(home) == play.expected(of, step),
                "seconds": time.monotonic() - started,
                "again": again,
                "stats": run.stats(),
                "events": [{**e.fields, "kind": e.kind, "time": e.time} for e in run.events()],
            }
            print(json.dumps(line, default=str), flush=True)
            step += 1


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main(sys.argv[1:])
