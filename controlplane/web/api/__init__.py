"""The API under `/api/v1`, and what machines ask beside it: one module a capability; `web.app` adds them all."""
