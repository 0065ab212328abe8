import copy
import json
import random
import re
from collections import Counter
from itertools import product

import pytest

import envs
from envs.base import ConfigError, DataError
from envs.general_points import GeneralPoints, hands, prompts
from envs.task import State, Status
from tests.envs import slow_general_points as slow

GAME = GeneralPoints()
HAND = {"cards": ["HA", "D3", "CK", "S6"]}


def test_the_prompt_is_one_user_turn_with_the_rule_the_cards_and_the_target():
    for face_cards, message in prompts.FACE_MESSAGES.items():
        game = GeneralPoints(face_cards=face_cards, target=36)
        (turn,) = game.prompt(game.task_of(HAND), State(attempts_left=5))
        assert turn.role == "user"
        headings = [turn.text.index(f"[{heading}]") for heading in ("Task Description", "Input", "Output")]
        assert headings == sorted(headings)
        assert "\nCards: ['A', '3', 'K', '6']\n" in turn.text
        assert message in turn.text
        assert "an expert 36 points player" in turn.text
        assert "'an equation that equals 36'" in turn.text
        assert "24" not in turn.text


def test_the_expert_answers_in_the_taught_layout():
    answer = GAME.expert(GAME.task_of(HAND), State(attempts_left=5))
    cards, numbers = "\n  \"cards\": ['A', '3', 'K', '6'],", '\n  "number": [1, 3, 10, 6],'
    formula = re.fullmatch(re.escape(f'\n{{{cards}{numbers}\n  "formula": "') + '([-+*/()0-9]+)=24",\n}', answer)
    assert formula
    assert slow.value(formula[1]) == 24


def test_all_words_are_listed_phrases_and_small_holes():
    hole = re.compile(r"[A-Z]|[0-9]+|[-+*/()]")
    phrases = sorted([*GeneralPoints.phrases, *GeneralPoints.vision_phrases], key=len, reverse=True)
    token = re.compile("|".join([*map(re.escape, phrases), hole.pattern]))
    for face_cards, modality in product(("ten", "rank"), ("language", "vision")):
        game = GeneralPoints(face_cards=face_cards, rewards="reference", modality=modality)
        for index in range(100):
            task = game.sample(index)
            state = game.start(task)
            wrong = game.verify(task, state, game.mistake(task, state, index))[0]
            texts = [game.prompt(task, state)[0].text, game.expert(task, state, index), game.feedback(wrong).text]
            for text in texts:
                assert "".join(token.findall(text)) == text
            assert len(token.findall(texts[0])) <= 30
            assert len(token.findall(texts[1])) <= 35


def test_a_task_depends_on_its_counters_alone():
    expected = [GAME.sample(7, step, index) for step in range(3) for index in range(20)]
    other = GeneralPoints()
    random.seed(0)
    shuffled = list(range(60))
    random.shuffle(shuffled)
    found = {i: other.sample(7, i // 20, i % 20) for i in shuffled}
    assert [found[i] for i in range(60)] == expected
    assert len({task.id for task in expected}) == 60
    assert all(task.id == "-".join(task.data["cards"]) for task in expected)


def test_deals_are_distributed_as_cards_dealt_with_replacement_until_solvable():
    draw, count = random.Random(1), 20_000
    dealt: list[tuple[int, ...]] = []
    while len(dealt) < count:
        ranks = tuple(draw.randint(1, 13) for _ in range(4))
        if hands.preferred(hands.values_of(ranks, "ten"), 24):
            dealt.append(ranks)
    sampled = [tuple(hands.RANK_OF[c[1]] for c in GAME.sample("share", i).data["cards"]) for i in range(count)]
    for position in range(4):
        ours, theirs = (Counter(ranks[position] for ranks in table) for table in (sampled, dealt))
        for rank in range(1, 14):
            assert abs(ours[rank] - theirs[rank]) < 5 * (2 * max(ours[rank], theirs[rank])) ** 0.5
    suits = Counter(card[0] for i in range(count) for card in GAME.sample("share", i).data["cards"])
    assert all(abs(suits[suit] / (4 * count) - 0.25) < 0.01 for suit in "SHDC")


def test_options_decide_what_is_dealt():
    red = GeneralPoints(suits="red", face_cards="rank", min_face_cards=1, hands="held_out")
    for index in range(200):
        cards = red.sample(index).data["cards"]
        assert {card[0] for card in cards} <= {"H", "D"}
        assert any(card[1] in "JQK" for card in cards)
        assert hands.is_held_out(tuple(hands.RANK_OF[card[1]] for card in cards))


def test_a_pool_of_deals_is_finite_distinct_and_a_part_of_larger_pools():
    small, large = GeneralPoints(deals=50), GeneralPoints(deals=100)
    seen = [{game.sample(0, i).id for i in range(2000)} for game in (small, large)]
    assert list(map(len, seen)) == [50, 100]
    assert seen[0] < seen[1]


def test_attempts_count_down_and_the_last_wrong_one_ends_a_paper_episode():
    game = GeneralPoints(viter=2)
    task = game.sample(0)
    state = game.start(task)
    wrong = game.mistake(task, state)
    first, state = game.verify(task, state, wrong)
    assert (first.terminated, first.truncated, state) == (False, False, State(attempts_left=1))
    last, state = game.verify(task, state, wrong)
    assert (last.terminated, last.truncated, state) == (False, True, State(attempts_left=0, is_over=True))
    assert last.reward == first.reward


def test_a_reference_episode_ends_with_a_limit_call_that_grades_nothing():
    game = GeneralPoints(viter=1, rewards="reference")
    task = game.sample(0)
    verdict, state = game.verify(task, game.start(task), "no")
    assert (verdict.truncated, state) == (False, State(attempts_left=0))
    verdict, state = game.verify(task, state, game.expert(task, state))
    assert (verdict.reward, verdict.status, verdict.feedback) == (-1, Status.LIMIT, "step_limit_reached")
    assert (verdict.terminated, verdict.truncated, state.is_over) == (False, True, True)


def test_a_correct_answer_ends_the_episode():
    task = GAME.sample(0)
    state = GAME.start(task)
    verdict, state = GAME.verify(task, state, GAME.expert(task, state))
    assert (verdict.reward, verdict.feedback, verdict.terminated, verdict.truncated) == (
        5,
        "Correct solution.",
        True,
        False,
    )
    assert state == State(attempts_left=4, is_over=True)


def test_feedback_is_told_as_a_user_turn():
    task = GAME.task_of(HAND)
    verdict, _ = GAME.verify(task, GAME.start(task), '"formula": "1+3"')
    message = GAME.feedback(verdict)
    assert (message.role, message.text) == ("user", "You failed this trial because you didn't use numbers: [10, 6].")


def test_a_task_is_judged_under_its_own_options_by_any_variant():
    ood = GeneralPoints(face_cards="rank")
    task = copy.deepcopy(ood.task_of({"cards": ["CK", "CJ", "CA", "CA"]}))  # 13 + 11 + 1 - 1
    answer = '"formula": "13+11+1-1=24"'
    assert GAME.verify(task, GAME.start(task), answer)[0].status is Status.CORRECT
    assert GAME.prompt(task, GAME.start(task)) == ood.prompt(task, ood.start(task))
    json.dumps([task.options, task.data])


def test_experts_are_right_and_differ_by_counters():
    for face_cards in ("ten", "rank"):
        game = GeneralPoints(face_cards=face_cards)
        for index in range(300):
            task = game.sample("expert", index)
            state = game.start(task)
            answers = {game.expert(task, state, draw) for draw in range(20)}
            assert 1 <= len(answers) <= 3
            assert game.expert(task, state) in answers
            for answer in answers:
                assert game.verify(task, state, answer)[0].status is Status.CORRECT
                assert game.recognises(task, answer)


def test_mistakes_are_well_formed_and_wrong_and_teach_no_other_rule():
    kinds = Counter()
    for index in range(500):
        task = GAME.sample("mistake", index)
        state = GAME.start(task)
        answer = GAME.mistake(task, state, index)
        kinds[GAME.verify(task, state, answer)[0].status] += 1
        formula = answer.partition('"formula": "')[2]
        assert all(int(number) <= 10 for number in re.findall("[0-9]+", formula.partition("=")[0]))
    assert set(kinds) == {Status.WRONG_VALUE, Status.WRONG_NUMBERS}
    assert min(kinds.values()) > 150


def test_recognition_asks_for_each_card_and_what_it_counts_as():
    task = GAME.task_of({"cards": ["C7", "CK", "HT", "CA"]})
    assert GAME.recognises(task, '{"cards": ["A", "7", "10", "K"], "number": [1, 7, 10, 10]}')
    assert not GAME.recognises(task, '{"cards": ["A", "7", "10", "K"], "number": [1, 7, 10, 13]}')
    assert not GAME.recognises(task, '{"cards": ["A", "7", "10", "10"], "number": [1, 7, 10, 10]}')
    assert not GAME.recognises(task, "no")


def test_what_cannot_be_dealt_or_solved_is_one_sentence():
    task = GAME.task_of({"cards": ["CA", "DA", "HA", "SA"]})
    with pytest.raises(DataError, match="CA-DA-HA-SA: these cards have no solution for target 24"):
        GAME.expert(task, GAME.start(task))
    with pytest.raises(ConfigError, match="target: 99999: no hand reaches it"):
        GeneralPoints(target=99_999).sample(0)
    with pytest.raises(ConfigError, match="did you mean 'face_cards'"):
        envs.make("general_points", face_card="ten")
    with pytest.raises(ConfigError, match="general_points options: viter: '5'"):
        envs.make("general_points", viter="5")
    with pytest.raises(ConfigError, match="'H1' is no card"):
        GAME.task_of({"cards": ["H1", "CA", "CA", "CA"]})
