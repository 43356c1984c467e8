"""Stable-Baselines3's vector environment over ours.

`SB3VecEnv` is a ``stable_baselines3.common.vec_env.VecEnv``: PPO and the others train on it as on
their own. Needs the extra ``sb3``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from pufferlib_cy import processes
from pufferlib_cy.bridges import nested
from pufferlib_cy.vector import VectorEnv


class SB3VecEnv(VecEnv):
    """A vector environment of this package as Stable-Baselines3's.

    vec: one agent per environment, and ``autoreset="same_step"``, which is what SB3 expects.

    Infos are one dict per environment, the environment's own and: ``TimeLimit.truncated``, True
    where an episode was cut off; where one ended, ``terminal_observation``, and ``episode`` with
    its return ``r``, length ``l`` and the time ``t`` since the start in seconds, so that no Monitor
    is needed (an environment that has one keeps its own). Rewards are float32, as SB3 has them.
    """

    def __init__(self, vec: VectorEnv) -> None:
        nested.require_single_agent(vec, "SB3VecEnv")
        if vec.autoreset != "same_step":
            raise ValueError("SB3VecEnv: SB3 expects the next episode's first observation with the "
                             f'step that ends one: autoreset="same_step", not {vec.autoreset!r}')
        self.vec = vec
        self._returns = np.zeros(vec.num_envs, np.float64)
        self._lengths = np.zeros(vec.num_envs, np.int64)
        self._start = time.monotonic()
        super().__init__(vec.num_envs, vec.env_observation_space, vec.env_action_space)

    def reset(self) -> Any:
        """Begin a new episode everywhere, with the seeds and options set before; observations."""
        seeds, options = self._seeds, self._options
        if any(other != options[0] for other in options):
            raise ValueError("set_options: environments of one vector get equal options")
        self._reset_seeds()
        self._reset_options()
        self.vec.async_reset(seed=None if all(seed is None for seed in seeds) else seeds,
                             options=options[0] or None)
        self.vec._engine.recv(self.vec.timeout)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        for e, _, info in self.vec._engine.take_infos():
            self.reset_infos[e] = dict(info)
        return self._observe()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begin to step every environment; `step_wait` gives the results."""
        self.vec.send(nested.action_rows(self.vec.action_tree, actions, self.num_envs))

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards float32 (num_envs,), dones bool (num_envs,), a list of infos."""
        engine = self.vec._engine
        engine.recv(self.vec.timeout)
        rewards, terminations, truncations = self.vec._outcomes()
        dones = terminations | truncations
        self._returns += nested.exact_rewards(self.vec, rewards)
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones).tolist()
        for e in ended:
            self.reset_infos[e] = {}
        for e, over, info in engine.take_infos():
            if dones[e] and not over:
                self.reset_infos[e] = dict(info)
            else:
                infos[e].update(info)
        for e in ended:
            infos[e]["TimeLimit.truncated"] = bool(truncations[e] and not terminations[e])
            infos[e]["terminal_observation"] = nested.observations(
                self.vec.space_tree, engine.final_observations[e, ...])
            infos[e].setdefault("episode", {
                "r": round(float(self._returns[e]), 6), "l": int(self._lengths[e]),
                "t": round(time.monotonic() - self._start, 6)})
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        return self._observe(), rewards.copy(), dones, infos

    def close(self) -> None:
        """Close the environments; closing twice is fine."""
        self.vec.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """What each environment draws, uint8 (height, width, 3)."""
        if self.vec._python:
            return self.vec.call("render")
        return [self.vec.render(i) for i in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the environments `indices` (None: all)."""
        if attr_name == "render_mode" and not self.vec._python:
            return ["rgb_array" for _ in self._get_indices(indices)]
        return self._apply(processes.get_attr, (attr_name,), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute of the environments `indices`, where it is defined."""
        self._apply(processes.set_attr, (attr_name, value), indices)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None,
                   **method_kwargs: Any) -> list[Any]:
        """What a method of the environments `indices` returns."""
        return self._apply(processes.invoke, (method_name, method_args, method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
                       indices: VecEnvIndices = None) -> list[bool]:
        """Whether the environments `indices` are wrapped so. All are in a Monitor: this class does
        its work."""
        if wrapper_class is Monitor:
            return [True for _ in self._get_indices(indices)]
        if not self.vec._python:
            return [False for _ in self._get_indices(indices)]
        return self._apply(processes.is_wrapped, (wrapper_class,), indices)

    def _observe(self) -> Any:
        return nested.observations(self.vec.space_tree, self.vec._shown())

    def _apply(self, do: Callable[..., Any], arguments: tuple[Any, ...],
               indices: VecEnvIndices) -> list[Any]:
        """What ``do(env, *arguments)`` gives for the Python environments `indices`, in that order.
        """
        if not self.vec._python:
            raise AttributeError("native environments are rows of C structs and have no attributes "
                                 "or methods of their own")
        wanted = list(self._get_indices(indices))
        chosen = sorted(set(wanted))
        results = self.vec._apply(do, [arguments if i in chosen else None
                                       for i in range(self.num_envs)])
        return [results[chosen.index(i)] for i in wanted]
