"""The local fast path: frames and outputs in shared memory, small messages over a Unix socket (docs/formats.md)."""
