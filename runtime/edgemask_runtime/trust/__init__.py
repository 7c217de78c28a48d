"""Whom a device believes: enrolled keys, signatures of releases, and what else a release must fulfil.

Without numpy, and all but `verify` without `cryptography`: a first install on a bare board enrols keys with this.
"""

from edgemask_runtime.trust.keyring import EnrolledKey, Keys, PublicKey, read_public
from edgemask_runtime.trust.signatures import Signature, Signatures, verify

__all__ = ["EnrolledKey", "Keys", "PublicKey", "Signature", "Signatures", "read_public", "verify"]
