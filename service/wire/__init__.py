"""Bytes that both ends of a connection exchange: frames, header fields, messages, tensors. No asyncio, no models."""
