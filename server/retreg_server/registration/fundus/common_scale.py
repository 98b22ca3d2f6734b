"""Pictures of very different scale: one of them shows a part of the field of the other one.

Vessels are as wide as the field is small, and filters for ridges find some widths only. So the
picture that may show a part is shrunk until its vessels would look like those of the whole field.
"""

from __future__ import annotations

from collections.abc import Iterator

from retreg.errors import EmptyImageError
from retreg_server.registration.fundus.prepared_picture import PreparedPicture, prepared_picture

SHARES = (1 / 2, 1 / 3)  # of the sides of a field, that a part may show


def pairs_at_common_scales(
    fixed: PreparedPicture, moving: PreparedPicture
) -> Iterator[tuple[PreparedPicture, PreparedPicture]]:
    """The pair as if either picture showed SHARES of the field of the other one."""
    for share in SHARES:
        part = _as_part(moving, share, "moving")
        if part is not None:
            yield fixed, part
        part = _as_part(fixed, share, "fixed")
        if part is not None:
            yield part, moving


def _as_part(shown: PreparedPicture, share: float, role: str) -> PreparedPicture | None:
    """The picture as a part of a field; None when it then shows no vessels."""
    picture = shown.picture
    try:
        return prepared_picture(picture.shrunk(share), role, max(picture.grey.shape))
    except EmptyImageError:
        return None
