"""Npz files of TCAMs read in parts: the same as the whole, whatever the order, and no less suspicious."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tal_postproc import FormatError, Video, _tcam_files, formats, synthetic


@pytest.fixture(scope="module")
def data():
    return synthetic.make_videos(9, seed=5)


def same(part, whole) -> None:
    assert [video.id for video in part] == [video.id for video in whole]
    for one, other in zip(part, whole):
        assert one.maps.keys() == other.maps.keys()
        assert (one.seconds_per_snippet, one.duration) == (other.seconds_per_snippet, other.duration)
        for name, values in other.maps.items():
            assert one.maps[name].dtype == values.dtype.newbyteorder("=")
            assert_array_equal(one.maps[name], values)
        for name, values in other.scores.items():
            assert_array_equal(one.scores[name], values)


ORDERS = {
    "forward": [(0, 3), (3, 4), (4, 9)],
    "with gaps": [(1, 2), (4, 6), (8, 9)],
    "back": [(6, 9), (0, 2), (1, 5), (0, 9)],
    "nothing": [(0, 0), (9, 9), (4, 4)],
}


@pytest.mark.parametrize("kind", ["stored", "deflated", "fortran"])
@pytest.mark.parametrize("order", list(ORDERS))
def test_parts_are_those_of_the_whole(tmp_path, data, kind, order):
    path = tmp_path / "t.npz"
    formats.write_tcams(path, data, compressed=kind == "deflated")
    if kind == "fortran":
        with np.load(path) as arrays:
            np.savez(path, **{name: np.asfortranarray(array) for name, array in arrays.items()})
    with formats.open_tcams(path) as reader:
        assert len(reader) == 9
        assert reader.classes == data.classes
        assert reader.lengths.tolist() == [video.num_snippets for video in data]
        assert set(reader.map_names) == {"cas", "attention", "logits"}
        assert_array_equal(reader.annotations.segments.segments, data.ground_truth.segments)
        for start, stop in ORDERS[order]:
            same(reader.read(start, stop), data.videos[start:stop])


def test_seconds_per_snippet_fill_what_is_not_known(tmp_path, data):
    path = tmp_path / "t.npz"
    formats.write_tcams(path, data)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "seconds_per_snippet": np.r_[0.5, [np.nan] * 8]})
    for given, expected in ((None, [0.5, None]), (0.64, [0.5, 0.64])):
        with formats.open_tcams(path, seconds_per_snippet=given) as reader:
            assert [video.seconds_per_snippet for video in reader.read(0, 2)] == expected
    with pytest.raises(ValueError, match="above 0"):
        formats.open_tcams(path, seconds_per_snippet=0)


def test_ranges_are_checked(tmp_path, data):
    formats.write_tcams(tmp_path / "t.npz", data)
    with formats.open_tcams(tmp_path / "t.npz") as reader:
        for start, stop, message in ((0, 10, "at most 9"), (4, 3, "`stop` must be at least 4"), (-1, 2, "`start`")):
            with pytest.raises(ValueError, match=message):
                reader.read(start, stop)
    with pytest.raises(FormatError, match="`max_bytes` = 10"):
        formats.open_tcams(tmp_path / "t.npz", max_bytes=10)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_changed_byte_is_found_when_all_of_it_was_read(tmp_path, data, compressed):
    path = tmp_path / "t.npz"
    formats.write_tcams(path, data, compressed=compressed)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("tcam.npy")
    content[info.header_offset + 200 + info.compress_size // 2] ^= 1
    path.write_bytes(bytes(content))

    def read(parts):
        with formats.open_tcams(path) as reader:
            for start, stop in parts:
                reader.read(start, stop)

    with pytest.raises(FormatError, match=r"array 'tcam' is broken"):
        read([(row, row + 1) for row in range(9)])


def test_a_part_takes_the_memory_of_a_part(tmp_path):
    rows = 400_000
    maps = {
        "cas": np.ones((rows, 10)),
        "names": np.array(["a", "b", "c"]),
        "offsets": np.array([0, 10, rows - 10, rows]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "t.npz", **maps)
        tracemalloc.start()
        with formats.open_tcams(tmp_path / "t.npz") as reader:
            assert reader.read(2, 3)[0].maps["cas"].tolist() == [[1.0] * 10] * 10
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # the file has 32 MB
        tracemalloc.stop()


def test_a_stored_member_that_lies_about_its_size(tmp_path, data):
    path = tmp_path / "t.npz"
    formats.write_tcams(path, data)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("attention.npy")
    size = info.file_size.to_bytes(4, "little")
    content = path.read_bytes()
    place = content.rindex(size + size)  # compressed and plain size in the directory
    for new in (size + (info.file_size + 8).to_bytes(4, "little"), (info.file_size - 8).to_bytes(4, "little") + size):
        path.write_bytes(content[:place] + new + content[place + 8 :])
        with pytest.raises(FormatError, match="attention"):
            formats.open_tcams(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["<f8", ">f4", "i2", "?"])
def test_merged_files_are_the_bytes_of_one(tmp_path, data, kind, compressed):
    """Also of videos whose duration, step or warp is not known, and in which nothing happens for 0 snippets."""
    knots = np.array([0.0, 5.0]), np.array([0.0, 9.0])
    videos = [
        Video(
            video.id,
            {
                "labels": (9 * video.maps["cas"][: 40 * (v != 4)]).astype(kind),
                "cas": video.maps["attention"][: 40 * (v != 4)],
            },
            seconds_per_snippet=None if v == 2 else 0.64,
            duration=None if v == 5 else 30.0 + v,
            warp=knots if v in (1, 6) else None,
        )
        for v, video in enumerate(data)
    ]
    options = {"classes": data.classes, "compressed": compressed}
    formats.write_tcams(tmp_path / "whole.npz", videos, **options)
    parts = []
    for start, stop in ((0, 1), (1, 4), (4, 5), (5, 9)):
        parts.append(tmp_path / f"{start}.npz")
        formats.write_tcams(parts[-1], videos[start:stop], **options)
    _tcam_files.merge_tcams(tmp_path / "merged.npz", parts, compressed=compressed)
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    same(formats.read_tcams(tmp_path / "whole.npz"), videos)
    with np.load(tmp_path / "whole.npz") as arrays:  # NumPy takes it, and it holds what NumPy would concatenate
        assert_array_equal(arrays["labels"], np.concatenate([video.maps["labels"] for video in videos]))
        assert arrays["labels"].dtype == np.dtype(kind).newbyteorder("=")
