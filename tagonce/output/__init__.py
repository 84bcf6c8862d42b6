"""What a person sees in the terminal: messages, tables, plots, logs."""
