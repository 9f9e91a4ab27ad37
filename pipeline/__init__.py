"""One whole run: the project file, the stages in order, the command line, prediction on new files, the report."""
