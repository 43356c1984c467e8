"""What holds for every environment that comes with the package."""

import hashlib

import numpy as np
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs import REGISTRY

ENVIRONMENTS = [*((name, {}) for name in sorted(REGISTRY)),
                ("cartpole", {"continuous": True}),
                ("connect4", {"opponent": "self"}),
                ("pong", {"two_player": True}),
                ("snake", {"num_snakes": 9, "num_food": 20, "width": 13, "height": 8})]


def random_actions(vec, rng):
    """Legal ones, where the vector tells which those are."""
    space = vec.single_action_space
    if vec.action_masks is not None:
        return (rng.random(vec.action_masks.shape) * vec.action_masks).argmax(1)
    if hasattr(space, "n"):
        return rng.integers(0, space.n, vec.num_agents)
    return rng.uniform(space.low, space.high, (vec.num_agents, *space.shape)).astype(space.dtype)


@pytest.mark.parametrize(("name", "env_kwargs"), ENVIRONMENTS)
def test_same_bytes_with_threads(name, env_kwargs):
    """300 environments: parts that end within a block of those that are stepped in lanes."""
    steps = 100 if (name, env_kwargs) == ("snake", {}) else 510      # most limits are 500 at most

    def played(**backend):
        rng = np.random.default_rng(0)
        with make(name, 300, env_kwargs=env_kwargs, **backend) as vec:
            vec.reset(seed=3)
            digest = hashlib.sha256()
            for _ in range(steps):
                for rows in (*vec.step(random_actions(vec, rng))[:4], vec.masks, vec.acting):
                    digest.update(rows.tobytes())
            for array in vec.save_state().values():
                digest.update(array.tobytes())
            return digest.hexdigest(), vec.episode_stats()

    expected = played(backend="serial")
    for workers in (2, 3):
        assert played(backend="threads", num_workers=workers) == expected
