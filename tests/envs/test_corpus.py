import pytest

import envs
from envs.corpus import expert_document
from envs.task import Status

GAME = envs.make("general_points")


def test_a_document_is_the_prompt_and_a_right_answer_which_alone_is_learned():
    for index in range(100):
        document = expert_document(GAME, 0, index)
        task = GAME.sample(0, index)
        prompt, answer = document.messages
        assert (prompt,) == GAME.prompt(task, GAME.start(task))
        assert GAME.verify(task, GAME.start(task), answer.text)[0].status is Status.CORRECT
        assert document.trained == (False, True)


def test_a_share_of_documents_holds_a_failed_attempt_and_the_real_verdict():
    documents = [expert_document(GAME, 0, index, retry_share=0.3) for index in range(1000)]
    retried = [document for document in documents if len(document.messages) == 4]
    assert 250 < len(retried) < 350
    for document in retried:
        assert document.trained == (False, False, False, True)
        assert [message.role for message in document.messages] == ["user", "assistant", "user", "assistant"]
        assert document.messages[2].text.startswith("You failed this trial because ")
        assert "Correct" not in document.messages[2].text


def test_documents_depend_on_their_counters_alone():
    first = [expert_document(GAME, 3, index, retry_share=0.5) for index in range(20)]
    assert [expert_document(GAME, 3, index, retry_share=0.5) for index in reversed(range(20))] == first[::-1]


def test_a_finite_pool_of_deals_has_one_document_each_and_is_what_training_deals():
    documents = {expert_document(GAME, 0, index, deals=30, retry_share=0.5) for index in range(1000)}
    assert len(documents) == 30
    pool = envs.make("general_points", deals=30)
    prompts = {pool.prompt(task, pool.start(task)) for task in (pool.sample(9, index) for index in range(1000))}
    assert {document.messages[:1] for document in documents} == prompts


@pytest.mark.parametrize("retry_share", [0.0, 1.0])
def test_documents_are_written_as_openai_messages(retry_share: float):
    rows = expert_document(GAME, 0, retry_share=retry_share).as_openai()["messages"]
    assert rows[0]["role"] == "user"
    assert rows[-1].keys() == {"role", "content"}
    assert [row.get("weight") for row in rows if row["role"] == "assistant"] == ([0, None] if retry_share else [None])


def test_images_are_parts_of_the_content_before_its_text():
    seen = envs.make("general_points", modality="vision", suits="black")
    user, answer = expert_document(seen, 3).as_openai()["messages"]
    [image, text] = user["content"]
    assert seen.image(image["image_url"]["url"]).shape == (1200, 1200, 3)
    assert (image["type"], text["type"]) == ("image_url", "text")
    assert isinstance(answer["content"], str)


def test_a_walks_documents_are_drawn_from_all_its_positions_and_each_is_right_there():
    walk = envs.make("virl", deals=3)
    documents = [expert_document(walk, 0, n) for n in range(200)]
    prompts = {document.messages[0].text for document in documents}
    positions = {task.id: len(walk.states(task)) for task in (walk.sample(n) for n in range(100))}
    assert len(positions) == 3
    assert 0.8 * sum(positions.values()) < len(prompts) <= sum(positions.values())
    answers = {document.messages[0].text: document.messages[1].text for document in documents}
    assert all(answers[document.messages[0].text] == document.messages[1].text for document in documents)
