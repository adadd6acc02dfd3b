"""Multi-annotator, multi-objective alignment by social choice.

The rooms, imported when first used, so that `import pluralign` pulls in neither torch nor jax:
`feedback` (sources of judgements), `features` (texts to features), `reward` (posteriors of what annotators want),
`choice` (social-choice rules), `policy` (LoRA training), `report`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pluralign import choice, features, feedback, policy, report, reward, types

__version__ = "0.1.0"
__all__ = ["__version__", "choice", "features", "feedback", "policy", "report", "reward", "types"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"pluralign.{name}")
    raise AttributeError(f"module 'pluralign' has no attribute {name!r}")
