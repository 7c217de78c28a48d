"""What other programs speak to the daemon."""
