"""minesweeper against an oracle with sets of cells, its rules one by one, and a scripted player."""

import itertools

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.minesweeper import Minesweeper

COVERED, NUMBER = 0, 1
BOARDS = {"usual": {"width": 6, "height": 6, "mines": 5},
          "wide": {"width": 9, "height": 4, "mines": 3},
          "tall": {"width": 3, "height": 11, "mines": 9},
          "one line": {"width": 12, "height": 1, "mines": 2},
          "one safe cell": {"width": 3, "height": 2, "mines": 5}}


class Field(oracle.Game):
    """The rules on sets of (y, x)."""

    choices = 1

    def __init__(self, rng, width, height, mines):
        super().__init__(rng)
        self.width, self.height, self.num_mines = width, height, mines
        self.cells = [(y, x) for y in range(height) for x in range(width)]

    def reset(self):
        self.mines, self.open = set(), set()
        self.stats = {"wins": 0, "uncovered": 0.0}

    def step(self, actions):
        cell = self.cells[int(actions[0])]
        if not self.open:
            self.lay_mines([other for other in self.cells if other != cell])
        if cell in self.mines or cell in self.open:
            self.reward[0], self.terminated[0] = -1.0, True
            return
        safe = len(self.cells) - self.num_mines
        before = len(self.open)
        self.uncover(cell)
        self.reward[0] = np.float32(len(self.open) - before) / np.float32(safe)
        self.stats["uncovered"] = len(self.open) / safe
        if len(self.open) == safe:
            self.reward[0] += np.float32(1)
            self.terminated[0] = True
            self.stats["wins"] = 1

    def lay_mines(self, others):
        """Floyd's sample of the other cells."""
        for last in range(len(others) - self.num_mines, len(others)):
            cell = others[self.rng.integer(last + 1)]
            self.mines.add(others[last] if cell in self.mines else cell)

    def beside(self, cell):
        return [other for other in self.cells if other != cell
                and abs(other[0] - cell[0]) <= 1 and abs(other[1] - cell[1]) <= 1]

    def number(self, cell):
        return len(self.mines & set(self.beside(cell)))

    def uncover(self, cell):
        if cell not in self.open:
            self.open.add(cell)
            if self.number(cell) == 0:
                for other in self.beside(cell):
                    self.uncover(other)

    def observe(self):
        seen = [NUMBER + self.number(cell) if cell in self.open else COVERED for cell in self.cells]
        return [np.array(seen, np.uint8).reshape(self.height, self.width)]

    def action_masks(self):
        return [[cell not in self.open for cell in self.cells]]


def choose(masks, rng, slips=0.02):
    """Random legal actions, and now and then any action."""
    actions = (rng.random(masks.shape) * masks).argmax(1)
    return np.where(rng.random(len(masks)) < slips, rng.integers(0, masks.shape[1], len(masks)),
                    actions)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("name", BOARDS)
def test_games_are_the_oracles(name, autoreset):
    E = 8
    rng = np.random.default_rng(0)
    slow = oracle.Vector(Field, range(5, 5 + E), autoreset, **BOARDS[name])

    def act(observations):
        """Most moves spare the mines, so that games last and some are won."""
        actions = choose(vec.action_masks, rng)
        for e, game in enumerate(slow.games):
            safe = [a for a, cell in enumerate(game.cells) if cell not in game.mines | game.open]
            if safe and rng.random() < 0.7:
                actions[e] = rng.choice(safe)
        return actions

    with make(Minesweeper, E, env_kwargs=BOARDS[name], autoreset=autoreset) as vec:
        stats = oracle.replay(vec, slow, 5, 200, act)
    assert len(slow.stats) > 60
    assert stats["wins"] > 0


# ---- positions made by hand ----------------------------------------------------------------------

def lay(vec, text):
    """Lay out the board of environment 0: mines are '*', cells that are uncovered already 'o' (as
    if beside no mine, and nothing around them uncovered)."""
    rows = text.split()
    height, width = len(rows), len(rows[0])
    area = (height + 2) * (width + 2)
    whole = np.dtype([("uncovered", np.int32), ("lost", np.int32), ("waiting", np.int32, area),
                      ("mines", np.uint8, (height + 2, width + 2)),
                      ("seen", np.uint8, (height + 2, width + 2))])
    state = vec._engine.envs[0].state_array[0, :whole.itemsize].view(whole)[0]
    mines, seen = state["mines"][1:-1, 1:-1], state["seen"][1:-1, 1:-1]
    mines[:] = [[cell == "*" for cell in row] for row in rows]
    seen[:] = [[NUMBER if cell == "o" else COVERED for cell in row] for row in rows]
    state["uncovered"] = (seen > 0).sum()
    return state


def click(text, y, x):
    """What is seen, the reward, whether the game is over, and statistics after a click; see `lay`.
    """
    rows = text.split()
    kwargs = {"width": len(rows[0]), "height": len(rows), "mines": text.count("*")}
    with make(Minesweeper, 1, env_kwargs=kwargs, autoreset="disabled", seed=0) as vec:
        vec.reset()
        lay(vec, text)
        observations, rewards, terminations, truncations, _ = vec.step([y * len(rows[0]) + x])
        assert not truncations.any()
        return (observations[0].astype(int).tolist(), rewards[0], bool(terminations[0]),
                vec.episode_stats())


def test_a_number_counts_the_mines_around_it():
    seen, reward, over, _ = click("o*... .*... **..*", 0, 2)
    assert seen == [[1, 0, 3, 0, 0], [0] * 5, [0] * 5]
    assert reward == pytest.approx(1 / 10)
    assert not over


def test_eight_mines_are_the_most():
    seen, *_ = click("***o *.*. ***.", 1, 1)
    assert seen[1][1] == 9


def test_a_zero_uncovers_what_is_around_it_and_so_on():
    seen, reward, over, _ = click("....* ..... *.... o*...", 0, 0)
    assert seen == [[1, 1, 1, 2, 0],
                    [2, 2, 1, 2, 2],
                    [0, 3, 2, 1, 1],
                    [1, 0, 2, 1, 1]]
    assert reward == pytest.approx(1 + 16 / 17)
    assert over


def test_a_flood_stops_at_numbers_and_does_not_wrap_around_the_edge():
    seen, reward, over, _ = click("...*o ...*. ...*.", 0, 0)
    assert seen == [[1, 1, 3, 0, 1], [1, 1, 4, 0, 0], [1, 1, 3, 0, 0]]
    assert reward == pytest.approx(9 / 12)
    assert not over


def test_the_last_cell_without_a_mine_wins():
    seen, reward, over, stats = click("oo ** oo .*", 3, 0)
    assert over
    assert reward == pytest.approx(1 + 1 / 5)
    assert seen[3] == [3 - 1, 0]
    assert (stats["wins"], stats["uncovered"]) == (1, 1)


@pytest.mark.parametrize("cell", [(0, 1), (0, 0)])
def test_a_mine_and_an_uncovered_cell_lose(cell):
    seen, reward, over, stats = click("o*. ...", *cell)
    assert seen == [[1, 0, 0], [0, 0, 0]]
    assert (reward, over) == (-1, True)
    assert stats["wins"] == 0


def test_legal_is_what_is_covered():
    with make(Minesweeper, 1, seed=0, env_kwargs={"width": 3, "height": 2, "mines": 1}) as vec:
        vec.reset()
        assert vec.action_masks.all()
        lay(vec, "o.. ..*")
        vec.step([1])
        assert vec.action_masks.tolist() == [[False, False, True, True, True, True]]


def test_the_first_click_is_never_a_mine_and_all_others_are_as_likely():
    E, first = 6000, 8
    kwargs = {"width": 5, "height": 4, "mines": 6}
    with make(Minesweeper, E, env_kwargs=kwargs, autoreset="disabled") as vec:
        vec.reset(seed=0)
        assert (vec.step(np.full(E, first))[1] > 0).all()
        mines = vec._engine.envs[0].state_array[:, 8 + 42 * 4:8 + 42 * 5].reshape(E, 6, 7)
        assert (mines.sum((1, 2)) == 6).all()
        counts = mines[:, 1:-1, 1:-1].mean(0)
    assert counts.ravel()[first] == 0
    np.testing.assert_allclose(np.delete(counts.ravel(), first), 6 / 19, atol=0.03)


def test_every_game_has_other_mines():
    with make(Minesweeper, 1, seed=0, env_kwargs={"width": 16, "height": 16, "mines": 40}) as vec:
        vec.reset()
        boards = set()
        for _ in range(20):
            vec.step([0])
            boards.add(vec._engine.envs[0].state_array[0, 8 + 324 * 4:8 + 324 * 5].tobytes())
            while not vec.step([0])[2][0]:
                pass
    assert len(boards) == 20


# ---- players -------------------------------------------------------------------------------------

def around(cells):
    """The sum over the cells that touch each one: (E, H, W) -> (E, H, W)."""
    E, H, W = cells.shape
    padded = np.zeros((E, H + 2, W + 2), int)
    padded[:, 1:-1, 1:-1] = cells
    return sum(padded[:, 1 + dy:1 + dy + H, 1 + dx:1 + dx + W]
               for dy, dx in itertools.product((-1, 0, 1), repeat=2) if dy or dx)


def deduce(seen, rng):
    """The scripted baseline: a cell that one number, with the mines found so, tells to be safe;
    without one, any that is not known to be a mine. (E, H, W) -> (E,)."""
    covered, number = seen == COVERED, seen.astype(int) - NUMBER
    safe, mines = np.zeros_like(covered), np.zeros_like(covered)
    for _ in range(8):
        full = ~covered & (around(covered & ~safe) == number)     # all that is left has a mine
        mines |= covered & ~safe & (around(full) > 0)
        done = ~covered & (around(mines) == number)               # nothing else has one
        safe |= covered & ~mines & (around(done) > 0)
    scores = rng.random(seen.shape) + 2 * safe - 2 * mines - 4 * ~covered
    return scores.reshape(len(seen), -1).argmax(1)


def play(policy, E=500, steps=100, **kwargs):
    rng = np.random.default_rng(0)
    with make(Minesweeper, E, env_kwargs=kwargs) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(steps):
            observations = vec.step(policy(observations, rng))[0]
        return vec.episode_stats()


def test_deduction_wins_half_of_the_games_and_a_random_player_next_to_none():
    chance = play(lambda seen, rng: choose((seen == COVERED).reshape(len(seen), -1), rng, slips=0))
    assert chance["wins"] < 0.02
    deduced = play(deduce)
    assert deduced["wins"] == pytest.approx(0.54, abs=0.03)
    assert deduced["episode_return"] > 0.6 > -0.2 > chance["episode_return"]


def test_a_random_player_does_as_in_the_oracle():
    """Other streams, the same odds."""
    E, rng = 400, np.random.default_rng(1)
    slow = oracle.Vector(Field, range(10_000, 10_000 + E), **BOARDS["usual"])
    slow.reset()
    for _ in range(25):
        slow.step(choose(np.array([game.action_masks()[0] for game in slow.games]), rng,
                         slips=0).reshape(-1, 1))
    returns, lengths = np.array(slow.episodes).T
    fast = play(lambda seen, rng: choose((seen == COVERED).reshape(len(seen), -1), rng, slips=0))
    assert fast["episodes"] > 8000
    for name, sample in (("episode_return", returns), ("episode_length", lengths),
                         ("uncovered", [own["uncovered"] for own in slow.stats])):
        error = np.std(sample) / len(sample)**0.5
        assert fast[name] == pytest.approx(np.mean(sample), abs=5 * error), name


@pytest.mark.parametrize(("bad", "message"), [
    ({"width": 0}, "width is 1 to 256, not 0"),
    ({"height": 257}, "height is 1 to 256, not 257"),
    ({"mines": 0}, "mines is at least 1 and less than width .* height, 36, not 0"),
    ({"width": 2, "height": 3, "mines": 6}, "less than width .* height, 6, not 6"),
    ({"width": 1, "height": 1, "mines": 1}, "less than width .* height, 1, not 1"),
])
def test_refuses(bad, message):
    with pytest.raises(ValueError, match=f"minesweeper: .*{message}"):
        Minesweeper(**bad)


def test_pictures_show_the_board():
    pytest.importorskip("PIL")
    with make(Minesweeper, 1, autoreset="disabled", seed=0,
              env_kwargs={"width": 3, "height": 2, "mines": 2}) as vec:
        vec.reset()
        lay(vec, "..* *.o")
        covered = vec.render(0)
        assert vec.ansi(0) == ". . .\n. .  \n"
        vec.step([1])
        assert vec.ansi(0) == ". 2 .\n. .  \n"
        number = vec.render(0)
        vec.step([2])
        lost = vec.render(0)
        assert vec.ansi(0) == ". 2 X\n* .  \n"
    for picture in (covered, number, lost):
        assert picture.shape == (80, 120, 3)
        assert picture.dtype == np.uint8
    corners = [tuple(lost[40 * y + 6, 40 * x + 6]) for y in range(2) for x in range(3)]
    assert len(set(corners)) == 3              # covered, uncovered, and the mine that was hit
    assert (covered[:40, :40] == covered[:40, 40:80]).all()
    assert len(np.unique(number[:40, 40:80].reshape(-1, 3), axis=0)) > 3           # a digit
    assert (lost[60, 20] == lost[20, 100]).all()                                   # mines
    assert (lost[60, 20] != covered[60, 20]).any()
