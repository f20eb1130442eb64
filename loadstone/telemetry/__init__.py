"""Exporters. They watch from above; nothing below imports them."""
