"""The windows that open over the conversation."""
