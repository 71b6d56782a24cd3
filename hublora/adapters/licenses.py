"""What licences allow, as far as a small table tells; what is not in it stays unknown.

Ids are the Hub's (https://huggingface.co/docs/hub/repositories-licenses). Sources:
  SPDX licences           https://spdx.org/licenses and each licence's own text
  Creative Commons        https://creativecommons.org/share-your-work/cclicenses
  OpenRAIL                https://huggingface.co/spaces/CompVis/stable-diffusion-license, part III:
                          any use but those of Attachment A, passed on with every derivative
  FLUX.1 [dev]            https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md
  Stability AI community  https://stability.ai/community-license-agreement: commercial use depends
                          on who uses it, so the table cannot tell

This is a help for reading, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LicenseTerms:
    """What a licence says.

    Attributes:
        commercial: Whether commercial use is allowed; None if that is not known.
        share_alike: Whether what is made of it must keep the licence, or its restrictions.
        order: The stricter, the higher.
    """

    commercial: bool | None
    share_alike: bool | None
    order: int


_FREE = LicenseTerms(commercial=True, share_alike=False, order=0)
_NAMED = LicenseTerms(commercial=True, share_alike=False, order=1)  # attribution
_RAIL = LicenseTerms(commercial=True, share_alike=True, order=2)
_ALIKE = LicenseTerms(commercial=True, share_alike=True, order=3)
_DEPENDS = LicenseTerms(commercial=None, share_alike=True, order=4)
_NOT_SOLD = LicenseTerms(commercial=False, share_alike=False, order=5)
_NOT_SOLD_ALIKE = LicenseTerms(commercial=False, share_alike=True, order=6)
UNKNOWN = LicenseTerms(commercial=None, share_alike=None, order=-1)

TABLE: Mapping[str, LicenseTerms] = {
    **dict.fromkeys(("cc0-1.0", "unlicense", "wtfpl", "pddl"), _FREE),
    **dict.fromkeys(
        ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "afl-3.0",
         "artistic-2.0", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"), _NAMED
    ),
    **dict.fromkeys(
        ("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m",
         "bigcode-openrail-m"), _RAIL
    ),
    **dict.fromkeys(
        ("cc-by-sa-3.0", "cc-by-sa-4.0", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl",
         "lgpl-2.1", "lgpl-3.0", "mpl-2.0"), _ALIKE
    ),
    **dict.fromkeys(("stabilityai-ai-community", "stabilityai-community"), _DEPENDS),
    **dict.fromkeys(
        ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
         "fair-noncommercial-research-license"), _NOT_SOLD
    ),
    **dict.fromkeys(
        ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
         "flux-1-dev-non-commercial-license", "stabilityai-nc-research-community"),
        _NOT_SOLD_ALIKE,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LicenseSummary:
    """What holds for something made of several things.

    Attributes:
        licenses: Repo id -> licence; None where the card names none.
    """

    licenses: Mapping[str, str | None]

    @property
    def commercial(self) -> bool | None:
        """False where one of them forbids commercial use; None where one of them is unknown."""
        allowed = [terms_of(one).commercial for one in self.licenses.values()]
        return False if False in allowed else None if None in allowed else True

    @property
    def forbidding(self) -> tuple[str, ...]:
        """What forbids commercial use."""
        return tuple(n for n, one in self.licenses.items() if terms_of(one).commercial is False)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Whose licence names none or one that the table does not have."""
        return tuple(n for n, one in self.licenses.items() if terms_of(one) is UNKNOWN)

    @property
    def strictest(self) -> str | None:
        """The licence that the whole may carry; None where one of them is unknown."""
        if self.unknown or not self.licenses:
            return None
        return max((one for one in self.licenses.values() if one), key=lambda x: terms_of(x).order)

    def facts(self) -> dict[str, object]:
        """Return what an image says about it."""
        return {"of": dict(self.licenses), "commercial_use": self.commercial}

    def __str__(self) -> str:
        named = ", ".join(f"{one or 'unknown'} ({name})" for name, one in self.licenses.items())
        use = {True: "allowed", False: "forbidden", None: "unknown"}[self.commercial]
        return f"Licences: {named}. Commercial use: {use}."


def terms_of(license: str | None) -> LicenseTerms:
    """Return what a licence says."""
    return TABLE.get((license or "").lower(), UNKNOWN)
