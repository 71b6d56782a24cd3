"""Model families behind one Protocol; nothing outside this folder branches on a family's name."""

from hublora.families.base import Conditioning, Family
from hublora.families.parameterization import Parameterization
from hublora.families.registry import FAMILIES, family_of_folder, family_of_pipeline

__all__ = [
    "FAMILIES",
    "Conditioning",
    "Family",
    "Parameterization",
    "family_of_folder",
    "family_of_pipeline",
]
