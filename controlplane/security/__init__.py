"""Who may do what, what proves who somebody is, and the record of what was done: pure, without clock or store."""
