"""The levers and the hands that pull them: one file a technology. Only wiring names them."""
