"""Finds a function's handler: "pkg/module.handler" or "pkg.module.handler"."""

import importlib
import sys

from lull_errors import RuntimeFailure


def load(name):
    module_name, dot, function = name.rpartition(".")
    if not dot:
        raise RuntimeFailure("MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)")
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise RuntimeFailure("BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise RuntimeFailure("ImportModuleError", f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text or ""}']
        raise RuntimeFailure("UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", trace) from error
    try:
        return getattr(module, function)
    except AttributeError:
        raise RuntimeFailure("HandlerNotFound", f"Handler '{function}' missing on module '{module_name}'") from None
