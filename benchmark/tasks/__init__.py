"""What is to be done: suite files, the plan of jobs and cells, methods and models by name."""
