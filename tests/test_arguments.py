"""Arguments of constructors as text."""

import pytest

from pufferlib_cy import make
from pufferlib_cy.arguments import parse_arguments


@pytest.mark.parametrize(("text", "value"), [
    ("20", 20), ("-1.5", -1.5), ("1e3", 1000.0), ("true", True), ("false", False),
    ('"two words"', "two words"), ("'5'", "5"), ("self", "self"), ("[1, 2]", [1, 2]),
    ("{a = 1}", {"a": 1}), ("inf", float("inf")),
])
def test_values(text, value):
    parsed = parse_arguments([f"x={text}", "length=3"])
    assert parsed == {"x": value, "length": 3}
    assert type(parsed["x"]) is type(value)


@pytest.mark.parametrize(("text", "message"), [
    ("True", "x: expected a value as in TOML"), ("None", "x: expected a value"),
    ("two words", "x: expected a value"), ("", "x: expected a value"), ("2020-01-01", "x: expec"),
    ("1\ny = 2", "x: expected a value"),
])
def test_values_that_mean_nothing(text, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([f"x={text}"])


@pytest.mark.parametrize("text", ["length", "=3", "two words=3", "-x=3"])
def test_no_argument_at_all(text):
    with pytest.raises(ValueError, match=f"expected NAME=VALUE, such as length=20, got '{text}'"):
        parse_arguments([text])


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"length": 3}, r"env_kwargs: Squared\(length=3\): .*'length'"),
    ({"size": "big"}, r"env_kwargs: Squared\(size='big'\): "),
    ({"size": 10**30}, r"env_kwargs: Squared\(size=1000"),
    ({"size": 1}, "squared: size is at least 2"),
])
def test_what_a_constructor_does_not_take_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make("squared", env_kwargs=kwargs)
