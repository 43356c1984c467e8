"""A person plays an environment in the terminal: keys are actions, its text is the screen.

An environment with a rate of its own (`render_fps`) goes on by itself, and a key holds for a
moment; the others wait for a key at every step. The terminal gives single keys meanwhile, and is
put back whatever happens.
"""

from __future__ import annotations

import os
import re
import select
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from pufferlib_cy.vector import VectorEnv
from pufferlib_cy.viewers import Pace, Screen

HOLD = 0.3                   # seconds that a key holds: terminals do not tell when it is let go
LOOK = 0.05                  # seconds between two looks at whether to stop
MOST_ACTIONS = 10            # a digit each
ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}     # as terminals send them
LETTERS = {"w": "up", "s": "down", "a": "left", "d": "right"}
SIGNS = {"up": "↑ w", "down": "↓ s", "left": "← a", "right": "→ d"}
IDLE = ("stay", "none")      # names of actions that are taken while no key holds
RESTART, QUIT = "r", "q"


def play(vec: VectorEnv, *, title: str, fps: float | None = None, seed: int | None = None,
         should_stop: Callable[[], bool] = lambda: False) -> None:
    """Let a person play the first agent of `vec`, made with ``autoreset="disabled"``; the other
    agents act at random. Returns when the person quits, or when `should_stop`.

    fps: steps per second. None: the environment's own, or as slowly as keys come.

    Raises ValueError for actions that are not Discrete, or more than ten, and without a terminal.
    """
    space = vec.single_action_space
    if not isinstance(space, Discrete) or space.n > MOST_ACTIONS:
        raise ValueError(f"play has keys for Discrete actions, {MOST_ACTIONS} at most; those of "
                         f"{title} are {space}")
    with single_keys() as keyboard, Screen() as screen:
        Game(vec, keyboard, screen, title, fps or vec.render_fps, should_stop, seed).play()


@contextmanager
def single_keys() -> Iterator[Keyboard]:
    """The keyboard, key by key and without echo; Ctrl-C still interrupts."""
    try:
        import termios
        import tty
    except ImportError as error:
        raise ValueError("play needs a terminal of Unix") from error
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError("play needs a terminal: that is where the keys are, and the screen")
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield Keyboard(sys.stdin.fileno())
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Keyboard:
    """The keys that are pressed: "up", "down", "left" and "right" for arrows, else a character."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pressed: deque[str] = deque()

    def next(self, timeout: float) -> str | None:
        """The next key; None if none comes within `timeout` seconds; `QUIT` if none ever will."""
        if not self.pressed and select.select([self.descriptor], [], [], timeout)[0]:
            text = os.read(self.descriptor, 1024).decode(errors="replace")
            for arrow, other in re.findall(r"\x1b[\[O]([A-D])|([^\x1b])", text):
                self.pressed.append(ARROWS.get(arrow, other))
            if not text:
                return QUIT
        return self.pressed.popleft() if self.pressed else None


class Game:
    """One environment, its person, and where they meet. Arguments: as of `play`."""

    def __init__(self, vec: VectorEnv, keyboard: Keyboard, screen: Screen, title: str,
                 fps: float | None, should_stop: Callable[[], bool], seed: int | None) -> None:
        self.vec, self.keyboard, self.screen, self.title = vec, keyboard, screen, title
        self.should_stop = should_stop
        self.rng = np.random.default_rng(seed)
        assert isinstance(vec.single_action_space, Discrete)
        self.first_action = int(vec.single_action_space.start)
        self.names = vec.action_names or ("",) * int(vec.single_action_space.n)
        self.keys = key_map(self.names)
        self.idle = next((self.names.index(name) for name in IDLE if name in self.names), None)
        self.pace = Pace(fps) if fps else None
        self.action, self.pressed = 0, 0.0    # the last action by a key, and when that was

    def play(self) -> None:
        """Episode after episode."""
        wish = RESTART
        while wish == RESTART:
            wish = self.episode()

    def episode(self) -> str:
        """One episode. Returns what the person wants next, `RESTART` or `QUIT`."""
        self.vec.reset()
        self.total, self.steps = 0.0, 0
        while self.vec.acting.any():          # nothing resets an episode that has ended
            choice = self.in_turns() if self.pace is None else self.in_time(self.pace)
            if isinstance(choice, str):
                return choice
            self.step(choice)
        self.draw("the end")
        return self.wait_for({RESTART, QUIT})

    def in_turns(self) -> int | str:
        """The next action, whenever it comes; or a wish."""
        legal = self.legal()[0]
        note = ""
        while legal.sum() > 1 and self.vec.acting[0]:
            self.draw(note)
            key = self.wait_for({*self.keys, RESTART, QUIT})
            if key not in self.keys:
                return key
            if legal[self.keys[key]]:
                return self.keys[key]
            note = "that is not possible now"
        return int(legal.argmax())            # there is nothing to choose

    def in_time(self, pace: Pace) -> int | str:
        """The action of this moment; or a wish. Time begins with the first key."""
        self.draw("" if self.steps else "the first key begins")
        key = None if self.steps else self.wait_for({*self.keys, RESTART, QUIT})
        pace.wait()
        while (key := key or self.next_key(0.0)) is not None:
            if key in (RESTART, QUIT):
                return key
            if key in self.keys:
                self.action, self.pressed = self.keys[key], time.monotonic()
            key = None
        if self.idle is not None and time.monotonic() - self.pressed > HOLD:
            self.action = self.idle
        legal = self.legal()[0]
        return self.action if legal[self.action] else int(legal.argmax())

    def step(self, action: int) -> None:
        """Step with the person's action; the others draw a legal one each."""
        legal = self.legal()
        actions = (self.rng.random(legal.shape) * legal).argmax(1)
        actions[0] = action
        self.steps += 1
        self.total += float(self.vec.step(actions + self.first_action)[1][0])

    def legal(self) -> NDArray[np.bool_]:
        """bool (agents, actions): which are possible now."""
        masks = self.vec.action_masks
        return np.ones((self.vec.num_agents, len(self.names)), bool) if masks is None else masks

    def next_key(self, timeout: float) -> str | None:
        """As the keyboard's; `QUIT` if somebody else says stop."""
        return QUIT if self.should_stop() else self.keyboard.next(timeout)

    def wait_for(self, keys: Container[str]) -> str:
        """The next of these keys."""
        while (key := self.next_key(LOOK)) is None or key not in keys:
            pass
        return key

    def draw(self, note: str) -> None:
        """How it goes, what the keys mean, and the environment: what fits the terminal of it."""
        self.screen.draw(f"{self.title}: return {self.total:g}, {self.steps} steps   {note}\n"
                         f"{legend(self.names, self.screen.console.width)}\n\n"
                         f"{self.vec.ansi().rstrip()}")


def key_map(names: Sequence[str]) -> dict[str, int]:
    """Actions by key: digits for all, arrows and letters for those named by a direction."""
    keys = {str(action): action for action in range(len(names))}
    keys.update((name, action) for action, name in enumerate(names) if name in SIGNS)
    keys.update((letter, keys[name]) for letter, name in LETTERS.items() if name in keys)
    return keys


def legend(names: Sequence[str], width: int) -> str:
    """What the keys mean, in lines of at most `width` characters."""
    actions = (" ".join(filter(None, (str(action), SIGNS.get(name), name)))
               for action, name in enumerate(names))
    return textwrap.fill(" | ".join([*actions, f"{RESTART} restart", f"{QUIT} quit"]), width)
