"""What people read: live progress, tables, a page, and a run as evidence."""
