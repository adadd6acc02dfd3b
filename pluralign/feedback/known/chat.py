from collections.abc import Iterable


def transcript(messages: Iterable[tuple[str, str]]) -> str:
    """Return a dialogue of (who, text) as one text; a single message is its text."""
    messages = list(messages)
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{who}: {text}" for who, text in messages)
