"""A small table of what licences allow; a licence that it lacks is unknown.

Ids are the Hub's (https://huggingface.co/docs/hub/repositories-licenses). Sources:
  SPDX licences           https://spdx.org/licenses and each licence's own text
  Creative Commons        https://creativecommons.org/share-your-work/cclicenses
  OpenRAIL                https://huggingface.co/spaces/CompVis/stable-diffusion-license, part III:
                          any use but those of Attachment A, passed on with every derivative
  FLUX.1 [dev]            https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md
  FLUX.2 [dev], klein 9B  https://huggingface.co/black-forest-labs/FLUX.2-dev/blob/main/LICENSE.txt
  Krea 2 community        https://huggingface.co/krea/Krea-2-Raw: depends on who uses it
  Stability AI community  https://stability.ai/community-license-agreement: commercial use depends
                          on who uses it, so the table cannot tell

This is a help for reading, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LicenseTerms:
    """The terms of a licence.

    Attributes:
        commercial: Whether commercial use is allowed; None if unknown.
        share_alike: Whether derivatives must keep the licence or its restrictions; None if unknown.
        strictness: Rank among licences; the stricter of two has the higher.
    """

    commercial: bool | None
    share_alike: bool | None
    strictness: int


_FREE = LicenseTerms(commercial=True, share_alike=False, strictness=0)
_CREDITED = LicenseTerms(commercial=True, share_alike=False, strictness=1)  # attribution
_RAIL = LicenseTerms(commercial=True, share_alike=True, strictness=2)
_SHARE_ALIKE = LicenseTerms(commercial=True, share_alike=True, strictness=3)
_DEPENDS = LicenseTerms(commercial=None, share_alike=True, strictness=4)
_NON_COMMERCIAL = LicenseTerms(commercial=False, share_alike=False, strictness=5)
_NON_COMMERCIAL_SHARE_ALIKE = LicenseTerms(commercial=False, share_alike=True, strictness=6)
UNKNOWN = LicenseTerms(commercial=None, share_alike=None, strictness=-1)

TABLE: Mapping[str, LicenseTerms] = {
    **dict.fromkeys(("cc0-1.0", "unlicense", "wtfpl", "pddl"), _FREE),
    **dict.fromkeys(
        ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "afl-3.0",
         "artistic-2.0", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"), _CREDITED
    ),
    **dict.fromkeys(
        ("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m",
         "bigcode-openrail-m"), _RAIL
    ),
    **dict.fromkeys(
        ("cc-by-sa-3.0", "cc-by-sa-4.0", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl",
         "lgpl-2.1", "lgpl-3.0", "mpl-2.0"), _SHARE_ALIKE
    ),
    **dict.fromkeys(
        ("stabilityai-ai-community", "stabilityai-community", "krea-2-community-license"),
        _DEPENDS,
    ),
    **dict.fromkeys(
        ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
         "fair-noncommercial-research-license"), _NON_COMMERCIAL
    ),
    **dict.fromkeys(
        ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
         "flux-1-dev-non-commercial-license", "flux-dev-non-commercial-license",
         "flux-non-commercial-license", "stabilityai-nc-research-community"),
        _NON_COMMERCIAL_SHARE_ALIKE,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LicenseSummary:
    """The licence terms of a work with several sources.

    Attributes:
        licenses: Name of each source -> its licence id; None if it states none.
    """

    licenses: Mapping[str, str | None]

    @property
    def commercial(self) -> bool | None:
        """Whether commercial use is allowed: False if a source forbids it, else None if one is
        unknown."""
        allowed = [terms_of(one).commercial for one in self.licenses.values()]
        return False if False in allowed else None if None in allowed else True

    @property
    def forbidding(self) -> tuple[str, ...]:
        """Names of the sources that forbid commercial use."""
        return tuple(n for n, one in self.licenses.items() if terms_of(one).commercial is False)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the sources without a licence, or with one that the table lacks."""
        return tuple(n for n, one in self.licenses.items() if terms_of(one) is UNKNOWN)

    @property
    def strictest(self) -> str | None:
        """Id of the strictest licence; None if one is unknown."""
        if self.unknown or not self.licenses:
            return None
        return max(
            (one for one in self.licenses.values() if one), key=lambda x: terms_of(x).strictness
        )

    def facts(self) -> dict[str, object]:
        """Return the facts for an image's metadata."""
        return {"of": dict(self.licenses), "commercial_use": self.commercial}

    def __str__(self) -> str:
        named = ", ".join(f"{one or 'unknown'} ({name})" for name, one in self.licenses.items())
        use = {True: "allowed", False: "forbidden", None: "unknown"}[self.commercial]
        return f"Licences: {named}. Commercial use: {use}."


def terms_of(license: str | None) -> LicenseTerms:
    """Return the terms of a licence id."""
    return TABLE.get((license or "").lower(), UNKNOWN)
