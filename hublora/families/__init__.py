"""Model families behind one Protocol; nothing outside this folder branches on a family's name."""

from hublora.families.base import Conditioning, DenoiserInputs, Family, text_encoders_of
from hublora.families.parameterization import Parameterization
from hublora.families.pipeline import Pipeline
from hublora.families.registry import FAMILIES, family_of_folder, family_of_pipeline

__all__ = [
    "FAMILIES",
    "Conditioning",
    "DenoiserInputs",
    "Family",
    "Parameterization",
    "Pipeline",
    "family_of_folder",
    "family_of_pipeline",
    "text_encoders_of",
]
