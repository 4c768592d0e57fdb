"""Breaking the fleet on purpose: faults that end by themselves, drills that prove a row of the matrix."""
