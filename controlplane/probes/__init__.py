"""Looking at endpoints: one file a technology, each look bounded in time."""
