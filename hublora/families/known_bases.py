"""What is known of a family's published base models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hublora.families.speed import SpeedAdapter


@dataclass(frozen=True)
class KnownBases:
    """The published base models of a family.

    Attributes:
        architecture_prefix: Beginning of the modelspec names
            (https://github.com/Stability-AI/ModelSpec) of its architectures.
        default_architecture: Modelspec name of a base model that is not known; the prefix if it is
            empty.
        architectures: Hub id of a base model -> modelspec name of its architecture.
        short_names: Lower-case name that people type for a base model -> its Hub id.
        kohya_versions: Value of `ss_base_model_version` in files of kohya's tools -> modelspec
            name.
        undistilled: Hub id of a distilled base model -> of the one to train on in its place.
        assistants: Hub id of a distilled base model -> ref of an adapter that undoes the
            distillation while another one is trained.
        generation: Hub id of a base model that is meant to be trained on -> of the one, with the
            same layers, that its adapters are used on.
        speed_adapters: Published adapters with which its base models generate in a few steps.
        file_bases: Number of inputs of the layers that read prompt embeddings -> Hub id of the base
            model that an original single file with them is a version of.
        text_widths: Width of the prompt embeddings that the denoiser attends to -> modelspec name.
    """

    architecture_prefix: str
    default_architecture: str = ""
    architectures: Mapping[str, str] = field(default_factory=dict)
    short_names: Mapping[str, str] = field(default_factory=dict)
    kohya_versions: Mapping[str, str] = field(default_factory=dict)
    undistilled: Mapping[str, str] = field(default_factory=dict)
    assistants: Mapping[str, str] = field(default_factory=dict)
    generation: Mapping[str, str] = field(default_factory=dict)
    speed_adapters: tuple[SpeedAdapter, ...] = ()
    file_bases: Mapping[int, str] = field(default_factory=dict)
    text_widths: Mapping[int, str] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """Modelspec name of a base model that is not known."""
        return self.default_architecture or self.architecture_prefix
