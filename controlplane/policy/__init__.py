"""`controlplane.yaml`: the one page that everything is made from."""
