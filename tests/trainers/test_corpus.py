import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import envs
from envs.base import DataError
from envs.corpus import Document
from envs.task import Message
from trainers import corpus
from trainers.chat import ChatFormat
from trainers.config import SftConfig
from trainers.nano import tokenizer
from trainers.nano.phrases import phrases

USER = {"role": "user", "content": "2+2?"}
REPLY = {"role": "assistant", "content": "4"}


@pytest.fixture(scope="module")
def chat():
    return ChatFormat(tokenizer.build(phrases()), source="nano")


@pytest.fixture(scope="module")
def game():
    return envs.make("general_points")


def texts(chat, segments):
    return [chat.tokenizer.decode(segment.token_ids) for segment in segments]


def same(first, second):
    return all(
        np.array_equal(a.token_ids, b.token_ids) and np.array_equal(a.sampled, b.sampled)
        for a, b in zip(first, second, strict=True)
    )


def message(role, text):
    return Message(role=role, text=text)


def test_learned_are_the_trained_replies_with_their_end_tokens(chat):
    document = Document(
        messages=(message("user", "a"), message("assistant", "7"), message("user", "b"), message("assistant", "8")),
        trained=(False, False, False, True),
    )
    segment = corpus.segment_of(document, chat)
    assert chat.tokenizer.decode(segment.token_ids) == "<bos><user>a<assistant>7<end><user>b<assistant>8<end>"
    assert chat.tokenizer.decode(segment.token_ids[segment.sampled]) == "8<end>"
    assert segment.token_ids.tolist()[:-2] == chat.prompt_ids(document.messages[:3])


def test_several_messages_between_two_replies_are_rendered_together(chat):
    document = Document(
        messages=tuple(message(*each) for each in [("system", "s"), ("user", "a"), ("assistant", "7"), ("user", "b"),
                                                   ("user", "c"), ("assistant", "8")]),
        trained=(False, False, True, False, False, True),
    )  # fmt: skip
    segment = corpus.segment_of(document, chat)
    assert segment.token_ids.tolist()[:-2] == chat.prompt_ids(document.messages[:5])
    assert chat.tokenizer.decode(segment.token_ids[segment.sampled]) == "7<end>8<end>"


@pytest.mark.parametrize("name", ["expert", "nano-base"])
def test_an_update_depends_on_seed_and_step_alone(chat, game, name):
    config = SftConfig(corpus=name, documents=16, retry_share=0.5, seed=3)
    first, resumed = corpus.stream(config, game, chat), corpus.stream(config, game, chat)
    first(0)
    assert same(first(9), resumed(9))
    assert texts(chat, first(9)) != texts(chat, first(10))


def test_each_of_finitely_many_deals_has_one_answer(chat, game):
    config = SftConfig(documents=50, deals=5)
    update = corpus.stream(config, game, chat)
    seen = {text for step in range(4) for text in texts(chat, update(step))}
    assert len(seen) == 5


def test_a_share_of_expert_documents_holds_a_failed_attempt(chat, game):
    segments = corpus.stream(SftConfig(documents=300, retry_share=0.3), game, chat)(0)
    retried = sum("You failed this trial" in text for text in texts(chat, segments))
    assert 60 <= retried <= 120
    assert all("You failed" not in chat.tokenizer.decode(s.token_ids[s.sampled]) for s in segments)


def test_a_jsonl_and_a_parquet_file_give_the_same_updates(chat, game, tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}, REPLY]} for n in range(7)]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), table)
    from_lines, from_table = (
        corpus.stream(SftConfig(corpus=str(path), documents=7), game, chat) for path in (lines, table)
    )
    assert same(from_lines(0), from_table(0))
    assert Counter(texts(chat, from_lines(0))) == Counter(texts(chat, from_lines(1))), "each pass shows every row once"
    assert texts(chat, from_lines(0)) != texts(chat, from_lines(1)), "in another order"


def test_a_reply_of_weight_zero_is_context_only(chat, tmp_path):
    path = tmp_path / "rows.jsonl"
    wrong = {"role": "assistant", "content": "5", "weight": 0}
    path.write_text(json.dumps({"messages": [USER, wrong, USER, REPLY]}))
    segment = corpus.segment_of(corpus.read_documents(path)[0], chat)
    assert chat.tokenizer.decode(segment.token_ids[segment.sampled]) == "4<end>"


GOOD = json.dumps({"messages": [USER, REPLY]})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", r"row 2: not valid JSON"),
        ("[]", r"row 2: `messages` is None"),
        (json.dumps({"messages": "hi"}), r"row 2: `messages` is 'hi'"),
        (json.dumps({"messages": [USER, {"role": "robot", "content": "x"}]}), r"row 2: messages\[1\].role is 'robot'"),
        (json.dumps({"messages": [USER, {"role": "assistant", "content": 4}]}), r"row 2: messages\[1\].content is 4"),
        (json.dumps({"messages": [USER]}), r"row 2: messages has the roles \['user'\]"),
        (json.dumps({"messages": [REPLY, USER]}), r"row 2: messages has the roles"),
        (json.dumps({"messages": [USER, REPLY, REPLY]}), r"row 2: messages\[2\].role is 'assistant' after another"),
        (json.dumps({"messages": [USER, {**REPLY, "weight": 2}]}), r"row 2: messages\[1\].weight is 2"),
        (json.dumps({"messages": [USER, {**REPLY, "weight": 0}]}), r"row 2: no reply is learned"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_field(tmp_path, row, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{row}\n")
    with pytest.raises(DataError, match=says) as caught:
        corpus.read_documents(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.jsonl: the corpus cannot be read"):
        corpus.read_documents(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"nano-bass: write `expert`, `nano-base`, or a path"):
        corpus.read_documents(tmp_path / "nano-bass")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        corpus.read_documents(tmp_path / "empty.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        corpus.read_documents(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="none is `messages`"):
        corpus.read_documents(tmp_path / "other.parquet")
