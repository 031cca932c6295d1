"""A load generator for any server of the Open Inference Protocol.

    command line -> run (processes, progress) -> worker -> load (when to send) -> http2_client, http2_stream (transport)
                 -> report, plot                        -> answers (what is right), recorder, histogram

The generator speaks HTTP/2 by itself: grpcio's client sends some thousand requests a second from one core, and what it
measures under load is itself.
"""
