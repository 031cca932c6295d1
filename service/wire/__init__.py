"""The wire formats: frames, header fields, messages, tensors. Independent of asyncio and of models."""
