"""One whole run: the project file, the stages in order, the command line, predictions, the report."""
