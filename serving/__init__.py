"""The gateway: its own process, which answers predictions, keeps each on record, and follows the routing tables."""
