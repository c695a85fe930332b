"""The one exception that a user, rather than a developer, is meant to read."""


class UserError(Exception):
    """A mistake in what was asked for, told in one sentence: what was wrong, where, and what to do.

    The command line and the scripts under ``tools/`` print it without a traceback and exit with 1.
    """
