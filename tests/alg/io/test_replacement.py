"""A file is replaced as a whole or not at all, and nothing that was there before is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alg.io.replacement import HasChanged, replace_file


@pytest.fixture(autouse=True)
def strict_umask() -> Iterator[None]:
    """Has the umask of a careful root."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sipnat.toml"
    path.write_text("old")
    return path


def test_a_new_file_can_be_read_by_the_gateways_own_user(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "sipnat" / "sipnat.toml"
    assert replace_file(path, None, "new") is None
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert os.listdir(path.parent) == ["sipnat.toml"]


def test_the_old_file_is_kept_with_whom_it_belongs_to(file: Path) -> None:
    file.chmod(0o640)
    backup = replace_file(file, "old", "new")
    assert (file.read_text(), backup) == ("new", file.with_name("sipnat.toml.bak"))
    assert backup is not None and backup.read_text() == "old"
    assert {each.stat().st_mode & 0o777 for each in (file, backup)} == {0o640}
    assert sorted(os.listdir(file.parent)) == ["sipnat.toml", "sipnat.toml.bak"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files away")
def test_a_secret_file_stays_its_groups(file: Path) -> None:
    os.chown(file, 0, 12345)
    replace_file(file, "old", "new")
    assert file.stat().st_gid == 12345


def test_no_backup_takes_another_ones_place(file: Path) -> None:
    for number in range(3):
        replace_file(file, file.read_text(), f"new {number}")
    backups = {each.name: each.read_text() for each in file.parent.glob("*.bak*")}
    assert backups == {
        "sipnat.toml.bak": "old",
        "sipnat.toml.bak2": "new 0",
        "sipnat.toml.bak3": "new 1",
    }


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "sipnat.toml"
    link.parent.mkdir()
    link.symlink_to(file)
    replace_file(link, "old", "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


@pytest.mark.parametrize("expected", ["older", None])
def test_what_somebody_else_has_written_meanwhile_stays(file: Path, expected: str | None) -> None:
    with pytest.raises(HasChanged, match="meanwhile"):
        replace_file(file, expected, "new")
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["sipnat.toml"]


def test_a_file_that_has_gone_meanwhile_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(HasChanged):
        replace_file(tmp_path / "sipnat.toml", "old", "new")
    assert not os.listdir(tmp_path)


def test_a_failure_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        replace_file(file, "old", "new")
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["sipnat.toml"]
