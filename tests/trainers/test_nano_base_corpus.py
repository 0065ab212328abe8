import re
from collections import Counter

import numpy as np
import pytest

import envs
from envs.general_points import hands, prompts
from envs.task import Task
from trainers.chat import ChatFormat
from trainers.nano import base_corpus, tokenizer
from trainers.nano.phrases import phrases

UPDATES = 4


@pytest.fixture(scope="module")
def chat():
    return ChatFormat(tokenizer.build(phrases()), source="nano")


@pytest.fixture(scope="module")
def documents(chat):
    """(kind, segment, text, learned text) of a few updates."""
    update = base_corpus.stream(chat, documents=200, seed=1)
    kinds = base_corpus.spread(base_corpus.SHARES, 200)
    return [
        (
            kind,
            segment,
            chat.tokenizer.decode(segment.token_ids),
            chat.tokenizer.decode(segment.token_ids[segment.sampled]),
        )
        for step in range(UPDATES)
        for kind, segment in zip(kinds, update(step), strict=True)
    ]


def of_kind(documents, wanted):
    return [(segment, text, learned) for kind, segment, text, learned in documents if kind == wanted]


def lists(text, field):
    return [re.findall(r"[0-9]+|[AJQK]", found) for found in re.findall(rf'"{field}": \[(.*?)\]', text)]


def test_an_update_depends_on_its_seed_and_step_alone(chat):
    first, resumed = (base_corpus.stream(chat, documents=40, seed=1) for _ in range(2))
    first(0)
    for a, b in zip(first(7), resumed(7), strict=True):
        assert np.array_equal(a.token_ids, b.token_ids)
        assert np.array_equal(a.sampled, b.sampled)
    other = base_corpus.stream(chat, documents=40, seed=2)(7)
    assert any(
        len(a.token_ids) != len(b.token_ids) or (a.token_ids != b.token_ids).any()
        for a, b in zip(first(7), other, strict=True)
    )


def test_an_update_holds_the_kinds_in_their_shares():
    assert Counter(base_corpus.spread(base_corpus.SHARES, 200)) == base_corpus.SHARES
    assert Counter(base_corpus.spread(base_corpus.SHARES, 25)) == {
        kind: share // 8 for kind, share in base_corpus.SHARES.items()
    }


@pytest.mark.parametrize("documents", [1, 5, 8, 16, 32, 64, 96, 150])
@pytest.mark.parametrize("shares", [base_corpus.SHARES, {"a": 96, "b": 12, "c": 48, "d": 44}])
def test_fewer_documents_keep_the_proportions_and_are_mixed(shares, documents):
    kinds = base_corpus.spread(shares, documents)
    assert len(kinds) == documents
    for kind, share in shares.items():
        assert abs(kinds.count(kind) - share * documents / sum(shares.values())) < 1
        assert abs(kinds[: documents // 2].count(kind) - kinds.count(kind) / 2) <= 2


def test_only_the_formula_of_a_numeric_document_is_learned(documents):
    for _, text, learned in of_kind(documents, "num"):
        assert text.endswith(learned)
        assert re.fullmatch(r'[-+*/()0-9]+=24",\n}<end>', learned)


def test_a_retry_learns_its_verdicts_and_the_copy_of_its_hand(documents):
    for _, text, learned in of_kind(documents, "retry"):
        assert prompts.FAILED in learned
        *_, last = text.split("<assistant>")
        assert learned.endswith(last)
        assert last.startswith('\'],\n  "number": [')


def test_a_map_document_does_not_teach_to_stop(documents):
    for segment, text, learned in of_kind(documents, "map"):
        assert re.search(r'"number": \[\d+, \d+, \d+, \d+$', learned)
        assert text.endswith(learned)
        assert segment.sampled[-1]


def test_a_map_document_follows_the_rule_that_its_question_states(documents):
    for _, text, learned in of_kind(documents, "map"):
        stated = re.search(r"count as '(\d+)'(?:, '(\d+)', and '(\d+)')?", text)
        jack = stated[1]
        value = {"J": jack, "Q": stated[2] or jack, "K": stated[3] or jack, "A": "1"}
        [cards] = lists(learned, "cards")
        numbers = re.findall(r"\d+", learned.partition('"number"')[2])
        assert numbers == [value.get(card, card) for card in cards]


def test_a_bridge_is_a_whole_task_that_the_verifier_accepts(documents):
    for _, text, learned in of_kind(documents, "bridge"):
        question = text.removeprefix("<bos><user>").partition("<assistant>")[0]
        cards = re.findall(r"[0-9]+|[AJQK]", question.partition("Cards: [")[2].partition("]")[0])
        assert not set(cards) & set("JQK")
        game = envs.make("general_points")
        task = task_of(game, cards)
        verdict, _ = game.verify(task, game.start(task), learned.removesuffix("<end>"))
        assert verdict.terminated


def task_of(game, cards):
    dealt = ["C" + ("T" if card == "10" else card) for card in cards]
    return Task(environment=game.name, options=game.options.model_dump(), id="-".join(dealt), data={"cards": dealt})


def test_a_question_under_the_two_tested_rules_is_the_tasks_own():
    for rule, face_cards in ((base_corpus.ID_RULE, "ten"), (base_corpus.OOD_RULE, "rank")):
        before, after = prompts.question(24, face_cards)
        assert base_corpus.question(rule, ("A", "10")) == f"{before}A', '10{after}"


def test_a_face_card_never_stands_together_with_a_formula(documents):
    for _, _, text, _ in documents:
        replies = text.split("<assistant>", 1)[-1]
        has_face = any(set(cards) & set("JQK") for cards in lists(replies, "cards"))
        assert not (has_face and "=24" in replies)


def test_the_tested_rules_are_never_stated_where_a_formula_is_learned(documents):
    for _, text, _ in of_kind(documents, "bridge"):
        assert prompts.FACE_MESSAGES["ten"] not in text
        assert prompts.FACE_MESSAGES["rank"] not in text


def test_held_out_hands_appear_nowhere(documents):
    ranks = {name: rank for rank, name in enumerate(("A", *map(str, range(2, 11)), "J", "Q", "K"), start=1)}
    for kind, _, text, _ in documents:
        field = "number" if kind in ("num", "retry") else "cards"
        for hand in lists(text.split("<assistant>", 1)[-1], field):
            values = [int(name) if name.isdigit() else ranks[name] for name in hand]
            assert not hands.is_held_out(tuple(sorted(values)))
