"""What people handle: incidents and their timelines."""
