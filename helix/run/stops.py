"""The texts that end an answer, found however the text comes."""

from collections.abc import Sequence


class StopAt:
    """Finds the texts that end an answer; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Begin with nothing held back."""
        self._stops, self._held = stops, ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what can be sent on."""
        if not self._stops:
            return text
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            out, self._held = self._held[: min(places)], ""
            return out
        keep = max(self._overlap(stop) for stop in self._stops)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def rest(self) -> str:
        """Return what was held back after all."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Return how many characters at the end may begin the text."""
        sizes = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(stop[:size])), 0)
