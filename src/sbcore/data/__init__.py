"""From the user's files to token ids with a loss mask, and back: ``prepare`` and ``TokenStore``."""
