"""The room of the dashboards, and the only importer of grafanalib: `collection` has all of them, one module each."""
