import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.base import DataError
from envs.task import Status, Task
from tests.trainers.episodes import assert_same, plain_episode
from trainers.episode import Episode, Segment, Turn, Usage
from trainers.episode_arrow import FORMAT_KEY, SCHEMA, from_batch, to_batch

texts = st.text(max_size=20)
int32 = st.integers(-(2**31), 2**31 - 1)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda v: st.lists(v, max_size=3))
json_dicts = st.dictionaries(texts, json_values, max_size=3)
turns = st.builds(
    Turn,
    start=int32,
    stop=int32,
    reward=st.floats(allow_nan=False),
    status=st.sampled_from(Status),
    answer=texts,
    feedback=texts,
    finish_reason=st.sampled_from(["stop", "length"]),
)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    length = draw(st.integers(0, 12))
    return Segment(
        token_ids=draw(arrays(np.int32, length)),
        sampled=draw(arrays(np.bool_, length)),
        engine_logp=draw(arrays(np.float32, length)),
        weight_versions=draw(arrays(np.int32, length)),
        turns=tuple(draw(st.lists(turns, max_size=3))),
        images=tuple(draw(st.lists(texts, max_size=2))),
    )


episodes = st.builds(
    Episode,
    step=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
    task=st.builds(Task, environment=texts, options=json_dicts, id=texts, data=json_dicts),
    segments=st.lists(segments(), max_size=3).map(tuple),
    terminated=st.booleans(),
    truncated=st.booleans(),
    usage=st.builds(
        Usage,
        prefill_tokens=st.integers(0, 2**40),
        cached_tokens=st.integers(0, 2**40),
        sampled_tokens=st.integers(0, 2**40),
        generate_s=st.floats(0, 1e6),
        verify_s=st.floats(0, 1e6),
    ),
    worker=texts,
)


@settings(deadline=None)
@given(st.lists(episodes, max_size=4))
def test_an_episode_comes_back_exactly_as_it_was(sent: list[Episode]):
    batch = to_batch(sent)
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    batch.validate(full=True)
    for found, expected in zip(from_batch(batch), sent, strict=True):
        assert_same(found, expected)


@settings(deadline=None)
@given(st.lists(episodes, min_size=1, max_size=5), st.data())
def test_a_slice_of_a_batch_holds_the_episodes_of_that_slice(sent: list[Episode], data: st.DataObject):
    start = data.draw(st.integers(0, len(sent) - 1))
    stop = data.draw(st.integers(start, len(sent)))
    for found, expected in zip(from_batch(to_batch(sent).slice(start, stop - start)), sent[start:stop], strict=True):
        assert_same(found, expected)


def test_token_arrays_are_views_into_the_batch_and_nothing_is_copied_in_transport():
    batch = to_batch([plain_episode(i) for i in range(300)])
    buffers: list[pickle.PickleBuffer] = []
    header = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    assert len(header) < 8192 < sum(buffer.raw().nbytes for buffer in buffers)  # the data travels beside the pickle
    arrived = pickle.loads(header, buffers=buffers)  # noqa: S301
    values = arrived.column("segments").values.field("token_ids").values.to_numpy()
    for episode in from_batch(arrived):
        assert np.shares_memory(episode.segments[0].token_ids, values)
        assert episode.segments[0].sampled.dtype == np.bool_
        assert not episode.segments[0].sampled.flags.writeable


def test_another_format_is_refused_with_its_number():
    batch = to_batch([plain_episode()])
    with pytest.raises(DataError, match="format 99, this version reads 1"):
        from_batch(batch.replace_schema_metadata({FORMAT_KEY: b"99"}))
    with pytest.raises(DataError, match="format none"):
        from_batch(pa.RecordBatch.from_pydict({"a": [1]}))


@pytest.mark.parametrize("module", ["checkpoints", "runlog", "compute", "episode_arrow", "objectstore"])
def test_what_is_kept_imports_without_torch(module: str):
    code = f"import sys, trainers.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
