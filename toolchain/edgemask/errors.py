"""Errors that a user can cause; the runtime defines them, so that both command lines speak alike."""

from edgemask_runtime.errors import UserError, closest, one_line, run_main, unknown
from edgemask_runtime.strict_json import Faults, Rule, structure

__all__ = ["Faults", "Rule", "UserError", "closest", "one_line", "run_main", "structure", "unknown"]
