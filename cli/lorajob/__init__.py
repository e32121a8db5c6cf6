"""What a person types: commands, options, and errors as text. Loads nothing heavy until a command needs it."""
