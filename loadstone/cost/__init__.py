"""What serving costs, in money, energy and carbon: from rows and a tariff, purely."""
