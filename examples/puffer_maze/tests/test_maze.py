"""The rules of the maze, from what it shows of itself, and the package's place in pufferlib_cy."""

import numpy as np
import pytest
from puffer_maze import Maze

import pufferlib_cy
from pufferlib_cy.check import check

NORTH, SOUTH, WEST, EAST = range(4)


def doors_of(picture):
    """{room: {direction: room behind the door}} and the agent's room, read off the picture."""
    lines = picture.splitlines()
    size = len(lines) // 2
    doors = {room: {} for room in range(size * size)}
    for room in doors:
        y, x = divmod(room, size)
        if lines[2 * y + 1][3 * x + 3] == " ":
            doors[room][EAST], doors[room + 1][WEST] = room + 1, room
        if lines[2 * y + 2][3 * x + 1] == " ":
            doors[room][SOUTH], doors[room + size][NORTH] = room + size, room
    agent = next(room for room in doors
                 if lines[2 * (room // size) + 1][3 * (room % size) + 2] == "A")
    return doors, agent


@pytest.mark.parametrize("size", [2, 5, 16])
def test_one_way_leads_from_each_room_to_each_other(size):
    with pufferlib_cy.make(Maze, 20, env_kwargs={"size": size}) as vec:
        vec.reset(seed=0)
        mazes = [doors_of(vec.ansi(i))[0] for i in range(20)]
    assert len({str(doors) for doors in mazes}) > 1
    for doors in mazes:
        assert sum(map(len, doors.values())) == 2 * (size * size - 1)
        reached, rest = set(), [0]
        while rest:
            reached.add(room := rest.pop())
            rest += set(doors[room].values()) - reached
        assert reached == set(doors)


def test_random_play_follows_the_rules():
    size, steps = 3, 400
    rng = np.random.default_rng(0)
    with pufferlib_cy.make(Maze, env_kwargs={"size": size}, autoreset="disabled") as vec:
        observations, _ = vec.reset(seed=1)
        doors, room = doors_of(vec.ansi())
        visits, ticks, ends = {room: 1}, 0, set()
        for _ in range(steps):
            near = [min(visits.get(doors[room][d], 0), 3) if d in doors[room] else 3
                    for d in range(4)]
            assert observations[0].tolist() == [
                *(d in doors[room] for d in range(4)), *near,
                size - 1 - room // size, size - 1 - room % size]
            action = int(rng.integers(4))
            observations, rewards, terminations, truncations, _ = vec.step([action])
            room = doors[room].get(action, room)
            visits[room] = visits.get(room, 0) + 1
            ticks += 1
            found, late = room == size * size - 1, ticks == 4 * size * size
            assert doors_of(vec.ansi())[1] == room if not found else terminations[0]
            assert rewards[0] == np.float32(1.0 if found else -0.01)
            assert (terminations[0], truncations[0]) == (found, late and not found)
            if found or late:
                ends.add(found)
                observations, _ = vec.reset()
                doors, room = doors_of(vec.ansi())
                visits, ticks = {room: 1}, 0
    assert ends == {True, False}, "both ends were seen"


def test_going_where_one_has_been_least_mostly_finds_the_exit():
    with pufferlib_cy.make("puffer_maze", 100) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(200):
            observations = vec.step(observations[:, 4:8].argmin(axis=1))[0]
        stats = vec.episode_stats()
    assert stats["solved"] > 0.9
    assert 0.5 < stats["episode_return"] < 0.95


@pytest.mark.parametrize("name", ["puffer_maze", "puffer_maze.maze:Maze"])
def test_checked_build_finds_nothing(name):
    assert check(name, steps=200) == []


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="size is 2 to 16, not 1"):
        Maze(1)
