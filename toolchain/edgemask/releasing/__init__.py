"""Releases: what a device takes, made of built bundles; and what a release says of itself."""

from edgemask.releasing.making import Released, release
from edgemask.releasing.options import ReleaseOptions

__all__ = ["ReleaseOptions", "Released", "release"]
