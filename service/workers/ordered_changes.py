"""Keeps the workers consistent: questions go to all of them, and changes reach all of them in the same order.

A change is made in all workers at once, one change after another, and recorded: a worker that starts later repeats the
recorded changes before it serves. If some workers make a change and others fail, the change stays where it was made and
is recorded; the error tells the caller which workers failed, so that it can retry.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from service.errors import WorkerFailed, WorkerSilent
from service.workers.backplane import BackplaneClosed, BackplaneFailed
from service.workers.child import Phase
from service.workers.replies import Answer, error_of, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.workers.backplane import Message
    from service.workers.child import Child

_log = logging.getLogger(__name__)

QUESTION_S = 5.0
"""Timeout of a question, which a worker answers from memory."""
CHANGE_S = 600.0
"""Timeout of a change, such as loading a model. Large models take long; a file system that hangs never answers."""


class Agreement:
    """Sends questions and changes to the workers. Belongs to one event loop."""

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        """``children()`` returns the present workers."""
        self._children = children
        self._changing = asyncio.Lock()
        self._decisions: dict[str, Message] = {}

    async def ask_all(self, asker: Child, message: Message) -> Message:
        """Run a call that ``asker`` received in all workers that serve; return their answers, the asker's first."""
        decides = message.fields["decides"]
        if not decides:
            return pack(await self._gather(asker, message, QUESTION_S))
        async with self._changing:
            answers = await self._gather(asker, message, CHANGE_S)
            if any(answer.error is None for answer in answers):
                # Moved to the end, so that changes are repeated in the order in which they were made.
                self._decisions.pop(decides, None)
                self._decisions[decides] = message
            return pack(answers)

    async def admit(self, child: Child, admit: Callable[[], None]) -> None:
        """Repeat the recorded changes in a worker, then call ``admit``; no change comes in between."""
        async with self._changing:
            for message in list(self._decisions.values()):
                answer = await self._run(child, message, CHANGE_S)
                if answer is not None and answer.error is not None:
                    _log.error(
                        "worker cannot do what was decided before it came",
                        extra={
                            "worker": child.number,
                            "decision": message.fields["decides"],
                            "reason": str(answer.error),
                        },
                    )
            admit()

    async def rescan(self) -> None:
        """Let the workers rescan the repository, one after the other, so that only one at a time is busy with it."""
        async with self._changing:
            for child in [child for child in self._children() if child.is_connected]:
                try:
                    await child.backplane.call("rescan", timeout_s=CHANGE_S)
                except (BackplaneClosed, BackplaneFailed, TimeoutError) as error:
                    _log.warning(
                        "worker was not rescanned",
                        extra={"worker": child.number, "reason": str(error) or f"no answer within {CHANGE_S:g} s"},
                    )

    async def _gather(self, asker: Child, message: Message, timeout_s: float) -> list[Answer]:
        others = [child for child in self._children() if child.phase is Phase.SERVING and child is not asker]
        answers = await asyncio.gather(*(self._run(child, message, timeout_s) for child in (asker, *others)))
        return [answer for answer in answers if answer is not None]

    async def _run(self, child: Child, message: Message, timeout_s: float) -> Answer | None:
        """One worker's answer; None if it is gone: the worker that replaces it repeats the recorded changes."""
        try:
            answer = await child.backplane.call("run", message.fields, message.body, timeout_s=timeout_s)
        except BackplaneClosed:
            return None
        except BackplaneFailed as error:
            return Answer(child.number, error=WorkerFailed(str(error)))
        except TimeoutError:
            return Answer(child.number, error=WorkerSilent(f"no answer within {timeout_s:g} s"))
        if "error" in answer.fields:
            return Answer(child.number, error=error_of(answer.fields["error"]))
        return Answer(child.number, answer.body)
