"""The Python that a contestant runs in: the project's own, or one made for it where its packages clash with ours."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from work import HERE, Skip

OWN = {"litgpt": ["litgpt==0.5.13"]}


def python_of(peer: str, *, install: bool) -> Path:
    """The interpreter for a file of ``peers/``.

    Raises:
        Skip: when its environment is not there and cannot be made.
    """
    if peer not in OWN:
        return Path(sys.executable)
    place = HERE / ".envs" / peer
    python, ready = place / "bin" / "python", place / ".ready"
    if not ready.exists():
        if not install:
            raise Skip("its environment has not been made")
        torch = f"torch=={version('torch').partition('+')[0]}"
        commands = [[sys.executable, "-m", "venv", place], [python, "-m", "pip", "install", "-q", *OWN[peer], torch]]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Skip(f"cannot be installed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
        ready.touch()
    return python
