import numpy as np
import pytest

from envs.base import DataError
from envs.task import Message, Status, Verdict
from trainers.chat import ChatFormat, Transcript
from trainers.nano import tokenizer as nano

HEADERS = "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
LLAMA = (
    "{{ '<bos>' }}{% if messages[0].role != 'system' %}<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023<|eot_id|>{% endif %}"
    "{% for message in messages %}" + HEADERS + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NUMBERED = CHATML.replace("'<|im_end|>\n' }}{% endfor %}", "'<|im_end|>\n' + loop.index | string }}{% endfor %}")
STRIPS_THOUGHT = CHATML.replace(
    "message.content", "(message.content if loop.last else message.content.split('</think>')[-1].lstrip('\n'))"
)
COUNTS = "{{ messages | length }}" + CHATML
BARE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

ASK = Message(role="user", text="Cards: ['A', '7']")
HEAR = Message(role="user", text="You failed this trial because 3 is wrong.")


def chat_of(template, *special, phrases=()):
    words = nano.build(phrases)
    words.add_special_tokens({"extra_special_tokens": list(special)}, replace_extra_special_tokens=False)
    words.chat_template = template
    return ChatFormat(words, source="a model")


def llama():
    return chat_of(LLAMA, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def chatml():
    return chat_of(CHATML, "<|im_start|>", "<|im_end|>")


def nano_chat():
    return chat_of(nano.CHAT_TEMPLATE, phrases=["You failed this trial because ", "Cards: ['"])


def wrong(reward=-1.0):
    return Verdict(reward=reward, status=Status.WRONG_VALUE, feedback="3 is wrong.")


@pytest.mark.parametrize("make", [llama, chatml, nano_chat])
def test_a_transcript_is_the_rendered_chat_token_for_token(make):
    chat = make()
    reply = "1+7=24"
    transcript = Transcript(chat, [ASK])
    transcript.append_reply(chat.reply_ids(reply), [0.0] * len(chat.reply_ids(reply)), 0, "stop")
    transcript.append_verdict(wrong(), HEAR)
    assert transcript.token_ids == chat.prompt_ids([ASK, Message(role="assistant", text=reply), HEAR])
    assert transcript.token_ids[: len(chat.prompt_ids([ASK]))] == chat.prompt_ids([ASK])


@pytest.mark.parametrize("make", [llama, chatml, nano_chat])
def test_a_reply_cut_by_length_gets_an_end_token_that_is_not_sampled(make):
    chat = make()
    cut = chat.encode("1+7=2")
    transcript = Transcript(chat, [ASK])
    transcript.append_reply(cut, [-0.5] * len(cut), 0, "length")
    transcript.append_verdict(wrong(), HEAR)
    segment = transcript.segment()
    assert segment.token_ids.tolist() == chat.prompt_ids([ASK, Message(role="assistant", text="1+7=2"), HEAR])
    stop = segment.turns[0].stop
    assert segment.token_ids[stop] == chat.end_id
    assert not segment.sampled[stop]
    assert segment.sampled.sum() == len(cut)


def test_a_segment_marks_what_was_sampled_as_its_docstring_draws_it():
    chat = nano_chat()
    transcript = Transcript(chat, [Message(role="user", text="")])
    prompt = len(transcript.token_ids)
    assert prompt == 3  # <bos> <user> <assistant>
    first, second = [*chat.encode("9"), chat.end_id], [chat.end_id]
    assert transcript.append_reply(first, [-0.1, -0.2], [4, 5], "stop") == "9"
    transcript.append_verdict(wrong(-2.0), Message(role="user", text=""))
    assert transcript.append_reply(second, [-0.3], 5, "stop") == ""
    transcript.append_verdict(Verdict(reward=5.0, status=Status.CORRECT, feedback="", terminated=True))
    segment = transcript.segment()
    assert segment.sampled.astype(int).tolist() == [0, 0, 0, 1, 1, 0, 0, 1]
    assert [(turn.start, turn.stop) for turn in segment.turns] == [(3, 5), (7, 8)]
    assert segment.weight_versions.tolist() == [-1, -1, -1, 4, 5, -1, -1, 5]
    assert np.allclose(segment.engine_logp, [0, 0, 0, -0.1, -0.2, 0, 0, -0.3])
    assert [turn.reward for turn in segment.turns] == [-2.0, 5.0]


def test_a_special_token_inside_a_reply_is_shown_to_the_verifier():
    chat = nano_chat()
    user_id = chat.tokenizer.convert_tokens_to_ids("<user>")
    assert chat.decode([*chat.encode("9"), user_id, *chat.encode("9"), chat.end_id]) == "9<user>9"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (NUMBERED, "differently from an earlier one"),
        (STRIPS_THOUGHT, "rewrites what was already said"),
        (COUNTS, "rewrites what was already said"),
        (BARE, "no special token"),
    ],
)
def test_a_template_that_does_not_extend_its_prefix_is_refused_in_one_sentence(template, says):
    with pytest.raises(DataError, match=says) as caught:
        chat_of(template, "<|im_start|>", "<|im_end|>")
    assert "\n" not in str(caught.value)


def test_a_directory_without_tokenizer_or_template_is_refused(tmp_path):
    with pytest.raises(DataError, match="no tokenizer"):
        ChatFormat.load(tmp_path)
    words = nano.build([])
    words.chat_template = None
    words.save_pretrained(str(tmp_path))
    with pytest.raises(DataError, match="no chat template"):
        ChatFormat.load(tmp_path)


def test_the_generation_config_adds_its_stop_tokens(tmp_path):
    nano.build([]).save_pretrained(str(tmp_path))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 1]}')
    chat = ChatFormat.load(tmp_path)
    assert set(chat.stop_ids) == {chat.end_id, 1}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match="not a JSON object"):
        ChatFormat.load(tmp_path)
