"""Every error that unvanish raises on purpose: one clear line that names the mistake and the mend."""

from __future__ import annotations


class UnvanishError(Exception):
    """Base of all errors raised on purpose. Its text is one line: what is wrong, then what to do."""

    def __init__(self, mistake: str, mend: str = "") -> None:
        """Keep the two halves apart, so that the command line can print them apart."""
        self.mistake = mistake.strip()
        self.mend = mend.strip()
        super().__init__(f"{self.mistake}; {self.mend}" if self.mend else self.mistake)


class UsageError(UnvanishError):
    """The caller asked for something that can't be: wrong type, unknown name, contradicting options."""


class ScriptError(UnvanishError):
    """The user's script could not be started, or never trained anything."""


class RecordError(UnvanishError):
    """A run can't be written to, or read from, its folder."""


class CaptureError(UnvanishError):
    """A model or mode can't be measured rightly, so it is refused at setup."""


class SurgeryError(UnvanishError):
    """A treatment can't be applied to this model; the model is as it was before."""


class RecipeError(UnvanishError):
    """A recipe file is not a recipe, or is one for another model."""


class UnvanishWarning(RuntimeWarning):
    """Something went wrong inside unvanish while it watched; the training goes on untouched. Given once a run."""
