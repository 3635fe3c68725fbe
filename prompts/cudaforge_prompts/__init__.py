"""What the agents are told: Jinja templates, worked examples, architecture notes."""
