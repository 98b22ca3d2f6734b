"""Whether a volume shows a head: by what it says it shows, else by size and shape."""

from __future__ import annotations

from retreg.errors import RetRegError
from retreg.image import Image
from retreg_server.registration.numerics.spaces import canonical
from retreg_server.registration.preprocessing.foreground import find_foreground

HEAD_PARTS = ("HEAD", "BRAIN", "SKULL", "FACE")  # DICOM PS3.16 annex L, Body Part Examined
LENGTHS_MM = (110.0, 330.0)  # longest side of a brain or a head, infants' too
COMPACT = 0.5  # shortest side of its box to the longest
PASSING = 0.55  # of the largest section, at both ends: limbs, trunks and necks go on


def shows_head(image: Image) -> bool:
    """Whether a volume is taken for a head or a brain when nobody says what it shows.

    An object of the size of one, with air around it, that does not go on beyond two opposite faces
    of the image.
    """
    if image.about.body_part:
        return image.about.body_part.upper() in HEAD_PARTS
    try:
        shown = find_foreground(canonical(image), "fixed")
    except RetRegError:  # the model says what is wrong with it
        return True
    size = LENGTHS_MM[0] <= shown.longest_mm <= LENGTHS_MM[1]
    compact = shown.thickness_mm >= COMPACT * shown.longest_mm
    return bool(size and compact and shown.has_air and (shown.passes < PASSING).all())
