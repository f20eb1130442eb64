"""Tables of facts, each with source, date, unit and confidence, and their reader."""
