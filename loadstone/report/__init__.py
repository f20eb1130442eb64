"""What people read: live progress, final tables."""
