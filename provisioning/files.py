"""Files that carry keys and trust: private folders, exact modes, and replacement that a power cut cannot tear. Not a general file helper.

Invariant: at every moment a reader finds the old content or the new content under the name, never a part and never a looser mode.
"""

import os
import stat
from pathlib import Path

from provisioning.errors import ProvisioningError

__all__ = ["PRIVATE_FILE", "PUBLIC_FILE", "make_private_folder", "read_private", "write_file"]

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644


def make_private_folder(folder: Path) -> Path:
    """Create ``folder`` (and its parents) and make it its owner's alone; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER)
    return folder


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Replace ``path`` by ``data`` with exactly ``mode``: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # one that a power cut left may have another mode
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # the umask has narrowed what open() was asked for
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """Return the content of a key file. Raises ``ProvisioningError`` when it is missing or when others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ProvisioningError(f"{path} may be read by others (mode {mode:04o}); a key that was open is not a secret: issue a new one")
        return path.read_bytes()
    except FileNotFoundError:
        raise ProvisioningError(f"{path} is missing") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
