"""Render a chat template once, in a process of its own: the program that `model_safety` runs. Stands alone.

Standard input is the template. Exits 0 where conversations of a few messages stay within bounds, whatever they say, and
also where the template refuses them: that is for its loader to tell. Anything else is a template that does not end, or
fills the memory. The environment is the one in which transformers renders.
"""

import json
import resource
import sys
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_S, MEMORY_BYTES, OUTPUT_CHARACTERS = 5, 1 << 30, 1 << 20
TOO_MUCH = 3


class Generation(Extension):
    """`{% generation %}`, which marks what the assistant says: its body alone matters here."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> None:
    raise TemplateError(message)


def conversations() -> list[list[dict[str, Any]]]:
    """Of one and of nine messages, as text and as parts, with and without a system message."""
    found: list[list[dict[str, Any]]] = []
    for length in (1, 9):
        texts: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[i % 2], "content": f"message {i}"} for i in range(length)
        ]
        parts = [{**m, "content": [{"type": "image"}, {"type": "text", "text": m["content"]}]} for m in texts]
        found += [texts, parts, [{"role": "system", "content": "be brief"}, *texts]]
    return found


def main() -> int:
    for kind, most in ((resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_AS, MEMORY_BYTES)):
        _, allowed = resource.getrlimit(kind)
        limit = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (limit, limit))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **words: json.dumps(value, **words)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda _: "today"}
    try:
        template = environment.from_string(sys.stdin.read())
        for messages in conversations():
            if not _stays_within(template, messages):
                return TOO_MUCH
    except (MemoryError, OverflowError, RecursionError):
        return TOO_MUCH
    except TemplateError:  # a syntax error
        return 0
    return 0


def _stays_within(template: Any, messages: list[dict[str, Any]]) -> bool:
    size = 0
    try:
        for piece in template.generate(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        ):
            size += len(piece)
            if size > OUTPUT_CHARACTERS:
                return False
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        return not isinstance(error, OverflowError)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
