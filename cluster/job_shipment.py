"""What travels with a Ray job: the code, its model and its resolved run file."""

import shutil
from pathlib import Path

import yaml

from cluster.config import RunConfig

SHIPPED = ("envs", "trainers", "cluster", "services", "deploy", "pyproject.toml")
"""What of the project travels with a job: the code, and of the shipped models its own. Never runs, data or an environment."""
RUN_FILE = "submitted.yaml"


def stage(config: RunConfig, staging: Path) -> None:
    """The tree a job needs, and the resolved run file, so that `--set` and the file travel as one."""
    root = Path(__file__).parents[1]
    models = [path.name for path in (root / "deploy" / "models").iterdir() if path.is_dir()]
    others = [name for name in models if config.model.source != f"deploy/models/{name}"]
    for name in SHIPPED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, staging / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", *others))
        elif source.is_file():
            shutil.copy2(source, staging / name)
    (staging / RUN_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
