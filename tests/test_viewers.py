"""What a person sees of an environment: in a terminal, in a window, in a file."""

import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from pufferlib_cy import make, viewers

pytest.importorskip("rich")
image = pytest.importorskip("PIL.Image")
ffmpeg = pytest.importorskip("imageio_ffmpeg")


@pytest.fixture
def vec():
    with make("squared", 3, seed=0) as vec:
        vec.reset()
        yield vec


def record(vec, path, steps, fps=4.0, most=1000):
    """Steps down, a picture before each; returns the pictures."""
    shown = []
    with viewers.Video(path, fps) as video:
        pictures = viewers.FirstPictures(video, most)
        for _ in range(steps):
            if pictures(vec):
                shown.append(vec.render())
            vec.step([1] * 3)
    return pictures, shown


def test_a_gif_has_every_picture_at_its_rate(vec, tmp_path):
    path = tmp_path / "a.gif"
    _, shown = record(vec, path, 4)
    with image.open(path) as gif:
        assert gif.n_frames == 4 + 4          # and the last one for a second
        assert gif.info["loop"] == 0
        for k, picture in enumerate(shown):
            gif.seek(k)
            assert gif.info["duration"] == 250
            frame = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(frame - picture).max() <= 8
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_what_does_not_change_is_written_once(vec, tmp_path):
    sizes = []
    for count in (1, 51):
        with viewers.Video(tmp_path / "a.gif", 4) as video:
            for _ in range(count):
                video.show(vec)
        sizes.append((tmp_path / "a.gif").stat().st_size)
    assert sizes[1] - sizes[0] < 50 * 100


def test_a_gif_that_cannot_be_made_says_why(vec, tmp_path, monkeypatch):
    monkeypatch.setattr(viewers, "USE_PALETTE", "nonsense")
    with pytest.raises(OSError, match=r"could not write .*a\.gif: .*nonsense"):
        record(vec, tmp_path / "a.gif", 2)
    assert not list(tmp_path.iterdir())


def test_no_gif_is_faster_than_browsers_show(vec, tmp_path):
    record(vec, tmp_path / "fast.gif", 3, fps=500)
    with image.open(tmp_path / "fast.gif") as gif:
        assert gif.info["duration"] == 20


# Its reader, not the writer, leaves pipes open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_mp4_has_every_picture_at_its_rate(vec, tmp_path):
    path = tmp_path / "a.mp4"
    _, shown = record(vec, path, 5, fps=7.5)
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["fps"] == 7.5
    assert meta["codec"].startswith("h264")
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    width, height = meta["size"]
    assert len(frames) == 5 + 8
    assert (height, width) == tuple(side + side % 2 for side in shown[0].shape[:2])
    first = frames[0].reshape(height, width, 3)[:363, :363].astype(int)
    assert np.abs(first - shown[0]).mean() < 8


def test_a_limit_and_what_is_said_of_it(vec, tmp_path):
    pictures, shown = record(vec, tmp_path / "a.gif", 6, most=2)
    assert (pictures.shown, pictures.cut, len(shown)) == (2, True, 2)
    pictures, _ = record(vec, tmp_path / "b.gif", 2, most=2)
    assert (pictures.shown, pictures.cut) == (2, False)


def test_every_third_step_and_the_last():
    shown = []

    class Steps(viewers.Viewer):
        def show(self, vec):
            shown.append(pictures.steps - 1)
            return True

    with make("squared", 1, env_kwargs={"size": 9}, seed=0, autoreset="next_step") as vec:
        vec.reset()
        pictures = viewers.FirstPictures(Steps(), 1000, every=3)
        for _ in range(6):                    # down from the middle: the fifth step leaves the grid
            assert pictures(vec)
            vec.step([1])
    assert shown == [0, 3, 5]
    assert (pictures.shown, pictures.cut) == (3, False)


def test_pictures_are_scaled(vec, tmp_path):
    with viewers.Video(tmp_path / "a.gif", 4, scale=0.5) as video:
        video.show(vec)
    with image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (182, 182)
        small = np.asarray(gif.convert("RGB")).astype(int)
    # Cells of 33 pixels: their middles keep their colours.
    picture = vec.render()
    assert np.abs(small[8::33, 8::33][:11, :11] - picture[16::66, 16::66]).max() <= 16


def show_and_fail(video, vec):
    video.show(vec)
    vec.render(99)


def test_an_exception_leaves_the_old_file_and_no_other(vec, tmp_path):
    path = tmp_path / "a.gif"
    path.write_text("old")
    with pytest.raises(IndexError), viewers.Video(path, 4) as video:
        show_and_fail(video, vec)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_without_a_terminal_pictures_are_printed_at_once(vec, capsys):
    began = time.monotonic()
    with viewers.Screen(fps=0.01) as screen:
        for _ in range(3):
            assert screen.show(vec)
    assert capsys.readouterr().out == 3 * (vec.ansi() + "\n")
    assert time.monotonic() - began < 50      # one of 100 seconds each would be longer


def test_pace():
    clock = [0.0]
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        clock[0] += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock[0])
        patch.setattr(time, "sleep", sleep)
        pace = viewers.Pace(4)
        pace.wait()
        pace.wait()
        clock[0] += 1.0                       # late: from here on in the same distance
        pace.wait()
        pace.wait()
    assert waits == [0.0, 0.25, 0.0, 0.25]


@pytest.fixture
def tkinter(monkeypatch):
    """A stand-in for tkinter that keeps what is drawn; its window closes itself after some."""
    class Tk:
        closes_after = 10**9

        def __init__(self):
            self.protocols, self.alive = {}, True
            fake.root = self

        def update(self):
            if len(fake.pictures) == self.closes_after:
                self.protocols["WM_DELETE_WINDOW"]()

        def protocol(self, name, call):
            self.protocols[name] = call

        def destroy(self):
            self.alive = False

        def title(self, text):
            fake.title = text

        def resizable(self, *_):
            pass

    class Label:
        def __init__(self, root):
            pass

        def pack(self):
            pass

        def configure(self, image):
            pass

    fake = types.ModuleType("tkinter")
    fake.pictures = []
    fake.Tk, fake.Label, fake.TclError = Tk, Label, RuntimeError
    fake.PhotoImage = lambda data, master: fake.pictures.append(data)
    monkeypatch.setitem(sys.modules, "tkinter", fake)
    return fake


def test_a_window_shows_pictures_until_it_is_closed(vec, tkinter, tmp_path):
    tkinter.Tk.closes_after = 2
    with viewers.open_viewer("human", 1000, title="squared", out=None) as window:
        assert window.show(vec)
        assert not window.show(vec)
        assert not window.show(vec)
    assert tkinter.title == "squared"
    assert not tkinter.root.alive
    assert len(tkinter.pictures) == 2
    (tmp_path / "p.ppm").write_bytes(tkinter.pictures[0])
    with image.open(tmp_path / "p.ppm") as picture:
        assert (np.asarray(picture) == vec.render()).all()


def test_what_a_window_needs(monkeypatch, tkinter):
    def no_display():
        raise RuntimeError("no display name and no $DISPLAY environment variable")

    monkeypatch.setattr(tkinter, "Tk", no_display)
    with pytest.raises(OSError, match="a window needs a display"):
        viewers.Window(10, "x")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ImportError, match="a window needs tkinter"):
        viewers.Window(10, "x")


def test_what_a_file_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r'pip install "pufferlib_cy\[render\]"'):
        viewers.Video(Path("a.gif"), 10)
