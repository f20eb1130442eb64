"""What load is, pure: arrivals, lengths, traces, plans, records, summaries."""
