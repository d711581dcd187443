"""The interfaces that plugins implement, and the discovery of plugins."""
