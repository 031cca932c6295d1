"""A load generator for any server of the Open Inference Protocol.

    command line -> run (processes, progress) -> worker -> load (when to send) -> http2_client, http2_stream (transport)
                 -> report, plot                        -> answers (what is right), recorder, histogram

The generator has its own HTTP/2 client: grpcio's sends only some thousand requests a second from one core, so that
under load it would measure itself.
"""
