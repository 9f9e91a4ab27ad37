"""HTML that escapes by construction: elements, styles and charts, for the report and study pages."""
