"""Many questions at once, and a stream of them, to one server or to several in turn.

    python examples/async_client.py [ADDRESS ...]

Needs nothing but the client: neither onnxruntime nor torch.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from service.client import RETRIES, Answer, AsyncInferenceClient, ServerError, request

MODEL = "mnist1d-conv"
CALLS = 100


async def ask_at_once(client: AsyncInferenceClient, x: np.ndarray) -> None:
    """Each row in a call of its own, all under way together: the server runs together what waits together."""
    answers = await asyncio.gather(
        *(client.infer(MODEL, {"x": row[np.newaxis]}, outputs=["logits"], timeout_s=10.0) for row in x)
    )
    print(f"{len(answers)} answers from version {answers[0].version}")


async def ask_on_a_stream(client: AsyncInferenceClient, x: np.ndarray) -> None:
    """Answers come in the order of the requests; what is wrong with one of them is said in its place."""
    wrong = request(MODEL, {"x": x[:1, :-1]}, request_id="too short")
    first, last = (
        request(MODEL, {"x": x[row : row + 1]}, request_id=f"row {row}", classes={"probabilities": 2}) for row in (0, 1)
    )
    async for answer in client.stream([first, wrong, last]):
        if isinstance(answer, Answer):
            (best, second), *_ = answer.classes("probabilities")
            print(f"{answer.id}: class {best.index} ({best.value:.2f}) before {second.index} ({second.value:.2f})")
        else:
            print(f"{answer.request_id}: {answer.message}")


async def main(addresses: list[str]) -> None:
    """Ask, and say what the server counted."""
    x = np.random.default_rng(0).standard_normal((CALLS, 40)).astype(np.float32)
    async with AsyncInferenceClient(addresses, retry=RETRIES) as client:
        await ask_at_once(client, x)
        await ask_on_a_stream(client, x)
        try:
            await client.infer("no-such-model", {"x": x})
        except ServerError as error:
            print(f"{error.code.name} ({error.details.reason}): {error.message}")
        (counted,) = await client.statistics(MODEL)
        print(f"{counted.inferences} rows in {counted.executions} runs, {counted.compute_infer.mean_us:.0f} us each")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:8001"]))
