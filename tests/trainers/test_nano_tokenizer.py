import pytest

import envs
from envs.general_points import prompts
from trainers.chat import ChatFormat
from trainers.nano import tokenizer
from trainers.nano.phrases import phrases


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.build(phrases()).save_pretrained(str(directory))
    return ChatFormat.load(directory)


@pytest.mark.parametrize(
    "text",
    [
        "".join(map(chr, range(128))),
        " leading,  double and trailing  ",
        "(12+3)*4=24 007 999999 200 201",
        "naïve ♠ 🂡 日本語 \u0663",
        "You failed this trial because you used numbers: [7, 7] too many times.",
    ],
)
def test_every_text_encodes_and_decodes_exactly(chat, text):
    assert chat.decode(chat.encode(text)) == text


@pytest.mark.parametrize(("face_cards", "tokens"), [("ten", 20), ("rank", 28)])
def test_a_question_is_a_few_tokens_and_an_answer_about_thirty(chat, face_cards, tokens):
    game = envs.make("general_points", face_cards=face_cards)
    task = game.sample(0)
    state = game.start(task)
    assert len(chat.prompt_ids(game.prompt(task, state))) == tokens
    answers = [game.expert(game.sample(n), state) for n in range(200)]
    lengths = [len(chat.reply_ids(answer)) for answer in answers]
    assert min(lengths) >= 25
    assert max(lengths) <= 32


def test_a_card_and_a_number_of_the_same_name_share_a_token(chat):
    ids = chat.encode(prompts.answer(("7", "10", "K", "A"), ("7", "10", "13", "1"), "", 24))
    assert ids[1:8:2] == [chat.encode(name)[0] for name in ("7", "10", "K", "A")]
    assert ids[9:16:2] == [chat.encode(number)[0] for number in ("7", "10", "13", "1")]


def test_the_numbers_of_the_rule_can_be_read_in_the_question(chat):
    game = envs.make("general_points", face_cards="rank")
    task = game.sample(0)
    ids = chat.prompt_ids(game.prompt(task, game.start(task)))
    assert all(chat.encode(number)[0] in ids for number in ("11", "12", "13"))


def test_another_target_is_spelled_with_the_same_phrases(chat):
    game = envs.make("general_points", target=36)
    task = game.sample(0)
    assert len(chat.prompt_ids(game.prompt(task, game.start(task)))) <= 40


def test_verdicts_are_short(chat):
    game = envs.make("general_points")
    task = game.sample(0)
    wrong = game.mistake(task, game.start(task), 1)
    verdict, _ = game.verify(task, game.start(task), wrong)
    assert len(chat.feedback_ids(game.feedback(verdict))) <= 20


def test_the_same_phrases_give_the_same_tokenizer_whatever_their_order():
    forward, backward = tokenizer.build(phrases()), tokenizer.build(reversed(phrases()))
    assert forward.get_vocab() == backward.get_vocab()
