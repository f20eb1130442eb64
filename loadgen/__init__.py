"""The load generator: a streaming client and an open-loop schedule in Locust."""
