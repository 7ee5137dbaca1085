"""The benchmark: tasks, suites, plan, runner, tracking, command line."""
