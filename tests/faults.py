"""How the suite is put to the test: making a fault, and finding that a check fails."""

import inspect
import textwrap
import types

import pytest


def caught(check, *given, **arguments):
    """The check must fail, by an assertion, not by another error."""
    with pytest.raises(AssertionError):
        check(*given, **arguments)


def proxy(module, **changed):
    """A module with some names replaced."""
    names = {name: getattr(module, name) for name in dir(module)}
    return types.SimpleNamespace(**{**names, **changed})


def rewrite(monkeypatch, owner, name, old, new):
    """Let a function of a class or module say `new` where its source says `old`, which must be there, and once."""
    function = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, (
        f"{owner.__name__}.{name} has {source.count(old)} times {old!r}: write the fault anew"
    )
    # inside a function with this name, `super()` knows its class
    code = "def make(__class__):\n" + textwrap.indent(source.replace(old, new), "    ") + f"\n    return {name}\n"
    namespace = vars(inspect.getmodule(function)).copy()
    exec(compile(code, f"fault in {name}", "exec"), namespace)
    monkeypatch.setattr(owner, name, namespace["make"](owner))
