"""Does a schedule run through where every communicator is one queue on each rank, as with NCCL?

Everything on a communicator is carried out in the order in which its rank posted it, and nothing is
buffered: an operation is over when it is at the head of its queue on all the ranks that take part.
What can move at one time can move at any later time too, so a single run is a proof.

A GPU has queues of its own, into which streams are put: CUDA_DEVICE_MAX_CONNECTIONS of them, or as
many as there are streams, so that none stands behind another. Where that is 1, an operation that
its communicator has no turn for yet keeps all that was launched after it waiting.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable

from vocab_parallel.plan.passes import Schedule
from vocab_parallel.plan.posts import Action, Communicator, Operation, actions, pair


def find_stall(
    schedule: Schedule, communicator: Communicator = pair, *, one_device_queue: bool = False
) -> tuple[str, ...]:
    """Return nothing where all runs through, else one line per rank with the head of its queue.

    `one_device_queue`: as with CUDA_DEVICE_MAX_CONNECTIONS=1.
    """
    programs = [actions(schedule, rank, communicator) for rank in range(schedule.ranks)]
    return tuple(_Run(programs, one_device_queue).stuck())


class _Run:
    def __init__(self, programs: list[list[Action]], one_device_queue: bool) -> None:
        self.programs, self.places = programs, [0] * len(programs)
        self.one_device_queue = one_device_queue
        self.queues: defaultdict[tuple[int, Hashable], deque[Operation]] = defaultdict(deque)
        self.over: set[Operation] = set()
        self.wakened = deque(range(len(programs)))

    def stuck(self) -> list[str]:
        """Carry out all that can be; return what each rank that is not through waits for."""
        while self.wakened:
            self._go_on(self.wakened.popleft())
        return [
            self._line(rank)
            for rank, program in enumerate(self.programs)
            if self.places[rank] < len(program)
        ]

    def _go_on(self, rank: int) -> None:
        program = self.programs[rank]
        while self.places[rank] < len(program):
            operation, waits = program[self.places[rank]]
            queue = self.queues[rank, operation.queue]
            if operation not in self.over if waits else queue and self.one_device_queue:
                return
            self.places[rank] += 1
            if not waits:
                queue.append(operation)
                self._advance(queue)

    def _advance(self, queue: deque[Operation]) -> None:
        """Carry out the head of a queue while all the ranks that take part have it at their head.

        Then the other ranks' queues, of which some heads are new, and their hosts may go on.
        """
        changed = deque([queue])
        while changed:
            queue = changed.popleft()
            while queue and self._meets(queue[0]):
                operation = queue[0]
                self.over.add(operation)
                for rank in operation.ranks:
                    other = self.queues[rank, operation.queue]
                    other.popleft()
                    self.wakened.append(rank)
                    if other is not queue:
                        changed.append(other)

    def _meets(self, operation: Operation) -> bool:
        return all(self._head(rank, operation.queue) == operation for rank in operation.ranks)

    def _head(self, rank: int, name: Hashable) -> Operation | None:
        queue = self.queues[rank, name]
        return queue[0] if queue else None

    def _line(self, rank: int) -> str:
        operation = self.programs[rank][self.places[rank]].operation
        text = f"stall: rank {rank} waits for {operation.words(rank)}"
        queues = ((name, queue) for (owner, name), queue in self.queues.items() if owner == rank)
        for _, queue in queues:
            if len(queue) > 1:
                text += f"; its {queue[1].words(rank)} is behind {queue[0].words(rank)}"
        return text
