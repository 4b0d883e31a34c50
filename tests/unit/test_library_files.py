"""Only files of the library are opened, whatever their names have become since the last listing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streaming_app import create_app
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue as catalogue_module
from streaming_app.videos import library_files
from streaming_app.videos.library_files import OpenFiles, open_inside
from tests.clips import make_clip
from tests.rsgi_client import RsgiApp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_clip(tmp_path / "videos" / "a.mp4")
    make_clip(tmp_path / "videos" / "sub" / "b.mp4", frames=5)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.mp4").write_bytes(b"a secret")
    return (tmp_path / "videos").resolve()


def replaced_by_a_link(folder: Path) -> None:
    (folder / "sub" / "b.mp4").unlink()
    (folder / "sub" / "b.mp4").symlink_to(folder.parent / "outside" / "b.mp4")


def folder_replaced_by_a_link(folder: Path) -> None:
    (folder / "sub").rename(folder / ".sub")
    (folder / "sub").symlink_to(folder.parent / "outside")


def link_with_dots(folder: Path) -> None:
    (folder / "sub" / "b.mp4").unlink()
    (folder / "sub" / "b.mp4").symlink_to("../../outside/b.mp4")


def link_to_a_link(folder: Path) -> None:
    (folder / "a.mp4").unlink()
    (folder / "a.mp4").symlink_to(folder.parent / "outside" / "b.mp4")
    (folder / "sub" / "b.mp4").unlink()
    (folder / "sub" / "b.mp4").symlink_to(folder / "a.mp4")


def a_pipe(folder: Path) -> None:
    (folder / "sub" / "b.mp4").unlink()
    os.mkfifo(folder / "sub" / "b.mp4")


SWAPS = [replaced_by_a_link, folder_replaced_by_a_link, link_with_dots, link_to_a_link, a_pipe]


@pytest.mark.parametrize("swap", SWAPS)
def test_what_leads_out_of_the_library_is_not_opened(folder: Path, swap: object) -> None:
    assert callable(swap)
    swap(folder)
    with pytest.raises(OSError, match=r".") as error:
        open_inside(folder, "sub/b.mp4")
    assert "Permission" not in str(error.value)
    assert OpenFiles(folder).get("sub/b.mp4") is None


@pytest.mark.parametrize("behind_proxy", [False, True])
@pytest.mark.parametrize("swap", SWAPS)
def test_it_is_404_though_the_catalogue_has_it_still(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: object, *, behind_proxy: bool
) -> None:
    assert callable(swap)
    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 60.0)
    app = create_app(StreamingSettings(videos=folder, cache=tmp_path / "cache", behind_proxy=behind_proxy))
    catalogue = app.extensions["flixtrail"].catalogue
    (video_id,) = [video.id for video in catalogue.videos() if video.name == "sub/b.mp4"]
    client = RsgiApp(app).client()
    assert client.get(f"/videos/{video_id}/stream").status_code == 200
    swap(folder)
    assert catalogue.get_nowait(video_id)
    answer = client.get(f"/videos/{video_id}/stream")
    assert answer.status_code == 404
    assert "X-Accel-Redirect" not in answer.headers
    assert b"a secret" not in answer.data


def test_links_within_the_library_are_opened_by_their_real_name(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder / "a.mp4")
    file = OpenFiles(folder).get("link.mp4")
    assert file is not None
    assert file.real_path == folder / "a.mp4"
    assert Path(file.path).read_bytes() == (folder / "a.mp4").read_bytes()


def test_what_was_opened_stays_that_file_when_its_name_is_given_to_another(folder: Path) -> None:
    files = OpenFiles(folder)
    content = (folder / "sub" / "b.mp4").read_bytes()
    file = files.get("sub/b.mp4")
    assert file is not None
    replaced_by_a_link(folder)  # between our look and the web server's open
    assert Path(file.path).read_bytes() == content


def test_one_descriptor_a_file_and_none_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OpenFiles(folder)
    opened = [files.get("a.mp4") for _ in range(50)]
    assert len({file.descriptor for file in opened if file}) == 1
    monkeypatch.setattr(library_files, "KEEP_S", -1.0)
    assert files.get("sub/b.mp4")
    assert opened[0] is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0].descriptor)


def test_a_file_that_was_deleted_is_closed_though_nobody_asks_for_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OpenFiles(folder)
    file = files.get("a.mp4")
    assert file is not None
    files.close_unused()
    assert os.fstat(file.descriptor).st_size, "it was used just now"
    monkeypatch.setattr(library_files, "KEEP_S", -1.0)
    files.close_unused()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.descriptor)
