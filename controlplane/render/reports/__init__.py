"""Reports of what is over, or goes on: a drill, an incident; Markdown and HTML from stored values; pure."""
