"""Registrations as DICOM objects: what a PACS keeps and any viewer shows.

Needs pydicom, which is imported when an object is made.
"""

from __future__ import annotations
