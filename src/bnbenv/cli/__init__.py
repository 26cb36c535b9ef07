"""The command line: parse, call a workflow, render. The only place that prints."""
