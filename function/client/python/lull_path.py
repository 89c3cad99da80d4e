"""Where the modules of an app are looked for."""

import os
import sys


def set_up(*first):
    """Puts directories in front of sys.path, instead of the one of this client: those given, and what a build or a package
    of the app put below the first of them. What PYTHONPATH has named keeps its place there."""
    own = os.path.dirname(os.path.abspath(__file__))
    root = first[0]
    layers = os.environ.get("LULL_LAYERS", "/opt")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    extra = [
        os.path.join(root, "packages"),
        os.path.join(root, ".lull", "python"),
        os.path.join(layers, "python", "lib", version, "site-packages"),
        os.path.join(layers, "python"),
    ]
    kept = [entry for entry in sys.path if os.path.abspath(entry or ".") != own]
    known = {os.path.abspath(entry) for entry in kept}
    front = [os.path.abspath(directory) for directory in first]
    front += [directory for directory in extra if os.path.isdir(directory)]
    sys.path[:] = [directory for directory in dict.fromkeys(front) if directory not in known] + kept
