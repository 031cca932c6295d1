"""Run as a process: ask a server with tritonclient and write the answers to a .npz file.

python triton_call.py ADDRESS MODEL INPUT.npy OUTPUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.grpc as triton


def main(address: str, model: str, source: str, target: str) -> None:
    client = triton.InferenceServerClient(address)
    if not (client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)):
        raise SystemExit("not ready")
    metadata = client.get_model_metadata(model)
    about = client.get_server_metadata()
    x = np.load(source)
    tensor = triton.InferInput(metadata.inputs[0].name, list(x.shape), metadata.inputs[0].datatype)
    tensor.set_data_from_numpy(x)
    answer = client.infer(model, [tensor], request_id="from tritonclient")
    wanted = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput("logits")])
    if wanted.as_numpy("probabilities") is not None:
        raise SystemExit("got an output that was not asked for")
    unknown = ""
    try:
        client.infer("nope", [tensor])
    except triton.InferenceServerException as error:
        unknown = f"{error.status()} {error.message()}"
    np.savez(
        target,
        probabilities=answer.as_numpy("probabilities"),
        logits=wanted.as_numpy("logits"),
        id=answer.get_response().id,
        server=about.name,
        unknown=unknown,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
