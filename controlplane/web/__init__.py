"""The HTTP face: the API, the event stream, the console."""
