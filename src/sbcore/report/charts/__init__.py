"""The report's pictures, each one function from records to a figure."""
