"""Memory that two processes share: made by one, checked by the other before it is touched."""

from __future__ import annotations

import fcntl
import mmap
import os

from edgemask_runtime.errors import UserError

SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
CONTENT_SEALS = SIZE_SEALS | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def new_memory(name: str, size: int) -> int:
    """A descriptor of `size` bytes of zeros whose size nobody can change any more."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SIZE_SEALS)
    return descriptor


def sealed_copy(name: str, content: bytes) -> int:
    """A descriptor of these bytes, which nobody can change any more."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, CONTENT_SEALS)
    return descriptor


def map_checked(descriptor: int, size: int) -> mmap.mmap:
    """Map the first `size` bytes; UserError unless they are there for good, in pages that cannot run out.

    Why: of a file that its owner makes shorter, or of huge pages that are used up, the next access is a SIGBUS.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & SIZE_SEALS != SIZE_SEALS:
        raise UserError("the memory is not sealed", "memfd_create, F_ADD_SEALS with F_SEAL_SHRINK | F_SEAL_GROW")
    if os.fstatvfs(descriptor).f_bsize != mmap.PAGESIZE:
        raise UserError("the memory is of huge pages", "memfd_create without MFD_HUGETLB")
    if os.fstat(descriptor).st_size < size:
        raise UserError(f"the memory has {os.fstat(descriptor).st_size} bytes, its slots need {size}")
    try:
        return mmap.mmap(descriptor, size)
    except OSError as error:
        raise UserError(f"the memory cannot be mapped: {error.strerror}") from error
