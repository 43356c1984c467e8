"""What a Python environment is: its interface, its spaces and its agents.

`inspect` looks at one environment of Gymnasium or PettingZoo and gives its `Blueprint`: what all
environments of one vector have in common, and the classes of ``_emulation.pyx`` need to step them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.spaces import Space

from pufferlib_cy._spaces import ActionTree


@dataclass(frozen=True)
class Blueprint:
    """What environments of one vector have in common."""

    observation_space: Space[Any]       # of one agent
    action_space: Space[Any]            # of one agent
    num_agents: int                     # A, agent slots
    agents: tuple[Any, ...]             # of the slots, where they are fixed; else ()
    discrete: bool                      # there are discrete actions, of which some may be illegal
    parallel: bool                      # PettingZoo's interface, not Gymnasium's

    def check(self, envs: Sequence[Any]) -> None:
        """Raise ValueError naming the first of the adapted environments, behind the one that was
        looked at, whose spaces or agents are others."""
        known = self.agents or not self.parallel    # else looked at when an agent appears
        for i, env in enumerate(envs[1:] if known else (), 1):
            other = inspect(env, self.num_agents if self.parallel else None)
            if other != self:
                raise ValueError(f"environment {i} differs from environment 0: environments of one "
                                 f"vector have equal spaces and agents, but {other} stands beside "
                                 f"{self}")


@contextlib.contextmanager
def making(environment: int) -> Iterator[None]:
    """Have exceptions note which environment was being made, where Python has notes (3.11)."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "add_note"):
            error.add_note(f"while environment {environment} was made")
        raise


def adapt(env: Any) -> Any:
    """The environment, with PettingZoo's turn-based interface turned into the parallel one.

    Raises TypeError for what is no environment, ValueError for one whose agents do not act at the
    same time.
    """
    if isinstance(env, gymnasium.Env) or _is_parallel(env):
        return env
    if hasattr(env, "agent_selection") or hasattr(env, "agent_iter"):
        from pettingzoo.utils.conversions import aec_to_parallel

        if not env.metadata.get("is_parallelizable"):
            raise ValueError(
                f"{env}: its agents act by turns (metadata['is_parallelizable'] is not True), but "
                "in rows every agent acts in every step. PettingZoo's turn_based_aec_to_parallel "
                "makes an environment whose agents may wait (see docs/emulation.md)")
        return aec_to_parallel(env)
    raise TypeError("env: expected a gymnasium.Env or a PettingZoo environment, got "
                    f"{env!r:.60} ({type(env).__name__})")


def inspect(env: Any, max_agents: int | None) -> Blueprint:
    """Look at an adapted environment.

    max_agents: agent slots, where there are to be fewer than possible agents, or these are unknown:
        then the environment is reset once, to see who lives in it.
    """
    if not _is_parallel(env):
        if max_agents is not None:
            raise ValueError("max_agents: a Gymnasium environment has one agent")
        return _blueprint(env.observation_space, env.action_space, 1, (), False)
    agents = tuple(getattr(env, "possible_agents", None) or ())
    known = agents
    if not agents:
        if max_agents is None:
            raise ValueError("max_agents: this environment has no possible_agents: say how many "
                             "agents live at once at most, make(..., max_agents=8)")
        env.reset()
        known = tuple(env.agents)
        if not known:
            raise ValueError("the environment has neither possible_agents nor agents after a reset")
    observation_space, action_space = env.observation_space(known[0]), env.action_space(known[0])
    for agent in known[1:]:
        check_agent(env, agent, observation_space, action_space)
    num_agents = max_agents or len(agents)
    return _blueprint(observation_space, action_space, num_agents,
                      agents if len(agents) <= num_agents else (), True)


def check_agent(env: Any, agent: Any, observation_space: Space[Any],
                action_space: Space[Any]) -> None:
    """Raise ValueError if an agent of a parallel environment has other spaces than these."""
    for kind, space, expected in (
            ("observation", env.observation_space(agent), observation_space),
            ("action", env.action_space(agent), action_space)):
        if space != expected:
            raise ValueError(
                f"agent {agent!r} has the {kind} space {space}, but others have {expected}: agents "
                "of one environment have equal spaces (PettingZoo's wrappers, or SuperSuit's "
                "pad_observations and pad_action_space, make them so)")


def _blueprint(observation_space: Space[Any], action_space: Space[Any], num_agents: int,
               agents: tuple[Any, ...], parallel: bool) -> Blueprint:
    return Blueprint(observation_space, action_space, num_agents, agents,
                     ActionTree(action_space).heads > 0, parallel)


def _is_parallel(env: Any) -> bool:
    """PettingZoo's parallel interface, without importing PettingZoo."""
    return (not isinstance(env, gymnasium.Env) and hasattr(env, "step")
            and callable(getattr(env, "observation_space", None))
            and not hasattr(env, "agent_iter"))
