"""Reads what an app requires and compares it with what this interpreter has. Prints one JSON object."""
import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import sys

try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:
    try:
        from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        Requirement = None


def pyproject(path):
    try:
        import tomllib
    except ImportError:
        from pip._vendor import tomli as tomllib
    with open(path, "rb") as file:
        try:
            data = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise SystemExit(answer(problem=str(error)))
    project = data.get("project", {})
    if "dependencies" not in project and data.get("tool", {}).get("poetry", {}).get("dependencies"):
        raise SystemExit(answer(problem="its dependencies are in Poetry's own form: write them to requirements.txt (poetry export -o requirements.txt)"))
    return [str(each) for each in project.get("dependencies", [])], True


def requirements(path, depth=0):
    """Returns the requirements of a file, and whether that is all it says."""
    found, plain = [], True
    with open(path, encoding="utf-8-sig") as file:
        text = re.sub(r"\\\r?\n", " ", file.read())
    for line in text.splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        include = re.match(r"(?:-r|--requirement)[ =]*(\S+)$", line)
        if include and depth < 5:
            inner = os.path.join(os.path.dirname(path), include.group(1))
            more, simple = requirements(inner, depth + 1)
            found += more
            plain = plain and simple
        elif line.startswith("-"):
            plain = False
        elif line:
            found.append(re.split(r"\s--hash", line)[0].strip())
    return found, plain


def satisfied(text, seen=()):
    if Requirement is None:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:==\s*([^\s;,]+))?$", text)
        if not match:
            return False
        try:
            version = metadata.version(match.group(1))
        except metadata.PackageNotFoundError:
            return False
        return match.group(2) in (None, version)
    need = Requirement(text)
    if need.marker and not need.marker.evaluate({"extra": ""}):
        return True
    if need.url or need.name in seen:
        return bool(not need.url)
    try:
        has = metadata.distribution(need.name)
    except metadata.PackageNotFoundError:
        return False
    if need.specifier and not need.specifier.contains(has.version, prereleases=True):
        return False
    for extra in need.extras:
        for each in has.requires or []:
            marker = Requirement(each).marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                if not satisfied(each.split(";")[0].strip(), (*seen, need.name)):
                    return False
    return True


def answer(packages=(), missing=(), pinned=False, problem=""):
    print(json.dumps({
        "packages": list(packages), "missing": list(missing), "pinned": pinned, "problem": problem,
        "pip": importlib.util.find_spec("pip") is not None, "version": sys.version.split()[0],
    }))
    return 0


def main(path):
    try:
        packages, plain = pyproject(path) if path.endswith(".toml") else requirements(path)
        missing = [each for each in packages if not satisfied(each)]
    except FileNotFoundError as error:
        return answer(problem="it names a file that is not there: " + str(error.filename))
    except (OSError, ValueError) as error:
        return answer(problem=str(error))
    if not plain:
        missing = missing or packages or ["what its options name"]
    pinned = plain and all(re.search(r"===?\s*[^*\s]+$", each.split(";")[0].strip()) for each in packages)
    return answer(packages, missing, pinned)


sys.exit(main(sys.argv[1]))
