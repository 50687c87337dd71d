"""KV of a conversation's paths: costs, protection, slot usage."""
