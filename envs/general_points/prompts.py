"""The words of GeneralPoints: what the model is asked, how an answer is laid out, and what it hears back.

Every text is fixed phrases with few holes: the target, card names, numbers and formulas. `PHRASES` lists the fixed
parts, so that a tokenizer may hold each as one token, and `VISION_PHRASES` those that stand only beside a picture.
"""

from envs.general_points import arithmetic

FACE_MESSAGES = {
    "ten": "'J', 'Q', and 'K' count as '10'.",
    "rank": "'J', 'Q', and 'K' count as '11', '12', and '13' respectively.",
}

# ---------------------------------------------------------------- the question
_OPENING = "[Task Description]\nYou are an expert "
_GAME = " points player. You are given a set of four cards, written as a list.\nNote that "
_GOAL = " An 'A' counts as '1', and each card must be used once.\nYour goal is to write one formula that evaluates to "
_TOOLS = (
    ", using the numbers of the cards and the operators '+', '-', '*', '/', '(', ')', and '='.\n\n[Input]\nCards: ['"
)
_OUTPUT = '\']\n\n[Output]\nAnswer in the following format:\n{\n  "cards": [x, y, z, w], where '
_NUMBER = (
    '\n  "number": [a, b, c, d], where a, b, c, and d are the numbers of the cards x, y, z, and w,\n'
    '  "formula": \'an equation that equals '
)
_END = "',\n}"

# ---------------------------------------------------------------- the question beside a picture
_GAME_SEEN = " points player. You are shown a picture of four cards.\nNote that "
_OUTPUT_SEEN = (
    ", using the numbers of the cards and the operators '+', '-', '*', '/', '(', ')', and '='.\n\n[Output]\n"
    'Answer with a valid json file in the following format:\n{\n  "cards": [x, y, z, w], where '
)

# ---------------------------------------------------------------- the answer
_CARDS = '\n{\n  "cards": [\''
_BETWEEN_CARDS = "', '"
_NUMBERS = '\'],\n  "number": ['
_BETWEEN_NUMBERS = ", "
_FORMULA = '],\n  "formula": "'
_EQUALS = "="
_DONE = '",\n}'

# ---------------------------------------------------------------- the verdict
FAILED = "You failed this trial because "
CORRECT = "Correct solution"
PARTIAL = "partial solution"
ILLEGAL_CHARACTERS = "illegal characters"
LIMIT = "step_limit_reached"
WRONG_CARDS = "you recognized wrong cards"
NO_SOLUTION = "your formula does not match any solution"
PARTLY = " is partially correct but the full formula does not match any solution"
INVALID_NUMBERS = "you used invalid numbers: ["
OVERUSED_NUMBERS = "you used numbers: ["
TOO_MANY_TIMES = "] too many times"
UNUSED_NUMBERS = "you didn't use numbers: ["

_SHOWN_NUMBERS = 16  # a formula of a person has four; this only bounds the echo of junk
_SHOWN_DIGITS = 20

PHRASES: tuple[str, ...] = (
    _OPENING, _GAME, *FACE_MESSAGES.values(), _GOAL, _TOOLS, _OUTPUT, _NUMBER, _END,
    _CARDS, _BETWEEN_CARDS, _NUMBERS, _BETWEEN_NUMBERS, _FORMULA, _EQUALS, _DONE,
    FAILED, CORRECT, PARTIAL, ILLEGAL_CHARACTERS, LIMIT, NO_SOLUTION, PARTLY,
    INVALID_NUMBERS, OVERUSED_NUMBERS, TOO_MANY_TIMES, UNUSED_NUMBERS,
    arithmetic.AFTER_NUMBER, arithmetic.AFTER_OPERATOR, arithmetic.BEFORE_OPENING, arithmetic.AFTER_CLOSING,
    arithmetic.UNMATCHED_CLOSING, arithmetic.UNMATCHED_OPENING, arithmetic.UNKNOWN_TOKEN, "]", ".",
)  # fmt: skip
VISION_PHRASES: tuple[str, ...] = (_GAME_SEEN, _OUTPUT_SEEN, WRONG_CARDS)  # what only `modality="vision"` says


def question(target: int, face_cards: str) -> tuple[str, str]:
    """The prompt before and after the cards, which stand between as `', '.join(cards)` with quotes."""
    note = FACE_MESSAGES[face_cards]
    before = f"{_OPENING}{target}{_GAME}{note}{_GOAL}{target}{_TOOLS}"
    return before, f"{_OUTPUT}{note}{_NUMBER}{target}{_END}"


def question_of_picture(target: int, face_cards: str) -> str:
    """The prompt where the cards are seen."""
    note = FACE_MESSAGES[face_cards]
    before = f"{_OPENING}{target}{_GAME_SEEN}{note}{_GOAL}{target}"
    return f"{before}{_OUTPUT_SEEN}{note}{_NUMBER}{target}{_END}"


def card_list(cards: tuple[str, ...]) -> str:
    """`A', '3', 'K', '6`: what stands between the quotes of the question and of the answer."""
    return _BETWEEN_CARDS.join(cards)


def answer(cards: tuple[str, ...], numbers: tuple[str, ...], formula: str, target: int) -> str:
    """An answer in the layout that models are taught. Not valid JSON: single quotes and a trailing comma."""
    listed = _BETWEEN_NUMBERS.join(numbers)
    return f"{_CARDS}{card_list(cards)}{_NUMBERS}{listed}{_FORMULA}{formula}{_EQUALS}{target}{_DONE}"


def number_list(numbers: list[str]) -> str:
    """`7, 10`, with long lists and long numbers cut short."""
    shown = [n if len(n) <= _SHOWN_DIGITS else n[:_SHOWN_DIGITS] + "..." for n in numbers[:_SHOWN_NUMBERS]]
    return ", ".join(shown if len(numbers) <= _SHOWN_NUMBERS else [*shown, "..."])


def sentence(messages: list[str]) -> str:
    """The messages of one verdict as the model hears them."""
    return ", ".join(messages) + "."
