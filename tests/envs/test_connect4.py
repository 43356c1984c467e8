"""connect4 against an oracle on a list of lists, and its rules one by one."""

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.connect4 import Connect4

STATE = np.dtype([("stones", np.uint64, 2), ("turn", np.int32), ("over", np.int32)])
LINES, COLUMNS, PASS = 6, 7, 7

# All 69 lines of four cells (line from the bottom, column).
FOURS = [cells for y in range(LINES) for x in range(COLUMNS)
         for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))
         if (cells := [(y + k * dy, x + k * dx) for k in range(4)])
         and all(0 <= cy < LINES and 0 <= cx < COLUMNS for cy, cx in cells)]


class Board(oracle.Game):
    """The rules on a board of None, 0 (agent 0's stones) and 1 (the other's)."""

    choices = 8

    def reset(self):
        self.board = [[None] * COLUMNS for _ in range(LINES)]
        self.over = False
        self.turn = self.rng.integer(2)
        self.script_moves()

    def step(self, actions):
        action = int(np.ravel(actions)[self.turn])
        cell = next((cell for cell in self.landing() if cell[1] == action), None)
        if cell is None:
            self.end(1 if self.turn else -1)
        else:
            self.play(cell)
            self.script_moves()

    def landing(self):
        """Cells where a stone comes to rest, lowest lines first."""
        lowest = [(min(y for y in range(LINES) if self.board[y][x] is None), x)
                  for x in range(COLUMNS) if self.board[-1][x] is None]
        return sorted(lowest)

    def wins(self, cell, player):
        return any(cell in four and all(self.board[y][x] == player for y, x in four
                                        if (y, x) != cell) for four in FOURS)

    def play(self, cell):
        won = self.wins(cell, self.turn)
        self.board[cell[0]][cell[1]] = self.turn
        if won:
            self.end(-1 if self.turn else 1)
        elif not self.landing():
            self.end(0)
        self.turn = 1 - self.turn

    def script_moves(self):
        if self.agents == 1 and self.turn == 1 and not self.over:
            landing = self.landing()
            cells = ([cell for cell in landing if self.wins(cell, 1)]
                     or [cell for cell in landing if self.wins(cell, 0)] or landing)
            self.play(cells[self.rng.integer(len(cells))])

    def end(self, score):
        self.over = True
        self.reward = [float(score), -float(score)][:self.agents]
        self.terminated = [True] * self.agents
        self.stats = {"score": score, "wins": int(score == 1)}

    def observe(self):
        return [np.array([stone == player for player in (a, 1 - a)
                          for line in reversed(self.board) for stone in line]
                         + [self.turn == a and not self.over], np.uint8)
                for a in range(self.agents)]

    def action_masks(self):
        columns = [stone is None for stone in self.board[-1]]
        return [[True] * 8 if self.over else [*columns, False] if self.turn == a
                else [False] * 7 + [True] for a in range(self.agents)]


class Seats(Board):
    agents = 2


RULES = {"scripted": Board, "self": Seats}


def choose(masks, rng, slips=0.02):
    """Random legal actions, and now and then any action."""
    actions = (rng.random(masks.shape) * masks).argmax(1)
    return np.where(rng.random(len(masks)) < slips, rng.integers(0, 8, len(masks)), actions)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("opponent", ["scripted", "self"])
def test_games_are_the_oracles(opponent, autoreset):
    E = 16
    rng = np.random.default_rng(0)
    slow = oracle.Vector(RULES[opponent], range(3, 3 + E), autoreset)
    with make(Connect4, E, env_kwargs={"opponent": opponent}, autoreset=autoreset) as vec:
        oracle.replay(vec, slow, 3, 250, lambda observations: choose(vec.action_masks, rng))
    assert len(slow.stats) > 100


def bit(line, column):
    return 1 << (8 * line + column)


def position(vec, text, turn=0):
    """Set up environment 0: lines from the top, X agent 0's stones, O the other's."""
    state = vec._engine.envs[0].state_array[0, :STATE.itemsize].view(STATE)
    stones = {"X": 0, "O": 0, ".": 0}
    for line, row in enumerate(reversed(text.split())):
        for column, stone in enumerate(row):
            stones[stone] |= bit(line, column)
    state["stones"] = [stones["X"], stones["O"]]
    state["turn"] = turn
    return state


@pytest.mark.parametrize("four", FOURS)
def test_every_four_wins_from_either_seat(four):
    """The first three cells are laid, the top one of the line is played; below it stand stones of
    both that make no four."""
    y, x = max(four)
    with make(Connect4, 1, env_kwargs={"opponent": "self"}, autoreset="disabled") as vec:
        for turn in range(2):
            vec.reset(seed=0)
            state = position(vec, "", turn)
            mine = sum(bit(*cell) for cell in four if cell != (y, x))
            below = [(line, x) for line in range(y) if (line, x) not in four]
            theirs = sum(bit(*cell) for cell in below)
            state["stones"] = [mine, theirs] if turn == 0 else [theirs, mine]
            _, rewards, terminations, _, _ = vec.step([x, PASS] if turn == 0 else [PASS, x])
            assert rewards.tolist() == ([1, -1] if turn == 0 else [-1, 1])
            assert terminations.all()


def test_three_and_a_wrapped_line_do_not_win():
    with make(Connect4, 1, env_kwargs={"opponent": "self"}) as vec:
        for text, action in (("XXX....", 6),                       # three with a gap of three
                             ("X...... ....XXX", 6),               # round the edge
                             ("X...... O...... .....XX", 4)):
            vec.reset(seed=0)
            position(vec, text)
            _, rewards, terminations, _, _ = vec.step([action, PASS])
            assert not rewards.any()
            assert not terminations.any()


@pytest.mark.parametrize(("text", "action", "answer"), [
    ("OOO.... XXX....", 6, 3),            # it wins rather than blocks
    (".XX....", 3, None),                 # it blocks one of two open ends
    ("O...... O...... O...... X......", 5, 0),
    ("..X.... .XO.... XOO....", 6, None),
    ("X...... X...... X...... O......", 6, 0),
])
def test_opponent_wins_or_blocks(text, action, answer):
    seen = set()
    with make(Connect4, 1, autoreset="disabled") as vec:
        for seed in range(40):
            vec.reset(seed=seed)
            position(vec, text)
            before = vec.ansi(0)
            vec.step([action])
            after = vec.ansi(0)
            seen.add(next(i for i, (a, b) in enumerate(zip(before, after, strict=True))
                          if a != b and b == "O") // 2 % 7)
    if answer is not None:
        assert seen == {answer}
    elif text == ".XX....":
        assert seen == {0, 4}
    else:
        assert len(seen) == 7


@pytest.mark.parametrize("action", [2, PASS])
def test_a_full_column_and_a_pass_lose(action):
    column = "..X.... ..O.... ..X.... ..O.... ..X.... ..O...."
    for opponent in ("scripted", "self"):
        with make(Connect4, 1, env_kwargs={"opponent": opponent}, autoreset="disabled") as vec:
            vec.reset(seed=0)
            position(vec, column)
            _, rewards, terminations, _, _ = vec.step([action, PASS][:vec.num_agents])
            assert rewards.tolist() == [-1, 1][:vec.num_agents]
            assert terminations.all()
            assert vec.episode_stats()["score"] == -1


def test_the_full_board_is_a_draw():
    text = ".XOOXXO OOXXOOX XXOOXXO OOXXOOX XXOOXXO OOXXOOX"
    for opponent in ("scripted", "self"):
        with make(Connect4, 1, env_kwargs={"opponent": opponent}, autoreset="disabled") as vec:
            vec.reset(seed=0)
            position(vec, text)
            observations, rewards, terminations, _, _ = vec.step([0, PASS][:vec.num_agents])
            assert not rewards.any()
            assert terminations.all()
            assert observations[0, :84].sum() == 42
            assert not observations[:, 84].any()
            assert vec.episode_stats()["wins"] == 0


def test_what_the_waiting_agent_chooses_has_no_effect():
    with make(Connect4, 1, env_kwargs={"opponent": "self"}) as vec:
        vec.reset(seed=0)
        position(vec, "X......")
        observations, rewards, _, _, _ = vec.step([3, 5])
        assert observations[0].nonzero()[0].tolist() == [35, 38]
        assert not rewards.any()
        assert vec.action_masks.tolist() == [[False] * 7 + [True], [True] * 7 + [False]]


def test_either_begins_and_random_play_is_even():
    E = 2000
    rng = np.random.default_rng(0)
    with make(Connect4, E, env_kwargs={"opponent": "self"}) as vec:
        observations, _ = vec.reset(seed=0)
        assert observations[::2, 84].mean() == pytest.approx(0.5, abs=0.04)
        assert ((observations[::2, 84] + observations[1::2, 84]) == 1).all()
        for _ in range(60):
            vec.step(choose(vec.action_masks, rng, slips=0))
        assert vec.episode_stats()["score"] == pytest.approx(0, abs=0.06)
    with make(Connect4, E) as vec:
        observations, _ = vec.reset(seed=0)
        assert observations[:, :84].sum(1).mean() == pytest.approx(0.5, abs=0.04)
        for _ in range(60):
            vec.step(choose(vec.action_masks, rng, slips=0))
        assert vec.episode_stats()["wins"] < 0.1


def test_refuses_an_unknown_opponent():
    with pytest.raises(ValueError, match=r"connect4: opponent is .* not 'strong'"):
        Connect4(opponent="strong")


def test_pictures_show_the_stones():
    pytest.importorskip("PIL")
    with make(Connect4, 1, env_kwargs={"opponent": "self"}) as vec:
        vec.reset(seed=0)
        position(vec, "O...... X.....X")
        picture = vec.render(0)
        assert vec.ansi(0).splitlines()[-3:] == ["O . . . . . .", "X . . . . . X",
                                                 "0 1 2 3 4 5 6"]
    assert picture.shape == (480, 560, 3)
    assert picture.dtype == np.uint8
    centres = picture[40::80, 40::80].astype(int)
    assert (centres[5, [0, 6]] == centres[5, 0]).all()
    assert len({tuple(color) for color in centres.reshape(-1, 3)}) == 3
