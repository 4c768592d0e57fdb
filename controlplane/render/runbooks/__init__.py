"""Runbooks: a page for every armed row of the matrix, one for every alert, and the index of them; pure."""
