"""The life of a version: from files on disk to READY, and out of service again."""
