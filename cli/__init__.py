"""The operators' verbs: what people type, and what they see."""
