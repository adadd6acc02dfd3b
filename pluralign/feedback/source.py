from abc import ABC, abstractmethod

from pluralign.types import Feedback


class AbstractSource(ABC):
    """Where judgements come from."""

    @abstractmethod
    def load(self) -> Feedback:
        """Read or make the judgements.

        Raises:
            InputError: something in the source is wrong; the message names the place and the mend.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a content hash of everything beside the fields that `load` depends on, such as the bytes of files."""
