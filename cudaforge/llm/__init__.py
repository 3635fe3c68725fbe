"""Adapters of the ChatModel port: `openai:` asks a server, `recorded:` replays, `manual:` waits for a person."""
