"""The lowerings of a convolutional net against each other: Conv, and matrix products in several forms.

    python benchmarks/export_lowering.py [--rounds 41] [--networks conv conv25] [--write FILE]

One process, one onnxruntime thread, the same weights (a short training) and the same test signals; the lowerings take
turns, and how many times as fast as conv each is, is the median over the rounds of the ratio within a round. Beside the
two that can be exported stands gemm with all layers in one form, between which `models.export.lowering.DENSE_ROWS`
chooses layer by layer. The largest difference of any logit, and whether the bits of an answer depend on the batch, are
shown.

The last line says which lowering should be the default: the faster one where the server spends its time (batches of 1
to 64) and in bulk (1000), if its bits do not depend on the batch. Status 1 if that is not the default of the export.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from interleaved import compare, table

from models.artifact.batch_identity import bit_identity
from models.artifact.onnx_session import open_model
from models.data.dataset import canonical
from models.export.export import INPUT, OUTPUTS, export
from models.export.lowering import DEFAULT_LOWERING, to_gemm
from models.networks.architectures import ARCHITECTURES
from models.training.loop import train
from models.training.recipes import recipe
from models.training.threads import one_thread

BATCHES = (1, 8, 32, 64, 256, 1000)
SERVED, BULK = (1, 8, 32, 64), (1000,)
CONVOLUTIONAL = [name for name, spec in ARCHITECTURES.items() if spec.kind == "conv"]
RESULT = Path(__file__).parent / "results" / "export_lowering.md"
STEPS = 2_000
SLOWER_BY_NOISE = 0.95


def lowerings(network: str) -> dict[str, bytes]:
    """The same weights in every form, the untouched one first."""
    trained = train(recipe("quick", network=network, steps=STEPS), canonical()).network
    as_conv, as_gemm = (export(trained, provenance={}, lowering=lowering) for lowering in ("conv", "gemm"))

    def throughout(dense_rows: int) -> bytes:
        model = onnx.ModelProto.FromString(as_conv)
        to_gemm(model, dense_rows=dense_rows)
        return model.SerializeToString(deterministic=True)

    return {"conv": as_conv, "gemm": as_gemm, "im2col throughout": throughout(0), "dense throughout": throughout(10**9)}


@one_thread()
def measure(network: str, rounds: int) -> tuple[list[str], dict[str, float]]:
    """Lines to show, and how many times as fast as conv gemm is, by batch; 0 where its bits depend on the batch."""
    models = {name: open_model(model_bytes) for name, model_bytes in lowerings(network).items()}
    x_BL = np.ascontiguousarray(canonical().test.x_BL)
    logits = {name: model.run(["logits"], {INPUT: x_BL})[0].astype(np.float64) for name, model in models.items()}
    identity = {name: bit_identity(model, {INPUT: x_BL}, (1, 2, 7, 64, 1000)) for name, model in models.items()}
    columns = {}
    for batch in BATCHES:
        calls = {
            name: partial(model.session.run, list(OUTPUTS), {INPUT: x_BL[:batch].copy()})
            for name, model in models.items()
        }
        columns[f"batch {batch:,}"] = compare(calls, rounds)
    lines = [table(f"{network}: {ARCHITECTURES[network].title}", "lowering", columns), ""]
    for name in models:
        difference = np.abs(logits[name] - logits["conv"]).max()
        largest = np.abs(logits["conv"]).max()
        same = "the same bits in every batch" if identity[name].passed else identity[name].detail
        lines.append(f"- {name}: logits up to {largest:.0f} differ from conv's by at most {difference:.1e}; {same}")
    fast = {batch: timings["gemm"].times_as_fast for batch, timings in columns.items()}
    return lines, fast if identity["gemm"].passed else dict.fromkeys(fast, 0.0)


def verdict(fast: dict[str, dict[str, float]]) -> tuple[str, str]:
    """The lowering to export by default, and why."""
    at = {
        batch: statistics.geometric_mean(max(by_batch[f"batch {batch:,}"], 1e-9) for by_batch in fast.values())
        for batch in BATCHES
    }
    served, bulk = (statistics.geometric_mean(at[batch] for batch in batches) for batches in (SERVED, BULK))
    better = min(at[1], served, bulk) > SLOWER_BY_NOISE and max(served, bulk) > 1 / SLOWER_BY_NOISE
    why = f"gemm is {at[1]:.2f} times as fast alone, {served:.2f} in batches of 1 to 64, {bulk:.2f} at 1,000"
    return ("gemm" if better else "conv"), why


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41, help="turns of each lowering (default 41)")
    parser.add_argument("--networks", nargs="+", choices=CONVOLUTIONAL, default=CONVOLUTIONAL)
    parser.add_argument("--write", type=Path, default=RESULT, help="where the tables go, as Markdown")
    arguments = parser.parse_args()
    shown = [f"# Lowerings of a convolutional net, onnxruntime {ort.__version__}, one thread", ""]
    shown.append("Time of one run, and how many times as fast as conv it is (median over rounds taken in turns).")
    fast = {}
    for network in arguments.networks:
        lines, fast[network] = measure(network, arguments.rounds)
        shown += ["", *lines]
    choice, why = verdict(fast)
    shown += ["", f"Default: **{choice}** ({why})."]
    text = "\n".join(shown) + "\n"
    print(text, end="")
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    arguments.write.write_text(text)
    if choice != DEFAULT_LOWERING:
        print(f"but the export's default is {DEFAULT_LOWERING}", file=sys.stderr)
    return 0 if choice == DEFAULT_LOWERING else 1


if __name__ == "__main__":
    sys.exit(main())
