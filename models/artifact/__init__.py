"""Published models on disk and in memory: what a server needs of ``models``. No torch."""
