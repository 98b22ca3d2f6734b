"""Registrations in archives: the folder of DICOM objects, reports, and DICOMweb."""

from __future__ import annotations
