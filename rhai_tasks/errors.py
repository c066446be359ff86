"""Errors this package raises on purpose.

RhaiTasksError
└── ConfigurationError      an option, a variable or the server cannot be worked with: says what to change
"""


class RhaiTasksError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(RhaiTasksError):
    """What the operator gave cannot be worked with; the message says what to change."""
