"""Episodes as an Arrow record batch: what crosses the object store, and what Parquet keeps. The round trip is exact.

One row per episode, with nested segments and turns. Token arrays and pictures come back as read-only views into the
batch: nothing is copied between the worker that sampled them and the learner that packs them. Pictures are a column of
their own beside `SCHEMA`, so that the run log can leave them out.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from envs.base import DataError
from envs.task import Status, Task
from trainers.episode import Episode, Segment, Turn, Usage

FORMAT = b"1"
FORMAT_KEY = b"viter.episode"

TASK = pa.struct(
    [
        ("environment", pa.string()),
        ("options", pa.string()),  # JSON
        ("id", pa.string()),
        ("data", pa.string()),  # JSON
    ]
)
TURN = pa.struct(
    [
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("answer", pa.string()),
        ("feedback", pa.string()),
        ("finish_reason", pa.string()),
    ]
)
SEGMENT = pa.struct(
    [
        ("token_ids", pa.list_(pa.int32())),
        ("sampled", pa.list_(pa.uint8())),  # 0 or 1: Arrow packs booleans into bits, which NumPy cannot view
        ("engine_logp", pa.list_(pa.float32())),
        ("weight_versions", pa.list_(pa.int32())),
        ("turns", pa.list_(TURN)),
        ("images", pa.list_(pa.string())),
    ]
)
USAGE = pa.struct(
    [
        ("prefill_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("sampled_tokens", pa.int64()),
        ("generate_s", pa.float64()),
        ("verify_s", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("index", pa.int64()),
        ("task", TASK),
        ("segments", pa.list_(SEGMENT)),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("usage", USAGE),
        ("worker", pa.string()),
        ("overflowed", pa.bool_()),
    ],
    metadata={FORMAT_KEY: FORMAT},
)
PICTURE = pa.struct([("height", pa.int32()), ("width", pa.int32()), ("pixels", pa.large_binary())])
PICTURES = pa.field("pictures", pa.list_(PICTURE))  # of all segments of the episode, in order


def with_pictures(batch: pa.RecordBatch, episodes: Sequence[Episode]) -> pa.RecordBatch:
    """The batch of these episodes with their pictures, where any of them has some."""
    if not any(segment.pictures for episode in episodes for segment in episode.segments):
        return batch
    return batch.append_column(PICTURES, _lists([_pictures_in(episode) for episode in episodes], _picture_array))


def to_batch(episodes: Sequence[Episode]) -> pa.RecordBatch:
    """One row per episode, in order. `SCHEMA` is its schema."""
    tasks = [episode.task for episode in episodes]
    columns = [
        pa.array([episode.step for episode in episodes], pa.int64()),
        pa.array([episode.index for episode in episodes], pa.int64()),
        _struct(TASK, tasks, options=_json, data=_json),
        _lists([episode.segments for episode in episodes], _segments),
        pa.array([episode.terminated for episode in episodes], pa.bool_()),
        pa.array([episode.truncated for episode in episodes], pa.bool_()),
        _struct(USAGE, [episode.usage for episode in episodes]),
        pa.array([episode.worker for episode in episodes], pa.string()),
        pa.array([episode.overflowed for episode in episodes], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def without_pictures(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the keys of its images alone."""
    return batch.drop_columns([PICTURES.name]) if PICTURES.name in batch.schema.names else batch


def from_batch(batch: pa.RecordBatch) -> list[Episode]:
    """The episodes of a batch; extra columns are ignored. Arrays are read-only and keep the batch alive.

    Raises:
        DataError: the batch holds no episodes, or those of another version.
    """
    found = (batch.schema.metadata or {}).get(FORMAT_KEY)
    if found != FORMAT:
        seen = "none" if found is None else found.decode(errors="replace")
        raise DataError(
            f"the episodes have format {seen}, this version reads {FORMAT.decode()}; read them with their own"
        )
    column = batch.column("segments")
    bounds = column.offsets.to_numpy()
    segments = _segments_of(column.values.slice(bounds[0], bounds[-1] - bounds[0]))
    bounds = bounds - bounds[0]  # a sliced batch starts in the middle of its segments
    if PICTURES.name in batch.schema.names:
        segments = _shown(segments, iter(_pictures_of(batch.column(PICTURES.name))))
    rows = {name: batch.column(name).to_pylist() for name in SCHEMA.names if name != "segments"}
    return [
        Episode(
            step=rows["step"][row],
            index=rows["index"][row],
            task=_task(rows["task"][row]),
            segments=tuple(segments[bounds[row] : bounds[row + 1]]),
            terminated=rows["terminated"][row],
            truncated=rows["truncated"][row],
            usage=Usage(**rows["usage"][row]),
            worker=rows["worker"][row],
            overflowed=rows["overflowed"][row],
        )
        for row in range(batch.num_rows)
    ]


def _segments(segments: Sequence[Segment]) -> pa.StructArray:
    children = [
        _flat([segment.token_ids for segment in segments], np.int32),
        _flat([segment.sampled for segment in segments], np.bool_),
        _flat([segment.engine_logp for segment in segments], np.float32),
        _flat([segment.weight_versions for segment in segments], np.int32),
        _lists([segment.turns for segment in segments], lambda turns: _struct(TURN, turns)),
        _lists([segment.images for segment in segments], lambda images: pa.array(images, pa.string())),
    ]
    return pa.StructArray.from_arrays(children, fields=list(SEGMENT))


def _flat(arrays: Sequence[np.ndarray], dtype: type[np.generic]) -> pa.ListArray:
    values = np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
    return pa.ListArray.from_arrays(_offsets(arrays), pa.array(values.view(np.uint8) if dtype is np.bool_ else values))


def _lists(groups: Sequence[Sequence[Any]], build: Callable[[list[Any]], pa.Array]) -> pa.ListArray:
    return pa.ListArray.from_arrays(_offsets(groups), build(list(chain.from_iterable(groups))))


def _offsets(groups: Sequence[Sequence[Any] | np.ndarray]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, groups)], dtype=np.int64), pa.int32())  # refuses 2³¹ tokens in one batch


def _struct(kind: pa.StructType, items: Sequence[Any], **encode: Callable[[Any], Any]) -> pa.StructArray:
    children = [
        pa.array(
            [encode[f.name](getattr(item, f.name)) for item in items]
            if f.name in encode
            else [getattr(item, f.name) for item in items],
            f.type,
        )
        for f in kind
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind))


def _segments_of(array: pa.StructArray) -> list[Segment]:
    tokens = _views(array.field("token_ids"))
    sampled = [view.view(np.bool_) for view in _views(array.field("sampled"))]
    logp = _views(array.field("engine_logp"))
    versions = _views(array.field("weight_versions"))
    turns = array.field("turns").to_pylist()
    images = array.field("images").to_pylist()
    return [
        Segment(
            token_ids=tokens[i],
            sampled=sampled[i],
            engine_logp=logp[i],
            weight_versions=versions[i],
            turns=tuple(Turn(**{**turn, "status": Status(turn["status"])}) for turn in turns[i]),
            images=tuple(images[i]),
        )
        for i in range(len(array))
    ]


def _pictures_in(episode: Episode) -> list[np.ndarray]:
    return [picture for segment in episode.segments for picture in segment.pictures]


def _picture_array(pictures: list[np.ndarray]) -> pa.StructArray:
    children = [
        pa.array([picture.shape[0] for picture in pictures], pa.int32()),
        pa.array([picture.shape[1] for picture in pictures], pa.int32()),
        pa.array([picture.tobytes() for picture in pictures], pa.large_binary()),
    ]
    return pa.StructArray.from_arrays(children, fields=list(PICTURE))


def _pictures_of(column: pa.ListArray) -> list[np.ndarray]:
    """Views of all pictures of the column, in order."""
    array = column.flatten()
    pixels = array.field("pixels")
    sizes = zip(array.field("height").to_pylist(), array.field("width").to_pylist(), strict=True)
    return [
        np.frombuffer(pixels[place].as_buffer(), np.uint8).reshape(height, width, 3)
        for place, (height, width) in enumerate(sizes)
    ]


def _shown(segments: list[Segment], pictures: Iterator[np.ndarray]) -> list[Segment]:
    return [replace(segment, pictures=tuple(islice(pictures, len(segment.images)))) for segment in segments]


def _views(array: pa.ListArray) -> list[np.ndarray]:
    values = array.values.to_numpy(zero_copy_only=True)
    return [values[start:stop] for start, stop in pairwise(array.offsets.to_numpy().tolist())]


def _task(row: dict[str, str]) -> Task:
    return Task(
        environment=row["environment"], options=json.loads(row["options"]), id=row["id"], data=json.loads(row["data"])
    )


def _json(mapping: Any) -> str:
    return json.dumps(dict(mapping), ensure_ascii=False, separators=(",", ":"))
