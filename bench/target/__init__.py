"""What the benches of the reference target share."""
