"""The floor of the house: a strict config base, the errors of a user, and seeds that are counters."""

import difflib
import hashlib
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class ViterError(Exception):
    """A user's mistake, or the outside world's, in one sentence. One message argument, so that it crosses processes."""


class ConfigError(ViterError):
    """A key, a type or a combination of settings that cannot be."""


class DataError(ViterError):
    """A model, checkpoint, suite or file that is missing, damaged or unusable."""


class Config(BaseModel):
    """Settings a person writes: unknown keys are errors, values never change, docstrings are the reference page."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


ConfigT = TypeVar("ConfigT", bound=BaseModel)
KEYS = re.compile(r"//[^/@\s]+@")  # `//user:password@` of a URI, which no message shows


def validated(model: type[ConfigT], data: Any, *, source: str) -> ConfigT:
    """`data` as a `model`.

    Raises:
        ConfigError: one sentence with the source, the key, the value seen, what is allowed and the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join((source, ".".join(str(part) for part in first["loc"]) or "(top level)"))
        if first["type"] == "extra_forbidden":
            problem = f"unknown key{_nearest(model, first['loc'])}"
        elif first["type"] == "missing":
            problem = "this key is required"
        else:
            message, seen = first["msg"].removeprefix("Value error, "), KEYS.sub("//…@", repr(first["input"]))
            problem = f"{seen[:77] + '...' if len(seen) > 80 else seen}: {message[0].lower() + message[1:]}"
            is_of_several = not first["loc"] and isinstance(first["input"], dict)
            if is_of_several:  # settings that do not go together: the message names them
                where, problem = source, message
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{where}: {problem}{more}") from None


def _nearest(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """`; did you mean 'x'?` for the last part of an unknown key, where the config that forbids it can be found."""
    fields = model.model_fields
    for part in location[:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [a for a in candidates if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return ""
        fields = nested[0].model_fields
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys are {', '.join(sorted(fields))}"


def seed_of(*counters: int | str) -> int:
    """A 63-bit seed that depends on the counters alone: not on order, workers or what was drawn before."""
    digest = hashlib.blake2b("\x1f".join(map(str, counters)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
