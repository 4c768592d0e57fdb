"""What is measured: the catalogue of signals, their windows, and quantiles with error bounds."""
