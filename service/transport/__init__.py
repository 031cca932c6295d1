"""The transport: the engines that run the method table on network connections."""
