"""What an evaluation order leaves open, filled in as the checkpoint trained; and whether all it asks for exists."""

from collections.abc import Mapping
from typing import Any

from cluster.config import EnvironmentConfig
from envs import suites
from services.evaluations.orders import EvaluationOrder
from trainers.checkpoints import Checkpoint


def settled(order: EvaluationOrder, checkpoint: Checkpoint) -> EvaluationOrder:
    """The order with nothing left open. Draws the tasks, so that an order which cannot be played is refused at once.

    Raises:
        DataError: a suite is unknown, or the environment has none in this modality.
        ConfigError: an option that a suite fixes, or a value that the environment refuses.
    """
    trained = checkpoint.info.config.get("environment", {})
    environment = order.environment or trained.get("name", EnvironmentConfig().name)
    options = trained.get("options", {}) if trained.get("name") == environment else {}
    modality = order.modality or suites.modality_of(options)
    names = order.suites or suites.default_suites(environment, modality)
    is_at_home = all(name.startswith(f"{environment}/") for name in names)
    shown = {**(presented_by(environment, options) if is_at_home else {}), **order.options}
    for name in names:
        suites.presented(suites.load(name, order.n).tasks, viter=order.viter, **shown)
    filled = {"environment": environment, "modality": modality, "suites": tuple(names), "options": shown}
    return order.model_copy(update=filled)


def presented_by(environment: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of training that only present tasks, so that evaluation shows them alike. `viter` is its own."""
    return {key: options[key] for key in suites.presentation(environment) if key in options and key != "viter"}


def asks_for(order: EvaluationOrder, known: EvaluationOrder) -> bool:
    """Whether `order`, with what it leaves open, asks for what was `settled` as `known`."""
    left_open = {key: getattr(known, key) for key in ("environment", "modality", "suites") if not getattr(order, key)}
    return order.model_copy(update={**left_open, "options": {**known.options, **order.options}}) == known
