"""The hand-over of shards as a model: every interleaving of caller, helpers and worker processes.

The sides of `pufferlib_cy._engine` are written down as programs of small steps, each of which
touches one shared word, as the atomic operations of the code do. `explore` walks through every
order in which the steps can happen. In none may two sides own a shard at once, a result be read
before it is there, or everybody sleep while something is left to do: sleeps time out in the code,
but nothing may depend on that. Then the programs are spoiled, two steps swapped or one left out,
and the walk has to find that.

A step is a function of the shared words and the side's own; it returns the label to go on at, None
for the next step, or WAIT if it cannot be made now. Steps that touch only the side's own words
follow at once on the one before: nobody can tell when they happen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

CALLER, READY, TAKEN = range(3)
WAIT = "not now"
Words = dict[str, int]
Step = Callable[[Words, Words], str | None]


@dataclass
class Program:
    """Steps of one side. A step with a name can be left out, or swapped with another one's."""

    name: str
    spoil: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)              # the step touches nothing shared
    labels: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.steps)

    def do(self, step: Step, name: str = "", own: bool = False) -> None:
        if name:
            self.named[name] = len(self.steps)
        self.steps.append(step)
        self.own.append(own)

    def then(self, step: Callable[[Words], str | None]) -> None:
        """A step on the side's own words."""
        self.do(lambda s, m: step(m), own=True)

    def run(self, at: int, s: Words, m: Words) -> int | None:
        """Make the step and its own that follow; where to go on, or None: it cannot be made now."""
        while True:
            target = self.steps[at](s, m)
            if target == WAIT:
                return None
            at = at + 1 if target is None else self.labels[target]
            if not self.own[at]:
                return at

    def park(self, word: str) -> None:
        """Sleep while the word is 1: the kernel looks and goes to sleep in one step."""
        self.do(lambda s, m: s.update({f"sleeps on {word}": int(s[word] == 1)}))
        self.do(lambda s, m: WAIT if s[f"sleeps on {word}"] else None)

    def wake(self, word: str, name: str) -> None:
        self.do(lambda s, m: s.update({f"sleeps on {word}": 0}) if m["asleep"] else None, name)
        self.then(lambda m: m.update(asleep=0))          # forgotten, so that states are equal

    def spoiled(self) -> Program:
        """Leave out the step of one name, or swap those of two."""
        at = [self.named[name] for name in self.spoil if name in self.named]
        if len(at) == 2:
            self.steps[at[0]], self.steps[at[1]] = self.steps[at[1]], self.steps[at[0]]
        elif len(self.spoil) == len(at) == 1:
            self.steps[at[0]] = lambda s, m: None
        return self


def enter(s: Words, shard: int) -> None:
    s[f"inside{shard}"] += 1
    assert s[f"inside{shard}"] == 1, f"two own shard {shard}"
    assert s[f"asked{shard}"] == s[f"done{shard}"] + 1, f"shard {shard} is stepped for nothing"


def leave(s: Words, shard: int) -> None:
    s[f"inside{shard}"] -= 1
    s[f"done{shard}"] += 1


def take(s: Words, m: Words, word: str) -> None:
    """If it was seen asleep: take that back, and see whether nobody was faster."""
    if m["asleep"]:
        m["asleep"], s[word] = s[word], 0


def call(p: Program, epoch: str, asleep: list[str]) -> None:
    """`call_helpers` and `call_process`."""
    p.do(lambda s, m: s.update({epoch: s[epoch] + 1}), "new epoch")
    for word in asleep:
        p.do(lambda s, m, word=word: m.update(asleep=s[word]), "see asleep")
        p.do(lambda s, m, word=word: take(s, m, word))
        p.wake(word, "wake")


def claim(p: Program, shard: int, then: str, tells: bool = False) -> None:
    """`claim`: READY to TAKEN, the step, CALLER. Go on at `then` if there was nothing to claim."""
    flag = f"flag{shard}"
    p.do(lambda s, m: None if s[flag] == READY else then, "see ready")
    p.do(lambda s, m: s.update({flag: TAKEN}) if s[flag] == READY else then, "take")
    p.do(lambda s, m: enter(s, shard))
    p.do(lambda s, m: leave(s, shard), "step")
    if tells:
        p.do(lambda s, m: s.update(mail=s["mail"] + 1), "announce")
    p.do(lambda s, m: s.update({flag: CALLER}), "home")
    p.then(lambda m: m.update(worked=1))


def ring_bell(p: Program, group: list[int], tells: bool) -> None:
    """`ring_bell`: only if the group is home, or there is mail. A flag that is CALLER stays so
    until all of the group are, so that they can be read in one step."""
    p.do(lambda s, m: m.update(asleep=int(
        tells or all(s[f"flag{n}"] == CALLER for n in group))), "see home")
    p.do(lambda s, m: m.update(asleep=s["bell"]) if m["asleep"] else None)
    p.do(lambda s, m: take(s, m, "bell"))
    p.wake("bell", "ring")


def helper(name: str, shards: list[int], epoch: str, groups: list[list[int]],
           spoil: tuple[str, ...] = (), tells: bool = False) -> Program:
    """`help`, a thread's life, and `serve_process`, a worker process's: `epoch` and `shards` are
    everybody's or its own. `tells`: it has mail about every step, too much for the socket to hold.
    """
    p, asleep = Program(name, spoil), f"asleep {name}"
    p.label("top")
    p.do(lambda s, m: m.update(seen=s[epoch]), "see epoch")
    p.then(lambda m: m.update(worked=0))
    for shard in shards:
        claim(p, shard, f"after {shard}", tells)
        ring_bell(p, next(group for group in groups if shard in group), tells)
        if tells:
            p.then(lambda m: m.update(told=m["told"] + 1))
            p.do(lambda s, m: WAIT if s["read"] < m["told"] else None)
        p.label(f"after {shard}")
    p.do(lambda s, m: None, "after the flags")
    p.then(lambda m: "top" if m["worked"] else None)
    p.do(lambda s, m: None if s[epoch] == m["seen"] else "top")                # `rest`
    p.do(lambda s, m: s.update({asleep: 1}), "write asleep")
    p.do(lambda s, m: m.update(same=int(s[epoch] == m["seen"])), "see epoch again")
    p.then(lambda m: None if m["same"] else "awake")
    p.park(asleep)
    p.label("awake")
    p.do(lambda s, m: s.update({asleep: 0}))
    p.then(lambda m: m.update(same=0, seen=0))
    p.then(lambda m: "top")
    return p.spoiled()


def caller(groups: list[list[int]], batch: int, processes: dict[int, str], threads: list[str],
           spoil: tuple[str, ...] = (), rounds: tuple[int, ...] = (2, 2),
           tells: bool = False) -> Program:
    """`send`, then `recv` of `batch` groups, group g `rounds[g]` times.

    `processes`: who owns a shard. The caller claims the others itself while it waits.
    """
    p = Program("caller", spoil)
    p.do(lambda s, m: None)

    def is_home(s: Words, group: list[int]) -> bool:
        return all(s[f"flag{shard}"] == CALLER for shard in group)

    def count_home(s: Words, m: Words) -> None:
        # Groups that are home stay home: to look at all in one step forgets no interleaving.
        m["home"] = sum(m[f"out{g}"] and is_home(s, group) for g, group in enumerate(groups))

    def wanted(m: Words) -> int:
        return min(batch, sum(m[f"out{g}"] for g in range(len(groups))))

    def receive(s: Words, m: Words) -> None:
        taken = 0
        for g, group in enumerate(groups):
            if m[f"out{g}"] and is_home(s, group) and taken < batch:
                taken += 1
                m[f"out{g}"] = 0
                for shard in group:
                    assert s[f"done{shard}"] == s[f"asked{shard}"], "read before it was there"
                    m["told"] += tells
        assert s["read"] >= m["told"], "got a batch without the mail about it"

    for g, group in enumerate(groups):
        p.label(f"start {g}")
        p.then(lambda m, g=g: None if not m[f"out{g}"] and m[f"rounds{g}"] < rounds[g]
               else f"started {g}")
        p.then(lambda m, g=g: m.update({f"out{g}": 1, f"rounds{g}": m[f"rounds{g}"] + 1}))
        for shard in group:
            p.do(lambda s, m, n=shard: s.update({f"asked{n}": s[f"asked{n}"] + 1}), "ask")
            p.do(lambda s, m, n=shard: s.update({f"flag{n}": READY}), "ready")
            if shard in processes:
                call(p, f"epoch {processes[shard]}", [f"asleep {processes[shard]}"])
        p.label(f"started {g}")
    if threads:
        call(p, "epoch", [f"asleep {name}" for name in threads])
    p.label("wait")
    p.do(count_home)
    p.then(lambda m: "arrived" if m["home"] >= wanted(m) else None)
    for shard in (n for group in groups for n in group if n not in processes):
        p.then(lambda m: m.update(worked=0))
        claim(p, shard, f"tried {shard}")
        p.label(f"tried {shard}")
        p.then(lambda m: "wait" if m["worked"] else None)
    p.do(lambda s, m: s.update(bell=1), "write bell")
    p.do(count_home, "count again")
    p.then(lambda m: "woken" if m["home"] >= wanted(m) else None)
    p.do(lambda s, m: "woken" if s["mail"] != s["read"] else None, "see mail")
    p.park("bell")
    p.label("woken")
    p.do(lambda s, m: s.update(bell=0))
    p.do(lambda s, m: s.update(read=s["mail"]), "read mail")
    p.then(lambda m: "wait")
    p.label("arrived")
    p.do(lambda s, m: s.update(read=s["mail"]), "read mail at last")
    p.do(receive)
    p.then(lambda m: m.update(home=0, worked=0, asleep=0))
    p.then(lambda m: "start 0" if any(
        m[f"rounds{g}"] < rounds[g] or m[f"out{g}"] for g in range(len(groups))) else "end")
    p.label("end")
    p.do(lambda s, m: "end")
    return p.spoiled()


class StuckError(AssertionError):
    """Nobody can make a step, and the caller has not got all it asked for."""


def explore(programs: list[Program]) -> int:
    """Make every order of steps; return how many states there are. Raises AssertionError."""
    end = programs[0].labels["end"]
    words = [f"{name} {p.name}" for p in programs for name in ("epoch", "asleep")]
    words += [f"{name}{n}" for name in ("flag", "inside", "asked", "done") for n in range(3)]
    words += ["epoch", "bell", "mail", "read"]
    words += [f"sleeps on {word}" for word in words if word.startswith(("asleep", "bell"))]
    own = ["seen", "worked", "same", "asleep", "home", "told"]
    own += [f"{name}{g}" for name in ("out", "rounds") for g in range(3)]
    first = ((0,) * len(words), tuple((0, (0,) * len(own)) for _ in programs))
    known, stack = {first}, [first]
    while stack:
        shared, sides = stack.pop()
        moved = False
        for i, program in enumerate(programs):
            at, mine = sides[i]
            s, m = dict(zip(words, shared, strict=True)), dict(zip(own, mine, strict=True))
            if (next_at := program.run(at, s, m)) is None:
                continue
            after = (tuple(s.values()),
                     (*sides[:i], (next_at, tuple(m.values())), *sides[i + 1:]))
            moved |= i > 0 or after != (shared, sides)
            if after not in known:
                known.add(after)
                stack.append(after)
        if not moved and sides[0][0] != end:
            raise StuckError("the caller waits for ever")
    return len(known)


def threads(spoil: tuple[str, ...] = (), helpers: int = 1) -> list[Program]:
    """Two shards, whoever is first."""
    names = [f"thread {i}" for i in range(helpers)]
    return [caller([[0, 1]], 1, {}, names, spoil),
            *(helper(name, [i % 2, 1 - i % 2], "epoch", [[0, 1]], spoil)
              for i, name in enumerate(names))]


def synchronous(spoil: tuple[str, ...] = ()) -> list[Program]:
    """One shard of the caller's, one of a process's."""
    return [caller([[0, 1]], 1, {1: "process 1"}, [], spoil),
            helper("process 1", [1], "epoch process 1", [[0, 1]], spoil)]


def staggered(spoil: tuple[str, ...] = ()) -> list[Program]:
    """Two groups, a process each; a batch is one of them."""
    return [caller([[0], [1]], 1, {0: "process 1", 1: "process 2"}, [], spoil,
                   rounds=(2, 1)),
            helper("process 1", [0], "epoch process 1", [[0], [1]], spoil),
            helper("process 2", [1], "epoch process 2", [[0], [1]], spoil)]


def letters(spoil: tuple[str, ...] = ()) -> list[Program]:
    """A process with two groups, both in a batch, and much to tell about each."""
    return [caller([[0], [1]], 2, {0: "process 1", 1: "process 1"}, [], spoil, tells=True),
            helper("process 1", [0, 1], "epoch process 1", [[0], [1]], spoil, tells=True)]


def together(spoil: tuple[str, ...] = ()) -> list[Program]:
    """One group, two processes: only who comes home last has to ring."""
    return [caller([[0, 1]], 1, {0: "process 1", 1: "process 2"}, [], spoil, rounds=(1,)),
            helper("process 1", [0], "epoch process 1", [[0, 1]], spoil),
            helper("process 2", [1], "epoch process 2", [[0, 1]], spoil)]


@pytest.mark.parametrize("model", [threads, synchronous, together, staggered, letters])
def test_no_interleaving_goes_wrong(model):
    assert explore(model()) > 1000


@pytest.mark.parametrize(("model", "spoil"), [
    (threads, ("ask", "ready")),                       # told to step before it is said what
    (threads, ("take",)),                              # two claim one shard
    (threads, ("step", "home")),                       # home before the work is done
    (synchronous, ("step", "home")),
    (synchronous, ("ready", "new epoch")),             # looks at the flags too early, then sleeps
    (synchronous, ("new epoch", "see asleep")),        # neither sees the other
    (synchronous, ("write asleep", "see epoch again")),
    (synchronous, ("new epoch",)),
    (synchronous, ("wake",)),
    (synchronous, ("see epoch", "after the flags")),
    (synchronous, ("write bell", "count again")),
    (synchronous, ("ring",)),
    (together, ("home", "see home")),                  # both look before either is home
    (staggered, ("write bell", "count again")),
    (letters, ("see mail",)),                          # sleeps while a worker waits to be heard
    (letters, ("announce",)),
    (letters, ("announce", "home")),                   # got the batch, missed what belongs to it
], ids=str)
def test_planted_faults_are_found(model, spoil):
    with pytest.raises(AssertionError):
        explore(model(spoil))
