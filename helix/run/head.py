"""The coordinator: admits requests, sends each along its way, and keeps the books.

All of it runs in one event loop; what workers send is handed in by `heard`. A request's state is
the tokens so far: when a machine on its way is lost, they are the prompt of another attempt.
"""

import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable

from helix.run.lane import Lane
from helix.run.messages import (
    Answer,
    Failed,
    Free,
    Message,
    Pass,
    Refused,
)
from helix.run.request import MOST_LOSSES, Ask, Books, Done, NotNow, Outcome, Reason, Running, Token

log = logging.getLogger("helix")

MOST_ERRORS = 3
"""So many errors of unlike signatures, and a request fails; with one signature, two."""

MOST_TRACED = 5_000
"""Requests that a trace holds at most."""


Send = Callable[[int, Message], None]


class Head:
    """Requests waiting and running, over the lanes there are."""

    def __init__(
        self, send: Send, *, longest: int, most_waiting: int, patience_s: float, trace: bool = False
    ) -> None:
        """Begin without lanes; `longest` is the most tokens of context of the model."""
        self._send, self._trace = send, trace
        self.longest, self.most_waiting, self.patience_s = longest, most_waiting, patience_s
        self.lanes: list[Lane] = []
        self.running = dict[int, Running]()
        self.waiting = deque[Running]()
        self.books = Books()
        self.closing = False
        self.down = "the service is starting"
        self.on_end: list[Callable[[Running, Outcome], None]] = []
        self.on_token: list[Callable[[Running, Token], None]] = []
        self.traced = list[Running]()
        self._numbers = itertools.count()

    # --- requests ---

    def submit(self, ask: Ask) -> Running:
        """Take a request in, or raise `NotNow` with the reason."""
        self.books.sent += 1
        request = Running(next(self._numbers), ask, time.monotonic())
        why = self._refusal(ask)
        if why is not None:
            self._end(request, "rejected", Done(None, why))
            raise why
        self.waiting.append(request)
        self.pump()
        if request.way is None and not ask.patient:
            why = NotNow("no machine has room for it")
            self._end(request, "rejected", Done(None, why))
            raise why
        return request

    def _refusal(self, ask: Ask) -> NotNow | None:
        if self.closing:
            return NotNow("the service is shutting down")
        need, most = len(ask.ids) + ask.most, self.room()
        if need > self.longest:
            return NotNow(
                f"prompt ({len(ask.ids)}) and max_tokens ({ask.most}) exceed the model's"
                f" {self.longest} tokens of context",
                400,
            )
        if self.lanes and need > most:
            return NotNow(
                f"{need} tokens are more than the {most} that KV caches have room for", 400
            )
        if len(self.waiting) >= self.most_waiting:
            return NotNow(f"{len(self.waiting)} requests are waiting already; try later", 429)
        return None

    def room(self) -> int:
        """Return the most tokens of one request that any lane can hold."""
        return max((lane.longest for lane in self.lanes), default=0)

    def cancel(self, request: Running) -> None:
        """Forget a request whose client is gone."""
        if not request.over:
            self._end(request, "cancelled", Done(None))
            self.pump()

    def pump(self) -> None:
        """Send waiting requests while there is a way for the first of them."""
        while (request := self._next()) is not None:
            if not self._route(request):
                return
            self.waiting.remove(request)
            self.running[request.number] = request
            ids = [*request.ask.ids, *request.tokens]
            self._pass(request, 0, ids, prompt=True)

    def _next(self) -> Running | None:
        """Return the first that waits, passing over suspects while one of them is at work."""
        if not self.waiting or not self.waiting[0].suspect:
            return self.waiting[0] if self.waiting else None
        taken = any(one.suspect for one in self.running.values())
        return next((one for one in self.waiting if not (taken and one.suspect)), None)

    def _route(self, request: Running) -> bool:
        named = [
            lane for lane in self.lanes if request.ask.lane in ("", lane.name) and not lane.paused
        ]
        for lane in sorted(named, key=lambda lane: lane.kv.bottleneck()) if named[1:] else named:
            way = lane.find(request.so_far)
            if way is not None:
                request.lane, request.way, request.reserved = lane, way, request.so_far
                return True
        return False

    def _pass(self, request: Running, begin: int, ids: list[int], *, prompt: bool) -> None:
        assert request.way is not None
        request.sent = time.monotonic()
        sampling = request.ask.sampling
        needs_past = sampling.penalized or sampling.prompt_logprobs >= 0
        self._send(
            request.way.stops[0].machine,
            Pass(
                key=request.key,
                way=request.way.stops,
                hop=0,
                begin=begin,
                count=len(ids),
                prompt=prompt,
                ids=ids,
                sampling=sampling if prompt else None,
                asked=len(request.ask.ids),
                past=ids if prompt and needs_past else [],
                sent=time.time(),
            ),
        )

    # --- what workers say ---

    def heard(self, message: Message) -> None:
        """Handle what a machine says of an attempt; of one that is over already, nothing."""
        if not isinstance(message, Answer | Refused | Failed):
            return
        request = self.running.get(message.key.request)
        if request is None or request.key != message.key:
            return
        if isinstance(message, Answer):
            self._answered(request, message)
        elif isinstance(message, Failed):
            self._erred(request, message)
        else:
            log.debug("request %d begins again: %s", request.number, message.why)
            self._again(request)  # when something ends, or `watch` looks again

    def _erred(self, request: Running, failed: Failed) -> None:
        """Try a request elsewhere unless this error is known of it, or there are too many."""
        known = failed.signature in request.errors
        request.errors.append(failed.signature)
        said = f"machine {failed.machine} could not compute it ({failed.signature})"
        log.warning("request %d: %s", request.number, said)
        if known or len(request.errors) >= MOST_ERRORS:
            self.fail(request, f"{said}; it was tried {len(request.errors)} times")
        else:
            self._again(request)
            self.pump()

    def fail(self, request: Running, why: str) -> None:
        """End a request by an error of the service."""
        if not request.over:
            error = NotNow(f"request {request.number} failed: {why}", 500)
            self._end(request, "failed", Done(None, error))
            self.pump()

    def _answered(self, request: Running, answer: Answer) -> None:
        assert request.lane is not None
        assert request.way is not None
        now = time.monotonic()
        token = Token(answer.token, request.sent, now, answer.scored)
        request.prompt_scored = request.prompt_scored or answer.prompt
        cleared = request.suspect
        request.progress, request.losses = now, 0
        request.tokens.append(answer.token)
        request.out.put_nowait(token)
        self.books.tokens += 1
        request.lane.learn(request.way, answer.marks)
        if self._trace:
            request.marks.append((time.time(), answer.marks))
        for listener in self.on_token:
            listener(request, token)
        ended = answer.token in request.ask.ends
        if ended or len(request.tokens) >= request.ask.most:
            self._end(request, "served", Done("stop" if ended else "length"))
            self.pump()
        else:
            request.lane.count_token(request.way)
            self._pass(request, request.so_far - 1, [answer.token], prompt=False)
            if cleared:
                self.pump()  # the next suspect may go

    def finish(self, request: Running, reason: Reason) -> None:
        """End an answer early, because its text holds what the client wants to stop at."""
        if not request.over:
            self._end(request, "served", Done(reason))
            self.pump()

    def _end(self, request: Running, outcome: Outcome, done: Done) -> None:
        request.over = True
        self._leave(request)
        self.running.pop(request.number, None)
        with contextlib.suppress(ValueError):
            self.waiting.remove(request)
        setattr(self.books, outcome, getattr(self.books, outcome) + 1)
        request.out.put_nowait(done)
        if self._trace and len(self.traced) < MOST_TRACED:
            self.traced.append(request)
        for listener in self.on_end:
            listener(request, outcome)

    def _leave(self, request: Running) -> None:
        """Free what a request holds, in the books and on the machines of its way."""
        if request.way is None or request.lane is None:
            return
        request.lane.finish(request.way, request.reserved)
        for stop in request.way.stops:
            self._send(stop.machine, Free([request.key]))
        request.way = request.lane = None

    def _again(self, request: Running) -> None:
        """Let a request begin anew with the tokens so far, before those that wait."""
        self._leave(request)
        self.running.pop(request.number, None)
        request.attempt += 1
        self.books.again += 1
        self.waiting.appendleft(request)

    # --- machines come and go ---

    def relane(self, lanes: list[Lane], *, keep: bool = True) -> None:
        """Route by these lanes from now on; requests whose way they do not have begin anew."""
        self.lanes = lanes
        self.down = "" if lanes else "no machines hold all layers of the model"
        for request in sorted(self.running.values(), key=lambda r: -r.number):
            assert request.way is not None
            assert request.lane is not None
            stops, name = request.way.stops, request.lane.name
            adopted = None
            for lane in lanes if keep else ():
                if lane.name == name:
                    adopted = lane.adopt(stops, request.reserved)
                    if adopted is not None:
                        request.lane, request.way = lane, adopted
                        break
            if adopted is None:
                self._again(request)
        self.pump()

    def lost(self, machine: int) -> None:
        """Send nothing more that way: until `relane`, services with this machine get no requests.

        Requests that pass it begin anew; the others go on.
        """
        for lane in self.lanes:
            lane.paused |= machine in lane.machines
        for request in sorted(self.running.values(), key=lambda r: -r.number):
            if request.way is not None and request.way.passes(machine):
                request.losses += 1
                if request.losses < MOST_LOSSES:
                    self._again(request)
                else:
                    why = f"{MOST_LOSSES} machines were lost under it one after the other"
                    self.fail(request, why)
        self.pump()

    def broken(self, tail: int, head: int) -> None:
        """Let requests that pass a link that is gone begin anew."""
        for request in sorted(self.running.values(), key=lambda r: -r.number):
            if request.way is not None and request.way.uses(tail, head):
                self._again(request)
        self.pump()

    def watch(self) -> None:
        """Fail what has waited for longer than anyone should; call it now and then."""
        limit = time.monotonic() - self.patience_s
        for request in [*self.running.values(), *self.waiting]:
            if request.progress < limit and not request.over:
                why = self.down or (
                    "no machine had room for it" if request.way is None else "no machine answered"
                )
                error = NotNow(f"given up after {self.patience_s:g} s: {why}")
                self._end(request, "failed", Done(None, error))
        self.pump()

    def end_all(self, why: str) -> None:
        """Fail all that is not over."""
        for request in [*self.running.values(), *self.waiting]:
            self._end(request, "failed", Done(None, NotNow(why)))

    def bottleneck(self, name: str) -> float:
        """Return the expected KV use of a service's fullest layer."""
        return next(lane.kv.bottleneck() for lane in self.lanes if lane.name == name)
