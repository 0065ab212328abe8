import re

import numpy as np
import pytest

import envs
from envs.base import ConfigError
from envs.general_points import hands, prompts
from envs.general_points.cards import card_width, left_edges
from trainers.chat import ChatFormat
from trainers.nano import bases, card_corpus
from trainers.nano.base_corpus import spread
from trainers.nano.model import create

GAME = envs.make("general_points", modality="vision", suits="black", resolution=64, hands="train")


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return ChatFormat.load(create(tmp_path_factory.mktemp("seeing"), sees=True))


@pytest.fixture(scope="module")
def documents(chat):
    """(kind, segment, text, learned text) of a few updates."""
    update = bases.stream(GAME, chat, documents=200, seed=1)
    kinds = spread(card_corpus.SHARES, 200)
    return [
        (kind, s, chat.tokenizer.decode(s.token_ids), chat.tokenizer.decode(s.token_ids[s.sampled]))
        for step in range(3)
        for kind, s in zip(kinds, update(step), strict=True)
    ]


def shown(picture):
    """The ranks of a picture, each found by drawing hands of one card until its place looks the same."""
    found = []
    for left in left_edges(picture.shape[0]):
        place = slice(left, left + card_width(picture.shape[0]))
        for rank in hands.RANKS:
            drawn = [GAME.image("-".join([suit + rank] * 4)) for suit in "SC"]
            if any(np.array_equal(each[:, place], picture[:, place]) for each in drawn):
                found.append(hands.WRITTEN[rank])
    return found


def test_a_picture_shows_the_cards_that_the_answer_names(documents):
    seen = [(s, learned) for kind, s, _, learned in documents if kind in ("map", "bridge")]
    assert len(seen) > 200
    for segment, learned in seen[:40]:
        [picture] = segment.pictures
        cards = re.findall(r"[0-9]+|[AJQK]", re.search(r'"cards": \[(.*?)\]', learned)[1])
        assert shown(picture) == cards


def test_only_questions_about_cards_have_pictures_and_each_has_its_placeholder(documents, chat):
    for kind, segment, _, _ in documents:
        placeholders = int((segment.token_ids == chat.eyes.image_id).sum())
        assert (len(segment.pictures), placeholders) == ((1, 16) if kind in ("map", "bridge") else (0, 0))
        assert not segment.sampled[segment.token_ids == chat.eyes.image_id].any()


def test_a_face_card_is_never_seen_with_a_formula_and_held_out_hands_never_at_all(documents):
    for kind, _, _, learned in documents:
        cards = re.search(r'"cards": \[(.*?)\]', learned)
        if kind == "bridge":
            assert not set("JQK") & set(cards[1])
        numbers = re.search(r'"number": \[([0-9, ]+)', learned)
        if kind == "bridge":
            assert not hands.is_held_out(tuple(map(int, numbers[1].split(", "))))


def test_some_failed_attempts_misread_a_card_and_are_told_so(documents):
    bridges = [text for kind, _, text, _ in documents if kind == "bridge"]
    told = [text for text in bridges if f"{prompts.FAILED}{prompts.WRONG_CARDS}" in text]
    assert 0 < len(told) < len(bridges) / 3
    for text in told:
        first, *_, last = (re.findall(r"[0-9]+|A", found) for found in re.findall(r'"cards": \[(.*?)\]', text)[1:])
        assert len(first) == len(last) == 4


def test_an_update_depends_on_its_seed_and_step_alone(chat):
    first, resumed = (bases.stream(GAME, chat, documents=20, seed=1) for _ in range(2))
    first(0)
    for a, b in zip(first(7), resumed(7), strict=True):
        assert np.array_equal(a.token_ids, b.token_ids)
        assert all(np.array_equal(p, q) for p, q in zip(a.pictures, b.pictures, strict=True))


def test_an_environment_without_a_base_corpus_is_told(chat):
    class Other:
        name, options = "other", None

    with pytest.raises(ConfigError, match="nano-base: there is none for environment other"):
        bases.stream(Other(), chat, documents=1, seed=0)
