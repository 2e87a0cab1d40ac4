"""What is read and written: questions, rows, steps, label formats, and files that survive a kill."""
