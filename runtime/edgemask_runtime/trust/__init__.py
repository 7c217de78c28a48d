"""Whom a device believes: enrolled keys, signatures of releases, and what else a release must fulfil.

Without numpy, and all but `verify` and `check` without `cryptography`: a first install on a bare board enrols keys
with this.
"""

from edgemask_runtime.trust.acceptance import Accepted, check, check_fit
from edgemask_runtime.trust.clock import newest_after
from edgemask_runtime.trust.facts import Facts, this_device
from edgemask_runtime.trust.keyring import EnrolledKey, Keys, PublicKey, read_public
from edgemask_runtime.trust.signatures import Signature, Signatures, verify

__all__ = [
    "Accepted",
    "EnrolledKey",
    "Facts",
    "Keys",
    "PublicKey",
    "Signature",
    "Signatures",
    "check",
    "check_fit",
    "newest_after",
    "read_public",
    "this_device",
    "verify",
]
