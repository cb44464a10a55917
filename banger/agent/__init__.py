"""The guest agent's protocol (docs/agent.md): frames and messages, pure. The program itself is in ``guest-agent/``."""
