"""The core by itself: random streams, faulty environments, and what importing it brings in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest

import pufferlib_cy
from pufferlib_cy import NativeEnv, arrays


def rng_of(vec):
    return vec._engine.envs[0].rng_array


def test_streams_are_splitmix64_split_by_seed():
    seeds = [0, 1, 2**63, 2**64 - 1]
    with pufferlib_cy.make("bandit", len(seeds)) as vec:
        vec.reset(seed=seeds)
        for i, seed in enumerate(seeds):
            stream = oracle.Stream(seed)
            assert rng_of(vec)[i].tolist() == [stream.state, stream.gamma]


def test_splitmix64_published_vector():
    """The first outputs for seed 1234567 with the golden gamma, as in Vigna's reference."""
    stream = oracle.Stream(0)
    stream.state, stream.gamma = 1234567, 0x9E3779B97F4A7C15
    assert [stream.next() for _ in range(3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_streams_of_neighbouring_seeds_are_unrelated():
    draws = np.array([[oracle.Stream(seed).uniform(0, 1)] for seed in range(4000)]).ravel()
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06
    assert abs(draws.mean() - 0.5) < 0.02


def test_draws_equal_the_oracle(native):
    draws = native["draws"].draws
    for n in (1, 2, 3, 7, 2**31 - 1):
        streams = [oracle.Stream(n) for _ in range(3)]
        start = streams[0].state, streams[0].gamma
        assert draws(*start, "bits", 0, 50) == [streams[0].next() for _ in range(50)]
        assert draws(*start, "integers", n, 500) == [streams[1].integer(n) for _ in range(500)]
        assert draws(*start, "uniform", 0, 50) == [streams[2].uniform(-2, 3) for _ in range(50)]


def test_draws_have_their_distribution(native):
    stream = oracle.Stream(5)
    draws = native["draws"].draws
    integers = np.bincount(draws(stream.state, stream.gamma, "integers", 6, 60_000))
    assert ((integers - 10_000) ** 2 / 10_000).sum() < 25
    z = np.array(draws(stream.state, stream.gamma, "normal", 0, 100_000))
    assert abs(z.mean()) < 0.02
    assert z.std() == pytest.approx(1, abs=0.02)
    assert (z**3).mean() == pytest.approx(0, abs=0.06)
    assert (z**4).mean() == pytest.approx(3, abs=0.15)


def test_aligned_zeros_starts_on_a_cache_line():
    for shape in (1, 7, (3, 5), (2, 0, 4)):
        array = arrays.aligned_zeros(shape, np.float32)
        assert array.ctypes.data % 64 == 0 or array.size == 0
        assert array.flags.c_contiguous
        assert not array.any()


@pytest.mark.parametrize("bad", [
    dict(observation_space="box"), dict(action_space="discrete"), dict(agents_per_env=0),
    dict(state_size=0), dict(action_masks=True),
])
def test_native_env_refuses_what_it_cannot_hold(bad):
    from gymnasium.spaces import Box
    box = Box(-1, 1, (2,), np.float32)
    good = dict(observation_space=box, action_space=box, state_size=8)
    NativeEnv(**good)
    with pytest.raises((TypeError, ValueError), match="NativeEnv"):
        NativeEnv(**{**good, **bad})


def test_environments_that_break_the_contract(native):
    with (pytest.raises(pufferlib_cy.ContractError, match=r"NoRun, environment 0.*run"),
          pufferlib_cy.make(native["faulty"].NoRun) as vec):
        vec.reset()
    with pytest.raises(TypeError, match=r"NoInit.__init__ did not call super"):
        pufferlib_cy.make(native["faulty"].NoInit)


def play(vec, steps):
    for _ in range(steps):
        vec.step(np.zeros(vec.num_agents, int))


@pytest.mark.parametrize(("way", "words"), [
    ("REWARD_NAN", "reward is NaN"), ("OBSERVATION_NAN", "observation has a value that is NaN"),
    ("OBSERVATION_PARTIAL", "was not written"), ("FLAG", "neither 0 nor 1"),
    ("BEFORE", "its own observations"), ("BEHIND", "its own observations"),
    ("STATE_BEHIND", "its own state: is state_size its sizeof"),
    ("NO_ACTION", "leaves no legal action"),
    ("REWARD_BEHIND", "its own rewards: more agents"),
    ("TERMINATION_BEHIND", "its own terminations: more agents"),
    ("TRUNCATION_BEHIND", "its own truncations: more agents"),
    ("MASK_BEFORE", "its own masks: more agents"),
    ("ACTION_MASK_BEHIND", "its own action masks: more agents"),
    ("STATS_BEHIND", r"its own statistics: .*stats=\("),
    ("STREAM_OF_ANOTHER", "not its own: draw from `rows.rng` only"),
    ("STREAM_OF_SLICE", "not its own: draw from `rows.rng` only"),
    ("STREAM_WRITTEN", "its own random stream"),
    ("STALE_STATE", "pointer that it kept.*take state, observations and the rest from `rows`"),
    ("STALE_REWARD", "pointer that it kept"), ("STALE_READ", "a pointer kept from an earlier"),
])
def test_checked_build_finds(load_native, way, words):
    """The environment is checked, whether the core is or not."""
    module = load_native("faulty", True)
    with pufferlib_cy.make(module.Faulty, 3, env_kwargs={"way": module.Way[way]}) as vec:
        vec.reset(seed=0)
        with pytest.raises(pufferlib_cy.ContractError, match=f"environment 1.*{words}"):
            play(vec, 10)                             # a kept pointer is not stale in every step
        others = vec._engine.rows[0][0][[0, 2]]
        assert (others == 0.5).all()


@pytest.mark.parametrize(("way", "words"), [
    (1, "reward is NaN"), (2, "observation has a value that is NaN"), (3, "was not written"),
    (4, "neither 0 nor 1"), (5, "before or behind its own obs"),
    (6, "before or behind its own obs"),
])
def test_checked_build_finds_in_lanes(load_native, way, words):
    """Several environments come at a time; the fault's is named."""
    lanes = load_native("lanes", True).Lanes
    with pufferlib_cy.make(lanes, 7, env_kwargs={"way": way}) as vec:
        vec.reset(seed=0)
        where = "environment" if way in (5, 6) else "environment 1, agent slot 0"
        with pytest.raises(pufferlib_cy.ContractError, match=f"{where}.*{words}"):
            vec.step(np.zeros(21, int))


@pytest.mark.parametrize(("way", "checked"), [(9, False), (9, True), (10, True)])
def test_lanes_are_declared(load_native, way, checked):
    lanes = load_native("lanes", checked).Lanes
    with (pufferlib_cy.make(lanes, 7, env_kwargs={"way": way}, seed=0) as vec,
          pytest.raises(pufferlib_cy.ContractError, match=r"next_lanes.*lanes=True.*next_rows")):
        vec.reset()


@pytest.mark.skipif(sys.platform == "win32", reason="needs the checks of GCC or Clang")
@pytest.mark.skipif("sanitize" in os.environ.get("CFLAGS", ""),
                    reason="the sanitizer ends the process there")
@pytest.mark.parametrize(("way", "words"), [
    ("SUM", "an integer sum overflows"), ("PRODUCT", "an integer product overflows"),
    ("DIFFERENCE", "an integer difference overflows"), ("NEGATION", "overflows"),
    ("SHIFT", "shifted by more bits"), ("INDEX", "an index is outside of its array"),
])
def test_checked_build_finds_wrong_arithmetic_and_its_line(load_native, way, words):
    module = load_native("faulty", True)
    lines = (Path(__file__).parent / "native" / "faulty.pyx").read_text().splitlines()
    line = 2 + next(i for i, text in enumerate(lines) if text.endswith(f"if way == {way}:"))
    with pufferlib_cy.make(module.Faulty, 3, env_kwargs={"way": module.Way[way]}) as vec:
        vec.reset(seed=0)
        with pytest.raises(pufferlib_cy.ContractError,
                           match=f"environment 1.*{words}.* in .*faulty.pyx, line {line}$"):
            vec.step([0, 0, 0])


@pytest.mark.parametrize(("kind", "words"), [
    ("Crowded", "its own observations: more agents"), ("Undersized", "own state: is state_size"),
])
def test_checked_build_finds_wrong_declarations(load_native, kind, words):
    with (pufferlib_cy.make(getattr(load_native("faulty", True), kind), 2) as vec,
          pytest.raises(pufferlib_cy.ContractError, match=words)):
        vec.reset(seed=0)


def test_sound_environment_is_left_alone(native):
    with pufferlib_cy.make(native["faulty"].Faulty, 3) as vec:
        vec.reset(seed=0)
        observations, rewards, *_ = vec.step([0, 0, 0])
        assert (observations == 0.5).all()
        assert not rewards.any()


def test_import_needs_neither_torch_nor_pettingzoo():
    code = ("import sys; sys.modules['torch'] = sys.modules['pettingzoo'] = None;"
            "import pufferlib_cy; pufferlib_cy.make('cartpole').reset();"
            "print([m for m in ('tensorboard', 'rich', 'tyro') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
