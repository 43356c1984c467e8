"""tetris against an oracle with sets of blocks, its rules one by one, and scripted baselines."""

import itertools

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.tetris import Tetris

I, O, T, S, Z, J, L = range(7)       # noqa: E741
COLUMNS, LINES = 10, 20

# Blocks (y up, x right) of every piece as it comes.
PIECES = [
    {(0, 0), (0, 1), (0, 2), (0, 3)},
    {(0, 0), (0, 1), (1, 0), (1, 1)},
    {(0, 0), (0, 1), (0, 2), (1, 1)},
    {(0, 0), (0, 1), (1, 1), (1, 2)},
    {(1, 0), (1, 1), (0, 1), (0, 2)},
    {(0, 0), (0, 1), (0, 2), (1, 0)},
    {(0, 0), (0, 1), (0, 2), (1, 2)},
]
ROW = np.dtype([("well", np.uint8, (20, 10)), ("heights", np.uint8, 10), ("surface", np.int8, 9),
                ("rests", np.uint8, 40), ("covers", np.uint8, 40), ("clears", np.uint8, 40),
                ("piece", np.int32), ("next_piece", np.int32)], align=True)
STATE = np.dtype([("lines", np.uint16, 20), ("heights", np.uint8, 10), ("piece", np.uint8),
                  ("next_piece", np.uint8), ("bag", np.uint8, 7), ("left", np.uint8)])


def turned(piece, turns):
    """The blocks after so many quarter turns clockwise, moved to the lower left corner."""
    blocks = PIECES[piece]
    for _ in range(turns):
        blocks = {(-x, y) for y, x in blocks}
    low, left = min(y for y, _ in blocks), min(x for _, x in blocks)
    return frozenset((y - low, x - left) for y, x in blocks)


# The blocks of each piece in each turn that looks different from those before it, else None.
SHAPES = [[None if turned(piece, k) in [turned(piece, j) for j in range(k)] else turned(piece, k)
           for k in range(4)] for piece in range(7)]


def drop(blocks, piece, action):
    """The cells where a piece comes to rest on blocks; None if that is not allowed."""
    turns, column = divmod(action, 10)
    shape = SHAPES[piece][turns]
    if shape is None or any(column + x >= COLUMNS for _, x in shape):
        return None

    def free(line):
        return all(line + y >= 0 and (line + y, column + x) not in blocks for y, x in shape)

    line = LINES                                          # above the well
    while free(line - 1):
        line -= 1
    cells = {(line + y, column + x) for y, x in shape}
    return cells if all(y < LINES for y, _ in cells) else None


def covered(blocks, cells):
    """How many empty cells of the columns of a piece are between it and the blocks below."""
    return sum(min(y for y, column in cells if column == x)
               - max((y + 1 for y, column in blocks if column == x), default=0)
               for x in {x for _, x in cells})


def without_full_lines(blocks):
    """What is left of blocks, and how many lines vanished."""
    full = [y for y in range(LINES) if all((y, x) in blocks for x in range(COLUMNS))]
    return {(y - sum(line < y for line in full), x) for y, x in blocks if y not in full}, len(full)


def heights_of(blocks):
    return [max((y + 1 for y, x in blocks if x == column), default=0) for column in range(COLUMNS)]


class Well(oracle.Game):
    """The rules on a set of blocks (line from the bottom, column)."""

    choices = 40

    def __init__(self, rng, max_pieces=500, cover_cost=0.0):
        super().__init__(rng)
        self.max_pieces, self.cover_cost = max_pieces, cover_cost

    def reset(self):
        self.blocks, self.bag, self.placed, self.over = set(), [], 0, False
        self.stats = {"lines": 0, "tetrises": 0}
        self.piece, self.next_piece = self.draw(), self.draw()

    def draw(self):
        self.bag = self.bag or list(range(7))
        i = self.rng.integer(len(self.bag))
        self.bag[i], self.bag[-1] = self.bag[-1], self.bag[i]
        return self.bag.pop()

    def legal(self):
        return [drop(self.blocks, self.piece, action) is not None for action in range(40)]

    def step(self, actions):
        cells = drop(self.blocks, self.piece, int(np.ravel(actions)[0]))
        if cells is None:
            self.over = self.terminated[0] = True
            return
        self.placed += 1
        cost = self.cover_cost * covered(self.blocks, cells)
        self.blocks, cleared = without_full_lines(self.blocks | cells)
        self.reward[0] = cleared - cost
        self.stats["lines"] += cleared
        self.stats["tetrises"] += cleared == 4
        self.piece, self.next_piece = self.next_piece, self.draw()
        self.over = self.terminated[0] = not any(self.legal())
        self.truncated[0] = self.placed == self.max_pieces and not self.over

    def observe(self):
        row = np.zeros((), ROW)
        for y, x in self.blocks:
            row["well"][LINES - 1 - y, x] = 1
        heights = heights_of(self.blocks)
        row["heights"] = heights
        row["surface"] = [min(max(b - a, -3), 3) for a, b in itertools.pairwise(heights)]
        for action in range(40):
            row["rests"][action], row["covers"][action] = 20, 3
            cells = drop(self.blocks, self.piece, action)
            if cells is not None:
                row["rests"][action] = min(y for y, _ in cells)
                row["covers"][action] = min(3, covered(self.blocks, cells))
                row["clears"][action] = without_full_lines(self.blocks | cells)[1]
        row["piece"], row["next_piece"] = self.piece, self.next_piece
        return [row[None].view(np.uint8)]

    def action_masks(self):
        return [self.legal() if any(self.legal()) else [True] * 40]


def choose(masks, rng, slips=0.0):
    """Random legal actions, and now and then any action."""
    actions = (rng.random(masks.shape) * masks).argmax(1)
    return np.where(rng.random(len(masks)) < slips, rng.integers(0, 40, len(masks)), actions)


def costs(blocks, cells):
    """Lines cleared, and of the surface after that: total height, holes and bumps."""
    left, cleared = without_full_lines(blocks | cells)
    heights = heights_of(left)
    return (cleared, sum(heights), sum(heights) - len(left),
            sum(abs(a - b) for a, b in itertools.pairwise(heights)))


def rows_of(observations):
    """The nested observations, (E,) of ROW."""
    return np.ascontiguousarray(observations).view(ROW)[:, 0]


def well_of(row):
    """The blocks that one nested observation shows."""
    return {(LINES - 1 - int(y), int(x)) for y, x in np.argwhere(row["well"])}


def best(rows, masks, score):
    """For every row the legal action with the best score of (blocks, cells)."""
    actions = []
    for row, legal in zip(rows, masks, strict=True):
        blocks, piece = well_of(row), int(row["piece"])
        places = {action: cells for action in legal.nonzero()[0].tolist()
                  if (cells := drop(blocks, piece, action)) is not None}
        actions.append(max(places, key=lambda action: score(blocks, places[action]), default=0))
    return np.array(actions)


def lowest(blocks, cells):
    """The baseline: as low as possible."""
    return -sum(y for y, _ in cells)


def tidy(blocks, cells):
    """A careful player: few holes and bumps, low, lines. After Lee 2013, "Tetris AI"."""
    lines, height, holes, bumps = costs(blocks, cells)
    return 0.76 * lines - 0.51 * height - 0.36 * holes - 0.18 * bumps


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize(("max_pieces", "skill"), [(0, 0.0), (500, 0.8), (60, 0.97)])
def test_games_are_the_oracles(max_pieces, skill, autoreset):
    """With random pieces, and with tidy ones mostly, so that lines vanish and games are long."""
    E = 8
    kwargs = {"max_pieces": max_pieces, "cover_cost": skill / 3}
    rng = np.random.default_rng(0)
    slow = oracle.Vector(Well, range(3, 3 + E), autoreset, **kwargs)

    def act(observations):
        actions = choose(vec.action_masks, rng, slips=0.005)
        careful = rng.random(E) < skill
        rows = rows_of(observations)
        actions[careful] = best(rows[careful], vec.action_masks[careful], tidy)
        return actions

    with make(Tetris, E, env_kwargs=kwargs, autoreset=autoreset) as vec:
        stats = oracle.replay(vec, slow, 3, 120, act)
    assert len(slow.stats) >= 8
    assert skill == 0.0 or stats["lines"] > 5
    longest = max(length for _, length in slow.episodes)
    assert (longest == 60) == (max_pieces == 60)


def put(vec, text, piece, next_piece=O):
    """Set up environment 0: lines from the top, the last is the bottom; "#" is a block."""
    state = vec._engine.envs[0].state_array[0, :STATE.itemsize].view(STATE)[0]
    lines = list(reversed(text.split()))
    blocks = {(y, x) for y, line in enumerate(lines) for x, cell in enumerate(line) if cell == "#"}
    state["lines"] = [sum(1 << x for x in range(COLUMNS) if (y, x) in blocks) for y in range(LINES)]
    state["heights"] = heights_of(blocks)
    state["piece"], state["next_piece"] = piece, next_piece
    return state


@pytest.fixture
def vec():
    with make(Tetris, 1, autoreset="disabled") as vec:
        vec.reset(seed=0)
        yield vec


def bottom(vec, lines):
    """The lowest lines of the picture in characters."""
    return [line[:10] for line in vec.ansi(0).splitlines()[-lines:]]


@pytest.mark.parametrize(("piece", "turns", "drawn"), [
    (I, 0, ["####"]), (I, 1, ["#", "#", "#", "#"]), (O, 0, ["##", "##"]),
    (T, 0, [".#.", "###"]), (T, 1, ["#.", "##", "#."]),
    (T, 2, ["###", ".#."]), (T, 3, [".#", "##", ".#"]),
    (S, 0, [".##", "##."]), (S, 1, ["#.", "##", ".#"]),
    (Z, 0, ["##.", ".##"]), (Z, 1, [".#", "##", "#."]),
    (J, 0, ["#..", "###"]), (J, 1, ["##", "#.", "#."]),
    (J, 2, ["###", "..#"]), (J, 3, [".#", ".#", "##"]),
    (L, 0, ["..#", "###"]), (L, 1, ["#.", "#.", "##"]),
    (L, 2, ["###", "#.."]), (L, 3, ["##", ".#", ".#"]),
])
def test_every_turn_of_every_piece(vec, piece, turns, drawn):
    for column in (0, 10 - len(drawn[0])):
        vec.reset(seed=0)
        put(vec, "", piece)
        vec.step([10 * turns + column])
        assert bottom(vec, len(drawn)) == [
            ("." * column + line).ljust(10, ".") for line in drawn]


def test_only_turns_that_look_different_between_the_walls_are_legal():
    places = {I: [7, 10], O: [9], T: [8, 9, 8, 9], S: [8, 9], Z: [8, 9], J: [8, 9, 8, 9],
              L: [8, 9, 8, 9]}
    seen = set()
    with make(Tetris, 100) as vec:
        observations, _ = vec.reset(seed=0)
        pieces = vec.space_tree.unflatten(observations)["piece"]
        for piece, mask in zip(pieces.tolist(), vec.action_masks, strict=True):
            expected = np.zeros((4, 10), bool)
            for turns, count in enumerate(places[piece]):
                expected[turns, :count] = True
            np.testing.assert_array_equal(mask.reshape(4, 10), expected)
            seen.add(piece)
    assert seen == set(range(7))


def test_a_piece_rests_on_what_is_below_any_of_its_columns(vec):
    put(vec, "#......... #.........", L)
    vec.step([20])                                         # its long side up: hangs over a column
    assert bottom(vec, 4) == ["###.......", "#.........", "#.........", "#........."]


def test_full_lines_vanish_and_what_is_above_moves_down(vec):
    put(vec, """.#.....###
                .#########
                ..########
                .#########
                .#########""", I)
    observations, rewards, terminations, truncations, _ = vec.step([10])
    assert rewards.tolist() == [3]
    assert (terminations[0], truncations[0]) == (False, False)
    assert bottom(vec, 3) == ["..........", ".#.....###", "#.########"]
    seen = vec.space_tree.unflatten(observations)
    assert seen["heights"][0].tolist() == [1, 2, 1, 1, 1, 1, 1, 2, 2, 2]
    assert seen["surface"][0].tolist() == [1, -1, 0, 0, 0, 0, 1, 0, 0]
    assert seen["well"][0, 18:].tolist() == [[0, 1, 0, 0, 0, 0, 0, 1, 1, 1],
                                             [1, 0, 1, 1, 1, 1, 1, 1, 1, 1]]


def test_holes_may_be_the_new_surface(vec):
    put(vec, "######.... .########. ..........", I)
    seen = vec.space_tree.unflatten(vec.step([6])[0])
    assert bottom(vec, 2) == [".########.", ".........."]
    assert seen["heights"][0].tolist() == [0, *[2] * 8, 0]


def test_what_actions_would_do_is_observed(vec):
    put(vec, "#......... #########. ########..", I, L)
    seen = vec.space_tree.unflatten(vec.step([3])[0])
    assert bottom(vec, 3) == ["#..####...", "#########.", "########.."]
    assert seen["piece"][0] == L
    rests, covers, clears = (seen[name][0].reshape(4, 10) for name in ("rests", "covers", "clears"))
    # L lies on its long side, stands with its foot to the right, lies on its foot, hangs from it.
    assert rests.tolist() == [
        [3, 3, 3, 3, 3, 3, 3, 2, 20, 20], [3, 2, 3, 3, 3, 3, 3, 2, 2, 20],
        [3, 2, 2, 3, 3, 3, 3, 2, 20, 20], [2, 2, 3, 3, 3, 3, 2, 2, 0, 20]]
    assert covers.tolist() == [
        [2, 2, 1, 0, 0, 1, 2, 2, 3, 3], [1, 0, 1, 0, 0, 0, 1, 0, 2, 3],
        [3, 1, 0, 2, 2, 3, 3, 3, 3, 3], [1, 2, 3, 2, 2, 2, 1, 2, 0, 3]]
    assert np.argwhere(clears).tolist() == [[3, 8]]
    assert clears[3, 8] == 1


def test_four_lines_are_a_tetris(vec):
    put(vec, "\n".join([".#########"] * 4), I)
    assert vec.step([10])[1].tolist() == [4]
    assert vec.step([39])[2].tolist() == [True]            # an O has no fourth turn
    stats = vec.episode_stats()
    assert (stats["lines"], stats["tetrises"]) == (4, 1)


@pytest.mark.parametrize("action", [7, 20, 39])
def test_an_illegal_action_ends_the_game(vec, action):
    """An I past the wall, turned too often, both."""
    put(vec, "##........", I)
    observations, rewards, terminations, truncations, _ = vec.step([action])
    assert (rewards[0], terminations[0], truncations[0]) == (0, True, False)
    assert vec.space_tree.unflatten(observations)["well"].sum() == 2


def test_the_top_of_the_well(vec):
    """19 lines in two columns: an I fits lying, an O only elsewhere; then everywhere nothing."""
    tower = "\n".join([".#.#.#.#.#"] * 19)
    put(vec, tower, I, O)
    _, _, terminations, _, _ = vec.step([0])
    assert terminations.tolist() == [True]                 # an O needs two lines
    vec.reset(seed=0)
    put(vec, tower, O, I)
    assert vec.step([0])[2].tolist() == [True]             # an O did not fit: an illegal action
    vec.reset(seed=0)
    put(vec, "\n".join(["##........"] * 18), S, I)
    assert vec.step([0])[2].tolist() == [False]
    assert vec.action_masks[0].reshape(4, 10)[:2].tolist() == [
        [False] * 3 + [True] * 4 + [False] * 3, [False] * 3 + [True] * 7]


def test_the_limit_truncates_and_0_is_none():
    rng = np.random.default_rng(0)
    with make(Tetris, 5, env_kwargs={"max_pieces": 3}) as vec:
        vec.reset(seed=0)
        for step in range(1, 10):
            _, _, terminations, truncations, _ = vec.step(choose(vec.action_masks, rng))
            assert not terminations.any()
            assert (truncations == (step % 3 == 0)).all()


def test_every_seven_pieces_are_all_seven():
    E = 3000
    rng = np.random.default_rng(0)
    with make(Tetris, E) as vec:
        observations, _ = vec.reset(seed=0)
        pieces = []
        for _ in range(7):
            pieces.append(vec.space_tree.unflatten(observations)["piece"].copy())
            following = vec.space_tree.unflatten(observations)["next_piece"].copy()
            observations = vec.step(choose(vec.action_masks, rng))[0]
            assert (vec.space_tree.unflatten(observations)["piece"] == following).all()
    bags = np.array(pieces)                                # (7, E)
    assert (np.sort(bags, 0) == np.arange(7)[:, None]).all()
    for place in range(7):
        np.testing.assert_allclose(np.bincount(bags[place], minlength=7) / E, 1 / 7, atol=0.03)
    assert len(np.unique(bags, axis=1).T) > 1800           # of 5040 orders


# ---- how well scripts play -----------------------------------------------------------------------

def play(policy, games, **kwargs):
    """Lines of whole games, (games,); `policy` chooses from nested observations and masks."""
    lines, playing = np.zeros(games), np.ones(games, bool)
    with make(Tetris, games, env_kwargs=kwargs) as vec:
        observations, _ = vec.reset(seed=0)
        while playing.any():
            rows = rows_of(observations)
            actions = np.zeros(games, np.int64)
            actions[playing] = policy(rows[playing], vec.action_masks[playing])
            observations, rewards, terminations, truncations, _ = vec.step(actions)
            lines += rewards * playing
            playing &= ~(terminations | truncations)
    return lines


def oracle_play(games):
    """The same of the oracle's games, with random legal actions; and their lengths."""
    rng = np.random.default_rng(1)
    lengths = []
    for seed in range(games):
        well = Well(oracle.Stream(1000 + seed))
        well.reset()
        while not well.over:
            well.step([choose(np.array([well.legal()]), rng)[0]])
        lengths.append(well.placed)
    return np.array(lengths)


def test_random_games_are_as_long_as_the_oracles():
    rng = np.random.default_rng(0)
    with make(Tetris, 2000) as vec:
        vec.reset(seed=0)
        lengths, playing = np.zeros(2000), np.ones(2000, bool)
        while playing.any():
            terminations = vec.step(choose(vec.action_masks, rng))[2]
            lengths += playing
            playing &= ~terminations
    theirs = oracle_play(60)
    error = (lengths.var() / len(lengths) + theirs.var() / len(theirs)) ** 0.5
    assert abs(lengths.mean() - theirs.mean()) < 4 * error
    assert 22 < lengths.mean() < 28


def test_the_target_is_far_above_the_baseline():
    """What the settings call solved."""
    toml = pytest.importorskip("pufferlib_cy.train.config").load_config("tetris", environ={})
    assert toml.target_stat == "lines"
    rng = np.random.default_rng(0)
    random = play(lambda rows, masks: choose(masks, rng), 500).mean()
    low = play(lambda rows, masks: best(rows, masks, lowest), 20).mean()
    assert random < 0.2
    assert 15 < low < 30
    assert toml.target_return > 2 * low


@pytest.mark.parametrize(("bad", "message"), [
    ({"max_pieces": -1}, "max_pieces is at least 0, not -1"),
    ({"cover_cost": -0.1}, "cover_cost is 0 to 1, not -0.1"),
    ({"cover_cost": 1.5}, "cover_cost is 0 to 1, not 1.5"),
    ({"cover_cost": float("nan")}, "cover_cost is 0 to 1, not nan"),
])
def test_refuses(bad, message):
    with pytest.raises(ValueError, match=f"tetris: {message}"):
        Tetris(**bad)


def test_pictures_show_well_and_pieces(vec):
    put(vec, "#........# .#......#.", T, S)
    lines = vec.ansi(0).splitlines()
    assert len(lines) == 20
    assert lines[18:] == ["#........#", ".#......#."]
    assert [line[10:].strip() for line in lines[1:7]] == ["T", "TTT", "", "", "SS", "SS"]
    picture = vec.render(0)
    assert picture.shape == (480, 384, 3)
    assert picture.dtype == np.uint8
    centres = picture[12::24, 12::24].astype(int)
    blocks = np.argwhere((centres[:, :10] != centres[0, 0]).any(2)).tolist()
    assert blocks == [[18, 0], [18, 9], [19, 1], [19, 8]]
    assert (centres[1:3, 11:15] != centres[0, 15]).any(2).tolist() == [
        [False, True, False, False], [True, True, True, False]]
    assert tuple(centres[2, 11]) != tuple(centres[6, 11])
