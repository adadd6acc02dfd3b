"""What can go wrong, by who can mend it. Every message says what happened, what it usually means, what to change."""


class PluralignError(Exception):
    """Base of all errors that pluralign raises on purpose."""


class InputError(PluralignError, ValueError):
    """The data, a config key or an argument is wrong; the message names the place and the mend."""


class FitError(PluralignError, RuntimeError):
    """A posterior could not be inferred (a fit that ran but did not converge is flagged, not raised)."""


class SolveError(PluralignError, RuntimeError):
    """A social-choice program was not solved to its certificate; no lottery is returned."""


class TrainError(PluralignError, RuntimeError):
    """Policy training produced something that is not a policy, such as a loss that is not finite."""


class ConvergenceWarning(UserWarning):
    """A fit whose numbers must not be trusted yet; the same words appear wherever those numbers do."""
