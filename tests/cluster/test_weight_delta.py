import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import weight_delta
from cluster.engine.node_files import BaseMissing, MappedParcel, NodeFiles
from cluster.weight_delta import SHARE, WeightDelta, delta_between
from cluster.weights import WeightParcel, pack_weights

ANY = 4.0  # share that no delta reaches: an entry is 3 bytes for a word of 2
PATTERNS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
SPECIAL = (0x7FC1, 0xFFC0, 0x7F80, 0x8000, 0x0001)  # in bfloat16: two NaNs, an infinity, minus nothing, a subnormal


def words(parcel: WeightParcel) -> np.ndarray:
    """A copy of all words of a parcel."""
    return np.concatenate([buffer.view(np.uint16) for buffer in parcel.buffers])


def two_versions(seed: int, shapes, dtype: torch.dtype, changed: float) -> tuple[WeightParcel, WeightParcel]:
    """Tensors of random bits, then with a share of the elements replaced by other random bits and NaNs."""
    dice = np.random.default_rng(seed)
    width = PATTERNS[dtype].itemsize
    olds, news = {}, {}
    for number, shape in enumerate(shapes):
        old = dice.integers(0, 256, (*shape, width), np.uint8).view(f"u{width}")[..., 0]
        new, is_new = old.copy(), dice.random(shape) < changed
        new[is_new] = dice.integers(0, 256, (is_new.sum(), width), np.uint8).view(f"u{width}")[:, 0]
        new[is_new & (dice.random(shape) < 0.1)] = dice.choice(SPECIAL) << (8 * (width - 2))
        olds[f"w{number}"], news[f"w{number}"] = (
            torch.from_numpy(bits.view(f"i{width}").copy()).view(dtype) for bits in (old, new)
        )
    return pack_weights(olds.items(), version=1), pack_weights(news.items(), version=2)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.sampled_from([(), (1,), (31, 7), (256,), (257,), (3000,)]), min_size=1, max_size=6),
    dtype=st.sampled_from(list(PATTERNS)),
    changed=st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
    piece=st.sampled_from([1, 255, 256, 1000, 2**17]),
)
def test_the_base_patched_is_the_new_parcel_bit_for_bit(seed, shapes, dtype, changed, piece):
    base, new = two_versions(seed, shapes, dtype, changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_delta, "PIECE", piece)
        delta = delta_between(base, new, share=ANY)
        assert delta is not None
        assert (delta.base, delta.digest, delta.version) == (base.digest, new.digest, 2)
        found = words(base)
        delta.patch(found)
    assert np.array_equal(found, words(new))


def test_a_few_changes_cost_three_bytes_each_and_an_entry_every_256_words():
    old = torch.randn(2**18, generator=torch.Generator().manual_seed(0)).bfloat16()
    new = old.clone()
    new.view(torch.int16)[: 13_000 * 20 : 20] ^= 1
    base, parcel = pack_weights([("w", old)], version=1), pack_weights([("w", new)], version=2)
    delta = delta_between(base, parcel)
    assert delta is not None
    assert 3 * 13_000 <= delta.size_bytes <= 3 * (13_000 + 2**10)
    same = delta_between(base, base)
    assert same is not None
    assert same.size_bytes == 3 * 2**10


@pytest.mark.parametrize(("changed", "is_delta"), [(0.25, True), (0.45, False), (1.0, False)])
def test_where_much_changes_there_is_no_delta(changed: float, is_delta: bool):
    base, new = two_versions(0, [(200_000,)], torch.bfloat16, changed)
    delta = delta_between(base, new)
    assert (delta is not None) == is_delta
    if delta is not None:
        assert delta.size_bytes <= SHARE * new.size_bytes


def test_a_change_that_the_sample_misses_still_ends_at_the_limit(monkeypatch):
    monkeypatch.setattr(weight_delta, "PIECE", 256)
    base = pack_weights([("w", torch.zeros(2**14, dtype=torch.bfloat16))], version=1)
    new = torch.ones(2**14, dtype=torch.bfloat16)
    for start in range(0, 2**14, 256 * weight_delta.SAMPLED):
        new[start : start + 256] = 0
    assert delta_between(base, pack_weights([("w", new)], version=2)) is None


@pytest.mark.parametrize(
    "others",
    [
        {"w": torch.zeros(9, dtype=torch.bfloat16)},
        {"w": torch.zeros(8, dtype=torch.float16)},
        {"v": torch.zeros(8, dtype=torch.bfloat16)},
    ],
    ids=["another shape", "another type", "another name"],
)
def test_parcels_of_unlike_tensors_have_no_delta(others):
    base = pack_weights([("w", torch.zeros(8, dtype=torch.bfloat16))], version=1)
    assert delta_between(base, pack_weights(others.items(), version=2), share=ANY) is None


def test_tensors_of_an_odd_number_of_bytes_have_no_delta():
    base = pack_weights([("w", torch.zeros(3, dtype=torch.uint8))], version=1)
    assert delta_between(base, base, share=ANY) is None


def test_a_delta_travels_out_of_band():
    delta, buffers = some_delta()[2], []
    pickle.dumps(delta, protocol=5, buffer_callback=buffers.append)
    assert sum(buffer.raw().nbytes for buffer in buffers) == delta.size_bytes


def test_a_base_of_another_length_is_left_as_it_is():
    base, _, delta = some_delta()
    short = words(base)[:-1]
    kept = short.copy()
    with pytest.raises(ValueError, match="its base has"):
        delta.patch(short)
    assert np.array_equal(short, kept)


# ---- on a node ---------------------------------------------------------------------------------------------------------


def some_delta(seed: int = 0) -> tuple[WeightParcel, WeightParcel, WeightDelta]:
    base, new = two_versions(seed, [(400, 30), (77,)], torch.bfloat16, 0.05)
    delta = delta_between(base, new)
    assert delta is not None
    return base, new, delta


def verified(path, of: WeightParcel | WeightDelta) -> np.ndarray:
    found = MappedParcel.open(path, of.index)
    found.verify(of.digest)
    return found.data.view(np.uint16).copy()


def test_a_base_that_nobody_reads_becomes_the_new_parcel_in_place(tmp_path):
    files = NodeFiles(tmp_path / "files")
    base, new, delta = some_delta()
    with files.holding(base) as path:
        inode = path.stat().st_ino
    with files.holding(delta) as path:
        assert np.array_equal(verified(path, delta), words(new))
        assert path.stat().st_ino == inode
    assert files.has(new.digest)
    assert not files.has(base.digest)


def test_a_base_that_is_being_read_is_copied(tmp_path):
    files, others = NodeFiles(tmp_path / "files"), NodeFiles(tmp_path / "files")
    base, new, delta = some_delta()
    with files.holding(base) as old:
        with others.holding(delta) as path:
            assert np.array_equal(verified(path, delta), words(new))
        assert np.array_equal(verified(old, base), words(base))


def test_a_parcel_that_is_there_already_is_not_patched_again(tmp_path):
    files = NodeFiles(tmp_path / "files")
    base, new, delta = some_delta()
    with files.holding(base):
        pass
    with files.holding(delta) as path:
        first = path.stat()
    with files.holding(delta) as path, files.holding(new) as same:
        assert path == same
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


def test_without_the_base_a_delta_says_so_and_the_parcel_does(tmp_path):
    files = NodeFiles(tmp_path / "files")
    _, new, delta = some_delta()
    with pytest.raises(BaseMissing, match="is not on this node"), files.holding(delta):
        pass
    with files.holding(new) as path:
        assert np.array_equal(verified(path, new), words(new))


@pytest.mark.parametrize("left", [0, 1001, 64])
def test_a_base_that_is_cut_short_is_no_base(tmp_path, left: int):
    files = NodeFiles(tmp_path / "files")
    base, new, delta = some_delta()
    with files.holding(base) as path:
        pass
    with path.open("r+b") as file:
        file.truncate(left)
    with pytest.raises(BaseMissing, match="is cut short"), files.holding(delta):
        pass
    with files.holding(new) as path:
        assert np.array_equal(verified(path, new), words(new))
