"""Multi-agent environments, native or adapted, as PettingZoo's ``ParallelEnv``.

`as_parallel` names the slots of one environment and turns rows into dicts by agent. Needs the extra
``pettingzoo``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from pufferlib_cy._core import NativeEnv
from pufferlib_cy._emulation import ParallelEnvs
from pufferlib_cy.bridges import nested
from pufferlib_cy.vector import VectorEnv, make

AgentDict = dict[Any, Any]


class ParallelRows(ParallelEnv[Any, Any, Any]):  # type: ignore[misc]
    """One environment of a vector environment as a ParallelEnv; see `as_parallel`."""

    def __init__(self, vec: VectorEnv, *, generated: bool = False,
                 render_mode: str | None = None) -> None:
        if vec.num_envs != 1 or vec.autoreset != "disabled":
            raise ValueError("as_parallel: a ParallelEnv is one environment that is reset by its "
                             'user: make(env, 1, autoreset="disabled"), not '
                             f"num_envs={vec.num_envs}, autoreset={vec.autoreset!r}")
        self.vec = vec
        self.agents: list[Any] = []
        env = vec._engine.envs[0]
        self._named = env if isinstance(env, ParallelEnvs) else None
        self._generated = generated
        self._lives = np.zeros(vec.agents_per_env, np.int64)    # agents so far in each slot
        self.metadata, self.render_mode = nested.looks(vec, render_mode)
        if not vec._python:
            self.metadata |= {"name": f"{type(env).__name__.lower()}_v0", "is_parallelizable": True}
        if self._named is not None:
            if self._named.fixed:
                self.possible_agents = list(self._named.fixed)
        elif not generated:
            self.possible_agents = [f"agent_{slot}" for slot in range(vec.agents_per_env)]

    def observation_space(self, agent: Any) -> Space[Any]:
        """The observation space, the same for every agent."""
        return self.vec.env_observation_space

    def action_space(self, agent: Any) -> Space[Any]:
        """The action space, the same for every agent."""
        return self.vec.env_action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[
            AgentDict, AgentDict]:
        """Begin a new episode: observations and infos of the agents that live.

        `seed` starts the random stream anew. `options` go to a Python environment; native ones know
        none, and ignore them.
        """
        self.vec.async_reset(seed=seed, options=options if self.vec._python else None)
        self.vec._engine.recv(self.vec.timeout)
        self._lives[:] = 0
        live = self._live()
        names = self._names(np.zeros_like(live), live)
        self.agents = list(names.values())
        return self._observe(names, live), self._infos(names, live, live)

    def step(self, actions: AgentDict) -> tuple[
            AgentDict, AgentDict, AgentDict, AgentDict, AgentDict]:
        """One step: observations, rewards, terminations, truncations, infos, by agent.

        They speak of the agents that acted and of those born in this step. `actions` has one for
        each of `agents`; ValueError names those that are missing or do not live. Without agents all
        dicts are empty.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        acted = self._live()
        slots = dict(zip(self.agents, np.flatnonzero(acted).tolist(), strict=True))
        if actions.keys() != slots.keys():
            raise ValueError(
                "actions: expected one for each living agent, but there are none for "
                f"{[agent for agent in slots if agent not in actions]}, and some for "
                f"{[agent for agent in actions if agent not in slots]}, who do not live")
        rows = {slot: actions[agent] for agent, slot in slots.items()}
        self.vec.send(nested.slot_rows(self.vec.action_tree, rows, len(acted)))
        self.vec._engine.recv(self.vec.timeout)
        live = self._live()
        seen = acted | live
        names = self._names(acted, live)
        self.agents = list(names.values())
        names.update({slot: agent for agent, slot in slots.items()})
        outcomes, terminations, truncations = self.vec._outcomes()
        rewards = nested.exact_rewards(self.vec, outcomes)
        return (self._observe(names, seen), _by_agent(names, seen, rewards.tolist()),
                _by_agent(names, seen, terminations.tolist()),
                _by_agent(names, seen, truncations.tolist()), self._infos(names, seen, live))

    def render(self) -> Any:
        """A picture in the render mode; None without one."""
        if self.vec._python:
            return self.vec.call("render")[0]
        return nested.draw(self.vec, self.render_mode)

    def state(self) -> Any:
        """The global state, of Python environments that have one."""
        return self.vec.call("state")[0] if self.vec._python else super().state()

    def close(self) -> None:
        """Close the environment; closing twice is fine."""
        self.vec.close()

    # ---- helpers ---------------------------------------------------------------------------------

    def _live(self) -> NDArray[np.bool_]:
        """bool (A,): slots whose agent lives on, a copy."""
        return self.vec._engine.live.copy()

    def _names(self, before: Any, live: Any) -> dict[int, Any]:
        """The agents of the living slots, in their order; who was not alive `before` is new."""
        if self._named is not None:
            return {slot: self._named.names[0][slot] for slot in np.flatnonzero(live).tolist()}
        A = self.vec.agents_per_env
        self._lives += live & ~before
        if not self._generated and (self._lives > 1).any():
            slot = int(np.flatnonzero(self._lives > 1)[0])
            raise ValueError(f"agent_{slot} has died and another agent is born in its slot: "
                             "as_parallel(..., generated=True) gives such agents new names")
        return {slot: f"agent_{slot + A * (int(self._lives[slot]) - 1)}"
                for slot in np.flatnonzero(live).tolist()}

    def _observe(self, names: dict[int, Any], seen: Any) -> AgentDict:
        rows = self.vec._shown()
        return {names[slot]: nested.observations(self.vec.space_tree, rows[slot, ...])
                for slot in np.flatnonzero(seen).tolist()}

    def _infos(self, names: dict[int, Any], seen: Any, live: Any) -> AgentDict:
        """An info for every agent; native action masks of those that live on are among them."""
        infos: AgentDict = _by_agent(names, seen, [{} for _ in seen])
        for _, _, info in self.vec._engine.take_infos():
            infos.update(info if self._named is not None else {names[0]: info})
        masks = None if self.vec._python else self.vec.action_masks
        if masks is not None:
            for slot in np.flatnonzero(live).tolist():
                infos[names[slot]]["action_mask"] = masks[slot].astype(np.int8)
        return infos


def _by_agent(names: dict[int, Any], seen: Any, values: list[Any]) -> AgentDict:
    return {names[slot]: values[slot] for slot in np.flatnonzero(seen).tolist()}


def as_parallel(env: VectorEnv | str | type[NativeEnv] | Callable[..., Any], *,
                generated: bool = False, render_mode: str | None = None,
                **make_kwargs: Any) -> ParallelRows:
    """One environment as a PettingZoo ``ParallelEnv``.

    env: a vector environment of one environment with ``autoreset="disabled"``; or what
        `pufferlib_cy.make` takes as an environment, with its arguments in `make_kwargs`.
    generated: native environments in which an agent may be born in the slot of one that has died.
        It gets a name of its own, and there is no `possible_agents`, as PettingZoo has it for
        environments that generate agents.
    render_mode: of native environments, "rgb_array" or "ansi"; others have theirs already.

    Agents of an adapted PettingZoo environment keep their names. Those of a native one are
    ``agent_0``, ``agent_1``, ...: the number modulo agents_per_env is the slot. Agents that have
    ended are no longer in `agents`; the step on which they end has their last observation. Native
    action masks are ``infos[agent]["action_mask"]``, int8 (choices,), as ``Discrete.sample`` takes
    them; an adapted environment's stay where it puts them.

    Raises ValueError for vector environments of another kind.
    """
    if isinstance(env, VectorEnv):
        if make_kwargs:
            raise TypeError(f"as_parallel: {sorted(make_kwargs)} are for environments that are yet "
                            "to be made")
        return ParallelRows(env, generated=generated, render_mode=render_mode)
    vec = make(env, 1, autoreset="disabled", **make_kwargs)
    try:
        return ParallelRows(vec, generated=generated, render_mode=render_mode)
    except BaseException:
        vec.close()
        raise
