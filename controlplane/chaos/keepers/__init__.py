"""Keepers: processes that do one harm each and undo it when its time is over, whoever else is dead by then.

A keeper is a dead man's switch. It ends, and with it its fault, at the lease's deadline by its own clock, when its file
is gone, when the control plane that asked for it is dead, when it is told to, or when a ceiling is reached: whichever
comes first. It needs nothing of the control plane to end, and only the standard library and psutil to begin (a burner
needs PyTorch). They are started by the drivers in `substrates/`, and one of them by `controlplane chaos burn`.
"""
