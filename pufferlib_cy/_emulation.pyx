"""Python environments as rows: Gymnasium's and PettingZoo's, stepped one by one.

To the engine these are `NativeEnv`s like any other, so that autoreset, padding, masks and
statistics follow the same rules; their `run` takes the GIL and calls each Python environment in
turn. What an environment gives is flattened straight into its rows.
"""

cimport cython
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memchr, memset

from pufferlib_cy._actions cimport address
from pufferlib_cy._core cimport CHECKED, NativeEnv, RAISED, Rows, Slice, first_rows, next_rows

import numpy as np

from pufferlib_cy.arrays import aligned_zeros, describe
from pufferlib_cy.emulation import check_agent

cdef enum:
    FULL_CHECKS = 2           # calls whose observations are checked in full: a reset and a step

cdef struct State:
    # What is kept here about a Python environment.
    int32_t index             # of the environment among `envs`
    int32_t checks            # calls so far, up to FULL_CHECKS


cdef class PythonEnvs(NativeEnv):
    """E Python environments of equal spaces.

    A subclass says how to reset and step one of them. Exceptions end the slice; `take_error` gives
    them to the engine.
    """

    cdef readonly list envs                      # (E,)
    cdef readonly object exact_rewards           # float64 (E, A) of the last step, as given
    cdef double* exact
    cdef list pending                            # (E,) (seed, options) of the next reset, or None
    cdef list infos                              # (E,) [(ended, info), ...] not yet taken
    cdef object error

    def __init__(self, envs, blueprint):
        blueprint.check(envs)
        super().__init__(blueprint.observation_space, blueprint.action_space, sizeof(State),
                         blueprint.num_agents, blueprint.discrete)
        self.masks_given = False                 # until an environment gives one
        self.envs = list(envs)
        self.pending = [None] * len(self.envs)
        self.infos = [[] for _ in self.envs]
        self.use_exact_rewards(aligned_zeros((len(self.envs), blueprint.num_agents), np.float64))

    def use_exact_rewards(self, array):
        """Write rewards as the environments give them into the array, float64 (E, A)."""
        self.exact_rewards = array
        self.exact = <double*> address(array)

    def allocate(self, Py_ssize_t num_envs):
        cdef Py_ssize_t i
        if num_envs not in (0, len(self.envs)):   # 0: they are only looked at
            raise ValueError(f"{len(self.envs)} environments, but {num_envs} asked for")
        NativeEnv.allocate(self, num_envs)
        for i in range(num_envs):
            (<State*> self.state_of(i)).index = i

    def seed(self, seeds):
        """Give environment i's next reset the seed seeds[i], any int; None: it gets none."""
        self.pending = [(None if seed is None else int(seed), None) for seed in seeds]

    def prepare(self, options, selected):
        options = dict(options) if options else None
        for i, (seed, _) in enumerate(before or (None, None) for before in self.pending):
            self.pending[i] = (seed, options) if selected is None or selected[i] else None

    def take_error(self):
        error, self.error = self.error, None
        return error

    def take_infos(self, Py_ssize_t first, Py_ssize_t last):
        cdef Py_ssize_t i
        entries = []
        if self.num_infos == 0:
            return entries
        for i in range(first, last):
            if self.infos[i]:
                entries += [(i, ended, info) for ended, info in self.infos[i]]
                self.num_infos -= len(self.infos[i])
                self.infos[i].clear()
        return entries

    def close(self):
        """Close every environment, even if one raises; then raise the first exception."""
        envs, self.envs = self.envs, []
        errors = []
        for env in envs:
            try:
                env.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    @property
    def render_fps(self):
        """As the environments' metadata say; None if they do not."""
        return getattr(self.envs[0], "metadata", {}).get("render_fps")

    def render(self, Py_ssize_t environment):
        """Its picture, if it was made with ``render_mode="rgb_array"``; else None."""
        return self.drawn(environment, "rgb_array")

    def ansi(self, Py_ssize_t environment):
        """Its text, if it was made with ``render_mode="ansi"``; else None."""
        return self.drawn(environment, "ansi")

    cdef object drawn(self, Py_ssize_t environment, str mode):
        env = self.envs[environment]
        return env.render() if getattr(env, "render_mode", None) == mode else None

    cdef void run(self, Slice* slice) noexcept nogil:
        with gil:
            self.play(slice)

    cdef play(self, Slice* slice):
        """Reset or step the environments of the slice."""
        cdef Rows rows = first_rows(slice)
        cdef State* state
        if self.error is not None:
            return
        try:
            while next_rows(&rows):
                state = <State*> rows.state
                if rows.starting:
                    self.reset_one(state.index, &rows)
                else:
                    self.step_one(state.index, &rows)
                if state.checks < FULL_CHECKS:
                    state.checks += 1
        except BaseException as error:           # interrupts too: nothing may pass through nogil
            self.error = error
            slice.fault = RAISED
            slice.fault_environment = rows._environment

    cdef reset_one(self, Py_ssize_t i, Rows* rows):
        raise NotImplementedError

    cdef step_one(self, Py_ssize_t i, Rows* rows):
        raise NotImplementedError

    cdef call_reset(self, Py_ssize_t i):
        """What environment i returns for a reset, with the seed and options that wait for it."""
        pending, self.pending[i] = self.pending[i], None
        if pending is None:                      # autoreset
            return self.envs[i].reset()
        seed, options = pending
        self.take_infos(i, i + 1)                # of steps that the caller did not receive
        return self.envs[i].reset(seed=seed, options=options)

    cdef write(self, Rows* rows, Py_ssize_t slot, observation, info):
        """Flatten an observation into the row of a slot; and its action mask, if there are any."""
        cdef char* row = <char*> rows.observations + slot * self.space_tree.row_size
        cdef Py_ssize_t n = self.action_choices
        if CHECKED or (<State*> rows.state).checks < FULL_CHECKS:
            self.space_tree.write_checked(observation, row)
        else:
            self.space_tree.write(observation, row)
        if n:
            mask = observation.get("action_mask") if isinstance(observation, dict) else None
            if mask is None and info is not None:
                mask = info.get("action_mask")
            if mask is not None:
                self.masks_given = True
                write_mask(mask, rows.action_masks + slot * n, n)

    cdef tell(self, Py_ssize_t i, bint ended, info):
        """Keep an info until it is taken."""
        self.infos[i].append((ended, info))
        self.num_infos += 1

    cdef reward(self, Rows* rows, Py_ssize_t i, Py_ssize_t slot, double reward):
        rows.rewards[slot] = reward
        self.exact[i * self.agents_per_env + slot] = reward

    cdef reset_rewards(self, Rows* rows, Py_ssize_t i):
        """A reset gives no reward; within the step that ended the episode, that step's stands."""
        cdef Py_ssize_t a
        for a in range(self.agents_per_env):
            if rows.rewards[a] == 0.0:
                self.exact[i * self.agents_per_env + a] = 0.0


@cython.final
cdef class GymnasiumEnvs(PythonEnvs):
    """Environments of Gymnasium, one agent each."""

    cdef reset_one(self, Py_ssize_t i, Rows* rows):
        observation, info = self.call_reset(i)
        self.write(rows, 0, observation, info)
        self.reset_rewards(rows, i)
        if info:
            self.tell(i, False, info)

    cdef step_one(self, Py_ssize_t i, Rows* rows):
        action = self.action_tree.read_row(rows.actions, rows.continuous_actions)
        observation, reward, terminated, truncated, info = self.envs[i].step(action)
        self.write(rows, 0, observation, info)
        self.reward(rows, i, 0, reward)
        rows.terminations[0] = bool(terminated)
        rows.truncations[0] = bool(truncated)
        if info:
            self.tell(i, rows.terminations[0] or rows.truncations[0], info)


@cython.final
cdef class ParallelEnvs(PythonEnvs):
    """Parallel environments of PettingZoo: agents that come and go, each in a slot.

    An agent keeps its slot for the whole episode. With fixed agents the slot is the index in
    `possible_agents`; else it is given by the order of first appearance, and a slot that nobody
    lives in is used again when all have been used.
    """

    cdef readonly dict fixed                     # agent: slot; empty where the first come are first
    cdef readonly list names                     # per environment: (A,) agent of each slot, or None
    cdef list slots                              # per environment: {agent: slot}

    def __init__(self, envs, blueprint):
        super().__init__(envs, blueprint)
        self.fixed = {agent: slot for slot, agent in enumerate(blueprint.agents)}
        self.names = [[]] * len(self.envs)
        self.slots = [{}] * len(self.envs)

    cdef reset_one(self, Py_ssize_t i, Rows* rows):
        observations, infos = self.call_reset(i)
        self.slots[i] = dict(self.fixed)
        self.names[i] = list(self.fixed) or [None] * self.agents_per_env
        memset(rows.masks, 0, self.agents_per_env)
        for agent in self.envs[i].agents:
            self.join(rows, i, agent, observations, infos)
        self.reset_rewards(rows, i)
        infos = {agent: info for agent, info in infos.items() if info}
        if infos:
            self.tell(i, False, infos)

    cdef step_one(self, Py_ssize_t i, Rows* rows):
        cdef Py_ssize_t slot
        cdef list names = self.names[i]
        cdef dict actions = {}
        cdef bint over = True
        env = self.envs[i]
        for slot in range(self.agents_per_env):
            if rows.masks[slot]:
                actions[names[slot]] = self.action_tree.read_row(
                    rows.actions + slot * self.action_tree.heads,
                    rows.continuous_actions + slot * self.action_tree.values)
        observations, rewards, terminations, truncations, infos = env.step(actions)
        agents = env.agents
        for slot in range(self.agents_per_env):
            if not rows.masks[slot]:
                self.exact[i * self.agents_per_env + slot] = 0.0
                continue
            agent = names[slot]
            self.reward(rows, i, slot, rewards.get(agent, 0.0))
            rows.terminations[slot] = bool(terminations.get(agent, False))
            rows.truncations[slot] = bool(truncations.get(agent, False))
            if not (rows.terminations[slot] or rows.truncations[slot]):
                # An agent that leaves without a flag did not end by the rules.
                rows.truncations[slot] = agent not in agents
            if agent in observations:
                self.see(rows, slot, agent, observations[agent], infos.get(agent))
            else:
                memset(<char*> rows.observations + slot * self.space_tree.row_size, 0,
                       self.space_tree.row_size)
        for agent in agents:
            if agent not in actions:
                slot = self.join(rows, i, agent, observations, infos)
                self.reward(rows, i, slot, rewards.get(agent, 0.0))
        for slot in range(self.agents_per_env):
            if rows.masks[slot] and not (rows.terminations[slot] or rows.truncations[slot]):
                over = False
        infos = {agent: info for agent, info in infos.items() if info}
        if infos:
            self.tell(i, over, infos)

    cdef Py_ssize_t join(self, Rows* rows, Py_ssize_t i, agent, observations, infos) except -1:
        """An agent begins to live: its slot."""
        cdef Py_ssize_t slot
        if agent not in observations:
            raise ValueError(f"agent {agent!r} lives, but has no observation")
        slot = self.slot_of(rows, i, agent)
        rows.masks[slot] = True
        self.see(rows, slot, agent, observations[agent], infos.get(agent))
        return slot

    cdef see(self, Rows* rows, Py_ssize_t slot, agent, observation, info):
        """`write`, with the agent named where the observation is wrong."""
        try:
            self.write(rows, slot, observation, info)
        except ValueError as error:
            raise type(error)(f"agent {agent!r}: {error}") from error

    @property
    def kind(self):
        return {**super().kind, "agents": tuple(self.fixed)}

    cdef Py_ssize_t slot_of(self, Rows* rows, Py_ssize_t i, agent) except -1:
        cdef Py_ssize_t slot
        cdef dict slots = self.slots[i]
        if agent in slots:
            return slots[agent]
        if self.fixed:
            raise ValueError(f"agent {agent!r} is not one of possible_agents {list(self.fixed)}")
        check_agent(self.envs[i], agent, self.observation_space, self.action_space)
        if len(slots) < self.agents_per_env:
            slot = len(slots)
        else:
            found = <uint8_t*> memchr(rows.masks, 0, self.agents_per_env)
            if found == NULL:
                raise ValueError(f"agent {agent!r} is one more than max_agents="
                                 f"{self.agents_per_env}: give `make` a larger max_agents")
            slot = found - rows.masks
            del slots[self.names[i][slot]]
        slots[agent] = slot
        self.names[i][slot] = agent
        return slot


cdef write_mask(mask, uint8_t* target, Py_ssize_t choices):
    """Write which discrete actions are legal: (choices,), or a tuple with one array per part."""
    cdef Py_ssize_t c
    cdef const uint8_t[::1] legal
    if isinstance(mask, (tuple, list)) and len(mask) and np.ndim(mask[0]):
        mask = np.concatenate(mask)
    mask = np.asarray(mask)
    if mask.shape != (choices,):
        raise ValueError(f"action_mask: expected shape ({choices},), one entry per discrete "
                         f"action, got {describe(mask)}")
    legal = np.ascontiguousarray(mask != 0).view(np.uint8)
    for c in range(choices):
        target[c] = legal[c]
    if memchr(target, 1, choices) == NULL:
        raise ValueError("action_mask: no action is legal")
