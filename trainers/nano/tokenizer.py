"""A Hugging Face tokenizer from scratch, in which each fixed phrase of a task is one token.

A text is cut at phrases (the longest that fits), then at numbers 0..200, then at single characters; each piece is
a token. Whatever is left, accents or emoji, falls into its UTF-8 bytes, so every text encodes and decodes exactly. The
card "7" and the number "7" are the same token: the model learns what it means once.
"""

import re
from collections.abc import Iterable
from typing import Any

PAD, BOS, USER, ASSISTANT, END = SPECIALS = ("<pad>", "<bos>", "<user>", "<assistant>", "<end>")
IMAGE, AROUND_IMAGE, WHOLE_IMAGE = "<image>", "<fake_token_around_image>", "<global-img>"
VISION = (IMAGE, AROUND_IMAGE, WHOLE_IMAGE, "<end_of_utterance>")
"""The tokens of Idefics3's processor, by the names it asks for. The last it only asks for."""
NUMBERS = tuple(str(n) for n in range(201))

_TEXT = "{{ message['content'] }}"
_PARTS = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
)
CHAT_TEMPLATE = (
    "<bos>"
    "{% for message in messages %}"
    "{{ '<assistant>' if message['role'] == 'assistant' else '<user>' }}" + _TEXT +
    "{% if message['role'] == 'assistant' %}<end>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)  # fmt: skip


def build(phrases: Iterable[str], *, sees: bool = False) -> Any:
    """A `PreTrainedTokenizerFast` that knows these phrases. The same phrases give the same ids.

    Args:
        sees: also the tokens that stand for images, and a template that takes messages in parts.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    whole = sorted(set(phrases) - set(NUMBERS), key=lambda phrase: (-len(phrase), phrase))
    cuts = [re.escape(phrase) for phrase in whole] + [r"200|1\d\d|[1-9]?\d", r"[\s\S]"]
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = (*SPECIALS, *VISION) if sees else SPECIALS
    pieces = [*special, *(_spelled(text) for text in (*NUMBERS, *whole)), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}

    # No merges: a piece is a token of the vocabulary, or its single bytes.
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("|".join(cuts)), "isolated"), as_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, *(VISION if sees else ())],
        chat_template=CHAT_TEMPLATE.replace(_TEXT, _PARTS) if sees else CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def _spelled(text: str) -> str:
    """The text as the byte-level pre-tokenizer spells it: one printable character per byte."""
    from tokenizers import pre_tokenizers

    [(piece, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return piece
