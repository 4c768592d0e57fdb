"""The journeys, one file each, top to bottom in the order things happen; strangers to each other."""
