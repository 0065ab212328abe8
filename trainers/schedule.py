"""The learning rate as a function of the optimizer updates that were applied."""

import math

from trainers.config import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, update: int, total_updates: int) -> float:
    """The rate of update number `update` (from 0) of `total_updates`: warm-up, plateau, decay, then the floor.

    A pure function of the count, so a restored run needs no scheduler state, and skipped updates do not count.
    """
    if update < schedule.warmup_updates:
        return schedule.learning_rate * (update + 1) / schedule.warmup_updates
    start = max(schedule.warmup_updates, round(schedule.plateau * total_updates))
    if schedule.decay == "constant" or update < start:
        return schedule.learning_rate
    progress = min(1.0, (update - start) / max(1, total_updates - start))
    shape = 1.0 - progress if schedule.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.learning_rate * (schedule.floor + (1.0 - schedule.floor) * shape)
