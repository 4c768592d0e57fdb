"""Starting, joining and stopping the parts: wiring, the scheduler, the serving process."""
