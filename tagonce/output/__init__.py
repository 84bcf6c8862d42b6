"""Output for a terminal: messages, tables, plots, logs."""
