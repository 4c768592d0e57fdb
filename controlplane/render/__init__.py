"""Alerts, dashboards and runbooks: texts made from the policy and from what drills have measured."""
