"""The P0-P2 matrix: what trips a row, how a row moves, and the levers it pulls."""
