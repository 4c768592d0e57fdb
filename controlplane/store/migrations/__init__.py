"""Schema changes: how a stored database gets from one version to the next."""
