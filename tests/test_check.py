"""`check` finds planted faults, names them, and is content with the package's environments."""

import re

import pytest

from pufferlib_cy.check import check
from pufferlib_cy.envs import REGISTRY


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_first_party_environments_are_sound(name, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(tmp_path_factory.getbasetemp() / "checked"))
    assert check(name, steps=300) == []


@pytest.mark.parametrize(("way", "words"), [
    (1, "a second run with the same seed goes another way"),
    (2, "drew from a random stream that is not its own"),
    (3, "a second run with the same seed goes another way"),
    (4, "alone an environment goes another way"),
    (5, r"environment 0, agent slot 0, step 1: observation\[0\] is 1.5, outside \[0.0, 1.0\]"),
])
def test_leaks_are_found(load_native, way, words):
    leaky = load_native("leaky", True).Leaky
    assert check(leaky, steps=50) == []
    findings = check(leaky, steps=50, env_kwargs={"way": way})
    assert any(re.search(words, finding) for finding in findings), findings


@pytest.mark.parametrize(("way", "words"), [(1, "reward is NaN"), (7, "own state")])
def test_broken_contracts_are_found(load_native, way, words):
    faulty = load_native("faulty", True).Faulty
    assert check(faulty, steps=5) == []
    [finding] = check(faulty, steps=5, env_kwargs={"way": way})
    assert words in finding


@pytest.mark.parametrize("way", [7, 8])
def test_lanes_that_look_at_their_company_are_found(load_native, way):
    lanes = load_native("lanes", True).Lanes
    assert check(lanes, steps=20) == []
    findings = check(lanes, steps=20, env_kwargs={"way": way})
    assert any("alone an environment goes another way" in finding for finding in findings)


def test_unknown_environments_are_told():
    with pytest.raises(ValueError, match="did you mean cartpole"):
        check("cartpol")
