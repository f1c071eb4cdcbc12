"""Reading and writing files that others may have damaged, planted or made huge."""
