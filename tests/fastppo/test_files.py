"""Files are replaced whole or not at all, and never in place of something else."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastppo import files
from fastppo.text import printable


def test_a_link_is_replaced_and_its_target_is_not_touched(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)

    files.write(link, "new")

    assert target.read_text() == "precious"
    assert link.read_text() == "new"
    assert not link.is_symlink()


def test_a_predictable_name_beside_the_target_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json.part").write_text("the user's")

    files.write(tmp_path / "a.json", "new")

    assert (tmp_path / "a.json.part").read_text() == "the user's"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.json.part"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_mode_of_a_replaced_file_is_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(mode)

    files.write(path, "new")

    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_half() -> None:
        with files.replacing(path) as file:
            file.write(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()

    files.write(pipe, "through")
    reader.join(10)

    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_are_written_through(tmp_path: Path) -> None:
    before = Path("/dev/null").stat()

    files.write(Path("/dev/null"), "gone")
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    files.write(link, "gone")

    assert Path("/dev/null").stat().st_rdev == before.st_rdev
    assert link.is_symlink()


def test_opening_a_lock_changes_no_file_and_follows_no_link(tmp_path: Path) -> None:
    """Issue 10, 17."""
    lock, link, pipe = tmp_path / "lock", tmp_path / "link", tmp_path / "pipe"
    files.open_lock(lock).close()
    lock.write_text("kept")
    link.symlink_to(lock)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe)

    files.open_lock(lock).close()
    for path in (link, tmp_path / "dangling"):
        with pytest.raises(OSError, match="a symbolic link where a lock file belongs"):
            files.open_lock(path)
    with pytest.raises(OSError, match="no regular file"):
        files.open_lock(pipe)

    assert lock.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(OSError, match="neither a file nor a pipe"):
        files.write(tmp_path / "folder", "x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xff{}", "no UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1e999]", "beyond a double"),
        (b"[" + b"9" * 5000 + b"]", "beyond a double"),
        (b"[1" + b"0" * 400 + b"]", "beyond a double"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (rb'["\ud800"]', "half a surrogate pair"),
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        ("{}".encode("utf-16"), "no UTF-8"),
    ],
)
def test_what_is_no_plain_json_has_a_reason(text: bytes, reason: str) -> None:
    with pytest.raises(files.Unreadable, match=reason):
        files.parse_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(JSON, st.booleans())
def test_plain_json_is_read_as_json_reads_it(value: object, ascii_only: bool) -> None:
    assert files.parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.text(), st.lists(st.text()))
def test_printable_text_steers_no_terminal(one: str, many: list[str]) -> None:
    shown = printable({one: [one, *many]})

    (key,) = shown
    assert all(text.isprintable() for text in (key, *shown[key]))
    assert printable(key) == key
    if one.isprintable():
        assert key == one


def test_escape_sequences_are_shown_as_such() -> None:
    assert printable("\x1b[2J\nfastppo: error") == "\\x1b[2J fastppo: error"
    assert printable("a\u202eb\ud800") == "a\\u202eb\\ud800"
