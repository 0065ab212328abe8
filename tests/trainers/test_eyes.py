import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from envs.base import DataError
from envs.task import Message, Status, Verdict
from tests.trainers import seeing
from trainers import eyes as module
from trainers.chat import ChatFormat, Transcript
from trainers.eyes import Eyes, picture_digest


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return seeing.model(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def chat(directory):
    return ChatFormat.load(directory)


def test_an_expansion_is_what_the_models_own_processor_writes(directory, chat):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(directory)
    text = "<bos><user><image>look here<assistant>"
    whole = processor(text=[text], images=[Image.fromarray(seeing.picture(0))], add_special_tokens=False)["input_ids"][
        0
    ]
    assert seeing.opened(chat, 0, text="look here").token_ids == whole
    assert whole.count(chat.eyes.image_id) == 4  # 32 px in patches of 8, four to a token


def test_several_images_stand_in_the_order_they_are_named(chat):
    transcript = seeing.opened(chat, 3, 1, 2)
    assert transcript.images == ["3", "1", "2"]
    assert all(np.array_equal(seen, seeing.picture(n)) for seen, n in zip(transcript.pictures, (3, 1, 2), strict=True))
    inputs = chat.eyes.inputs(transcript.pictures)
    alone = [chat.eyes.inputs([seeing.picture(n)])["pixel_values"] for n in (3, 1, 2)]
    assert torch.equal(inputs["pixel_values"], torch.cat(alone, 1))
    assert not torch.equal(alone[0], alone[1])


def test_an_image_in_the_feedback_is_expanded_where_it_stands(chat):
    transcript = seeing.opened(chat, 0)
    before = len(transcript.token_ids)
    transcript.append_reply(chat.reply_ids("an answer"), [0.0] * len(chat.reply_ids("an answer")), 0, "stop")
    verdict = Verdict(reward=0.0, status=Status.WRONG_ACTION, feedback="no")
    transcript.append_verdict(verdict, Message(role="user", text="no", images=("7",)), {"7": seeing.picture(7)})
    tail = transcript.token_ids[before:]
    assert tail.count(chat.eyes.image_id) == 4
    segment = transcript.segment()
    assert segment.images == ("0", "7")
    assert not segment.sampled[before + 2 + tail.index(chat.eyes.image_id) :].all()
    assert np.array_equal(segment.pictures[1], seeing.picture(7))


def test_text_alone_is_untouched_by_eyes(chat):
    transcript = Transcript(chat, [Message(role="user", text="look")])
    assert transcript.token_ids == chat.encode("<bos><user>look<assistant>")
    assert chat.eyes.inputs([]) == {}


def test_a_model_that_reads_text_alone_says_so_of_an_image(tmp_path):
    from trainers.nano.model import create

    reads = ChatFormat.load(create(tmp_path / "reads"))
    assert reads.eyes is None
    assert reads.banned_ids == ()
    with pytest.raises(DataError, match="reads text alone; a task with images needs a vision model"):
        reads.prompt_ids([Message(role="user", text="look", images=("1",))])


def test_prepared_pictures_are_kept_while_there_is_room(directory, monkeypatch):
    fresh = Eyes.load(directory)
    size = sum(tensor.nbytes for tensor in fresh.inputs([seeing.picture(0)]).values())
    monkeypatch.setattr(module, "KEPT_BYTES", 3 * size)
    for number in range(10):
        fresh.inputs([seeing.picture(number)])
    assert list(fresh._kept) == [picture_digest(seeing.picture(number)) for number in (7, 8, 9)]
    assert fresh._kept_bytes == 3 * size


def test_a_pictures_name_is_its_content():
    one = seeing.picture(1)
    assert picture_digest(one) == picture_digest(one.copy())
    assert picture_digest(one) == picture_digest(np.asfortranarray(one))
    assert len({picture_digest(p) for p in (one, seeing.picture(2), one.reshape(16, 64, 3))}) == 3


def test_a_damaged_image_processor_is_told_in_one_sentence(directory, tmp_path):
    broken = shutil.copytree(directory, tmp_path / "broken")
    (broken / "processor_config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON; copy the file from the model again"):
        Eyes.load(broken)
    settings = json.loads((directory / "processor_config.json").read_text())
    settings["image_processor"]["image_processor_type"] = "NoSuchProcessor"
    (broken / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="its image processor cannot be loaded"):
        Eyes.load(broken)


def test_placeholders_and_images_must_be_as_many(chat):
    """A text that holds the placeholder itself would move every picture after it by one."""
    with pytest.raises(
        DataError, match=r"2 image placeholders for 1 images; the text of a message may not hold '<image>'"
    ):
        seeing.opened(chat, 0, text="an <image> in words")
    with pytest.raises(DataError, match="1 image placeholders for 0 images"):
        seeing.opened(chat, text="an <image> in words")
    with pytest.raises(DataError, match="a reply holds '<image>', which stands for an image"):
        chat.reply_ids("I see <image>")


def test_a_model_with_another_token_for_its_features_is_refused(directory, tmp_path):
    other = shutil.copytree(directory, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "image_token_id": 3}))
    with pytest.raises(
        DataError, match=r"config\.json puts images at 3; models with two such tokens are not supported"
    ):
        Eyes.load(other)
