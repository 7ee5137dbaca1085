"""The process and its surroundings: credentials, folders, limits, memory, signals, output, tables."""
