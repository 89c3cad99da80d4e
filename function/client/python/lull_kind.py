"""Tells WSGI from ASGI apps."""

import inspect


def application(target):
    """Returns ("wsgi" or "asgi", app). A function without required parameters is a factory: what it returns is the app."""
    count = _required(target)
    if count == 0 and not isinstance(target, type):
        target = target()
        count = _required(target)
    call = target if inspect.isroutine(target) else getattr(type(target), "__call__", None)
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call) or count == 3:
        return "asgi", target
    return "wsgi", target


def _required(target):
    """How many positional arguments it needs."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return 2
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)
