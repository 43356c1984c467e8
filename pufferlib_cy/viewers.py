"""Where one can watch an environment: in the terminal, in a window, or later in a GIF or MP4 file.

A viewer shows environment 0 of a vector environment, one picture per call of `show`, and is closed
in the end. The window is tkinter's, the files are written through ffmpeg as the pictures come.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pufferlib_cy.pictures import NEEDS_EXTRA, Picture
from pufferlib_cy.vector import VectorEnv

if TYPE_CHECKING:
    from typing_extensions import Self

TURNS_PER_SECOND = 4         # of an environment that has no rate of its own (`render_fps`)
FASTEST_GIF = 50             # pictures a second; what is faster, browsers show much slower
LAST_PICTURE_SECONDS = 1     # how long a file shows the end
# One palette for all pictures, so that what does not change is written once.
MAKE_PALETTE = "palettegen=stats_mode=full"
USE_PALETTE = "paletteuse=dither=none:diff_mode=rectangle"
EVEN_SIDES = "pad=ceil(iw/2)*2:ceil(ih/2)*2"       # the codec of an MP4 wants them


def default_fps(vec: VectorEnv) -> float:
    """Pictures per second at which the environment looks right."""
    return vec.render_fps or TURNS_PER_SECOND


class Viewer:
    """Shows one picture after the other. A context manager: the last one has been shown at its end.
    """

    def show(self, vec: VectorEnv) -> bool:
        """Show environment 0 as it stands; False if nobody watches any more."""
        raise NotImplementedError

    def close(self, *, complete: bool) -> None:
        """Nothing more comes; `complete`: not because of an exception."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(complete=kind is None)


class Pace:
    """Waits, so that things happen `fps` times a second."""

    def __init__(self, fps: float) -> None:
        self.interval = 1.0 / fps
        self.next = time.monotonic()

    def wait(self) -> None:
        """Until it is time for the next one. Time that was lost is not made up for."""
        now = time.monotonic()
        time.sleep(max(0.0, self.next - now))
        self.next = max(self.next, now) + self.interval


class Screen(Viewer):
    """The environment's text: animated on a terminal, elsewhere one picture below the other."""

    def __init__(self, fps: float = TURNS_PER_SECOND) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console()
        self.pace = Pace(fps)
        self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")

    def show(self, vec: VectorEnv) -> bool:
        if self.console.is_terminal:
            self.pace.wait()
            self.draw(vec.ansi())
        else:
            print(vec.ansi())
        return True

    def draw(self, text: str) -> None:
        """Put text where the last one was; what does not fit the terminal is cut off."""
        from rich.text import Text

        self.live.start()
        self.live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def close(self, *, complete: bool = True) -> None:
        self.live.stop()


class Window(Viewer):
    """A window with the environment's picture. Closing it ends the show.

    Raises ImportError where Python was built without tkinter, and OSError without a display.
    """

    def __init__(self, fps: float, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise ImportError("a window needs tkinter, which this Python was built without (on "
                              "Debian: apt install python3-tk); --render ansi, gif and mp4 do "
                              "not") from error
        try:
            self.root: tkinter.Tk | None = tkinter.Tk()
        except tkinter.TclError as error:
            raise OSError(f"a window needs a display ({error}); --render ansi, gif and mp4 do "
                          "not") from error
        self.root.title(title)
        self.root.resizable(False, False)
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.label = tkinter.Label(self.root)
        self.label.pack()
        self.pace = Pace(fps)

    def show(self, vec: VectorEnv) -> bool:
        import tkinter

        if self.root is None:
            return False
        self.pace.wait()
        picture = vec.render()
        height, width, _ = picture.shape
        ppm = b"P6 %d %d 255 " % (width, height) + picture.tobytes()
        # The label does not keep its image alive, its owner does.
        self.image = tkinter.PhotoImage(data=ppm, master=self.root)
        self.label.configure(image=self.image)
        self.root.update()                    # may call `close`
        return self.root is not None

    def close(self, *, complete: bool = True) -> None:
        if self.root is not None:
            self.root.destroy()
            self.root = None


class Video(Viewer):
    """A GIF or an MP4 (H.264), by the name's ending; under its name it is whole or not there.

    A GIF is made in the end, of a lossless film: only then its palette is known.

    scale: the size of its pictures, as a multiple of the environment's.

    Raises ImportError without imageio-ffmpeg.
    """

    def __init__(self, path: Path, fps: float, scale: float = 1.0) -> None:
        try:
            import imageio_ffmpeg
        except ImportError as error:
            raise ImportError(f"GIF and MP4 files need imageio-ffmpeg: {NEEDS_EXTRA}") from error
        self.path = path.resolve()
        self.gif = path.suffix == ".gif"
        self.temporary, self.film, self.palette = (
            self.path.with_name(f".{os.getpid()}-{self.path.name}{ending}")
            for ending in ("", ".avi", ".png"))
        self.fps = min(fps, FASTEST_GIF) if self.gif else fps
        self.scale = scale
        self.write_frames: Any = imageio_ffmpeg.write_frames
        self.ffmpeg: str = imageio_ffmpeg.get_ffmpeg_exe()
        self.writer: Generator[None, Picture, None] | None = None

    def show(self, vec: VectorEnv) -> bool:
        self.picture = vec.render()
        self.write(self.picture)
        return True

    def write(self, picture: Picture) -> None:
        """Append a picture; all are as large as the first."""
        if self.writer is None:
            height, width, _ = picture.shape
            sides = (max(2, round(self.scale * side)) for side in (width, height))
            filters = f"scale={':'.join(map(str, sides))}:flags=area"
            self.writer = self.write_frames(
                str(self.film if self.gif else self.temporary),
                (width, height), fps=self.fps, macro_block_size=1,
                codec="ffv1" if self.gif else "libx264",
                pix_fmt_out="bgr0" if self.gif else "yuv420p",
                output_params=["-vf", filters if self.gif else f"{filters},{EVEN_SIDES}"],
                ffmpeg_log_level="error")
            next(self.writer)                 # to where it takes pictures
        self.writer.send(np.ascontiguousarray(picture))

    def close(self, *, complete: bool = True) -> None:
        try:
            if self.writer is not None:
                for _ in range(round(LAST_PICTURE_SECONDS * self.fps) * complete):
                    self.write(self.picture)
                self.writer.close()
                if complete:
                    if self.gif:
                        self.convert("-i", self.film, "-vf", MAKE_PALETTE, self.palette)
                        self.convert("-i", self.film, "-i", self.palette, "-filter_complex",
                                     USE_PALETTE, self.temporary)
                    self.temporary.replace(self.path)
        finally:
            for path in (self.temporary, self.film, self.palette):
                path.unlink(missing_ok=True)

    def convert(self, *args: str | Path) -> None:
        """Run ffmpeg. Raises OSError with what it says if it fails."""
        done = subprocess.run([self.ffmpeg, "-v", "error", "-y", *args], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise OSError(f"ffmpeg could not write {self.path}: {done.stderr.strip()}")


class FirstPictures:
    """Hands pictures to a viewer, of every `every`-th step and of the last one, `most` at most:
    what `evaluate` calls at every step.

    shown: how many there were. cut: there would have been more.
    """

    def __init__(self, viewer: Viewer, most: int, every: int = 1) -> None:
        self.viewer, self.most, self.every = viewer, most, every
        self.steps, self.shown, self.cut = 0, 0, False

    def __call__(self, vec: VectorEnv) -> bool:
        self.steps += 1
        if (self.steps - 1) % self.every and not vec.finished[0, 3]:
            return True
        self.cut = self.shown == self.most
        if self.cut:
            return False
        self.shown += 1
        return self.viewer.show(vec)


def open_viewer(render: str, fps: float, *, title: str, out: Path | None,
                scale: float = 1.0) -> Viewer:
    """The viewer for "ansi", "human", or else the file `out`, which alone is scaled."""
    if render == "ansi":
        return Screen(fps)
    if render == "human":
        return Window(fps, title)
    assert out is not None
    return Video(out, fps, scale)
