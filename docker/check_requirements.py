"""Whether what is installed satisfies sidrec's requirements, and theirs, down to the last one.

For the image on top of vLLM's, whose packages are vLLM's choice: better that its build fails, and
names what does not fit, than the first request. vLLM's own requirements are not looked at.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def unmet(package: str) -> Iterator[str]:
    """One line for each requirement that nothing installed satisfies."""
    seen = set()
    waiting = [(package, Requirement(text)) for text in requires(package) or ()]
    while waiting:
        whose, requirement = waiting.pop()
        if not _applies(requirement) or (name := requirement.name.lower()) in seen:
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            yield f"{whose} needs {requirement}: missing"
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f"{whose} needs {requirement}: {found} is installed"
        # torch's own are of the build that the image chose.
        if name != "torch":
            seen.add(name)
            waiting += [(name, Requirement(text)) for text in requires(name) or ()]


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


if __name__ == "__main__":
    problems = list(unmet(sys.argv[1]))
    sys.exit("\n".join(problems) if problems else 0)
