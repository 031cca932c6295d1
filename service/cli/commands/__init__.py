"""The commands of mnist1d, one file each."""
