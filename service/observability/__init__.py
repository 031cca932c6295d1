"""What an operator sees of a running server: metrics and traces, and what of logs and traces can be set over gRPC."""
