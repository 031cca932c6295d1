"""The method table and what surrounds one call, for every transport engine."""
