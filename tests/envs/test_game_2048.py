"""2048 against an oracle on a list of lists, its rules one by one, and scripted baselines."""

import functools

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.game_2048 import Game2048

UP, DOWN, LEFT, RIGHT = range(4)


@functools.cache
def slid(line):
    """A line after a move towards its first cell, and the points."""
    tiles = [tile for tile in line if tile]
    moved, points = [], 0
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile and tile < 32768:
            tile += tiles.pop(0)
            points += tile
        moved.append(tile)
    return (*moved, *[0] * (4 - len(moved))), points


def after(board, action):
    """A board, a tuple of rows of tiles, after a move, and the points."""
    lines = list(zip(*board, strict=True)) if action in (UP, DOWN) else board
    if action in (DOWN, RIGHT):
        lines = [line[::-1] for line in lines]
    lines, points = zip(*map(slid, lines), strict=True)
    if action in (DOWN, RIGHT):
        lines = [line[::-1] for line in lines]
    if action in (UP, DOWN):
        lines = zip(*lines, strict=True)
    return tuple(lines), sum(points)


def exponents(board):
    return np.array([tile.bit_length() - 1 if tile else 0 for line in board for tile in line],
                    np.uint8)


def tiles(observation):
    """The board that an observation shows."""
    cells = [1 << n if n else 0 for n in observation.tolist()]
    return tuple(tuple(cells[4 * y:4 * y + 4]) for y in range(4))


class Board(oracle.Game):
    """The rules on a tuple of rows of tiles, 0 where there is none."""

    choices = 4

    def __init__(self, rng, max_steps=50_000):
        super().__init__(rng)
        self.max_steps = max_steps

    def reset(self):
        self.board = ((0,) * 4,) * 4
        self.steps = 0
        self.stats = {"score": 0, "highest": 0}
        self.add_tile()
        self.add_tile()

    def add_tile(self):
        empty = [(y, x) for y in range(4) for x in range(4) if self.board[y][x] == 0]
        place = empty[self.rng.integer(len(empty))]
        tile = 4 if self.rng.integer(10) == 0 else 2
        self.board = tuple(tuple(tile if (y, x) == place else self.board[y][x] for x in range(4))
                           for y in range(4))

    def legal(self):
        return [after(self.board, action)[0] != self.board for action in range(4)]

    def step(self, actions):
        self.steps += 1
        board, points = after(self.board, int(np.ravel(actions)[0]))
        if board != self.board:
            self.board = board
            self.add_tile()
        self.reward[0] = points / 1000
        self.stats["score"] += points
        self.stats["highest"] = max(map(max, self.board))
        self.terminated[0] = not any(self.legal())
        self.truncated[0] = self.steps == self.max_steps and not self.terminated[0]

    def observe(self):
        return [exponents(self.board)]

    def action_masks(self):
        return [self.legal() if any(self.legal()) else [True] * 4]


def choose(masks, rng, slips=0.0):
    """Random legal actions, and now and then any action."""
    actions = (rng.random(masks.shape) * masks).argmax(1)
    return np.where(rng.random(len(masks)) < slips, rng.integers(0, 4, len(masks)), actions)


def same(vec, got, slow):
    for one, other in zip((*got, vec.action_masks), (
            slow.observations, slow.rewards, slow.terminations, slow.truncations,
            slow.action_masks), strict=True):
        np.testing.assert_array_equal(one, other)
    for row, last in slow.final.items():
        np.testing.assert_array_equal(vec.final_observations[row], last)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("max_steps", [0, 90])
def test_games_are_the_oracles(max_steps, autoreset):
    E = 16
    rng = np.random.default_rng(0)
    slow = oracle.Vector(Board, range(3, 3 + E), autoreset, max_steps=max_steps)
    with make(Game2048, E, env_kwargs={"max_steps": max_steps}, autoreset=autoreset) as vec:
        oracle.replay(vec, slow, 3, 800,
                      lambda observations: choose(vec.action_masks, rng, slips=0.05))
    assert len(slow.stats) > 80
    longest = max(length for _, length in slow.episodes)
    assert (longest == 90) == (max_steps == 90)


def put(vec, boards):
    """Set up the first environments, each with a board of tiles."""
    states = vec._engine.envs[0].state_array[:len(boards), :8].view(np.uint64)[:, 0]
    for e, board in enumerate(boards):
        states[e] = sum(int(n) << 4 * i for i, n in enumerate(exponents(board)))
    return states


@pytest.mark.parametrize("highest", [2, 5, 15])
def test_moves_of_any_board_are_the_oracles(highest):
    """Boards of random tiles, also such as no game comes to."""
    E = 1000
    rng = np.random.default_rng(highest)
    cells = rng.integers(0, highest + 1, (E, 16)) * (rng.random((E, 16)) < rng.random((E, 1)))
    cells[:, 0] = 1                                        # none is empty
    cells[:E // 4] = rng.integers(max(1, highest - 1), highest + 1, (E // 4, 16))  # these are full
    slow = oracle.Vector(Board, range(E))
    with make(Game2048, E, autoreset="same_step") as vec:
        vec.reset(seed=0)
        slow.reset()
        boards = [tiles(row) for row in cells]
        put(vec, boards)
        for game, board in zip(slow.games, boards, strict=True):
            game.board = board
        actions = rng.integers(0, 4, E)
        got = vec.step(actions)[:4]
        slow.step(actions)
        same(vec, got, slow)
        assert highest != 15 or (slow.rewards > 30).any()


@pytest.mark.parametrize(("line", "left", "right", "points"), [
    ([2, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 4], 4),
    ([2, 0, 0, 2], [4, 0, 0, 0], [0, 0, 0, 4], 4),
    ([2, 2, 2, 0], [4, 2, 0, 0], [0, 0, 2, 4], 4),         # the two farthest merge
    ([2, 2, 2, 2], [4, 4, 0, 0], [0, 0, 4, 4], 8),         # and no tile twice
    ([4, 2, 2, 0], [4, 4, 0, 0], [0, 0, 4, 4], 4),
    ([0, 8, 0, 2], [8, 2, 0, 0], [0, 0, 8, 2], 0),
    ([2, 4, 2, 4], [2, 4, 2, 4], [2, 4, 2, 4], 0),
    ([16384, 16384, 0, 0], [32768, 0, 0, 0], [0, 0, 0, 32768], 32768),
    ([32768, 32768, 0, 0], [32768, 32768, 0, 0], [0, 0, 32768, 32768], 0),
])
def test_lines(line, left, right, points):
    """Each line as a row and as a column, towards both ends; elsewhere nothing can move."""
    for action in range(4):
        expected = left if action in (UP, LEFT) else right
        with make(Game2048, 1) as vec:
            vec.reset(seed=0)
            board = np.zeros((4, 4), int)
            board[2] = line
            if action in (UP, DOWN):
                board = board.T
            put(vec, [board.tolist()])
            observations, rewards, _, _, _ = vec.step([action])
            got = np.array(tiles(observations[0]))
            if action in (UP, DOWN):
                got = got.T
        new = got.copy()
        new[2] -= expected
        assert rewards[0] == pytest.approx(points / 1000)
        if expected == line:                               # no move, and so no new tile
            assert (new == 0).all()
        else:
            assert np.sort(new.ravel())[:15].tolist() == [0] * 15
            assert new.max() in (2, 4)


def test_what_slides_nothing_has_no_effect_and_is_masked():
    with make(Game2048, 1) as vec:
        vec.reset(seed=0)
        put(vec, [[[2, 0, 0, 0], [4, 0, 0, 0], [0] * 4, [0] * 4]])
        for _ in range(3):
            observations, rewards, terminations, truncations, _ = vec.step([LEFT])
            assert observations[0].nonzero()[0].tolist() == [0, 4]
            assert (rewards[0], terminations[0], truncations[0]) == (0, False, False)
            assert vec.action_masks[0].tolist() == [False, True, False, True]


def test_a_game_ends_when_nothing_slides():
    stuck = [[2, 4, 2, 4], [4, 2, 4, 2], [2, 4, 2, 4], [16, 8, 2, 0]]
    seen = set()
    with make(Game2048, 1, autoreset="disabled") as vec:
        for seed in range(60):
            vec.reset(seed=seed)
            put(vec, [stuck])
            observations, _, terminations, _, _ = vec.step([RIGHT])
            new = tiles(observations[0])[3][0]
            seen.add((new, bool(terminations[0])))
            if terminations[0]:
                assert vec.episode_stats()["highest"] == 16
    assert seen == {(2, False), (4, True)}                 # below a 2, where only 2 merges


def test_two_largest_tiles_do_not_keep_a_game_alive():
    board = [[32768] * 4, [2, 4, 2, 4], [4, 2, 4, 2], [32768, 32768, 8, 0]]
    seen = set()
    with make(Game2048, 1, autoreset="disabled") as vec:
        for seed in range(60):
            vec.reset(seed=seed)
            put(vec, [board])
            observations, _, terminations, _, _ = vec.step([RIGHT])
            seen.add((tiles(observations[0])[3], bool(terminations[0])))
    assert seen == {((2, 32768, 32768, 8), True), ((4, 32768, 32768, 8), False)}


def test_new_tiles_are_2_or_4_on_any_empty_cell():
    E = 20_000
    with make(Game2048, E) as vec:
        observations, _ = vec.reset(seed=0)
    assert ((observations > 0).sum(1) == 2).all()
    shares = (observations > 0).mean(0) / 2
    np.testing.assert_allclose(shares, 1 / 16, atol=0.006)
    assert (observations == 2).sum() / (2 * E) == pytest.approx(0.1, abs=0.007)


# ---- how well scripts play -----------------------------------------------------------------------

def random(observations, masks, rng):
    return choose(masks, rng)


def corner(observations, masks, rng):
    """Down if it is possible, else left, else right, else up."""
    order = np.array([DOWN, LEFT, RIGHT, UP])
    return order[masks[:, order].argmax(1)]


def greedy(observations, masks, rng):
    """The move that scores most; where several do, one at random."""
    points = np.array([[after(board, action)[1] for action in range(4)]
                       for board in map(tiles, observations)])
    return np.where(masks, points + rng.random(points.shape), -1).argmax(1)


def play(policy, games):
    """Scores and highest tiles of whole games, (games,) each."""
    rng = np.random.default_rng(0)
    scores, highest, playing = np.zeros(games), np.zeros(games), np.ones(games, bool)
    with make(Game2048, games) as vec:
        observations, _ = vec.reset(seed=0)
        while playing.any():
            observations, rewards, terminations, _, _ = vec.step(
                policy(observations, vec.action_masks, rng))
            scores += 1000.0 * rewards * playing
            ended = playing & terminations
            highest[ended] = 2 ** vec.final_observations[ended].max(1).astype(int)
            playing &= ~ended
    return scores, highest


def oracle_play(games):
    """The same of the oracle's games, with random moves."""
    rng = np.random.default_rng(1)
    results = []
    for seed in range(games):
        board = Board(oracle.Stream(1000 + seed))
        board.reset()
        while any(board.legal()):
            board.step([choose(np.array([board.legal()]), rng)[0]])
        results.append((board.stats["score"], board.stats["highest"]))
    return np.array(results).T


def test_random_games_are_as_good_as_the_oracles():
    ours, theirs = play(random, 3000), oracle_play(150)
    for one, other in zip(ours, theirs, strict=True):
        error = (one.var() / len(one) + other.var() / len(other)) ** 0.5
        assert abs(one.mean() - other.mean()) < 4 * error


def test_the_target_is_far_above_scripts():
    """What the settings call solved."""
    toml = pytest.importorskip("pufferlib_cy.train.config").load_config("2048", environ={})
    assert toml.target_stat == "score"
    scores = {policy: play(policy, 300)[0].mean() for policy in (random, corner, greedy)}
    assert scores[random] == pytest.approx(1090, rel=0.1)
    assert 1.5 * scores[random] < min(scores[corner], scores[greedy])
    assert toml.target_return > 2 * max(scores.values())


def test_refuses_a_negative_limit():
    with pytest.raises(ValueError, match="2048: max_steps is at least 0, not -1"):
        Game2048(max_steps=-1)


def test_pictures_show_the_tiles():
    pytest.importorskip("PIL")
    with make("2048", 1) as vec:
        vec.reset(seed=0)
        put(vec, [[[0, 2, 4, 8], [16, 32, 64, 128], [256, 512, 1024, 2048], [0, 8192, 2, 0]]])
        assert [line.split() for line in vec.ansi(0).splitlines()] == [
            [".", "2", "4", "8"], ["16", "32", "64", "128"], ["256", "512", "1024", "2048"],
            [".", "8192", "2", "."]]
        picture = vec.render(0)
    assert picture.shape == (460, 460, 3)
    assert picture.dtype == np.uint8
    cells = [picture[12 + 112 * y:112 + 112 * y, 12 + 112 * x:112 + 112 * x]
             for y in range(4) for x in range(4)]
    backgrounds = [tuple(cell[10, 50]) for cell in cells]
    assert len(set(backgrounds)) == 13
    assert backgrounds[0] == backgrounds[12] == backgrounds[15]
    assert backgrounds[1] == backgrounds[14]
    for cell, background in zip(cells, backgrounds, strict=True):      # a number, or none
        written = (cell[20:80] != background).any()
        assert written == (background != backgrounds[0])
