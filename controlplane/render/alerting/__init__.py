"""The alerts of one service: rules, their proofs, who is told of them, and how fast; all pure."""
