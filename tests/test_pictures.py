"""Every environment has a picture and a text, whether it draws itself or not."""

import numpy as np
import pytest

from pufferlib_cy import envs, make, pictures

pytest.importorskip("PIL")


@pytest.mark.parametrize("name", sorted(envs.REGISTRY))
def test_every_environment_has_a_picture_without_a_display(name, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with make(name, 2, seed=1) as vec:
        vec.reset()
        text, picture = vec.ansi(1), vec.render(1)
        assert text.endswith("\n")
        assert text.strip()
        assert picture.dtype == np.uint8
        assert picture.shape[2:] == (3,)
        assert min(picture.shape[:2]) >= 30
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1
        assert vec.render_fps is None or 1 <= vec.render_fps <= 60
        choices = getattr(vec.single_action_space, "n", 0)
        assert len(vec.action_names) in (0, choices)
        with pytest.raises(IndexError, match="environment 2 of 2"):
            vec.render(2)


def test_a_grid_of_whole_numbers_is_a_picture():
    with make("squared", env_kwargs={"size": 3}) as vec:
        observations, _ = vec.reset(seed=0)
        cells = observations.reshape(3, 3)
        assert [line.split() for line in vec.ansi().splitlines()] == [
            [".12"[cell] for cell in line] for line in cells]
        picture = vec.render()
        assert picture.shape == (360, 360, 3)
        assert (picture[60::120, 60::120] == pictures.COLORS[cells]).all()


def test_the_agents_of_an_environment_are_seen_with_it(native):
    """crowd has four agents and does not draw itself: its text is what its own first one sees."""
    with make(native["crowd"].Crowd, 3) as vec:
        observations, _ = vec.reset(seed=0)
        assert [float(value) for value in vec.ansi(2).split()] == pytest.approx(
            observations[8].ravel(), rel=1e-3)


def test_python_environments_draw_what_their_render_mode_says():
    pytest.importorskip("pygame")
    with make("CartPole-v1", env_kwargs={"render_mode": "rgb_array"}) as vec:
        observations, _ = vec.reset(seed=0)
        assert vec.render_fps == 50
        assert vec.render().shape == (400, 600, 3)
        assert [float(value) for value in vec.ansi().split()] == pytest.approx(
            observations[0], rel=1e-3)
    with make("CartPole-v1") as vec:         # none: its text, without a warning of Gymnasium's
        vec.reset(seed=0)
        assert (vec.render() == pictures.draw_text(vec.ansi())).all()
    with make("FrozenLake-v1", env_kwargs={"render_mode": "ansi"}) as vec:
        vec.reset(seed=0)
        assert "FFFH" in vec.ansi()


def test_rates_follow_the_frameskip():
    for name, frameskip, fps in (("pong", 8, 7.5), ("pong", 1, 60), ("breakout", 4, 15)):
        with make(name, env_kwargs={"frameskip": frameskip}) as vec:
            assert vec.render_fps == fps


def test_text():
    one, two = pictures.draw_text("A\n"), pictures.draw_text("A.\n█\n")
    assert one.shape == (66, 54, 3)
    assert two.shape == (99, 72, 3)
    assert one.any()
    cell = two[48:81, 18:36]                 # the second line's character, not in the font: filled
    assert (cell == pictures.BRIGHT).all()
    assert pictures.draw_text("").shape == (66, 36, 3)


def test_memory_says_what_it_shows():
    with make("memory", env_kwargs={"delay": 1, "digits": 3}) as vec:
        observations, _ = vec.reset(seed=3)
        goal = observations[0, :3].argmax()
        assert vec.ansi() == f"remember {goal}\n"
        observations = vec.step([0])[0]
        assert vec.ansi() == f"not {observations[0, :3].argmax()}\n"
        vec.step([0])
        assert vec.ansi() == "which was it?\n"
