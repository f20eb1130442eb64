"""The command line: wiring only, one short module per verb."""
