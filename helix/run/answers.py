"""The answers to one client's request as they come: text that can be sent on, token by token."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from helix.run.asks import Prompt
from helix.run.head import Head
from helix.run.messages import Scored
from helix.run.request import Done, NotNow, Reason, Running, Token
from helix.run.requests_schema import Generation
from helix.run.stops import StopAt
from helix.run.tokens import Tokenizer, Unfolding


class Told(NamedTuple):
    """A token whose log probability is asked for; the first of a prompt has none."""

    token: int
    scored: Scored | None


class Piece(NamedTuple):
    """What can be sent on; with the last one the reason why the answer ended."""

    text: str
    told: Sequence[Told] = ()
    reason: Reason | None = None


class Answer:
    """One answer to one prompt."""

    def __init__(
        self, index: int, prompt: Prompt, running: Running, asked: Generation, tokenizer: Tokenizer
    ) -> None:
        """`index` is the client's number of it."""
        self.index, self.prompt, self.running = index, prompt, running
        self.text, self.told = "", list[Told]()
        self.reason: Reason | None = None
        self._silent, self._least = asked.most == 0, asked.min_tokens or 0
        self._unfolding, self._stop = Unfolding(tokenizer), StopAt(asked.stops)

    @property
    def tokens(self) -> int:
        """Tokens so far, as they are billed."""
        return 0 if self._silent else len(self.running.tokens)

    @property
    def mean_logprob(self) -> float:
        """Of its tokens, by which the best of several answers is known."""
        logs = [one.scored.logprob for one in self.told if one.scored is not None]
        return sum(logs) / max(len(logs), 1)

    @property
    def prompt_told(self) -> list[Told]:
        """The prompt's tokens with what was asked of them."""
        if self.running.ask.sampling.prompt_logprobs < 0:
            return []
        scores: list[Scored | None] = [None, *self.running.prompt_scored]
        return [Told(*one) for one in zip(self.prompt.ids, scores, strict=True)]

    async def pieces(self, head: Head) -> AsyncIterator[Piece]:
        """Yield the answer; raise `NotNow` if it cannot be finished."""
        while self.reason is None:
            one = await self.running.out.get()
            piece = self._last(one) if isinstance(one, Done) else self._next(one, head)
            self.text += piece.text
            self.told += piece.told
            self.reason = piece.reason
            if piece.text or piece.told or piece.reason:
                yield piece

    def _next(self, one: Token, head: Head) -> Piece:
        if self._silent or one.id in self.running.ask.ends:
            return Piece("")
        text = self._unfolding.add(one.id)
        if self._unfolding.count > self._least:
            text = self._stop.add(text)
        told = () if one.scored is None else (Told(one.id, one.scored),)
        if self._stop.found:
            head.finish(self.running, "stop")
            return Piece(text, told, "stop")
        return Piece(text, told)

    def _last(self, done: Done) -> Piece:
        if done.error is not None:
            raise done.error
        if done.reason is None:
            raise NotNow("the request was cancelled")
        text = self._stop.add(self._unfolding.rest())
        found = self._stop.found
        return Piece(text + self._stop.rest(), (), "stop" if found else done.reason)


async def together(answers: Sequence[Answer], head: Head) -> AsyncIterator[tuple[Answer, Piece]]:
    """Yield the pieces of all answers in the order in which they come."""
    come = asyncio.Queue[tuple[Answer, Piece | Exception]]()

    async def follow(answer: Answer) -> None:
        try:
            async for piece in answer.pieces(head):
                come.put_nowait((answer, piece))
        except Exception as error:
            come.put_nowait((answer, error))

    tasks = [asyncio.create_task(follow(answer)) for answer in answers]
    try:
        open_ones = len(answers)
        while open_ones:
            answer, piece = await come.get()
            if isinstance(piece, Exception):
                raise piece
            open_ones -= piece.reason is not None
            yield answer, piece
    finally:
        for task in tasks:
            task.cancel()


def best(answers: Sequence[Answer], candidates: int, told: int) -> list[Answer]:
    """Return the `told` likeliest of every prompt's candidates, numbered anew."""
    found = list[Answer]()
    for begin in range(0, len(answers), candidates):
        of_one = answers[begin : begin + candidates]
        ranked = sorted(of_one, key=lambda answer: -answer.mean_logprob)
        found += ranked[:told] if told < candidates else of_one
    for index, answer in enumerate(found):
        answer.index = index
    return found


def usage(answers: Sequence[Answer], prompts: Sequence[Prompt]) -> dict[str, int]:
    """Return the tokens of a request so far: every prompt once, all candidates."""
    prompt, answer = sum(len(p.ids) for p in prompts), sum(one.tokens for one in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
