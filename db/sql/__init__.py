"""The only folder where PostgreSQL and SQLite differ: statements, types and conditions of each dialect."""
