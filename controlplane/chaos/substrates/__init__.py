"""Where fleets run, and how faults are done to them there: one file a substrate."""
