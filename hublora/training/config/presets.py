"""Settings that suit a kind of subject, as plain nested mappings; explicit settings win over them.

docs/training.md says why each value is what it is. Steps, learning rate and method are left alone:
they depend on how many images there are and what is to become of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Preset -> section -> setting -> value.
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # The face of one person, from 10 to 30 images.
    "face": {
        "data": {"crop_on_faces": True, "center_crop": True, "random_flip": False},
        "adapter": {"rank": 16},
        "objective": {"snr_gamma": 5.0},
        "tokens": {"property": "object", "num_vectors": 2},
    },
    # One object or animal, from 5 to 30 images.
    "object": {
        "data": {"random_flip": True, "caption_dropout": 0.05},
        "adapter": {"rank": 8},
        "objective": {"snr_gamma": 5.0},
        "tokens": {"property": "object", "num_vectors": 2},
    },
    # A style of images, from 30 images on.
    "style": {
        "data": {"random_flip": True, "crop_variants": 8, "caption_dropout": 0.1},
        "adapter": {"rank": 32, "conv_rank": 16},
        "objective": {"noise_offset": 0.05},
        "tokens": {"property": "style", "num_vectors": 4},
    },
}
