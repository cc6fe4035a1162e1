"""What of the user's surroundings we mend before anything is imported (docs/surroundings.md)."""

import os
import sys
import warnings

# Where git looks: set by a hook, they name another repository than the folder that we ask about.
_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX")  # fmt: skip


def mend() -> None:
    """For this process and its children."""
    for name in _GIT:
        os.environ.pop(name, None)
    # we draw into files; matplotlib does not even import where the name is of no backend
    os.environ["MPLBACKEND"] = "agg"
    # git status must not write into the index while somebody commits
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"
    # a warning inside a library, which nobody here can act on, would end a command
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.filters[:] = [one for one in warnings.filters if one[0] != "error"]  # type: ignore[index]
        os.environ.pop("PYTHONWARNINGS", None)
