"""A namespace of the lab with a root file system of its own: this machine's, and packages above it.

What is written there is gone at the end, so real programs may be set up by the files and commands
that an administrator would use. Of this machine /tmp is shared, where the lab keeps its files.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.namespace import Namespace

_READY = "ready\n"
_MOUNT = """
set -e
mount -t tmpfs sandbox /mnt
mkdir /mnt/changes /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work overlay /mnt/root
for package in "$1"/*.deb; do
    [ -e "$package" ] || continue
    dpkg-deb --fsys-tarfile "$package" | tar -x -C /mnt/root --keep-directory-symlink
done
mount -t proc proc /mnt/root/proc
for shared in sys dev tmp; do mount --rbind /$shared /mnt/root/$shared; done
mount -t tmpfs run /mnt/root/run
exec chroot /mnt/root sh -c 'echo ready; exec sleep infinity'
"""


class SandboxFailed(Exception):
    """The file system cannot be made here; the message says why."""


class Sandbox(Namespace):
    """The same namespace, with files of its own; `packages` is what `fetch_packages` returned.

    Raises SandboxFailed.
    """

    def __init__(self, namespace: Namespace, packages: Path) -> None:
        self.name = namespace.name
        self._holder = subprocess.Popen(
            namespace.command("sh", "-c", _MOUNT, "sh", str(packages)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != _READY:
            _, said = self._holder.communicate()
            raise SandboxFailed(said.strip())

    def close(self) -> None:
        """Removes the files; the namespace stays."""
        self._holder.kill()
        self._holder.communicate()

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line that runs `arguments` inside and dies with this process."""
        inside = (f"--target={self._holder.pid}", "--mount", "--net", "--root", "--wd")
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", *inside, *arguments]

    def write(self, path: str, text: str) -> None:
        """Writes a file, with the directories that lead to it."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, text=text)
