"""The study of all methods on the embedded model and task, by one command that resumes."""
