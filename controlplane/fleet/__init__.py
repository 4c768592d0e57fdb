"""Services, pools and endpoints: what there is to watch, and where it is listed."""
