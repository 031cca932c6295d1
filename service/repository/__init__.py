"""The model repository: loading versions from disk, proving, serving and unloading them."""
