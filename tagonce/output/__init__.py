"""Output for people: messages, tables, progress bars, plots, logs."""
