"""Runs on the board's processor: imports a release's packages, replays bundles' probes, answers for real faces."""

from __future__ import annotations

import importlib
import json
import platform
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

WORK = Path("/work")
MODULES = (
    "numpy onnxruntime ai_edge_litert.interpreter uvicorn httptools starlette.applications orjson prometheus_client "
    "PIL.Image simplejpeg paho.mqtt.client can cantools grpc google.protobuf.message av ml_dtypes "
    "cryptography.hazmat.primitives.asymmetric.ed25519 edgemask_runtime.daemon edgemask_runtime.install.cli"
).split()


def imported() -> dict[str, str]:
    """Every module, and what its import said; an illegal instruction would end this process."""
    return {name: _imported(name) for name in MODULES}


def _imported(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:
        return repr(error)
    return "ok"


def answers() -> dict[str, Any]:
    """What each bundle's probe said here, and its labels for the faces, if there are any."""
    import numpy as np

    from edgemask_runtime.bundle import Bundle
    from edgemask_runtime.engines import open_engine
    from edgemask_runtime.predictor import Predictor
    from edgemask_runtime.probe import replay

    faces = np.load(WORK / "faces.npz")["x"]
    found = {}
    for path in sorted((WORK / "bundles").glob("*.edgemask")):
        bundle = Bundle.open(path)
        manifest = bundle.manifest
        engine = open_engine(manifest.engine, bundle.read(manifest.model.file), threads=1)
        predictor = Predictor(manifest, engine)
        found[path.stem] = {
            "engine": str(engine.info),
            "probe": replay(manifest, engine, bundle.evidence, path.name).compared,
            "labels": [predictor.predict(face[None]).read().top[0].index for face in faces],
        }
    return found


def signed() -> bool:
    """Whether the library that verifies releases computes Ed25519 here as RFC 8032 says (test 1)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    return Ed25519PrivateKey.from_private_bytes(secret).sign(b"").hex().startswith(expected)


if __name__ == "__main__":
    told = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "glibc": platform.libc_ver()[1],
        "installed": sorted(found.metadata["Name"].lower() for found in distributions(path=["/site", "/work/site"])),
        "imports": imported(),
        "signed": signed(),
        "answers": answers(),
    }
    print(json.dumps(told))
