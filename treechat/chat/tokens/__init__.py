"""Token ids of messages: template, spans, detokenizer."""
