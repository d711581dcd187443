"""The interfaces that plugins implement, and how plugins are found."""
