"""The part of Edgemask that runs on the device: reads a bundle, runs its engine, serves a camera."""

__version__ = "0.1.0"
