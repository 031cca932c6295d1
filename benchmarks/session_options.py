"""What feeding onnxruntime costs, and what its options change: a run of the conv net in each way against ours.

    python benchmarks/session_options.py [--rounds 61] [--write FILE]

One process, one thread; the ways take turns, and how many times as fast as ours each is, is the median over the rounds
of the ratio within a round. ``ours`` is `models.artifact.onnx_session.Model.run`, below it a session with the options
of `open_model`. Each way starts with a NumPy array and ends with NumPy arrays that are nobody else's. The network is
small (2,050 parameters), so that the cost of the call itself shows. ``ours again`` is the control: how far it lies from
1 is what this machine cannot tell apart just now.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING

import onnxruntime as ort
from interleaved import compare, table

from models.artifact.onnx_session import open_model
from models.data.dataset import canonical
from models.export.export import INPUT, OUTPUTS, export
from models.networks.modules import build

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

BATCHES = (1, 32, 1000)
RESULT = Path(__file__).parent / "results" / "session_options.md"
WORTH = 1.03
LESS = "one output only"  # which does less, and is shown for scale


def session(model_bytes: bytes, **settings: object) -> ort.InferenceSession:
    """A session with our options, but for ``settings``; names with a dot are entries of the session's configuration."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    for name, value in settings.items():
        if "." in name:
            options.add_session_config_entry(name, str(value))
        else:
            setattr(options, name, value)
    return ort.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def calls_of_run(model_bytes: bytes, x_BL: np.ndarray) -> dict[str, Callable[[], object]]:
    """Ways to call one and the same session."""
    model = open_model(model_bytes)
    inner, names = model.session._sess, list(OUTPUTS)
    binding = model.session.io_binding()
    options = ort.RunOptions()

    def bound() -> list[np.ndarray]:
        binding.bind_cpu_input(INPUT, x_BL)
        for name in names:
            binding.bind_output(name)
        model.session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    value = ort.OrtValue.ortvalue_from_numpy
    return {
        "ours": lambda: model.run(OUTPUTS, {INPUT: x_BL}),
        "ours again": lambda: model.run(OUTPUTS, {INPUT: x_BL}),
        "InferenceSession.run": lambda: model.session.run(names, {INPUT: x_BL}),
        "_sess.run": lambda: inner.run(names, {INPUT: x_BL}, None),
        "_sess.run, RunOptions": lambda: inner.run(names, {INPUT: x_BL}, options),
        LESS: lambda: model.run(OUTPUTS[:1], {INPUT: x_BL}),
        "IO binding": bound,
        "OrtValues": lambda: [v.numpy() for v in model.session.run_with_ort_values(names, {INPUT: value(x_BL)})],
    }


def calls_with_options(model_bytes: bytes, x_BL: np.ndarray) -> dict[str, Callable[[], object]]:
    """The same call of sessions that differ in one option."""
    level = ort.GraphOptimizationLevel
    sessions = {
        "ours": session(model_bytes),
        "ours again": session(model_bytes),
        "arena": session(model_bytes, enable_cpu_mem_arena=True),
        "no memory pattern": session(model_bytes, enable_mem_pattern=False),
        "no memory reuse": session(model_bytes, enable_mem_reuse=False),
        "no optimisation": session(model_bytes, graph_optimization_level=level.ORT_DISABLE_ALL),
        "basic optimisation": session(model_bytes, graph_optimization_level=level.ORT_ENABLE_BASIC),
        "extended optimisation": session(model_bytes, graph_optimization_level=level.ORT_ENABLE_EXTENDED),
        "no spinning": session(model_bytes, **{"session.intra_op.allow_spinning": 0}),
        "denormals as zero": session(model_bytes, **{"session.set_denormal_as_zero": 1}),
        "no prepacking": session(model_bytes, **{"session.disable_prepacking": 1}),
    }
    names = list(OUTPUTS)
    return {name: lambda made=made: made.run(names, {INPUT: x_BL}) for name, made in sessions.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=61, help="turns of each way (default 61)")
    parser.add_argument("--write", type=Path, default=RESULT, help="where the tables go, as Markdown")
    arguments = parser.parse_args()
    model_bytes = export(build("conv", seed=0, init="pytorch").eval(), provenance={})
    x_BL = canonical().test.x_BL
    shown = [f"# Ways to run one model, onnxruntime {ort.__version__}, one thread", ""]
    shown.append("Time of one run, and how many times as fast as ours it is (median over rounds taken in turns).")
    for title, calls in (("Ways to call", calls_of_run), ("Options of the session", calls_with_options)):
        by_batch = {f"batch {b:,}": compare(calls(model_bytes, x_BL[:b].copy()), arguments.rounds) for b in BATCHES}
        shown += ["", table(title, "way", by_batch)]
        overall = {
            name: geometric_mean(t[name].times_as_fast for t in by_batch.values()) for name in by_batch["batch 1"]
        }
        worth = [f"{name} ({ratio:.2f})" for name, ratio in overall.items() if ratio > WORTH and name != LESS]
        shown += [
            "",
            f"More than {WORTH - 1:.0%} faster than ours over the three batches: {', '.join(worth) or 'none'}.",
        ]
    text = "\n".join(shown) + "\n"
    print(text, end="")
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    arguments.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
