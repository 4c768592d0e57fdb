"""What must survive a crash: receipts, leases, drills and incidents, in one SQL database."""
