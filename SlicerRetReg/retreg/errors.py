"""Every exception the project raises on purpose.

RetRegError
├── InputError              what the user gave cannot be used (exit status 2, HTTP 4xx)
│   ├── FileError           a file is missing, damaged or of an unknown format
│   │   └── TooLargeError   it would take more memory than is allowed here
│   ├── GeometryError       a grid or matrix is not a usable image geometry
│   ├── DegeneratePointsError   points do not determine the transform that was asked for
│   └── OptionError         an unknown model, option or value
├── RegistrationError       the images are fine, the model found no transform
│   └── EmptyImageError     (an InputError too) an image shows nothing that could be registered
├── Cancelled               the user or client stopped the work
└── ServerError             the server could not be reached or answered with an error

Each message is a sentence: what happened, what was expected, what to do.
"""

from __future__ import annotations


class RetRegError(Exception):
    """Base of every error whose message is meant for the user."""


class InputError(RetRegError):
    """Something the user gave cannot be used."""


class FileError(InputError):
    """A file is missing, damaged, too large, or of an unknown format."""


class TooLargeError(FileError):
    """A file, or what it would become in memory, is larger than is allowed."""


class GeometryError(InputError):
    """A grid or a matrix does not describe a usable image geometry."""


class DegeneratePointsError(InputError):
    """The points do not determine the transform that was asked for."""


class OptionError(InputError):
    """A model, an option or a value is not known."""


class RegistrationError(RetRegError):
    """The images are usable, but no transform was found."""


class EmptyImageError(RegistrationError, InputError):
    """An image shows nothing that could be registered: it is blank, or far too small."""


class Cancelled(RetRegError):
    """The work was stopped on request."""


class ServerError(RetRegError):
    """The server could not be reached, or it answered with an error."""
